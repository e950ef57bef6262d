"""An app behind HTTP: an ASGI handler that speaks the protocol's three verbs (inngest-protocol §3, §4).

`GET` introspects, `PUT` registers with the server, `POST` advances a run. In cloud mode (a signing key is set) calls and syncs must be
signed.
"""

from __future__ import annotations

import asyncio
import os
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from stepwell.errors import Error, ProtocolError, UsageError
from stepwell.protocol.calls import decode_call, encode_answer, failed
from stepwell.protocol.codec import canonical, decode
from stepwell.protocol.signatures import hash_key, verify
from stepwell.sdk.client import URL_DEFAULT

if TYPE_CHECKING:
    from stepwell.sdk.app import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SDK_NAME = "stepwell-py:v0.1.0"
BODY_BYTES_MAX = 8 * 1024 * 1024
REGISTER_TIMEOUT_S = 10.0


def serve(app: App, *, signing_key: str | None = None, url: str | None = None) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The app as an ASGI application: mount it, and sync its URL.

    `signing_key`: by default the app's, or `STEPWELL_SIGNING_KEY`; without one the app is in dev mode and accepts unsigned calls.
    `url`: the address the app tells the server, where it differs from the one it is called by.
    """
    key = signing_key or app.signing_key or os.environ.get("STEPWELL_SIGNING_KEY") or None

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise UsageError(f"serve(app) takes HTTP only, not {scope['type']}")
        try:
            body = await _body(receive)
            status, headers, answer = await _Serve(app, key, url).handle(scope, body)
        except ProtocolError as error:
            status, headers, answer = error.status, {}, canonical({"message": str(error), "status": error.status})
        told = {"content-type": "application/json", "x-inngest-sdk": SDK_NAME, "x-inngest-framework": "asgi", **headers}
        await send({"type": "http.response.start", "status": status, "headers": [(k.encode(), v.encode()) for k, v in told.items()]})
        await send({"type": "http.response.body", "body": answer})

    return handler


class _Serve:
    def __init__(self, app: App, key: str | None, url: str | None) -> None:
        self._app, self._key, self._url = app, key, url

    async def handle(self, scope: Scope, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        signed = self._key is None or verify(body, headers.get("x-inngest-signature"), self._key, int(time.time()))
        match scope["method"]:
            case "GET":
                return 200, {}, self._introspect(signed)
            case "PUT" if signed:
                return await self._register(scope, headers)
            case "POST" if signed:
                return await self._call(scope, body)
            case "PUT" | "POST":
                raise ProtocolError("Unauthorized", 401)
            case method:
                raise ProtocolError(f"{method} is none of GET, PUT and POST", 405)

    def _introspect(self, signed: bool) -> bytes:
        told: dict[str, Any] = {
            "function_count": len(self._app.functions),
            "has_event_key": bool(os.environ.get("STEPWELL_EVENT_KEY")),
            "has_signing_key": self._key is not None,
            "mode": "cloud" if self._key else "dev",
            "schema_version": "2024-05-24",
            "authentication_succeeded": signed if self._key else None,
        }
        if signed and self._key:
            told |= {"app_id": self._app.name, "sdk_language": "py", "sdk_version": "0.1.0"}
        return canonical(told)

    async def _register(self, scope: Scope, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Tell the server the app's functions, out of band."""
        address = self._url or f"{scope.get('scheme', 'http')}://{headers.get('host', 'localhost')}{scope['path']}"
        api = (os.environ.get("STEPWELL_URL") or URL_DEFAULT).rstrip("/")
        body = self._app.register_body(address, "asgi")
        sent = {"content-type": "application/json"}
        if self._key:
            sent["authorization"] = f"Bearer {hash_key(self._key)}"
        if (kind := headers.get("x-inngest-server-kind")) is not None:
            sent["x-inngest-expected-server-kind"] = kind
        query = parse_qs(scope.get("query_string", b"").decode()).get("deployId")
        target = f"{api}/fn/register" + (f"?deployId={query[0]}" if query else "")
        status, answer = await asyncio.to_thread(_post, target, body, sent)
        told = decode(answer) if answer else {}
        if status != 200:
            raise ProtocolError(f"the server refused the registration: {told.get('error', status)}", status)
        return 200, {}, canonical({"message": "Successfully registered", "modified": bool(told.get("modified"))})

    async def _call(self, scope: Scope, body: bytes) -> tuple[int, dict[str, str], bytes]:
        query = parse_qs(scope.get("query_string", b"").decode())
        function_id = query.get("fnId", [""])[0]
        request = decode_call(body, function_id, query.get("stepId", ["step"])[0])
        try:
            answer = await self._app.executor.call(request)
        except Error as error:
            answer = failed(type(error).__name__, str(error))
        return encode_answer(answer, SDK_NAME)


def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=REGISTER_TIMEOUT_S) as response:
            return int(response.status), bytes(response.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        raise ProtocolError(f"the server {url} could not be reached: {error}", 502) from None


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES_MAX:
            raise ProtocolError(f"the request has more than {BODY_BYTES_MAX} bytes", 413)
        if not message.get("more_body"):
            return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
