"""An app behind HTTP: answers the protocol's three verbs (inngest-protocol §3, §4). It knows neither ASGI nor WSGI.

`GET` introspects, `PUT` registers the app with the server, `POST` advances a run. In cloud mode all three must be signed. Dev mode is
what `STEPWELL_DEV` says; where it says nothing, an app without a signing key whose server is on this machine.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from stepwell.errors import CallError, ProtocolError
from stepwell.protocol.answers import HANDLED_HEADER, SDK_HEADER, SDK_NAME, encode_answer, failed
from stepwell.protocol.calls import CallRequest, decode_call
from stepwell.protocol.codec import canonical, decode
from stepwell.protocol.failures import error_json
from stepwell.protocol.registration import encode_registration
from stepwell.protocol.signatures import bearer_hash, sign, verify
from stepwell.sdk import VERSION, http
from stepwell.sdk.checkpoints import Checkpoints
from stepwell.sdk.client import event_key, server_url
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.keys import signing_keys
from stepwell.sdk.state import with_state

if TYPE_CHECKING:
    from stepwell.sdk.app import App

SDK = f"{SDK_NAME}:v{VERSION}"
BODY_BYTES_MAX = 16 * 1024 * 1024
SCHEMA_VERSION = "2024-05-24"
MAX_RUNTIME = "10s"
"""How long a request goes on with further steps: less than what proxies and platforms usually allow."""


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """A request, however it came. `url` is the address that it came to, without the query; names of headers are in lower case."""

    method: str
    url: str
    query: str
    headers: dict[str, str]
    body: bytes


class Reply(msgspec.Struct, frozen=True):
    """The answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Handler:
    """Answers the requests of one app. `url`: the address that the server is told, where it is not the one that requests come to."""

    def __init__(self, app: App, framework: str, *, url: str | None, max_runtime: Duration) -> None:
        self._app, self._framework = app, framework
        self._url = url or os.environ.get("STEPWELL_SERVE_URL") or None
        self._keys = signing_keys(app)
        self._dev = is_dev(app, self._keys.key)
        self._checkpoints = Checkpoints(duration_ms(max_runtime, "serve: max_runtime") / 1000)

    async def answer(self, request: Incoming) -> Reply:
        """Status, headers and body of the answer to a request."""
        key = self._keys.key
        try:
            key = self._key_of(request)
            reply = await self._answer(request)
        except ProtocolError as error:
            reply = self.refusal(error)
        except CallError as error:
            reply = Reply(502, {}, error_json(error.code, str(error)))
        headers = {"content-type": "application/json", SDK_HEADER: SDK, HANDLED_HEADER: "true", "x-inngest-framework": self._framework}
        headers |= reply.headers
        if not self._dev and key:
            headers["x-inngest-signature"] = sign(reply.body, key, int(time.time()))
        return Reply(reply.status, headers, reply.body)

    @staticmethod
    def refusal(error: ProtocolError) -> Reply:
        """The answer to a request that is not what it should be."""
        return Reply(error.status, {}, error_json(error.code or type(error).__name__, str(error)))

    def _key_of(self, request: Incoming) -> str | None:
        """The key that a request is signed with: so is its answer, since the server knows that one. Raises for others."""
        if self._dev:
            return None
        if not self._keys.key:
            raise ProtocolError("this app has no signing key: set STEPWELL_SIGNING_KEY, or STEPWELL_DEV=1 for development", 500)
        signature, now_s = request.headers.get("x-inngest-signature"), int(time.time())
        for key in (self._keys.key, self._keys.fallback):
            if key is not None and verify(request.body, signature, key, now_s):
                return key
        raise ProtocolError("Unauthorized", 401)

    async def _answer(self, request: Incoming) -> Reply:
        query = parse_qs(request.query, keep_blank_values=True)
        match request.method:
            case "GET" | "HEAD":
                self._check_kind(request, 403)
                return Reply(200, {}, canonical(self._inspection()))
            case "PUT":
                self._check_kind(request, 400)
                return await self._sync(request, query)
            case "POST" if query.get("probe") == ["trust"]:
                return Reply(200, {}, b"")
            case "POST":
                return await self._call(request, query)
            case method:
                raise ProtocolError(f"{method} is none of GET, PUT and POST", 405)

    def _check_kind(self, request: Incoming, status: int) -> None:
        kind, mode = request.headers.get("x-inngest-server-kind"), "dev" if self._dev else "cloud"
        if kind not in (None, "", mode):
            fix = "set STEPWELL_DEV=1" if kind == "dev" else "set a signing key and STEPWELL_DEV=0"
            raise ProtocolError(f"the server is in {kind} mode, this app in {mode} mode: {fix}", status)

    # GET.

    def _inspection(self) -> dict[str, Any]:
        app, keys = self._app, self._keys
        key = app.event_key or event_key()
        told = {
            "api_origin": server_url(app),
            "app_id": app.name,
            "authentication_succeeded": None if self._dev else True,
            "capabilities": {"in_band_sync": "v1", "trust_probe": "v1"},
            "env": None,
            "event_api_origin": server_url(app),
            "event_key_hash": hashlib.sha256(key.encode()).hexdigest(),
            "framework": self._framework,
            "function_count": len(app.functions),
            "has_event_key": key != "NO_EVENT_KEY_SET",
            "has_signing_key": keys.key is not None,
            "has_signing_key_fallback": keys.fallback is not None,
            "mode": "dev" if self._dev else "cloud",
            "schema_version": SCHEMA_VERSION,
            "sdk_language": "py",
            "sdk_version": VERSION,
            "serve_origin": None,
            "serve_path": None,
            "signing_key_fallback_hash": None if keys.fallback is None else bearer_hash(keys.fallback),
            "signing_key_hash": None if keys.key is None else bearer_hash(keys.key),
        }
        if self._url:
            parts = urlsplit(self._url)
            told |= {"serve_origin": f"{parts.scheme}://{parts.netloc}", "serve_path": parts.path}
        return told

    # PUT.

    async def _sync(self, request: Incoming, query: dict[str, list[str]]) -> Reply:
        """Register the app: by a request to the server, or in this answer where the server asks for that and has signed (§3.2)."""
        told = self._app.registration(self._url or request.url, self._framework)
        if request.headers.get("x-inngest-sync-kind") == "in_band" and not self._dev:
            answer = decode(encode_registration(told))
            answer |= {"app_id": told.app_name, "env": None, "inspection": self._inspection(), "platform": None}
            answer |= {"sdk_author": "stepwell", "sdk_language": "py", "sdk_version": VERSION}
            return Reply(200, {"x-inngest-sync-kind": "in_band"}, canonical(answer))
        sent = {"content-type": "application/json", SDK_HEADER: SDK, "x-inngest-sync-kind": "out_of_band"}
        if kind := request.headers.get("x-inngest-server-kind"):
            sent["x-inngest-expected-server-kind"] = kind
        target = f"{server_url(self._app)}/fn/register"
        if "deployId" in query:
            target += "?" + urlencode({"deployId": query["deployId"][0]})
        response = await http.authorized("POST", target, self._keys, headers=sent, body=encode_registration(told))
        try:
            answer = decode(response.body)
        except ProtocolError:
            answer = None
        if response.status != 200 or not isinstance(answer, dict):
            reason = answer.get("error") if isinstance(answer, dict) else None
            raise ProtocolError(f"the server {target} refused the app: {reason or f'HTTP {response.status}'}", max(response.status, 400))
        message = {"message": "Successfully registered", "modified": answer.get("modified") is True}
        return Reply(200, {"x-inngest-sync-kind": "out_of_band"}, canonical({**answer, **message}))

    # POST.

    async def _call(self, incoming: Incoming, query: dict[str, list[str]]) -> Reply:
        request = decode_call(incoming.body, query.get("fnId", [""])[0], query.get("stepId", ["step"])[0])
        if request.use_api:
            request = await self._whole(request)
        checkpoint = self._checkpoints.of(request, server_url(self._app), self._keys)
        # Coroutines are not kept between requests: the next one may come to another process.
        answer = await self._app.executor.call(request, checkpoint, parks=False)
        try:
            return Reply(*encode_answer(answer, SDK))
        except ProtocolError as error:
            return Reply(*encode_answer(failed(type(error).__name__, str(error)), SDK))

    async def _whole(self, request: CallRequest) -> CallRequest:
        """The request with what was too large to be sent along (§4.10)."""
        refused: ProtocolError | None = None
        for authorization in self._keys.authorizations:
            try:
                return await with_state(request, server_url(self._app), authorization)
            except ProtocolError as error:
                refused = refused or error
        assert refused is not None
        raise refused


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


def address(scheme: str, host: str, root: str, path: str, headers: dict[str, str]) -> str:
    """The address that a request came to, seen through mounts and proxies. A slash at the end stays: without it a mount redirects."""
    if not path.startswith(root):
        path = root + path
    scheme = (headers.get("x-forwarded-proto") or scheme).split(",")[0].strip()
    return f"{scheme}://{headers.get('host', host)}{path}"
