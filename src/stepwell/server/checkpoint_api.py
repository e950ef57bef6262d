"""Checkpoints of SDKs over HTTP: steps of a call that goes on are durable when the request is answered (inngest-protocol §5.12)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.calls import CheckpointReply
from stepwell.engine.inputs import StepsCheckpointed
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Checkpoint
from stepwell.protocol.checkpoints import parse_async_checkpoint
from stepwell.runtime.node import Node
from stepwell.server.http import Guard, json_response


class CheckpointApi:
    """The routes over a node; under `/v1/http/runs` too, for old SDKs."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key."""
        return [Route(f"{prefix}/{{run_id}}/async", guard(self.save), methods=["POST"]) for prefix in ("/v1/checkpoint", "/v1/http/runs")]

    async def save(self, request: Request) -> Response:
        """Save the steps. 409: another call has superseded this one, which has to stop; 400: its run has ended."""
        run_id: str = request.path_params["run_id"]
        told = parse_async_checkpoint(await request.body())
        fence = told.generation or await self._generation(run_id, told.item_id)
        reply: CheckpointReply = await self._node.submit(
            StepsCheckpointed(Checkpoint(run_id=run_id, item_id=told.item_id, fence=fence, ops=told.ops))
        )
        if reply.ended:
            raise ProtocolError(f"run {run_id} has ended, or never was: there is nothing to save its steps for", 400)
        if not reply.accepted:
            raise ProtocolError(f"generation {fence} of this call is superseded: run {run_id} has gone on without it", 409)
        return json_response({"data": {"run_id": run_id}})

    async def _generation(self, run_id: str, item_id: str) -> int:
        """The generation of the call that is out, for SDKs that do not tell theirs."""
        items = [item for item in await self._node.reader.items_of(run_id) if item.id == item_id and item.holder is not None]
        return items[0].fence if items else 0
