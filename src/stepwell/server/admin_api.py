"""What people and the page call: `/api`. In cloud mode it asks for the admin token; everywhere it refuses foreign origins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs import RunCancelled, RunRerun
from stepwell.engine.model import Run, RunStatus
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import decode
from stepwell.runtime.bodies import event_bodies
from stepwell.runtime.node import Node
from stepwell.server.auth import COOKIE, Keys
from stepwell.server.edits import asked_step
from stepwell.server.http import Handler, json_response
from stepwell.server.ingest import Ingest
from stepwell.server.run_api import fields_or_none, set_pause
from stepwell.server.sdk_api import whole
from stepwell.server.shapes import page_attempt, page_defer, page_run, page_step, value_of

RUNS_DEFAULT, RUNS_MAX = 50, 200
LIVE_PING_S = 15.0
A_PERSON = "a person, by the page or the command line"


class AdminApi:
    """The routes over a node."""

    def __init__(self, node: Node, keys: Keys, ingest: Ingest) -> None:
        self._node, self._keys, self._ingest = node, keys, ingest

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        admin = self.guard
        return [
            Route("/api/login", self.login, methods=["POST"]),
            Route("/api/runs", admin(self.runs)),
            Route("/api/runs/{run_id}", admin(self.run)),
            Route("/api/runs/{run_id}/cancel", admin(self.cancel), methods=["POST"]),
            Route("/api/runs/{run_id}/pause", admin(self.pause), methods=["POST"]),
            Route("/api/runs/{run_id}/resume", admin(self.resume), methods=["POST"]),
            Route("/api/runs/{run_id}/rerun", admin(self.rerun), methods=["POST"]),
            Route("/api/events", admin(self.send), methods=["POST"]),
            Route("/api/events/{event_id}/runs", admin(self.runs_of_event)),
            Route("/api/set-aside", admin(self.set_aside)),
            Route("/api/live", admin(self.live)),
        ]

    def guard(self, handler: Handler) -> Handler:
        """A route that asks for the admin token first."""

        async def checked(request: Request) -> Response:
            if not self._keys.takes_admin(request.headers.get("authorization"), request.cookies.get(COOKIE)):
                raise ProtocolError("log in with the admin token first", 401)
            return await handler(request)

        return checked

    async def login(self, request: Request) -> Response:
        """Exchange the admin token for a cookie."""
        body = decode(await request.body())
        token = body.get("token") if isinstance(body, dict) else None
        if not isinstance(token, str) or not self._keys.takes_admin(f"Bearer {token}", None):
            raise ProtocolError("that is not the admin token; it stands in the data directory's keys.json", 401)
        response = json_response({"ok": True})
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/", max_age=30 * 24 * 3600)
        return response

    async def runs(self, request: Request) -> Response:
        """Runs, newest first."""
        query = request.query_params
        status = query.get("status") or None
        if status is not None and status not in set(RunStatus):
            raise ProtocolError(f"status {status!r} is none of {', '.join(RunStatus)}")
        page = await self._node.reader.runs(
            limit=whole(query.get("limit"), "limit", RUNS_DEFAULT, RUNS_MAX),
            cursor=query.get("cursor") or None,
            status=None if status is None else RunStatus(status),
            function_id=query.get("function") or None,
        )
        return json_response({"runs": await self._shown(page.runs), "cursor": page.cursor})

    async def _shown(self, runs: tuple[Run, ...]) -> list[dict[str, Any]]:
        rows = await self._node.reader.events_by_id([run.event_ids[0] for run in runs if run.event_ids])
        events = {row.id: row for row in rows}
        rows_of = {function.id: function.row for function in self._node.registry.functions.values()}
        return [page_run(run, rows_of.get(run.function_id), events.get(run.event_ids[0]) if run.event_ids else None) for run in runs]

    async def run(self, request: Request) -> Response:
        """A run with its trace: events, steps, attempts."""
        run_id: str = request.path_params["run_id"]
        reader = self._node.reader
        run = await reader.run(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}")
        steps, attempts, items, rows, bodies = await asyncio.gather(
            reader.steps(run_id),
            reader.attempts(run_id),
            reader.items_of(run_id),
            reader.events_by_id(run.event_ids),
            event_bodies(reader, run),
        )
        (shown,) = await self._shown((run,))
        output = value_of(run.output)
        shown |= {
            "events": [
                {"id": row.id, "key": row.key, "name": row.name, "ts": row.ts, "data": decode(body)["data"]}
                for row, body in zip(rows, bodies, strict=True)
            ],
            "output": output if run.status is RunStatus.COMPLETED else None,
            "error": output if run.status is RunStatus.FAILED else None,
            "version": run.function_version,
            "cancelled_by": run.reason if run.status is RunStatus.CANCELLED else None,
        }
        known = {step.id for step in steps}
        trace = {
            "run": shown,
            "defers": [page_defer(one) for one in await reader.defers_of(run_id)] if run.defers else [],
            "steps": [page_step(step, [one for one in attempts if one.step_id == step.id], list(items)) for step in steps],
            "attempts": [page_attempt(one) for one in attempts if one.step_id not in known],
            "now_ms": self._node.clock.now_ms(),
        }
        return json_response(trace)

    async def cancel(self, request: Request) -> Response:
        """End a run."""
        status = await self._node.submit(RunCancelled(request.path_params["run_id"], A_PERSON))
        return json_response({"status": str(status)})

    async def pause(self, request: Request) -> Response:
        """Call it no more until it is resumed."""
        return json_response(await set_pause(self._node, request.path_params["run_id"], A_PERSON))

    async def resume(self, request: Request) -> Response:
        """Have it go on."""
        return json_response(await set_pause(self._node, request.path_params["run_id"], None))

    async def rerun(self, request: Request) -> Response:
        """Run it again: same events, a new run that names its origin; from a step on, where the body says from which."""
        run_id: str = request.path_params["run_id"]
        begin = await asked_step(self._node.reader, run_id, await fields_or_none(request))
        return json_response({"run_id": await self._node.submit(RunRerun(run_id, self._node.new_id(), begin))})

    async def send(self, request: Request) -> Response:
        """Send events, as `POST /e/{key}` does."""
        ids, error = await self._ingest.take(await request.body(), None)
        if error is not None:
            return json_response({"ids": list(ids), "error": str(error), "status": error.status}, error.status)
        return json_response({"ids": list(ids), "status": 200})

    async def runs_of_event(self, request: Request) -> Response:
        """The runs that an event started."""
        runs = await self._node.reader.runs_of_event(request.path_params["event_id"], RUNS_MAX)
        return json_response({"runs": await self._shown(runs)})

    async def set_aside(self, request: Request) -> Response:
        """Inputs of the engine's own that raised."""
        rows = await self._node.reader.set_aside(100)
        return json_response({"set_aside": [{**msgspec.structs.asdict(row), "input": decode(row.input)} for row in rows]})

    async def live(self, request: Request) -> Response:
        """The ids of runs as they change, as server-sent events."""
        return StreamingResponse(self._changes(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _changes(self) -> AsyncIterator[bytes]:
        changes = self._node.watch()
        waiting: asyncio.Future[str] | None = None
        try:
            yield b": connected\n\n"
            while True:
                waiting = waiting or asyncio.ensure_future(anext(changes))
                done, _ = await asyncio.wait([waiting], timeout=LIVE_PING_S)
                if not done:
                    yield b": still here\n\n"
                    continue
                run_id, waiting = waiting.result(), None
                yield b'data: {"run_id":"%s"}\n\n' % run_id.encode()
        finally:
            if waiting is not None:
                waiting.cancel()
