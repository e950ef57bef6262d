"""A WSGI application behind `fetch`: Flask, Bottle and their like, in a thread, with `env` in the environ as `workers.env`."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from stepwell.workers.bases import WorkerEntrypoint
from stepwell.workers.gateway.options import DEFAULT, Options
from stepwell.workers.web.content import NULL_BODY
from stepwell.workers.web.request import Request
from stepwell.workers.web.response import Response

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_END: Any = object()


async def fetch(app: App, req: Request, env: Any, ctx: Any = None, *, options: Options | None = None) -> Response:
    """The application's response to a request. Raises what the application raises before its first part of a body."""
    environ = _environ(req, env, await req.bytes())
    answer = _Answer(app, environ)
    first = await asyncio.to_thread(answer.first)
    bare = answer.status in NULL_BODY
    if bare:
        await asyncio.to_thread(answer.close)
    response = Response(None if bare else _body(answer, first), answer.status, answer.phrase, answer.headers)
    response.encode_body = (options or DEFAULT).encode_body
    return response


def entrypoint(app: App, *, options: Options | None = None) -> type[WorkerEntrypoint]:
    """A default entrypoint that serves the application."""

    class Default(WorkerEntrypoint):
        async def fetch(self, request: Request) -> Response:
            return await fetch(app, request, self.env, self.ctx, options=options)

    return Default


async def _body(answer: _Answer, first: bytes) -> AsyncIterator[bytes]:
    try:
        chunk = first
        while chunk is not _END:
            if chunk:
                yield chunk
            chunk = await asyncio.to_thread(answer.next)
    finally:
        await asyncio.to_thread(answer.close)


class _Answer:
    """What the application answers, part by part."""

    def __init__(self, app: App, environ: dict[str, Any]) -> None:
        self._app, self._environ = app, environ
        self.status, self.phrase = 0, ""
        self.headers: list[tuple[str, str]] = []
        self._written: list[bytes] = []
        self._parts: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] = iter(())

    def first(self) -> Any:
        """Call the application, and give the first part of its body: it has said status and headers by then."""
        self._parts = self._app(self._environ, self._start)
        try:
            self._iterator = iter(self._parts)
            first = self.next()
            if not self.status:
                raise RuntimeError("the application did not call start_response")
        except BaseException:
            self.close()
            raise
        return first

    def next(self) -> Any:
        """The next part that is not empty, or the end."""
        if self._written:
            return self._written.pop(0)
        return next((part for part in self._iterator if part), _END)

    def close(self) -> None:
        """As WSGI asks for, whatever became of the body."""
        close = getattr(self._parts, "close", None)
        if close is not None:
            close()

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        if self.status and exc_info is None:
            raise RuntimeError("the application called start_response twice")
        code, _, self.phrase = status.partition(" ")
        self.status, self.headers = int(code), list(headers)
        return self._written.append


def _environ(request: Request, env: Any, body: bytes) -> dict[str, Any]:
    parts = urlsplit(request.url)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": str(request.method),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(parts.path).decode("latin-1"),
        "QUERY_STRING": parts.query,
        "SERVER_NAME": parts.hostname or "localhost",
        "SERVER_PORT": str(parts.port or (443 if parts.scheme == "https" else 80)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": parts.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "workers.env": env,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if body:
        environ.setdefault("CONTENT_LENGTH", str(len(body)))
    return environ
