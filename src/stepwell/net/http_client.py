"""An HTTP/1.1 client for call-outs: keep-alive connections to a few hosts, a request and a bounded answer.

A pool belongs to one event loop. It is made for cheap calls (docs/decisions/0003-http-client.md): there is no task and no timer of a
call's own. A request is sent once more only when a connection from the pool turns out to have been closed before anything of an answer
came; what else fails is the caller's to judge.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from urllib.parse import urljoin

import msgspec

from stepwell.errors import UsageError
from stepwell.net.addresses import Allows
from stepwell.net.content_encoding import decoded
from stepwell.net.deadlines import Deadlines
from stepwell.net.http_connection import Connection, Response, Stale
from stepwell.net.http_dial import dial
from stepwell.net.http_errors import Broken, Dropped, HttpError, NotHttp, TimedOut, Unreachable
from stepwell.net.http_target import USER_AGENT_LINE, Origin, Target, parse_target
from stepwell.net.proxies import Proxies

BYTES_MAX = 8 * 1024 * 1024
CONNECT_S = 10.0
IDLE_S = 60.0
IDLE_MAX = 512
CONNECTIONS_PER_HOST_MAX = 512
REDIRECTS_MAX = 5
CLOCK_S = 0.005
"""A timer may fire so much early by the clock that it is compared with: loops count milliseconds."""
TARGETS_MAX = 4096
REDIRECTS = frozenset((301, 302, 303, 307, 308))
REDIRECTS_TO_GET = frozenset((301, 302, 303))
"""Redirects that make another method a GET without a body, where they are followed as browsers follow them."""
METHODS_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))
OF_ONE_ORIGIN = frozenset(("authorization", "cookie", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key"))
"""Headers that do not follow a redirect to another origin."""

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class _Host:
    """The connections to one origin: `count` are open or being opened, those in `idle` are free, the one used last at the end."""

    def __init__(self) -> None:
        self.count = 0
        self.idle: dict[_Pooled, None] = {}
        self.waiters: deque[asyncio.Future[_Pooled | None]] = deque()


class _Pooled(Connection):
    """A connection that knows its host."""

    host: _Host


class Pool:
    """Connections to hosts, kept and reused.

    `bytes_max` bounds an answer's body, as sent and as decoded. `read_s` bounds the silence within a call (`None`: only the call's
    own time limit does). `idle_s` and `idle_max` bound what is kept open unused. Callers beyond `connections_per_host_max` wait,
    first come first served. `environ` is where the proxies are looked up; `tls` replaces the usual certificate checks.
    Redirects keep method and body, unless they are followed `as_browsers` do, and are at most `redirects_max`. `allows` says which
    addresses may be connected to.
    """

    def __init__(
        self,
        *,
        bytes_max: int = BYTES_MAX,
        connect_s: float = CONNECT_S,
        read_s: float | None = None,
        idle_s: float = IDLE_S,
        idle_max: int = IDLE_MAX,
        connections_per_host_max: int = CONNECTIONS_PER_HOST_MAX,
        environ: Mapping[str, str] = os.environ,
        tls: ssl.SSLContext | None = None,
        as_browsers: bool = False,
        redirects_max: int = REDIRECTS_MAX,
        allows: Allows | None = None,
    ) -> None:
        self._as_browsers, self._redirects_max, self._allows = as_browsers, redirects_max, allows
        self._bytes_max, self._connect_s, self._read_s = bytes_max, connect_s, read_s
        self._idle_s, self._idle_max, self._per_host_max = idle_s, idle_max, connections_per_host_max
        self._proxies, self._tls = Proxies(environ), tls
        self._deadlines = Deadlines()
        self._targets: dict[str, Target] = {}
        self._hosts: dict[Origin, _Host] = {}
        self._open: set[_Pooled] = set()
        self._idle_since: dict[_Pooled, float] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._all_gone: asyncio.Event | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        timeout_s: float = 60.0,
        resend: bool = True,
        follow: bool = True,
    ) -> Response:
        """Send a request, following redirects unless `follow` is off. Raises `HttpError`, naming the URL and the cause.

        `timeout_s` bounds the whole: waiting for a connection, opening it, and the answer to its last byte. A cancelled call's
        connection is closed. Raises `UsageError` for a URL or a header that cannot be sent.

        A request whose kept connection ends before the answer begins is sent once more, on a new one; without `resend` it is not, and
        `Dropped` is raised: nobody knows whether the other side has begun to work on it.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        target = self._target(url)
        try:
            for hops in range(self._redirects_max + 1):
                response = await self._exchange(method, target, _head(method, target, pairs, body), body, deadline, resend=resend)
                if not follow or response.status not in REDIRECTS or "location" not in response.headers:
                    return response if not hops else msgspec.structs.replace(response, url=url)
                if self._as_browsers and response.status in REDIRECTS_TO_GET and method not in ("GET", "HEAD"):
                    method, body = "GET", b""
                    pairs = [(name, value) for name, value in pairs if not name.lower().startswith("content-")]
                left = target.origin
                try:
                    url = urljoin(url, response.headers["location"])
                    target = self._target(url)
                except (UsageError, ValueError) as error:
                    raise NotHttp(f"the answer redirects to where nobody can go: {error}") from None
                if target.origin != left:
                    pairs = [(name, value) for name, value in pairs if name.lower() not in OF_ONE_ORIGIN]
            raise Unreachable(f"more than {self._redirects_max} redirects")
        except HttpError as error:
            raise type(error)(f"{method} {target.shown}: {error}") from error.__cause__
        except TimeoutError:
            silent = self._read_s is not None and asyncio.get_running_loop().time() < deadline - CLOCK_S
            why = f"the answer stopped coming for {self._read_s:g} s" if silent else f"no whole answer within {timeout_s:g} s"
            raise TimedOut(f"{method} {target.shown}: {why}") from None

    async def close(self) -> None:
        """Close every connection; calls that are out or waiting fail. Returns when all sockets are closed."""
        if self._all_gone is None:
            self._all_gone = asyncio.Event()
        for host in self._hosts.values():
            while _give(host.waiters, None):
                host.count += 1
        for connection in list(self._open):
            connection.close()
        if not self._open:
            self._all_gone.set()
        await self._all_gone.wait()
        self._deadlines.close()
        if self._sweep is not None:
            self._sweep.cancel()

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    # One exchange.

    async def _exchange(self, method: str, target: Target, head: bytes, body: bytes, deadline: float, *, resend: bool) -> Response:
        connection = await self._take(target.origin, deadline)
        was_pooled = connection.used
        try:
            return await self._answer(connection, method, head, body, deadline)
        except Stale as stale:
            if not was_pooled:
                raise Broken(f"the connection ended before anything of an answer came: {stale}") from None
            # The other side had closed the pooled connection, or was about to. Others in the pool may be as stale.
            self._drop_idle(connection.host)
            if not resend:
                raise Dropped(f"the kept connection ended before anything of an answer came: {stale}") from None
        connection = await self._take(target.origin, deadline, fresh=True)
        try:
            return await self._answer(connection, method, head, body, deadline)
        except Stale as stale:
            raise Broken(f"the connection ended before anything of an answer came, twice: {stale}") from None

    async def _answer(self, connection: _Pooled, method: str, head: bytes, body: bytes, deadline: float) -> Response:
        try:
            response = await connection.send(method, head, body, deadline)
        except BaseException:
            self._put_down(connection, keep=False)
            raise
        self._put_down(connection, keep=connection.keep)
        encoding = response.headers.get("content-encoding")
        if encoding is None:
            return response
        return Response(response.status, response.headers, decoded(response.body, encoding, self._bytes_max))

    def _target(self, url: str) -> Target:
        target = self._targets.get(url)
        if target is None:
            if len(self._targets) >= TARGETS_MAX:
                self._targets.clear()
            target = self._targets[url] = parse_target(url, self._proxies)
        return target

    # Which connection. A slot is the right to have a connection open; it goes from hand to hand until nobody wants it.

    async def _take(self, origin: Origin, deadline: float, *, fresh: bool = False) -> _Pooled:
        """A connection for one exchange, from the pool unless a fresh one is asked for."""
        self._check_open()
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = _Host()
        if host.idle and not fresh:
            connection, _ = host.idle.popitem()  # the one used last: those used seldom may expire
            del self._idle_since[connection]
            if connection.is_open:
                return connection
        elif host.count >= self._per_host_max:
            handed = await self._wait(host, deadline)
            if handed is not None and handed.is_open:
                return handed
        else:
            host.count += 1
        # From here on a slot is held.
        try:
            return await self._dial(host, origin, deadline)
        except BaseException:
            self._free_slot(host)
            raise

    async def _wait(self, host: _Host, deadline: float) -> _Pooled | None:
        """In line for a connection, or for the slot to open one (`None`)."""
        waiter: asyncio.Future[_Pooled | None] = asyncio.get_running_loop().create_future()
        host.waiters.append(waiter)
        self._deadlines.set(waiter, deadline)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Handed over in the moment of the cancellation: to the next.
                handed = waiter.result()
                if handed is None:
                    self._free_slot(host)
                else:
                    self._put_down(handed, keep=True)
            raise
        finally:
            self._deadlines.drop(waiter)
            if waiter in host.waiters:
                host.waiters.remove(waiter)

    async def _dial(self, host: _Host, origin: Origin, deadline: float) -> _Pooled:
        loop = asyncio.get_running_loop()

        def make() -> _Pooled:
            return _Pooled(bytes_max=self._bytes_max, deadlines=self._deadlines, read_s=self._read_s, on_lost=self._on_lost)

        self._check_open()
        connect_by = loop.time() + self._connect_s
        try:
            async with asyncio.timeout_at(min(deadline, connect_by)):
                connection = await dial(origin, make, self._tls_context, self._allows)
        except TimeoutError:
            if deadline <= connect_by:
                raise
            raise Unreachable(f"no connection within {self._connect_s:g} s") from None
        except OSError as error:
            raise Unreachable(str(error)) from error
        connection.host = host
        if connection.is_open:
            self._open.add(connection)
        if self._all_gone is not None:
            connection.close()
        return connection

    def _check_open(self) -> None:
        if self._all_gone is not None:
            raise Unreachable("the pool is closed")

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _put_down(self, connection: _Pooled, *, keep: bool) -> None:
        """The exchange is over: the connection goes to the next in line, to the idle ones, or is closed."""
        connection.settle()
        host = connection.host
        if not keep or not connection.is_open or self._all_gone is not None:
            connection.close()
            self._free_slot(host)
        elif not _give(host.waiters, connection):
            if len(self._idle_since) >= self._idle_max:
                oldest = next(iter(self._idle_since))
                self._expel(oldest)
                self._free_slot(oldest.host)
            loop = asyncio.get_running_loop()
            now = loop.time()
            host.idle[connection] = None
            self._idle_since[connection] = now
            if self._sweep is None:
                self._sweep = loop.call_at(now + self._idle_s, self._sweep_idle)

    def _free_slot(self, host: _Host) -> None:
        if not _give(host.waiters, None):
            host.count -= 1

    def _drop_idle(self, host: _Host) -> None:
        for connection in list(host.idle):
            self._expel(connection)
            self._free_slot(host)

    def _expel(self, connection: _Pooled) -> None:
        """An idle connection goes; its slot stays with the caller."""
        del self._idle_since[connection]
        del connection.host.idle[connection]
        connection.close()

    def _on_lost(self, connection: Connection) -> None:
        """A connection is gone. One that was out is put down by its exchange; an idle one leaves the pool here."""
        assert isinstance(connection, _Pooled)
        self._open.discard(connection)
        if connection in self._idle_since:
            self._expel(connection)
            self._free_slot(connection.host)
        if self._all_gone is not None and not self._open:
            self._all_gone.set()

    def _sweep_idle(self) -> None:
        """Close what has been idle for too long, and forget hosts that nobody uses."""
        loop = asyncio.get_running_loop()
        self._sweep = None
        old = loop.time() - self._idle_s + CLOCK_S
        for connection, since in list(self._idle_since.items()):
            if since > old:
                self._sweep = loop.call_at(since + self._idle_s, self._sweep_idle)
                break
            self._expel(connection)
            self._free_slot(connection.host)
        for origin in [origin for origin, host in self._hosts.items() if host.count == 0 and not host.waiters]:
            del self._hosts[origin]


def _give(waiters: deque[asyncio.Future[_Pooled | None]], what: _Pooled | None) -> bool:
    """Hand a connection or a slot to the first that still waits; whether there was one."""
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(what)
            return True
    return False


def _head(method: str, target: Target, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """The request before its body."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise UsageError("a header's name or value holds a line break or a zero")
    try:
        begin = target.head.replace(USER_AGENT_LINE, b"") if any(name.lower() == "user-agent" for name, _ in headers) else target.head
        head = b"%s%s%s" % (method.encode("ascii"), begin, lines.encode("latin-1"))
    except UnicodeEncodeError as error:
        raise UsageError(f"a header holds {error.object[error.start : error.end]!r}, which a header cannot hold") from None
    if body or method in METHODS_WITH_BODY:
        return b"%scontent-length: %d\r\n\r\n" % (head, len(body))
    return head + b"\r\n"


__all__ = ["Headers", "Pool", "Response"]
