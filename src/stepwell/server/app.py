"""The server as one ASGI application: hot routes bare, the rest by Starlette, with the checks that every request passes."""

from __future__ import annotations

from importlib import resources
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from stepwell.protocol.codec import canonical
from stepwell.runtime.node import Node
from stepwell.server.admin_api import AdminApi
from stepwell.server.auth import Keys
from stepwell.server.checkpoint_api import CheckpointApi
from stepwell.server.http import ERRORS, AsgiApp, Receive, Scope, Send, answer, on_error
from stepwell.server.ingest import Ingest
from stepwell.server.run_api import RunApi
from stepwell.server.sdk_api import SdkApi

LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1", "[::1]", "0.0.0.0"))


class Server:
    """`kind` is `dev` or `cloud`; `hosts` are the names that the page and `/api` are reached by, beside loopback's."""

    def __init__(self, node: Node, keys: Keys, kind: str, *, sdk_api: SdkApi | None = None, hosts: frozenset[str] = frozenset()) -> None:
        self.ingest = Ingest(node, keys, kind)
        self.sdk_api = sdk_api or SdkApi(node, keys, kind)
        self._kind, self._keys, self._hosts = kind, keys, hosts | LOOPBACK_NAMES
        signed = self.sdk_api.signed
        routes = [*self.sdk_api.routes(), *RunApi(node).routes(signed), *CheckpointApi(node).routes(signed)]
        self._rest: AsgiApp = _starlette([*routes, *AdminApi(node, keys, self.ingest).routes()])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        path = scope["path"]
        if path.startswith("/e/") and scope["method"] == "POST":
            await self.ingest(scope, receive, send)
            return
        if (refusal := self._refusal(scope, path)) is not None:
            await answer(send, 403, canonical({"error": refusal, "status": 403}))
            return
        kind = (b"x-inngest-server-kind", self._kind.encode())

        async def with_kind(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), kind]  # type: ignore[misc]
            await send(message)

        await self._rest(scope, receive, with_kind)  # type: ignore[arg-type]

    def _refusal(self, scope: Scope, path: str) -> str | None:
        """Why the page or `/api` does not answer this request: a page elsewhere must not act through somebody's browser."""
        if not (path == "/" or path.startswith(("/api", "/ui"))):
            return None
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        name = urlsplit(f"//{host}").hostname or ""
        if self._kind == "dev" and name not in self._hosts:
            return f"the page is not served under the name {name!r}; use localhost, or start the server with --host {name}"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin != "null" and urlsplit(origin).netloc != host:
            return f"requests from pages of {origin} are refused"
        return None


def _starlette(routes: list[BaseRoute]) -> AsgiApp:
    ui = resources.files("stepwell.server") / "ui"

    async def index(request: Request) -> Response:
        return FileResponse(str(ui / "index.html"), headers={"cache-control": "no-cache"})

    if (ui / "index.html").is_file():
        routes += [Route("/", index), Mount("/ui", StaticFiles(directory=str(ui)))]
    handlers = dict.fromkeys((*ERRORS, Exception), on_error)
    return Starlette(routes=routes, exception_handlers=handlers)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
