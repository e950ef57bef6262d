"""One HTTP/1.1 connection, from the client's side: a request, then its answer, then the next request.

A protocol of asyncio over httptools, without streams between: this is the engine's hottest way out. It owns the framing of answers
and what counts as one; which connection is used, kept or given up is the pool's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools
import msgspec

from stepwell.net.deadlines import Deadlines
from stepwell.net.http_errors import Broken, HttpError, NotHttp, TooLarge

HEAD_BYTES_MAX = 256 * 1024
"""Of an answer's header names and values."""
HEADERS_MAX = 256
JOINED_BODY_BYTES_MAX = 64 * 1024
"""A longer body is written by itself: copying it behind its head costs more than another write."""


class Response(msgspec.Struct, frozen=True):
    """An answer. Header names are in lower case, repeated ones joined by commas; the body is whole and not compressed.

    `url` is where it came from, where redirects have led to another address than the one asked for.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    url: str = ""


class Stale(Exception):
    """The connection ended before anything of an answer came."""


class Connection(asyncio.Protocol):
    """A connection on which one request at a time is out. `on_lost` is told once, when the connection is gone."""

    def __init__(
        self,
        *,
        bytes_max: int,
        deadlines: Deadlines,
        read_s: float | None,
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.used = False
        """Whether a request has been answered on it."""
        self.keep = False
        """Whether the last answer leaves it fit for another request."""
        self._bytes_max, self._deadlines, self._read_s, self._on_lost = bytes_max, deadlines, read_s, on_lost
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._waiter: asyncio.Future[Response] | None = None
        self._deadline = 0.0
        self._head_only = False
        self._begun = False
        self._parser = httptools.HttpResponseParser(self)
        self._error: HttpError | None = None
        self.on_message_begin()

    # The pool's side.

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent."""
        return not self._lost and self._transport is not None and not self._transport.is_closing()

    def send(self, method: str, head: bytes, body: bytes, deadline: float) -> asyncio.Future[Response]:
        """Send a request. The future fails with `Stale`, an `HttpError`, or `TimeoutError` at the deadline or after silence."""
        transport = self._transport
        assert transport is not None and self._waiter is None, "one request at a time"
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Response] = loop.create_future()
        self._waiter, self._deadline = waiter, deadline
        self._head_only, self._begun, self.keep = method == "HEAD", False, False
        if self._lost:
            waiter.set_exception(Stale("the other side closed the connection"))
            return waiter
        self._deadlines.set(waiter, deadline if self._read_s is None else min(deadline, loop.time() + self._read_s))
        if len(body) <= JOINED_BODY_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        return waiter

    def settle(self) -> None:
        """Nobody waits for the request any more, whatever became of it."""
        if self._waiter is not None:
            self._deadlines.drop(self._waiter)
            self._waiter = None
        self.used = True

    def close(self) -> None:
        """Close at once; what is not sent yet is not sent."""
        if self._transport is not None:
            self._transport.abort()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; after `start_tls` this is the one that encrypts."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "abort")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            # Some servers say why they close an idle connection (408). Nobody asked.
            self.close()
            return
        self._begun = True
        if self._read_s is not None:
            self._deadlines.set(waiter, min(self._deadline, asyncio.get_running_loop().time() + self._read_s))
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(NotHttp("the other side wants to switch protocols"))
        except httptools.HttpParserError as error:
            self._fail(self._error or NotHttp(f"the answer is not HTTP: {error} (it begins with {data[:40]!r})"))

    def eof_received(self) -> bool:
        """The other side has said all it will say, so the connection can be closed: `connection_lost` judges what has come."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """An answer whose end nothing else tells is whole now; every other one is broken off."""
        self._lost = True
        if self._waiter is not None and not self._waiter.done():
            if not self._begun:
                self._waiter.set_exception(Stale(str(error) if error else "the other side closed the connection"))
            elif self._ends_with_connection and error is None:
                self.on_message_complete()
            else:
                self._fail(Broken(f"the connection ended in the middle of the answer, after {self._size} bytes of its body"))
        self._on_lost(self)

    # The parser's side. What is raised here reaches `data_received` as an error of the parser.

    def on_message_begin(self) -> None:
        """Another answer, or an interim one."""
        if self._waiter is None or self._waiter.done():
            self.close()  # one that nobody asked for, behind the one that was
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = self._head_bytes = self._header_count = 0
        self._ends_with_connection = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._head_bytes += len(name) + len(value)
        self._header_count += 1
        if self._head_bytes > HEAD_BYTES_MAX or self._header_count > HEADERS_MAX:
            self._refuse(TooLarge(f"the answer's headers are more than {HEADERS_MAX}, or longer than {HEAD_BYTES_MAX} bytes"))
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        headers = self._headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        """See how the body will end, and whether it is worth waiting for."""
        length = self._headers.get("content-length")
        if length is None:
            self._ends_with_connection = "chunked" not in self._headers.get("transfer-encoding", "").lower()
        elif not self._head_only and length.isdigit() and int(length[:20]) > self._bytes_max:
            self._refuse(TooLarge(f"the answer has {length} bytes; at most {self._bytes_max} are taken"))
        if self._head_only:
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._size += len(data)
        if self._size > self._bytes_max:
            self._refuse(TooLarge(f"the answer has more than {self._bytes_max} bytes"))
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one is passed over."""
        status, waiter = self._parser.get_status_code(), self._waiter
        if status < 200 or waiter is None or waiter.done():
            return
        # An answer may come before all of its request is sent; what follows then would be read as the next request.
        sent = self._transport is not None and not self._transport.get_write_buffer_size()
        self.keep = sent and not self._head_only and self._parser.should_keep_alive()
        waiter.set_result(Response(status, self._headers, b"".join(self._parts)))

    def _refuse(self, error: HttpError) -> None:
        """Leave the parser with this error."""
        self._error = error
        raise error

    def _fail(self, error: HttpError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.close()
