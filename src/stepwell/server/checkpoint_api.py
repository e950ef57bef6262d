"""Checkpoints of SDKs over HTTP: what they tell of is durable when the request is answered (inngest-protocol §5.12).

Async ones are of calls that go on. Sync ones are of runs that an app has begun by itself, a durable endpoint's; who called that
endpoint may fetch its response here when the run has ended.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.calls import CheckpointReply
from stepwell.engine.endpoints import DRIVER
from stepwell.engine.inputs import EndpointFound, StepsCheckpointed, SyncRunBegun, SyncStepsTold
from stepwell.engine.model import Run, RunStatus
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.calls import Checkpoint
from stepwell.protocol.checkpoints import NewRun, parse_async_checkpoint, parse_new_run, parse_sync_steps, response_of, sdk_of
from stepwell.protocol.codec import decode
from stepwell.protocol.frames import PAUSED_STATUS
from stepwell.protocol.functions import config_json
from stepwell.protocol.ids import app_uuid, function_uuid
from stepwell.runtime.node import Node
from stepwell.server.auth import Keys
from stepwell.server.http import Guard, json_response
from stepwell.server.output_tokens import check_output_token, output_token
from stepwell.server.realtime_tokens import Tokens
from stepwell.server.shapes import STATUS_NAMES, value_of

PREFIXES = ("/v1/checkpoint", "/v1/http/runs")
"""The second is of old SDKs, but for a run's output, which new ones ask for there too."""

POLL_S = 5 * 60.0
"""How long who asks for a run's output is kept waiting for its end."""

ANYWHERE = {"access-control-allow-origin": "*", "cache-control": "no-store"}
"""A browser is sent here from another origin."""

NOT_REPLAYED = frozenset(
    ("connection", "content-encoding", "content-length", "date", "keep-alive", "server", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Headers of an endpoint's response that were about its connection, or its bytes as they were sent."""


class CheckpointApi:
    """The routes over a node."""

    def __init__(self, node: Node, keys: Keys, tokens: Tokens, *, poll_s: float = POLL_S) -> None:
        self._node, self._keys, self._tokens, self._poll_s = node, keys, tokens, poll_s

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key. A run's output is fetched with a token of its own."""
        routes: list[BaseRoute] = []
        for prefix in PREFIXES:
            routes += [
                Route(prefix, guard(self.begin), methods=["POST"]),
                Route(f"{prefix}/{{run_id}}/steps", guard(self.report), methods=["POST"]),
                Route(f"{prefix}/{{run_id}}/async", guard(self.save), methods=["POST"]),
                Route(f"{prefix}/{{run_id}}/output", self.output),
            ]
        return routes

    # Calls that go on.

    async def save(self, request: Request) -> Response:
        """Save the steps. 409: another call has superseded this one, which has to stop; 400: its run has ended; 423: its run is paused.

        An SDK that is refused so ends its call with the steps, as it does after any failure that it does not know. They are saved.
        """
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
        if reply.held:
            raise ProtocolError(f"run {run_id} is paused: these steps are saved, and the call is to end with them", PAUSED_STATUS)
        return json_response({"data": {"run_id": run_id}})

    async def _generation(self, run_id: str, item_id: str) -> int:
        """The generation of the call that is out, for SDKs that do not tell theirs."""
        items = [item for item in await self._node.reader.items_of(run_id) if item.id == item_id and item.holder is not None]
        return items[0].fence if items else 0

    # Runs that apps begin.

    async def begin(self, request: Request) -> Response:
        """Take over the record of a run that its app has begun. 409: the run, or one of its idempotency key, exists already."""
        now_ms = self._node.clock.now_ms()
        new = parse_new_run(await request.body(), sdk=request.headers.get("x-inngest-sdk", ""), received_ms=now_ms)
        await self._found(new)
        await self._node.submit(SyncRunBegun(new.run_id, new.function.id, new.event, new.request_version, new.ops))
        told = {"fn_id": function_uuid(new.function.id), "app_id": app_uuid(new.app_name), "run_id": new.run_id}
        told["realtime_token"] = self._tokens.of_stream(new.run_id)
        if new.ops:
            told["token"] = output_token(self._keys, new.run_id, now_ms // 1000)
        return json_response({"data": told})

    async def _found(self, new: NewRun) -> None:
        """Make the endpoint's app and function known, where they are not, or are not as told."""
        known = self._node.registry.functions.get(new.function.id)
        if known is None or known.driver != DRIVER or known.row.archived or known.row.config != config_json(new.function):
            sdk = sdk_of(decode(new.event.data)).removeprefix("inngest-")
            await self._node.submit(EndpointFound(new.app_name, sdk, new.function))

    async def report(self, request: Request) -> Response:
        """Save what the app has done, and do what it asks for: from then on, the run is the engine's."""
        run_id: str = request.path_params["run_id"]
        await self._node.submit(SyncStepsTold(run_id, parse_sync_steps(await request.body())))
        return json_response({"data": {"run_id": run_id}})

    async def output(self, request: Request) -> Response:
        """The response of the run's endpoint, as it would have been given at once; waits for the run's end, so long at most."""
        run_id: str = request.path_params["run_id"]
        check_output_token(self._keys, run_id, request.query_params.get("token"))
        run = await self._node.ended_run(run_id, self._poll_s)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}")
        return await self._replayed(run)

    async def _replayed(self, run: Run) -> Response:
        if run.ended_ms is None:
            return json_response({"status": "running", "run_id": run.id}, headers=ANYWHERE)
        if run.status is not RunStatus.COMPLETED:
            told = {"status": STATUS_NAMES[run.status], "run_id": run.id, "error": value_of(run.output)}
            return json_response(told, 500, ANYWHERE)
        output = run.output or b"null"
        row = await self._node.reader.event(run.event_ids[0])
        response = response_of(output, "" if row is None else sdk_of(decode(row.data)))
        if response is None:
            return json_response({"data": decode(output)}, headers=ANYWHERE)
        headers = {name: value for name, value in response.headers.items() if name not in NOT_REPLAYED}
        return Response(response.body, response.status, {**ANYWHERE, **headers})
