"""An HTTP/1.1 client for call-outs: keep-alive connections to a few hosts, a request and a bounded answer.

Raw protocols and httptools, since a call-out is the engine's hottest way out. A request is sent once more only when its pooled
connection turns out to have been closed by the other side before anything of an answer came.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import urllib.request
import zlib
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import httptools
import msgspec

from stepwell.errors import CallError

CONNECT_S = 10.0
IDLE_S = 60.0
IDLE_PER_HOST_MAX = 256
CONNECTIONS_PER_HOST_MAX = 512
REDIRECTS_MAX = 5
HEAD_BYTES_MAX = 256 * 1024
REDIRECTS = frozenset((301, 302, 303, 307, 308))


class Response(msgspec.Struct, frozen=True):
    """An answer: header names in lower case, the body decoded."""

    status: int
    headers: dict[str, str]
    body: bytes


class Closed(Exception):
    """The other side closed the connection before anything of an answer came."""


class _Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, bytes_max: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.used = False
        self.idle_since = 0.0
        self._bytes_max = bytes_max
        self._waiter: asyncio.Future[Response] | None = None
        self._closed = False

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Feed the parser. Bytes that nobody asked for close the connection."""
        if self._waiter is None:
            self.close()
            return
        self._started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(CallError("the app wants to switch protocols", "http_protocol"))
        except httptools.HttpParserError as error:
            self._fail(CallError(f"the app's answer is not HTTP: {error}", "http_protocol"))

    def eof_received(self) -> bool:
        """The other side is done; so are we."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """An answer without a length ends here; every other one is broken off."""
        self._closed = True
        if self._waiter is None or self._waiter.done():
            return
        if not self._started:
            self._waiter.set_exception(Closed())
        elif self._head_done and not self._has_length:
            self.on_message_complete()
        else:
            self._fail(CallError("the connection broke in the middle of the app's answer", "http_broken"))

    # The parser's side.

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES_MAX:
            raise CallError("the headers of the app's answer are too large", "http_protocol")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Whether the body's end will be told."""
        self._head_done = True
        self._has_length = "content-length" in self._headers or "chunked" in self._headers.get("transfer-encoding", "")

    def on_body(self, data: bytes) -> None:
        """A part of the body, within the bound."""
        self._size += len(data)
        if self._size > self._bytes_max:
            self._fail(CallError(f"the app's answer has more than {self._bytes_max} bytes", "output_too_large"))
            return
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one is passed over."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._reset()
            return
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        self.keep = self._parser.should_keep_alive() and not self._closed and self._has_length
        try:
            body = inflated(b"".join(self._parts), self._headers.get("content-encoding", ""), self._bytes_max)
        except CallError as error:
            waiter.set_exception(error)
        else:
            waiter.set_result(Response(status, self._headers, body))

    # The pool's side.

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent."""
        return not self._closed and self.transport is not None and not self.transport.is_closing()

    async def request(self, head: bytes, body: bytes) -> Response:
        """Send one request and wait for its answer."""
        assert self.transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self.keep = False
        self._reset()
        self.transport.write(head + body if len(body) < 65536 else head)
        if len(body) >= 65536:
            self.transport.write(body)
        try:
            return await self._waiter
        finally:
            self._waiter = None
            self.used = True

    def close(self) -> None:
        """Close at once."""
        self._closed = True
        if self.transport is not None:
            self.transport.abort()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = self._head_bytes = 0
        self._head_done = self._has_length = self._started = False

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.close()


class _Host:
    """The connections to one origin."""

    def __init__(self) -> None:
        self.idle: deque[_Connection] = deque()
        self.count = 0
        self.waiters: deque[asyncio.Future[None]] = deque()


class Pool:
    """Connections to hosts, kept and reused. `bytes_max` bounds an answer's body, as sent and as decoded."""

    def __init__(self, *, bytes_max: int = 8 * 1024 * 1024, connect_s: float = CONNECT_S) -> None:
        self._bytes_max, self._connect_s = bytes_max, connect_s
        self._hosts: dict[tuple[str, str, int], _Host] = {}
        self._tls: ssl.SSLContext | None = None
        self._heads: dict[tuple[str, str], tuple[SplitResult, bytes]] = {}
        self._proxies = urllib.request.getproxies()

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"", timeout_s: float = 60.0
    ) -> Response:
        """Send a request, following redirects with method and body kept. Raises `CallError` naming URL and cause."""
        try:
            async with asyncio.timeout(timeout_s):
                for _ in range(REDIRECTS_MAX + 1):
                    response = await self._one(method, url, headers or {}, body)
                    if response.status not in REDIRECTS or "location" not in response.headers:
                        return response
                    url = urljoin(url, response.headers["location"])
        except TimeoutError:
            raise CallError(f"{method} {url}: no answer within {timeout_s:g} s", "request_duration_too_long") from None
        except CallError as error:
            raise CallError(f"{method} {url}: {error}", error.code) from None
        except OSError as error:
            raise CallError(f"{method} {url}: {error}", "http_unreachable") from None
        raise CallError(f"{method} {url}: more than {REDIRECTS_MAX} redirects", "http_protocol")

    async def close(self) -> None:
        """Close every idle connection; those in use close with their requests."""
        for host in self._hosts.values():
            while host.idle:
                host.idle.pop().close()
        self._hosts.clear()

    async def _one(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        parts, head = self._head(method, url)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if "\n" in lines.replace("\r\n", ""):
            raise CallError("a header's value holds a line break", "http_protocol")
        full = b"%s%scontent-length: %d\r\n\r\n" % (head, lines.encode("latin-1"), len(body))
        key = (parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        host = self._hosts.get(key)
        if host is None:
            host = self._hosts[key] = _Host()
        while True:
            connection = await self._take(host, key)
            reused = connection.used
            try:
                response = await connection.request(full, body)
            except Closed:
                self._drop(host, connection)
                if reused:
                    continue  # the other side had closed the pooled connection: nothing was answered, one more try on another
                raise CallError("the app closed the connection without an answer", "http_broken") from None
            except BaseException:
                self._drop(host, connection)
                raise
            self._give_back(host, connection)
            return response

    def _head(self, method: str, url: str) -> tuple[SplitResult, bytes]:
        known = self._heads.get((method, url))
        if known is None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise CallError(f"{url!r} is no HTTP address", "http_unreachable")
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            if parts.scheme == "http" and self._proxy(parts) is not None:
                target = f"http://{parts.netloc}{target}"
            head = f"{method} {target} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\naccept-encoding: gzip, deflate\r\n"
            if parts.username:
                token = base64.b64encode(f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()).decode()
                head += f"authorization: Basic {token}\r\n"
            if len(self._heads) > 10_000:
                self._heads.clear()
            known = self._heads[method, url] = (parts, head.encode("latin-1"))
        return known

    def _proxy(self, parts: SplitResult) -> SplitResult | None:
        proxy = self._proxies.get(parts.scheme)
        if not proxy or urllib.request.proxy_bypass(parts.hostname or "") or parts.hostname in ("localhost", "127.0.0.1", "::1"):
            return None
        return urlsplit(proxy if "://" in proxy else f"http://{proxy}")

    async def _take(self, host: _Host, key: tuple[str, str, int]) -> _Connection:
        now = asyncio.get_running_loop().time()
        while host.idle:
            connection = host.idle.pop()
            if connection.is_open and now - connection.idle_since < IDLE_S:
                return connection
            self._drop(host, connection)
        while host.count >= CONNECTIONS_PER_HOST_MAX:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            host.waiters.append(waiter)
            await waiter
            if host.idle:
                return host.idle.pop()
        host.count += 1
        try:
            return await self._connect(key)
        except BaseException:
            host.count -= 1
            raise

    async def _connect(self, key: tuple[str, str, int]) -> _Connection:
        scheme, name, port = key
        loop = asyncio.get_running_loop()
        tls = self._context() if scheme == "https" else None
        proxy = self._proxy(urlsplit(f"{scheme}://{name if ':' not in name else f'[{name}]'}:{port}"))
        try:
            async with asyncio.timeout(self._connect_s):
                if proxy is None:
                    # One address after the other: uvloop does not race them, and a refused one answers at once.
                    _, connection = await loop.create_connection(lambda: _Connection(self._bytes_max), name, port, ssl=tls)
                    return connection
                if tls is None:
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self._bytes_max), proxy.hostname or "", proxy.port or 80
                    )
                    return connection
                return await self._tunnel(proxy, name, port, tls)
        except TimeoutError:
            raise CallError(f"no connection within {self._connect_s:g} s", "http_unreachable") from None

    async def _tunnel(self, proxy: SplitResult, name: str, port: int, tls: ssl.SSLContext) -> _Connection:
        """A TLS connection through a proxy's `CONNECT`."""
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(proxy.hostname, proxy.port or 80)
        login = ""
        if proxy.username:
            token = base64.b64encode(f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()).decode()
            login = f"proxy-authorization: Basic {token}\r\n"
        writer.write(f"CONNECT {name}:{port} HTTP/1.1\r\nhost: {name}:{port}\r\n{login}\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer.split(b"\r\n", 1)[0] + b" ":
            writer.close()
            raise CallError(f"the proxy refused: {answer.split(chr(13).encode(), 1)[0].decode('latin-1')}", "http_unreachable")
        connection = _Connection(self._bytes_max)
        transport = writer.transport
        transport.set_protocol(connection)
        upgraded = await loop.start_tls(transport, connection, tls, server_hostname=name)
        if upgraded is None:
            raise CallError("the proxy's connection could not be encrypted", "http_unreachable")
        connection.connection_made(upgraded)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _give_back(self, host: _Host, connection: _Connection) -> None:
        if connection.keep and connection.is_open and len(host.idle) < IDLE_PER_HOST_MAX:
            connection.idle_since = asyncio.get_running_loop().time()
            host.idle.append(connection)
            self._next(host)
        else:
            self._drop(host, connection)

    def _drop(self, host: _Host, connection: _Connection) -> None:
        connection.close()
        host.count -= 1
        self._next(host)

    @staticmethod
    def _next(host: _Host) -> None:
        while host.waiters:
            waiter = host.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def inflated(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """A body without its content encoding. Raises `CallError` for one that is broken, unknown, or too large when decoded."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            window = 16 + zlib.MAX_WBITS
        case "deflate":
            window = zlib.MAX_WBITS if body[:1] == b"\x78" else -zlib.MAX_WBITS
        case other:
            raise CallError(f"the app's answer has the unknown content encoding {other!r}", "http_protocol")
    decoder: Any = zlib.decompressobj(window)
    try:
        decoded: bytes = decoder.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise CallError(f"the app's answer cannot be decoded: {error}", "http_protocol") from None
    if len(decoded) > bytes_max:
        raise CallError(f"the app's answer has more than {bytes_max} bytes when decoded", "output_too_large")
    return decoded
