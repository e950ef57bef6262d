"""From a host's name to a connected socket: addresses of both families, raced as RFC 8305 says.

`loop.create_connection` can race them too, but not uvloop's. A host whose IPv6 address is a black hole must not cost every call the
whole connect time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

from stepwell.net.http_errors import Unreachable

RACE_DELAY_S = 0.25
"""How long an address is tried alone before the next one joins."""
KEEPALIVE_S = 30
"""Silence after which the kernel asks whether the other side is there; a call may be silent for hours, its machine may not."""
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_PROBES = 3

Address = tuple[int, Any]
"""A family and what `connect` takes."""

Allows = Callable[[str], bool]
"""Says of an address whether it may be connected to."""

NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet: not of this machine, a private network, a link, a cloud's metadata service."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return found.is_global and not found.is_multicast


def is_address(host: str) -> bool:
    """Whether a host is given as an address, and not by a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def not_allowed(host: str, addresses: list[str]) -> str:
    """The sentence that says so."""
    return f"requests may not go to {host!r} ({', '.join(addresses)}): only public addresses are allowed"


async def open_socket(host: str, port: int, *, race_delay_s: float = RACE_DELAY_S, allows: Allows | None = None) -> socket.socket:
    """A connected socket, to whichever address that `allows` takes answers first. Raises `Unreachable` naming host and causes.

    What is judged is what is connected to: a name that resolves otherwise a moment later changes nothing.
    """
    found = await _addresses(host, port)
    addresses = found if allows is None else [address for address in found if allows(address[1][0])]
    if found and not addresses:
        raise Unreachable(not_allowed(host, [address[1][0] for address in found]))
    failures: list[str] = []
    pending: set[asyncio.Task[socket.socket]] = set()
    try:
        for i, address in enumerate(addresses):
            pending.add(asyncio.ensure_future(_connected(*address)))
            is_last = i == len(addresses) - 1
            while pending:
                done, pending = await asyncio.wait(pending, timeout=None if is_last else race_delay_s, return_when=asyncio.FIRST_COMPLETED)
                won = [task.result() for task in done if task.exception() is None]
                for extra in won[1:]:
                    extra.close()
                if won:
                    return won[0]
                failures += [str(task.exception()) for task in done]
                if not is_last:
                    break  # refused, or slow: the next address joins
    finally:
        for task in pending:
            if not task.cancel() and task.exception() is None:
                task.result().close()
    raise Unreachable("; ".join(dict.fromkeys(failures)))


async def _addresses(host: str, port: int) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"the host {host!r} has no address: {getattr(error, 'strerror', None) or error}") from error
    return by_turns([(family, address) for family, _, _, _, address in found])


def by_turns(addresses: list[Address]) -> list[Address]:
    """The families by turns, each in the resolver's order, the one that it prefers first."""
    by_family: dict[int, list[Address]] = {}
    for address in addresses:
        by_family.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*by_family.values())) if address is not None]


async def _connected(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_alive(made)
        await asyncio.get_running_loop().sock_connect(made, address)
    except OSError as error:
        made.close()
        cause = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"{address[0]} port {address[1]}: {cause}") from None
    except BaseException:
        made.close()
        raise
    return made


def _keep_alive(made: socket.socket) -> None:
    """Ask the kernel to notice a machine that is gone. Platforms differ in what they let one set."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", KEEPALIVE_S), ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S), ("TCP_KEEPCNT", KEEPALIVE_PROBES)):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                made.setsockopt(socket.IPPROTO_TCP, option, value)
