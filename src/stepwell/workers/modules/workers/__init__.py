"""What Python Workers import: `from workers import WorkerEntrypoint, Response, fetch, …`."""

from typing import Any, Protocol, TypedDict

from stepwell.workers.bases import DurableObject, WorkerEntrypoint, WorkflowEntrypoint, handler
from stepwell.workers.env import env, patch_env
from stepwell.workers.invocation import wait_until
from stepwell.workers.rpc import python_from_rpc, python_to_rpc
from stepwell.workers.web.blob import Blob, BlobEnding, BlobValue, File
from stepwell.workers.web.fetch import fetch
from stepwell.workers.web.form_data import FormData, FormDataValue
from stepwell.workers.web.request import Request
from stepwell.workers.web.response import FetchResponse, Response
from stepwell.workers.web.streams import ReadableStream

waitUntil = wait_until

JSBody = Blob | FormData | ReadableStream | bytes
Body = str | JSBody
Headers = dict[str, str] | list[tuple[str, str]]


class Context(Protocol):
    """The `ctx` of a handler."""

    def waitUntil(self, other: Any) -> None:
        """Have work done beyond the handler's return."""
        ...


class RequestInitCfProperties(TypedDict, total=False):
    """Settings of Cloudflare's network for a request; nothing here reads them."""

    apps: bool | None
    cacheEverything: bool | None
    cacheKey: str | None
    cacheTags: list[str] | None
    cacheTtl: int
    cacheTtlByStatus: dict[str, int]
    image: Any
    mirage: bool | None
    polish: str | None
    resolveOverride: str | None
    scrapeShield: bool | None
    webp: bool | None


class FetchKwargs(TypedDict, total=False):
    """The options of `fetch` and `Request`."""

    headers: Headers | None
    body: Body | None
    method: Any
    redirect: str | None
    cf: RequestInitCfProperties | None
    fetcher: Any


def import_from_javascript(module_name: str) -> Any:
    """Raises `ImportError`: there is no JavaScript here."""
    names = {"cloudflare:workers": "; from workers import env, wait_until gives what it holds"}
    raise ImportError(f"{module_name!r} is a module of JavaScript, and Stepwell runs Workers under CPython{names.get(module_name, '')}")


__all__ = [
    "Blob",
    "BlobEnding",
    "BlobValue",
    "Body",
    "Context",
    "DurableObject",
    "FetchKwargs",
    "FetchResponse",
    "File",
    "FormData",
    "FormDataValue",
    "Headers",
    "JSBody",
    "Request",
    "RequestInitCfProperties",
    "Response",
    "WorkerEntrypoint",
    "WorkflowEntrypoint",
    "env",
    "fetch",
    "handler",
    "import_from_javascript",
    "patch_env",
    "python_from_rpc",
    "python_to_rpc",
    "waitUntil",
    "wait_until",
]
