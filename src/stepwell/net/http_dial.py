"""Opens a connection to an origin: directly, through a proxy, encrypted or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar

from stepwell.net.addresses import Allows, is_address, not_allowed, open_socket
from stepwell.net.http_connection import Connection
from stepwell.net.http_errors import Unreachable
from stepwell.net.http_target import Origin
from stepwell.net.proxies import Proxy

PROXY_ANSWER_BYTES_MAX = 64 * 1024

P = TypeVar("P", bound=asyncio.Protocol)
C = TypeVar("C", bound=Connection)


async def dial(origin: Origin, make: Callable[[], C], tls: Callable[[], ssl.SSLContext], allows: Allows | None = None) -> C:
    """A connection to the origin, if `allows` takes its address. Raises `Unreachable`; time limits and cancellation are the caller's.

    Behind a proxy only an address that the URL itself names can be judged: the proxy looks up names.
    """
    context = tls() if origin.scheme == "https" else None
    proxy = origin.proxy
    if proxy is None:
        return await _open(origin.host, origin.port, make, context, allows)
    if allows is not None and is_address(origin.host) and not allows(origin.host):
        raise Unreachable(not_allowed(origin.host, [origin.host]))
    try:
        if context is None:
            return await _open(proxy.host, proxy.port, make, tls() if proxy.tls else None)
        tunnel = await _open(proxy.host, proxy.port, lambda: _Tunnel(origin, proxy), tls() if proxy.tls else None)
        transport = await tunnel.opened()
    except Unreachable as error:
        raise Unreachable(f"through the proxy {proxy.host}:{proxy.port}: {error}") from error.__cause__
    connection = make()
    try:
        encrypted = await asyncio.get_running_loop().start_tls(transport, connection, context, server_hostname=origin.host)
    except OSError as error:
        transport.abort()
        raise _no_tls(origin.host, error) from error
    except BaseException:
        transport.abort()
        raise
    if encrypted is None:
        raise Unreachable("the proxy closed the connection before it was encrypted")
    connection.connection_made(encrypted)
    return connection


async def _open(host: str, port: int, make: Callable[[], P], context: ssl.SSLContext | None, allows: Allows | None = None) -> P:
    connected = await open_socket(host, port, allows=allows)
    try:
        _, protocol = await asyncio.get_running_loop().create_connection(
            make, sock=connected, ssl=context, server_hostname=None if context is None else host
        )
    except OSError as error:
        connected.close()
        raise _no_tls(host, error) from error
    except BaseException:
        connected.close()
        raise
    return protocol


def _no_tls(host: str, error: OSError) -> Unreachable:
    cause = getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error) or type(error).__name__
    return Unreachable(f"no encrypted connection to {host!r}: {cause}")


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a way to the origin."""

    def __init__(self, origin: Origin, proxy: Proxy) -> None:
        name = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
        login = f"proxy-authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        self._request = f"CONNECT {name} HTTP/1.1\r\nhost: {name}\r\n{login}\r\n".encode("latin-1")
        self._answer = bytearray()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    async def opened(self) -> asyncio.Transport:
        """The way, when the proxy has opened it. Raises `Unreachable`."""
        assert self._transport is not None
        try:
            await self._opened
        except BaseException:
            self._transport.abort()
            raise
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = transport  # type: ignore[assignment]
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """The answer's head is all there is to read: behind it the origin is silent until it is spoken to."""
        self._answer += data
        if self._opened.done():
            return  # too early; TLS will miss it, and say so
        head, end, _ = bytes(self._answer).partition(b"\r\n\r\n")
        line = head.split(b"\r\n", 1)[0]
        if not end:
            if len(self._answer) > PROXY_ANSWER_BYTES_MAX:
                self._refuse("its answer has no end")
        elif line.startswith(b"HTTP/1.") and line[8:11] == b" 20":
            self._opened.set_result(None)
        else:
            self._refuse(f"it answered {line[:200].decode('latin-1')!r}")

    def connection_lost(self, error: Exception | None) -> None:
        """No answer will come."""
        if not self._opened.done():
            self._refuse("it closed the connection")

    def _refuse(self, why: str) -> None:
        self._opened.set_exception(Unreachable(why))
        self._opened.exception()  # seen, even where whoever asked has left
