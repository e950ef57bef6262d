"""HTTP requests that the server makes as a step, while nothing of the run is held here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json, canonical
from stepwell.protocol.ops import STEP_INPUT_BYTES_MAX
from stepwell.sdk.request import Errand, Request, decode_memo
from stepwell.sdk.serializer import as_written, codec_of

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class FetchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What a request was answered with: any status, a failed connection is a `StepError`. Names of headers are in lower case."""

    url: str
    status: int = msgspec.field(name="status_code")
    headers: dict[str, str] = {}
    text: str = msgspec.field(name="body", default="")

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300

    def json(self, type: Any = Any) -> Any:
        """The body as JSON, and as the type that is given. Raises `UsageError` for what is none."""
        try:
            return codec_of(type).decode(self.text.encode())
        except UsageError as error:
            raise UsageError(f"the answer of {self.url} (HTTP {self.status}): {error}") from error


def fetching(
    request: Request,
    url: str,
    *,
    method: str,
    headers: Mapping[str, str] | None,
    params: Mapping[str, Any] | None,
    body: str | bytes | None,
    json: Any,
) -> Request:
    """The request is an HTTP request of the server's."""
    what = f"step {request.id!r}: fetch"
    url = checked_url(url, what)
    if params:
        url += ("&" if urlsplit(url).query else "?") + urlencode(params, doseq=True)
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise UsageError(f"{what}: method is {method!r}; it must be one of {', '.join(METHODS)}")
    sent = checked_headers(headers, what)
    if json is not None:
        if body is not None:
            raise UsageError(f"{what}: body and json are both given: give one of them")
        body = as_written(json)
        sent = {"content-type": "application/json", **sent}
    if isinstance(body, bytes):
        try:
            body = body.decode()
        except UnicodeDecodeError:
            raise UsageError(f"{what}: the body is no UTF-8 text: requests of bytes are made in a step.run") from None
    opts: dict[str, Any] = {"headers": sent, "method": method.upper(), "type": "step.fetch", "url": url}
    if body is not None:
        opts["body"] = body
    request.errand = Errand(op="Gateway", opts=checked_size(canonical(opts), what))
    request.codec = codec_of(FetchResponse)
    request.read = _response
    return request


def _response(request: Request, memo: Json) -> Any:
    return decode_memo(request, memo, marked=False)


def checked_url(url: object, what: str) -> str:
    """The address of a request. Raises `UsageError` for one that is not whole."""
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UsageError(f'{what}: the url {url!r} must be absolute, like "https://api.example.com/orders"')
    return url


def checked_headers(headers: Mapping[str, str] | None, what: str) -> dict[str, str]:
    """The headers, names in lower case. Raises `UsageError`."""
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str) or "\n" in value:
            raise UsageError(f"{what}: the header {name!r} is {value!r}; both must be texts of one line")
    return {name.lower(): value for name, value in (headers or {}).items()}


def checked_size(opts: Json, what: str) -> Json:
    """The op's opts. Raises `UsageError` where they are too large."""
    if len(opts) > STEP_INPUT_BYTES_MAX:
        raise UsageError(f"{what}: the request has {len(opts)} bytes; at most {STEP_INPUT_BYTES_MAX} are taken")
    return opts
