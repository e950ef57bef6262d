"""The server as one ASGI application: hot routes bare, the rest by Starlette, with the checks that every request passes."""

from __future__ import annotations

from importlib import resources
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from stepwell.protocol.codec import canonical
from stepwell.protocol.events import EVENT_BYTES_MAX
from stepwell.runtime.node import Node
from stepwell.server.actors_api import ActorsApi
from stepwell.server.admin_api import AdminApi
from stepwell.server.apps_api import AppsApi
from stepwell.server.auth import Keys
from stepwell.server.checkpoint_api import CheckpointApi
from stepwell.server.connect_api import ConnectApi
from stepwell.server.connect_gateway import ConnectGateway
from stepwell.server.discovery import Discovery
from stepwell.server.edits import SyncUrl
from stepwell.server.function_api import FunctionApi
from stepwell.server.graphql.api import GraphQlApi
from stepwell.server.graphql.context import Connections
from stepwell.server.http import ERRORS, Receive, Scope, Send, answer, bounded, json_response, on_error
from stepwell.server.ingest import Ingest
from stepwell.server.kv_api import KvApi
from stepwell.server.note_api import NoteApi
from stepwell.server.queue_admin_api import QueueAdminApi
from stepwell.server.queue_api import QueueApi
from stepwell.server.read_api import ReadApi
from stepwell.server.realtime_api import RealtimeApi
from stepwell.server.realtime_tokens import Tokens
from stepwell.server.run_api import RunApi
from stepwell.server.sdk_api import SdkApi
from stepwell.server.sql_api import SqlApi
from stepwell.server.v2_api import V2Api

ANY_ORIGIN = (b"access-control-allow-origin", b"*")
"""What SDKs call is called from browsers too, and from pages of any origin: it asks for a key or a token, never for a cookie."""
PREFLIGHT_S = 24 * 3600
"""How long a browser may remember what it may ask."""

LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1", "[::1]", "0.0.0.0"))


class Server:
    """`kind` is `dev` or `cloud`; `hosts` are the names that the page and `/api` are reached by, beside loopback's.

    `sync_url` syncs an app by its URL; `connect` is the gateway of workers; `connections` tells who is connected in place of it.
    """

    def __init__(
        self,
        node: Node,
        keys: Keys,
        kind: str,
        *,
        sdk_api: SdkApi | None = None,
        hosts: frozenset[str] = frozenset(),
        connect: ConnectGateway | None = None,
        sync_url: SyncUrl | None = None,
        connections: Connections | None = None,
        discovery: Discovery | None = None,
        event_bytes_max: int = EVENT_BYTES_MAX,
    ) -> None:
        self.ingest = Ingest(node, keys, kind, event_bytes_max=event_bytes_max)
        self.sdk_api = sdk_api or SdkApi(node, keys, kind)
        self._kind, self._keys, self._hosts = kind, keys, hosts | LOOPBACK_NAMES
        self.tokens = Tokens(node.clock, keys)
        signed = self.sdk_api.signed
        routes = [*self.sdk_api.routes(), *RunApi(node).routes(signed), *CheckpointApi(node, keys, self.tokens).routes(signed)]
        self._queues = QueueApi(node, keys)
        routes += self._queues.routes(signed)
        routes += KvApi(node).routes(signed)
        routes += RealtimeApi(node, keys, self.tokens).routes(signed)
        routes += SqlApi(node).routes(signed)
        if connect is not None:
            workers = ConnectApi(node, connect)
            routes += workers.routes(signed)
            connections = connections or workers.connections
        routes += [*ReadApi(node, kind).routes(signed), *NoteApi(node).routes(signed), *V2Api(node, keys, sync_url=sync_url).routes(signed)]
        routes += GraphQlApi(node, keys, sync_url=sync_url, connections=connections).routes()
        admin = AdminApi(node, keys, self.ingest)
        routes += [*admin.routes(), *FunctionApi(node).routes(admin.guard), *AppsApi(node, discovery).routes(signed, admin.guard)]
        routes += QueueAdminApi(node).routes(admin.guard)
        routes += ActorsApi(node).routes(signed, admin.guard)
        self._rest = _starlette(routes)

    @property
    def routes(self) -> list[BaseRoute]:
        """All but the bare ones (`POST /e/{key}`; sends to queues come by a route only where their key is wrong)."""
        return list(self._rest.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await self._rest(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith("/e/") and scope["method"] == "POST":
            await self.ingest(scope, receive, send)
            return
        kind = (b"x-inngest-server-kind", self._kind.encode())
        if (queue := self._queues.takes_bare(scope)) is not None:
            await self._queues.send_bare(queue, receive, send, (kind, ANY_ORIGIN))
            return
        if scope["method"] == "OPTIONS" and not is_of_page(path):
            await send({"type": "http.response.start", "status": 204, "headers": [kind, *preflight(scope)]})
            await send({"type": "http.response.body"})
            return
        if (refusal := self._refusal(scope, path)) is not None:
            await answer(send, 403, canonical({"error": refusal, "status": 403}), [kind])
            return
        more = [kind, *(() if is_of_page(path) else (ANY_ORIGIN,))]

        async def with_more(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more]  # type: ignore[misc]
            await send(message)

        await self._rest(scope, bounded(receive), with_more)  # type: ignore[arg-type]

    def _refusal(self, scope: Scope, path: str) -> str | None:
        """Why the page or `/api` does not answer this request: a page elsewhere must not act through somebody's browser."""
        if not is_of_page(path):
            return None
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        name = urlsplit(f"//{host}").hostname or ""
        if self._kind == "dev" and name not in self._hosts:
            return f"the page is not served under the name {name!r}; use localhost, or start the server with --host {name}"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin != "null" and urlsplit(origin).netloc != host:
            return f"requests from pages of {origin} are refused"
        return None


def is_of_page(path: str) -> bool:
    """Whether a path is the page's: its requests come from its own origin alone."""
    return path == "/" or (path.startswith(("/api", "/ui")) and not path.startswith("/api/v2"))


def preflight(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What a browser is told that asks whether a page of another origin may make a request (CORS)."""
    asked = dict(scope["headers"])
    return [
        ANY_ORIGIN,
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
        (b"access-control-allow-headers", asked.get(b"access-control-request-headers", b"*")),
        (b"access-control-max-age", b"%d" % PREFLIGHT_S),
        (b"vary", b"access-control-request-headers"),
    ]


def _starlette(routes: list[BaseRoute]) -> Starlette:
    ui = resources.files("stepwell.server") / "ui"

    async def index(request: Request) -> Response:
        return FileResponse(str(ui / "index.html"), headers={"cache-control": "no-cache"})

    if (ui / "index.html").is_file():
        routes += [Route("/", index), Mount("/ui", StaticFiles(directory=str(ui)))]
    handlers = dict.fromkeys((*ERRORS, Exception), on_error)
    return Starlette(routes=routes, exception_handlers={**handlers, HTTPException: _on_http_error})


async def _on_http_error(request: Request, error: Exception) -> Response:
    """No such route, or no such method of it: told like every other error."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return json_response({"error": message, "data": None, "status": error.status_code}, error.status_code, dict(error.headers or {}))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
