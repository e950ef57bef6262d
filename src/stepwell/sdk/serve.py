"""An app behind HTTP: an ASGI handler that speaks the protocol's three verbs (inngest-protocol §3, §4).

`GET` introspects, `PUT` registers the app with the server, `POST` advances a run. In cloud mode all three must be signed. Dev mode is
what `STEPWELL_DEV` says; where it says nothing, an app without a signing key whose server is on this machine.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from stepwell.errors import CallError, ProtocolError, UsageError
from stepwell.protocol.answers import HANDLED_HEADER, SDK_HEADER, SDK_NAME, encode_answer, failed
from stepwell.protocol.calls import decode_call
from stepwell.protocol.codec import canonical, decode
from stepwell.protocol.failures import error_json
from stepwell.protocol.registration import encode_registration
from stepwell.protocol.signatures import bearer_hash, sign, verify
from stepwell.sdk import VERSION, http
from stepwell.sdk.client import event_key, server_url
from stepwell.sdk.state import with_state

if TYPE_CHECKING:
    from stepwell.sdk.app import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Reply = tuple[int, dict[str, str], bytes]

SDK = f"{SDK_NAME}:v{VERSION}"
FRAMEWORK = "asgi"
BODY_BYTES_MAX = 16 * 1024 * 1024
SCHEMA_VERSION = "2024-05-24"


def serve(app: App, *, url: str | None = None) -> AsgiApp:
    """The app as an ASGI application: `web.mount("/api/stepwell", stepwell.serve(app))`, then sync its URL.

    `url`: the address that the server is told, where it differs from the one that requests arrive at (behind a proxy, say);
    by default `STEPWELL_SERVE_URL`.
    """
    handler = _Handler(app, url or os.environ.get("STEPWELL_SERVE_URL") or None)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            status, headers, body = await handler.handle(scope, receive)
            told = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
            told.append((b"content-length", b"%d" % len(body)))
            await send({"type": "http.response.start", "status": status, "headers": told})
            await send({"type": "http.response.body", "body": body})
        else:
            raise UsageError(f"serve(app) answers HTTP only, not {scope['type']}")

    return asgi


def is_dev(app: App, key: str | None) -> bool:
    """Whether calls need no signature."""
    told = os.environ.get("STEPWELL_DEV") or os.environ.get("INNGEST_DEV")
    if told:
        return told.strip().lower() not in ("0", "false", "no", "off")
    return key is None and _is_loopback(server_url(app))


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _Handler:
    """Answers the requests of one app."""

    def __init__(self, app: App, url: str | None) -> None:
        self._app, self._url = app, url
        env = os.environ.get
        self._key = app.signing_key or env("STEPWELL_SIGNING_KEY") or env("INNGEST_SIGNING_KEY") or None
        self._fallback = env("STEPWELL_SIGNING_KEY_FALLBACK") or env("INNGEST_SIGNING_KEY_FALLBACK") or None
        self._dev = is_dev(app, self._key)

    async def handle(self, scope: Scope, receive: Receive) -> Reply:
        """Status, headers and body of the answer to a request."""
        told = {"content-type": "application/json", SDK_HEADER: SDK, HANDLED_HEADER: "true", "x-inngest-framework": FRAMEWORK}
        try:
            body = await _body(receive)
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            self._check_signature(body, headers)
            status, more, answer = await self._answer(scope, headers, body)
        except ProtocolError as error:
            status, more, answer = error.status, {}, error_json(error.code or type(error).__name__, str(error))
        except CallError as error:
            status, more, answer = 502, {}, error_json(error.code, str(error))
        told |= more
        if not self._dev and self._key:
            told["x-inngest-signature"] = sign(answer, self._key, int(time.time()))
        return status, told, answer

    def _check_signature(self, body: bytes, headers: dict[str, str]) -> None:
        if self._dev:
            return
        if not self._key:
            raise ProtocolError("this app has no signing key: set STEPWELL_SIGNING_KEY, or STEPWELL_DEV=1 for development", 500)
        if not verify(body, headers.get("x-inngest-signature"), self._key, int(time.time()), fallback=self._fallback):
            raise ProtocolError("Unauthorized", 401)

    async def _answer(self, scope: Scope, headers: dict[str, str], body: bytes) -> Reply:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        match scope["method"]:
            case "GET" | "HEAD":
                self._check_kind(headers, 403)
                return 200, {}, canonical(self._inspection())
            case "PUT":
                self._check_kind(headers, 400)
                return await self._sync(scope, headers, query)
            case "POST" if query.get("probe") == ["trust"]:
                return 200, {}, b""
            case "POST":
                return await self._call(query, body)
            case method:
                raise ProtocolError(f"{method} is none of GET, PUT and POST", 405)

    def _check_kind(self, headers: dict[str, str], status: int) -> None:
        kind, mode = headers.get("x-inngest-server-kind"), "dev" if self._dev else "cloud"
        if kind not in (None, "", mode):
            fix = "set STEPWELL_DEV=1" if kind == "dev" else "set a signing key and STEPWELL_DEV=0"
            raise ProtocolError(f"the server is in {kind} mode, this app in {mode} mode: {fix}", status)

    # GET.

    def _inspection(self) -> dict[str, Any]:
        app = self._app
        key = app.event_key or event_key()
        return {
            "api_origin": server_url(app),
            "app_id": app.name,
            "authentication_succeeded": None if self._dev else True,
            "event_api_origin": server_url(app),
            "event_key_hash": hashlib.sha256(key.encode()).hexdigest(),
            "framework": FRAMEWORK,
            "function_count": len(app.functions),
            "has_event_key": key != "NO_EVENT_KEY_SET",
            "has_signing_key": self._key is not None,
            "has_signing_key_fallback": self._fallback is not None,
            "mode": "dev" if self._dev else "cloud",
            "schema_version": SCHEMA_VERSION,
            "sdk_language": "py",
            "sdk_version": VERSION,
        }

    # PUT.

    async def _sync(self, scope: Scope, headers: dict[str, str], query: dict[str, list[str]]) -> Reply:
        """Register the app: by a request to the server, or in this answer where the server asks for that and has signed."""
        told = self._app.registration(self._url or _address(scope, headers), FRAMEWORK)
        if headers.get("x-inngest-sync-kind") == "in_band" and not self._dev:
            answer = decode(encode_registration(told))
            answer |= {"app_id": told.app_name, "inspection": self._inspection(), "sdk_author": "stepwell"}
            answer |= {"sdk_language": "py", "sdk_version": VERSION}
            return 200, {"x-inngest-sync-kind": "in_band"}, canonical(answer)
        sent = {"content-type": "application/json", SDK_HEADER: SDK, "x-inngest-sync-kind": "out_of_band", **self._authorization()}
        if kind := headers.get("x-inngest-server-kind"):
            sent["x-inngest-expected-server-kind"] = kind
        target = f"{server_url(self._app)}/fn/register"
        if "deployId" in query:
            target += "?" + urlencode({"deployId": query["deployId"][0]})
        response = await http.request("POST", target, headers=sent, body=encode_registration(told))
        try:
            answer = decode(response.body)
        except ProtocolError:
            answer = None
        if response.status != 200 or not isinstance(answer, dict):
            reason = answer.get("error") if isinstance(answer, dict) else None
            raise ProtocolError(f"the server {target} refused the app: {reason or f'HTTP {response.status}'}", max(response.status, 400))
        message = {"message": "Successfully registered", "modified": answer.get("modified") is True}
        return 200, {"x-inngest-sync-kind": "out_of_band"}, canonical({**answer, **message})

    def _authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {bearer_hash(self._key)}"} if self._key else {}

    # POST.

    async def _call(self, query: dict[str, list[str]], body: bytes) -> Reply:
        request = decode_call(body, query.get("fnId", [""])[0], query.get("stepId", ["step"])[0])
        if request.use_api:
            request = await with_state(request, server_url(self._app), self._authorization())
        answer = await self._app.executor.call(request)
        try:
            return encode_answer(answer, SDK)
        except ProtocolError as error:
            return encode_answer(failed(type(error).__name__, str(error)), SDK)


def _address(scope: Scope, headers: dict[str, str]) -> str:
    """The address that the request came to."""
    root, path = scope.get("root_path", ""), scope["path"]
    if not path.startswith(root):
        path = root + path
    scheme = (headers.get("x-forwarded-proto") or str(scope.get("scheme", "http"))).split(",")[0].strip()
    return f"{scheme}://{headers.get('host', 'localhost')}{path}".rstrip("/")


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProtocolError("the connection was closed before the request was whole", 400)
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
