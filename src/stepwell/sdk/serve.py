"""The app for web frameworks: as an ASGI application, as a WSGI application, as a Django view. All are shells around one `Handler`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from stepwell.errors import ProtocolError, UsageError
from stepwell.sdk.background import background
from stepwell.sdk.durations import Duration
from stepwell.sdk.handler import BODY_BYTES_MAX, MAX_RUNTIME, Handler, Incoming, Reply, address

if TYPE_CHECKING:
    from stepwell.sdk.app import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def serve(app: App, *, url: str | None = None, max_runtime: Duration = MAX_RUNTIME) -> AsgiApp:
    """The app as an ASGI application: `web.mount("/api/stepwell", stepwell.serve(app))`, then sync its URL.

    `url`: the address that the server is told, where it differs from the one that requests arrive at (behind a proxy, say);
    by default `STEPWELL_SERVE_URL`. `max_runtime`: how long one request goes on with further steps, each durable before the next;
    `"0s"`: one step a request.
    """
    handler = Handler(app, "asgi", url=url, max_runtime=max_runtime)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            reply = await _answered(handler, scope, receive)
            told = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
            told.append((b"content-length", b"%d" % len(reply.body)))
            await send({"type": "http.response.start", "status": reply.status, "headers": told})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})
        else:
            raise UsageError(f"serve(app) answers HTTP only, not {scope['type']}")

    return asgi


def serve_wsgi(app: App, *, url: str | None = None, max_runtime: Duration = MAX_RUNTIME) -> WsgiApp:
    """The app as a WSGI application, for Flask and others: `DispatcherMiddleware(web, {"/api/stepwell": stepwell.serve_wsgi(app)})`.

    Functions run in one event loop in a thread of their own, shared by all that is served in the process; `async def` and `def` alike.
    The options are those of `serve`.
    """
    handler = Handler(app, "wsgi", url=url, max_runtime=max_runtime)

    def wsgi(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        reply = _answered_wsgi(handler, environ)
        told = [*reply.headers.items(), ("content-length", str(len(reply.body)))]
        start_response(f"{reply.status} {_phrase(reply.status)}", told)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else reply.body]

    return wsgi


def serve_django(app: App, *, url: str | None = None, max_runtime: Duration = MAX_RUNTIME) -> Callable[[Any], Any]:
    """The app as a Django view, under WSGI and ASGI: `path("api/stepwell", stepwell.serve_django(app))`. Options as of `serve`."""
    handler = Handler(app, "django", url=url, max_runtime=max_runtime)

    def view(request: Any) -> Any:
        from django.http import HttpResponse  # type: ignore[import-untyped, unused-ignore]

        headers = {name.lower(): value for name, value in request.headers.items()}
        incoming = Incoming(
            method=request.method,
            url=address(request.scheme, request.get_host(), "", request.path, headers),
            query=request.META.get("QUERY_STRING", ""),
            headers=headers,
            # Not `request.body`, which Django bounds far below what a call may hold.
            body=request.read(),
        )
        reply = background().run(lambda: handler.answer(incoming))
        return HttpResponse(reply.body, status=reply.status, headers=reply.headers)

    # Calls show who they are by their signature, not by a cookie.
    view.csrf_exempt = True  # type: ignore[attr-defined]
    return view


async def _answered(handler: Handler, scope: Scope, receive: Receive) -> Reply:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        body = await _body(receive)
    except ProtocolError as error:
        return handler.refusal(error)
    host = scope.get("server") or ("localhost", None)
    incoming = Incoming(
        method=scope["method"],
        url=address(scope.get("scheme", "http"), str(host[0]), scope.get("root_path", ""), scope["path"], headers),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        body=body,
    )
    return await handler.answer(incoming)


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProtocolError("the connection was closed before the request was whole", 400)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES_MAX:
            raise _too_large()
        if not message.get("more_body"):
            return b"".join(parts)


def _answered_wsgi(handler: Handler, environ: Environ) -> Reply:
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    try:
        body = _body_wsgi(environ)
    except ProtocolError as error:
        return handler.refusal(error)
    incoming = Incoming(
        method=environ["REQUEST_METHOD"],
        url=address(
            environ.get("wsgi.url_scheme", "http"),
            environ.get("SERVER_NAME", "localhost"),
            "",
            _unicode(environ.get("SCRIPT_NAME", "")) + _unicode(environ.get("PATH_INFO", "")),
            headers,
        ),
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        body=body,
    )
    return background().run(lambda: handler.answer(incoming))


def _body_wsgi(environ: Environ) -> bytes:
    told = environ.get("CONTENT_LENGTH") or ""
    if told.isdigit() and int(told) > BODY_BYTES_MAX:
        raise _too_large()
    body: bytes = environ["wsgi.input"].read(int(told) if told.isdigit() else BODY_BYTES_MAX + 1) if told or _is_chunked(environ) else b""
    if len(body) > BODY_BYTES_MAX:
        raise _too_large()
    if told.isdigit() and len(body) < int(told):
        raise ProtocolError("the connection was closed before the request was whole", 400)
    return body


def _is_chunked(environ: Environ) -> bool:
    return bool(environ.get("wsgi.input_terminated")) or "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "")


def _too_large() -> ProtocolError:
    return ProtocolError(f"the request has more than {BODY_BYTES_MAX} bytes", 413)


def _unicode(path: str) -> str:
    """A path of WSGI's, which holds bytes as if they were Latin-1."""
    return path.encode("latin-1").decode("utf-8", "replace")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
