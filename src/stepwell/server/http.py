"""Small pieces of ASGI: bodies with a bound, JSON answers, and errors as the protocol shapes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from stepwell.errors import CallError, Error, NotFound, ProtocolError, RunHasEnded, SqlError, StoreFull, StoreUnavailable, UsageError
from stepwell.protocol.codec import canonical
from stepwell.protocol.durations import format_date

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES_MAX = 64 * 1024 * 1024
"""A request's body: well above the eight events of 1 MiB that SDKs are tested with."""


Handler = Callable[[Request], Awaitable[Response]]
Guard = Callable[[Handler], Handler]
"""Makes a route ask for a key first."""


async def read_body(receive: Receive, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The request's body. Raises `ProtocolError` (413) beyond the bound."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > bytes_max:
            raise ProtocolError(f"the request has more than {bytes_max} bytes", 413)
    return b"".join(parts)


def bounded(receive: Receive, bytes_max: int = BODY_BYTES_MAX) -> Receive:
    """The request's messages, with an end: raises `ProtocolError` (413) where the body is longer than may be."""
    size = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > bytes_max:
            raise ProtocolError(f"the request has more than {bytes_max} bytes", 413)
        return message

    return counted


async def answer(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a JSON answer."""
    length = str(len(body)).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), (b"content-length", length), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as a JSON answer."""
    return Response(canonical(value), status, headers, "application/json")


def enveloped(value: Any, now_ms: int) -> Response:
    """A value in the envelope of `/v1` (§7)."""
    return json_response({"data": value, "metadata": {"fetched_at": format_date(now_ms)}})


def status_of(error: Exception) -> int:
    """The HTTP status that says what an error says."""
    match error:
        case ProtocolError():
            return error.status
        case UsageError() | SqlError():
            return 400
        case NotFound():
            return 404
        case RunHasEnded():
            return 409
        case CallError():
            return 502
        case StoreFull():
            return 507
        case StoreUnavailable():
            return 503
        case _:
            return 500


def error_response(error: Exception) -> Response:
    """An error as the APIs give it: `{"error", "data", "status"}`, with a `code` where it has a stable name."""
    status = status_of(error)
    told = {"error": str(error), "data": None, "status": status}
    if isinstance(error, ProtocolError | SqlError) and error.code is not None:
        told["code"] = error.code
    return json_response(told, status)


async def on_error(request: Request, error: Exception) -> Response:
    """What Starlette does with an error of ours that a route raises."""
    return error_response(error)


ERRORS: tuple[type[Error], ...] = (ProtocolError, NotFound, RunHasEnded, StoreUnavailable, Error)
