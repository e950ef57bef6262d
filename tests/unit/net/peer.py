"""The other side of a connection, which does as a test tells it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec


class Request(msgspec.Struct, frozen=True):
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Conn:
    """One connection that a client opened."""

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.peer, self.reader, self.writer, self.number = peer, reader, writer, number

    async def request(self) -> Request | None:
        """The next request; `None` when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        method, target, _ = first.split(" ")
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, target, headers, body)
        self.peer.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def ended(self) -> None:
        """Returns when the client has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def encrypt(self, tls: ssl.SSLContext) -> None:
        """Go on with TLS."""
        await self.writer.start_tls(tls)


Script = Callable[[Conn], Awaitable[Any]]


class Peer:
    """Listens on this machine; `script` is run for each connection, which is closed when it returns."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._script, self._tls = script, tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._on_connect, "127.0.0.1", 0, ssl=self._tls, limit=2**24)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._errors:
            raise self._errors[0]

    async def _on_connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._script(Conn(self, reader, writer, self.connections))
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._errors.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()


def answer(body: bytes = b"ok", status: str = "200 OK", *headers: str) -> bytes:
    """An answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answering(*answers: bytes, close: bool = False) -> Script:
    """Answer each request with the next of these, the last one again and again; `close` after each."""

    async def script(conn: Conn) -> None:
        while await conn.request() is not None:
            await conn.send(answers[min(len(conn.peer.requests), len(answers)) - 1])
            if close:
                return

    return script
