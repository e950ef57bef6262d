"""Requests to the server's own API from inside: of child processes, which need no key and no connection for it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote

from stepwell.protocol.signatures import bearer_hash
from stepwell.server.auth import Keys
from stepwell.server.http import AsgiApp

HOST = b"localhost"


async def asked(server: AsgiApp, keys: Keys, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """The status and body of the answer to one request, made with the server's own keys."""
    route, _, query = path.partition("?")
    headers = [(b"host", HOST), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if keys.signing_key is not None:
        headers.append((b"authorization", f"Bearer {bearer_hash(keys.signing_key)}".encode()))
    scope: MutableMapping[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(route),
        "raw_path": route.encode("ascii"),
        "root_path": "",
        "query_string": query.encode("ascii"),
        "headers": headers,
        "client": None,
        "server": None,
    }
    status, sent = 500, False
    parts: list[bytes] = []

    async def receive() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await server(scope, receive, send)
    return status, b"".join(parts)
