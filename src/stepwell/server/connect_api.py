"""What workers ask for over HTTP: where to connect, and a way for replies whose socket is gone. And who is connected (§9.1, §9.6)."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.drivers.connect.connection import State
from stepwell.drivers.connect.driver import Peer
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.connect import PATH, FlushResponse, SDKResponse, StartRequest, StartResponse
from stepwell.protocol.durations import format_date
from stepwell.protocol.ids import app_uuid
from stepwell.runtime.node import Node
from stepwell.server.connect_gateway import ConnectGateway
from stepwell.server.http import Guard, json_response
from stepwell.server.shapes import ENVIRONMENT_ID

CONNECTED, READY, DRAINING, DISCONNECTED = 0, 1, 2, 4
"""How a connection's status is told."""
_STATUS = {State.READY: READY, State.DRAINING: DRAINING, State.CLOSED: DISCONNECTED}


class ConnectApi:
    """The routes over a gateway. There is one environment: whatever name or id a request gives for it is taken."""

    def __init__(self, node: Node, gateway: ConnectGateway) -> None:
        self._node, self._gateway = node, gateway

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key."""
        return [
            Route(f"{PATH}/start", guard(self.start), methods=["POST"]),
            Route(f"{PATH}/flush", guard(self.flush), methods=["POST"]),
            Route(f"{PATH}/envs/{{env}}/conns", guard(self.conns)),
            Route(f"{PATH}/envs/{{env}}/groups/{{hash}}", guard(self.group)),
        ]

    async def start(self, request: Request) -> Response:
        """Where a worker connects to, with the token that it shows there. 429: too many are here; 503: the gateway is closing."""
        StartRequest.decode(await request.body())
        refusal = self._gateway.refusal()
        if refusal is not None:
            raise ProtocolError(refusal, 503 if self._gateway.closing else 429)
        connection_id = self._node.new_id()
        response = StartResponse(
            connection_id=connection_id,
            gateway_endpoint=self._gateway.url or endpoint(request, self._gateway.port),
            gateway_group=self._gateway.id,
            session_token=self._gateway.tokens.issue(connection_id, int(time.time())),
            sync_token=(request.headers.get("authorization") or "").partition(" ")[2].strip(),
        )
        return Response(response.encode(), media_type="application/octet-stream")

    async def flush(self, request: Request) -> Response:
        """A reply that could not be acknowledged over the socket; one that comes late, or again, is taken and changes nothing."""
        reply = SDKResponse.decode(await request.body())
        if not reply.request_id:
            raise ProtocolError("request_id is empty: it says which call the reply is of")
        if not await self._gateway.driver.flush(reply):
            raise ProtocolError(f"the reply to request {reply.request_id} could not be recorded: send it again", 503)
        return Response(FlushResponse(request_id=reply.request_id).encode(), media_type="application/octet-stream")

    async def conns(self, request: Request) -> Response:
        """The connections that are open, oldest first; of one app where `app_id` names it, by its id or its name."""
        app_id = request.query_params.get("app_id")
        peers = self._open()
        if app_id:
            peers = [peer for peer in peers if any(app_id in (name, app_uuid(name)) for name in peer.groups)]
        return json_response({"data": [self._shown(peer) for peer in peers]})

    def connections(self) -> list[dict[str, Any]]:
        """The connections that are open, oldest first."""
        return [self._shown(peer) for peer in self._open()]

    def _open(self) -> list[Peer]:
        return [peer for peer in self._gateway.driver.peers() if peer.machine.is_open]

    async def group(self, request: Request) -> Response:
        """The workers of one version of an app."""
        group = self._gateway.groups.get(request.path_params["hash"])
        if group is None:
            raise NotFound(f"there is no worker group {request.path_params['hash']}")
        peers = [peer for peer in self._open() if peer.id in group.members]
        told: dict[str, Any] = {
            "env_id": ENVIRONMENT_ID,
            "app_id": app_uuid(group.app),
            "app_name": group.app,
            "hash": group.hash,
            "conns": [self._shown(peer) for peer in peers],
        }
        if group.sync_id:
            told["sync_id"] = group.sync_id
        if group.registration.app_version:
            told["app_version"] = group.registration.app_version
        return json_response({"data": told})

    def _shown(self, peer: Peer) -> dict[str, Any]:
        worker = peer.machine.worker
        assert worker is not None
        system = worker.system_attributes
        return {
            "id": peer.id,
            "gateway_id": self._gateway.id,
            "instance_id": worker.instance_id,
            "status": _STATUS.get(peer.machine.state, CONNECTED),
            "last_heartbeat_at": format_date(self._node.clock.now_ms() - self._gateway.driver.silent_ms(peer)),
            "sdk_language": worker.sdk_language,
            "sdk_version": worker.sdk_version,
            "all_worker_groups": dict(peer.groups),
            "synced_worker_groups": {app_uuid(name): group_hash for name, group_hash in peer.groups.items()},
            "attributes": None if system is None else {"cpu_cores": system.cpu_cores, "mem_bytes": system.mem_bytes, "os": system.os},
        }


def endpoint(request: Request, port: int) -> str:
    """The gateway's address under the name by which the worker reached this server, so that it holds in containers too."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or "127.0.0.1"
    secure = (request.headers.get("x-forwarded-proto") or request.url.scheme).split(",")[0].strip() == "https"
    return f"{'wss' if secure else 'ws'}://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
