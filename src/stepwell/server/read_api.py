"""What else SDKs' tools read and set: jobs of a run, an app's functions, figures, and limits for tests of a dev server (§7.1, §7.2)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.model import Item, Timer, TimerKind
from stepwell.engine.registry import Function
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import decode
from stepwell.protocol.ids import is_ulid
from stepwell.runtime.node import Node
from stepwell.server.figures import figures
from stepwell.server.http import Guard, enveloped, json_response
from stepwell.server.shapes import time_text

JOBS_MAX = 10
ENVIRONMENTS = re.compile("[A-Za-z0-9_-]{1,64}")


class ReadApi:
    """The routes over a node. `kind` is `dev` or `cloud`: only a dev server lets limits be set."""

    def __init__(self, node: Node, kind: str) -> None:
        self._node, self._kind = node, kind

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key."""
        routes: list[BaseRoute] = [
            Route("/v1/runs/{run_id}/jobs", guard(self.jobs)),
            Route("/v1/apps/{app_name}/functions", guard(self.functions)),
            Route("/v1/prom/{env}", guard(self.figures)),
            Route("/v0/telemetry", self.telemetry, methods=["POST"]),
        ]
        if self._kind == "dev":
            routes += [
                Route("/fn/step-limit", guard(self.step_limit), methods=["POST", "DELETE"]),
                Route("/fn/state-size-limit", guard(self.state_limit), methods=["POST", "DELETE"]),
            ]
        return routes

    async def jobs(self, request: Request) -> Response:
        """What a run has outstanding: ready and leased calls, backoffs, sleeps and waits, the earliest first."""
        run_id: str = request.path_params["run_id"]
        if not is_ulid(run_id):
            raise ProtocolError(f"{run_id!r} is no run id", 400)
        reader = self._node.reader
        if await reader.run(run_id) is None:
            raise NotFound(f"there is no run {run_id}")
        jobs = [job_of_item(item) for item in await reader.items_of(run_id)]
        jobs += [job_of_timer(timer) for timer in await reader.timers_of(run_id) if timer.kind is not TimerKind.LIMIT]
        jobs.sort(key=lambda job: (job["at"], job["JobID"]))
        return enveloped(jobs[:JOBS_MAX], self._node.clock.now_ms())

    async def functions(self, request: Request) -> Response:
        """An app's functions: an array without an envelope."""
        app_name: str = request.path_params["app_name"]
        if app_name not in self._node.registry.apps:
            raise NotFound(f"there is no app {app_name!r}")
        return json_response([function_shape(f) for f in self._node.registry.of_app(app_name) if not f.row.archived])

    async def figures(self, request: Request) -> Response:
        """What a scraper of Prometheus reads."""
        if not ENVIRONMENTS.fullmatch(request.path_params["env"]):
            raise ProtocolError(f"{request.path_params['env']!r} is no environment", 400)
        return PlainTextResponse(await figures(self._node), media_type="text/plain; version=0.0.4")

    async def telemetry(self, request: Request) -> Response:
        """Pages tell how they are used: it is not kept."""
        return json_response({"status": 200})

    async def step_limit(self, request: Request) -> Response:
        """Set how many steps a run of one function may have, until the server stops; or take that back."""
        function, limit = await self._limit(request)
        await self._node.limit(function.id, steps_max=limit)
        return json_response({"function_id": function.id, "limit": limit})

    async def state_limit(self, request: Request) -> Response:
        """Set how many bytes of state a run of one function may have, until the server stops; or take that back."""
        function, limit = await self._limit(request)
        await self._node.limit(function.id, state_bytes_max=limit)
        return json_response({"function_id": function.id, "limit": limit})

    async def _limit(self, request: Request) -> tuple[Function, int | None]:
        form = {name: values[-1] for name, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()}
        form |= dict(request.query_params)
        function = self._node.registry.named(form.get("functionId", ""))
        if function is None:
            raise NotFound(f"there is no function {form.get('functionId', '')!r}")
        if request.method == "DELETE":
            return function, None
        limit = form.get("limit", "")
        if not limit.isdigit() or int(limit) < 1:
            raise ProtocolError(f"limit is {limit!r}; it must be a whole number of at least 1")
        return function, int(limit)


def job_of_item(item: Item) -> dict[str, Any]:
    """A call that is ready or out."""
    kind = "start" if item.starts else "step" if item.step_id != "step" else "discovery"
    return job(item.id, item.leased_ms or item.order_ms, kind, item.attempt)


def job_of_timer(timer: Timer) -> dict[str, Any]:
    """Something that is due: a sleep's end, a wait's, the next attempt."""
    kind = {TimerKind.SLEEP: "sleep", TimerKind.TIMEOUT: "wait"}.get(timer.kind, "retry")
    return job(timer.id, timer.due_ms, kind, 0 if timer.item is None else timer.item.attempt)


def job(id: str, at_ms: int, kind: str, attempt: int) -> dict[str, Any]:
    """A job as the API gives it (§7.1). Places in a queue are not counted: the cost would grow with the queue."""
    return {"JobID": id, "at": time_text(at_ms), "position": 0, "kind": kind, "attempt": attempt}


def function_shape(function: Function) -> dict[str, Any]:
    """A function of `/v1/apps/{app}/functions`."""
    return {
        "id": function.row.uuid,
        "slug": function.id,
        "name": function.row.name,
        "version": function.row.version,
        "isPaused": function.row.paused,
        "triggers": [
            {"cron": trigger.cron}
            if trigger.cron is not None
            else {"event": trigger.event_name, **({} if trigger.expression is None else {"expression": trigger.expression})}
            for trigger in function.config.triggers
        ],
        "config": decode(function.row.config),
    }
