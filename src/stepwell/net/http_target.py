"""An address taken apart once: where to connect, and the beginning of each request to it."""

from __future__ import annotations

import base64
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from stepwell.errors import UsageError
from stepwell.net.content_encoding import ACCEPTED
from stepwell.net.proxies import Proxies, Proxy

USER_AGENT = "stepwell"
USER_AGENT_LINE = f"user-agent: {USER_AGENT}\r\n".encode()
PORTS = {"http": 80, "https": 443}
SAFE = "%/:?#[]@!$&'()*+,;=~"
"""What stays as it is in a path and a query; the rest is put into its percent form."""


class Origin(msgspec.Struct, frozen=True):
    """Where connections go. `host` is in ASCII."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None


class Target(msgspec.Struct, frozen=True):
    """What a URL asks for. `head` follows the method; `shown` is the URL without its login."""

    origin: Origin
    head: bytes
    shown: str


def parse_target(url: str, proxies: Proxies) -> Target:
    """Take a URL apart. Raises `UsageError` for what is no address of HTTP."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
        if host is not None and not host.isascii():
            host = host.encode("idna").decode()
    except ValueError as error:  # a bad port, bracket or name
        raise UsageError(f"{url!r} is no address: {error}") from None
    if parts.scheme not in PORTS or not host or not host.isprintable() or " " in host:
        raise UsageError(f"{url!r} is no address of HTTP: it must be like http://host/path")
    number = port or PORTS[parts.scheme]
    proxy = proxies.of(parts.scheme, host, number)
    named = f"[{host}]" if ":" in host else host
    shown_port = "" if port is None or port == PORTS[parts.scheme] else f":{port}"
    path = quote(parts.path or "/", safe=SAFE) + (f"?{quote(parts.query, safe=SAFE)}" if parts.query else "")
    lines = [f"host: {named}{shown_port}", f"user-agent: {USER_AGENT}", f"accept-encoding: {ACCEPTED}"]
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append(f"authorization: Basic {base64.b64encode(login).decode()}")
    if proxy is not None and parts.scheme == "http":
        # A plain request is handed to the proxy whole; an encrypted one goes through a tunnel that the connection opens.
        path = f"http://{named}{shown_port}{path}"
        if proxy.authorization:
            lines.append(f"proxy-authorization: {proxy.authorization}")
    head = f" {path} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines)
    return Target(Origin(parts.scheme, host, number, proxy), head.encode("ascii"), _without_login(parts))


def _without_login(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
