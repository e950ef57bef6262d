"""Which proxy a request goes through, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from stepwell.errors import UsageError


class Proxy(msgspec.Struct, frozen=True):
    """A proxy. `authorization` is the header's value, `None` without a login."""

    host: str
    port: int
    tls: bool
    authorization: str | None


class Proxies:
    """The proxies of an environment, by scheme. This machine itself is always reached directly.

    `NO_PROXY` lists hosts with comma or space between: a name (with all below it), a name with a leading dot (only what is below
    it), an address, a network (`10.0.0.0/8`), each with a port if it should hold for that only; `*` stands for all.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        known = {name.lower(): value for name, value in environ.items() if name.lower().endswith("_proxy")}
        # Lower case wins, as everywhere. Under CGI a client can set HTTP_PROXY by a header named Proxy.
        known.update({name: value for name, value in environ.items() if name.islower() and name.endswith("_proxy")})
        if "REQUEST_METHOD" in environ and "http_proxy" not in environ:
            known.pop("http_proxy", None)
        self._by_scheme = {scheme: _parse(known[f"{scheme}_proxy"]) for scheme in ("http", "https") if known.get(f"{scheme}_proxy")}
        self._direct = [entry for entry in known.get("no_proxy", "").replace(",", " ").lower().split() if entry]

    def of(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for an origin; `None` where it is reached directly."""
        proxy = self._by_scheme.get(scheme)
        if proxy is None or _is_here(host) or any(_covers(entry, host.lower().rstrip("."), port) for entry in self._direct):
            return None
        return proxy


def _parse(value: str) -> Proxy:
    parts = urlsplit(value if "://" in value else f"http://{value}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise UsageError(f"the proxy {parts.scheme}://{parts.netloc.rpartition('@')[2]} cannot be used: it must be http://host:port")
    login = None
    if parts.username is not None:
        token = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        login = f"Basic {base64.b64encode(token).decode()}"
    return Proxy(parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.scheme == "https", login)


def _is_here(host: str) -> bool:
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdigit() and (name.endswith("]") or ":" not in name):
        if int(digits) != port:
            return False
        entry = name
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
    entry = entry.removeprefix("*")
    return host.endswith(entry) if entry.startswith(".") else host == entry or host.endswith(f".{entry}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
