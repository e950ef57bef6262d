"""An ASGI application behind `fetch`: FastAPI, Starlette and their like, with `env` in the scope and a lifespan of each request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from stepwell.workers.bases import WorkerEntrypoint
from stepwell.workers.gateway.options import DEFAULT, Options
from stepwell.workers.invocation import current
from stepwell.workers.web.content import NULL_BODY
from stepwell.workers.web.request import Request
from stepwell.workers.web.response import Response

log = logging.getLogger("stepwell.workers")
Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
ASGI = {"version": "3.0", "spec_version": "2.0"}
CHUNKS_MAX = 16
"""How far an application may be ahead of who reads its response."""
_streaming: set[asyncio.Future[None]] = set()


async def fetch(app: App, req: Request, env: Any, ctx: Any = None, *, options: Options | None = None) -> Response:
    """The application's response to a request. Raises what the application raises before it has begun one."""
    lifespan = _Lifespan(app)
    await lifespan.start()
    exchange = _Exchange(app, _scope(req, env, lifespan.state), req, (options or DEFAULT).encode_body)
    task = asyncio.ensure_future(_both(exchange, lifespan))
    try:
        response = await asyncio.shield(exchange.response)
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        if not exchange.streams:
            await asyncio.wait({task})
    if exchange.streams:
        # It goes on while the response is read.
        _streaming.add(task)
        task.add_done_callback(_streaming.discard)
        if (invocation := current.get()) is not None:
            invocation.wait_until(task)
    return response


async def websocket(app: App, req: Request, env: Any = None) -> Response:
    """Refused: there are no WebSockets of Workers here."""
    raise NotImplementedError(
        f"{req.url} asks for a WebSocket: stepwell workers dev serves none for Workers; poll, or answer with a stream (text/event-stream)"
    )


def entrypoint(app: App, *, options: Options | None = None) -> type[WorkerEntrypoint]:
    """A default entrypoint that serves the application."""

    class Default(WorkerEntrypoint):
        async def fetch(self, request: Request) -> Response:
            if str(request.headers.get("upgrade", "")).lower() == "websocket":
                return await websocket(app, request, self.env)
            return await fetch(app, request, self.env, self.ctx, options=options)

    return Default


async def _both(exchange: _Exchange, lifespan: _Lifespan) -> None:
    try:
        await exchange.run()
    finally:
        await lifespan.stop()


def _scope(request: Request, env: Any, state: dict[str, Any]) -> Message:
    parts = urlsplit(request.url)
    return {
        "type": "http",
        "asgi": ASGI,
        "http_version": "1.1",
        "method": str(request.method),
        "scheme": parts.scheme,
        "path": unquote(parts.path),
        "raw_path": parts.path.encode("ascii", "replace"),
        "query_string": parts.query.encode("ascii", "replace"),
        "root_path": "",
        "headers": [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in request.headers.items()],
        "server": (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)),
        "client": None,
        "state": dict(state),
        "env": env,
    }


class _Lifespan:
    """The application's start and stop around one request. One that knows no lifespan is served without."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[bool] = self._loop.create_future()
        self._stopping: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the application is ready. Raises `RuntimeError` with its message where it is not going to be."""
        self._task = self._loop.create_task(self._run())
        if not await self._started:
            self._task = None

    async def stop(self) -> None:
        """Returns when the application has stopped."""
        if self._task is not None:
            self._stopping.set_result(None)
            await self._stopped
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            await self._app({"type": "lifespan", "asgi": ASGI, "state": self.state}, self._receive, self._send)
        except Exception as error:
            if self._started.done() and self._started.result():
                log.error("The application's lifespan failed: %s: %s", type(error).__name__, error, exc_info=error)
        if not self._started.done():
            self._started.set_result(False)
        _tell(self._stopped, None)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await asyncio.shield(self._stopping)
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete" if not self._started.done():
                self._started.set_result(True)
            case "lifespan.startup.failed" if not self._started.done():
                self._started.set_exception(RuntimeError(message.get("message") or "the application's lifespan could not start"))
            case "lifespan.shutdown.complete":
                _tell(self._stopped, None)
            case "lifespan.shutdown.failed":
                _tell(self._stopped, RuntimeError(message.get("message") or "the application's lifespan could not stop"))


def _tell(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class _Exchange:
    """A request to the application, and the response it makes."""

    def __init__(self, app: App, scope: Message, request: Request, encode_body: str) -> None:
        self._app, self._scope, self._encode_body = app, scope, encode_body
        incoming = request.body
        self._chunks = None if incoming is None else aiter(incoming)
        self._request_read = False
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.streams = False
        self._stream = _Stream(self._on_reader_gone)
        self._gone = asyncio.Event()
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._ended = False

    async def run(self) -> None:
        """Run the application for the request."""
        try:
            await self._app(self._scope, self._receive, self._send)
            if not self.response.done():
                raise RuntimeError(f"the application ended without a response to {self._scope['method']} {self._scope['path']}")
        except Exception as error:
            if self.response.done():
                log.exception("The application failed after its response had begun")
            else:
                self.response.set_exception(error)
        finally:
            self._gone.set()
            self._stream.end()

    def _on_reader_gone(self) -> None:
        self._gone.set()

    async def _receive(self) -> Message:
        if self._request_read:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        if self._chunks is not None:
            async for chunk in self._chunks:
                return {"type": "http.request", "body": bytes(chunk), "more_body": True}
        self._request_read = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self._status = message["status"]
                self._headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            case "http.response.body" if not self._ended:
                await self._take(bytes(message.get("body", b"")), message.get("more_body", False))

    async def _take(self, body: bytes, more: bool) -> None:
        """A part of the body. One that comes whole is no stream; a status without a body has none, whatever is sent."""
        if not self.response.done():
            bare = self._status in NULL_BODY
            self.streams = more and not bare
            response = Response(None if bare else self._stream if more else body, self._status, headers=self._headers)
            response.encode_body = self._encode_body
            self.response.set_result(response)
        if self.streams and body:
            await self._stream.put(body)
        if not more:
            self._ended = True
            self._gone.set()
            self._stream.end()


class _Stream:
    """The body of a response that comes in parts. Who makes it waits while its reader is too far behind."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self._on_closed = on_closed
        self._chunks: list[bytes] = []
        self._ended = self._closed = False
        self._changed = asyncio.Event()

    async def put(self, chunk: bytes) -> None:
        while len(self._chunks) >= CHUNKS_MAX and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if not self._closed:
            self._chunks.append(chunk)
            self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._ended or self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.pop(0)
        self._changed.set()
        return chunk

    async def aclose(self) -> None:
        """Nobody reads on."""
        self._closed = True
        self._chunks.clear()
        self._changed.set()
        self._on_closed()
