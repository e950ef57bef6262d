"""Addresses of requests: absolute, over HTTP, in the form that browsers give them."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit

_PATH, _QUERY = "!$&'()*+,;=:@/%[]|^~", "!$&()*+,;=:@/?%[]|^~`{}\\"
_PORTS = {"http": 80, "https": 443}


def absolute_url(text: object) -> str:
    """The address. Raises `TypeError` for what is none."""
    written = str(text).strip()
    try:
        parts = urlsplit(written)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise TypeError(f"Invalid URL: {written} ({error})") from None
    if parts.scheme not in _PORTS or not host:
        raise TypeError(f"Invalid URL: {written}: a request goes to an absolute address, like https://example.com/path")
    shown = f"[{host}]" if ":" in host else host.encode("idna").decode() if not host.isascii() else host
    if port is not None and port != _PORTS[parts.scheme]:
        shown += f":{port}"
    if parts.username is not None:
        shown = f"{parts.netloc.rpartition('@')[0]}@{shown}"
    path, query = quote(parts.path or "/", safe=_PATH), quote(parts.query, safe=_QUERY)
    return urlunsplit((parts.scheme, shown, path, query, quote(parts.fragment, safe=_QUERY)))
