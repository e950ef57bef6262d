"""What people do with functions: look at their settings and queues, pause, drain and resume them, change their limits."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs import FunctionHeld, FunctionOverridden
from stepwell.engine.registry import Function
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.durations import format_duration, parse_duration_ms
from stepwell.protocol.functions import Override, Throttle
from stepwell.runtime.node import Node
from stepwell.server.figures import DEPTH_MAX
from stepwell.server.http import Guard, json_response
from stepwell.server.run_api import fields

WEIGHT_MAX = 100
LIMIT_MAX = 1_000_000


class FunctionApi:
    """The routes over a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the admin token."""
        return [
            Route("/api/functions", guard(self.functions)),
            Route("/api/functions/{function_id}/pause", guard(self.pause), methods=["POST"]),
            Route("/api/functions/{function_id}/drain", guard(self.drain), methods=["POST"]),
            Route("/api/functions/{function_id}/resume", guard(self.resume), methods=["POST"]),
            Route("/api/functions/{function_id}/limits", guard(self.limit), methods=["POST"]),
            Route("/api/functions/{function_id}/limits", guard(self.forget_limits), methods=["DELETE"]),
            Route("/api/runs/{run_id}/why", guard(self.why)),
        ]

    async def functions(self, request: Request) -> Response:
        """The functions that are synced, with what waits for each."""
        depths = {depth.function_id: depth for depth in await self._node.reader.queue_depths(DEPTH_MAX)}
        now_ms = self._node.clock.now_ms()
        shown = []
        for function in self._node.registry.functions.values():
            if not function.row.archived:
                depth = depths.get(function.id)
                waiting, oldest_ms = (depth.waiting, max(0, now_ms - depth.oldest_ms)) if depth is not None else (0, None)
                shown.append({**shown_function(function), "waiting": waiting, "oldest_ms": oldest_ms})
        return json_response({"functions": shown})

    async def pause(self, request: Request) -> Response:
        """Claim nothing of it; calls that are out finish."""
        return await self._hold(request, "paused")

    async def drain(self, request: Request) -> Response:
        """Begin no run of it; those that have begun go on to their end."""
        return await self._hold(request, "draining")

    async def resume(self, request: Request) -> Response:
        """Go on."""
        return await self._hold(request, "running")

    async def _hold(self, request: Request, mode: Any) -> Response:
        told = await self._node.submit(FunctionHeld(self._named(request).id, mode))
        return json_response({"mode": told})

    async def limit(self, request: Request) -> Response:
        """Other limits from now on: `{"concurrency": {"0": 3}, "throttle": {"limit", "period", "burst"?}, "weight": 2, "pin": true}`."""
        function = self._named(request)
        override = read_override(await fields(request), function)
        await self._node.submit(FunctionOverridden(function.id, override))
        return json_response({"override": shown_override(override)})

    async def forget_limits(self, request: Request) -> Response:
        """Those again that the app told."""
        await self._node.submit(FunctionOverridden(self._named(request).id, None))
        return json_response({"override": None})

    async def why(self, request: Request) -> Response:
        """What a run waits for."""
        return json_response(msgspec.to_builtins(await self._node.why(request.path_params["run_id"])))

    def _named(self, request: Request) -> Function:
        name = request.path_params["function_id"]
        function = self._node.registry.named(name)
        if function is None:
            raise NotFound(f"there is no function {name!r}")
        return function


def read_override(body: dict[str, Any], function: Function) -> Override:
    """The change that a request asks for. Raises `ProtocolError` naming what is wrong."""
    unknown = sorted(body.keys() - {"concurrency", "throttle", "weight", "pin"})
    if unknown:
        raise ProtocolError(f"there is nothing to change named {unknown[0]!r}; there are concurrency, throttle, weight and pin")
    concurrency = body.get("concurrency", {})
    if isinstance(concurrency, int) and not isinstance(concurrency, bool):
        concurrency = {"0": concurrency}
    if not isinstance(concurrency, dict):
        raise ProtocolError(f'concurrency is {concurrency!r}; it must be a number, or numbers by a limit\'s place, like {{"0": 3}}')
    places = max(1, len(function.config.concurrency))
    for place, limit in concurrency.items():
        if not place.isdigit() or int(place) >= places:
            raise ProtocolError(f"concurrency has no limit at place {place!r}: function {function.id!r} has {places}, counted from 0")
        _whole(limit, f"concurrency[{place}]", 0, LIMIT_MAX)
    weight = body.get("weight")
    if weight is not None:
        _whole(weight, "weight", 1, WEIGHT_MAX)
    return Override(limits=concurrency, throttle=_throttle(body.get("throttle"), function), weight=weight, pinned=body.get("pin") is True)


def _throttle(value: Any, function: Function) -> Throttle | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ProtocolError(f'throttle is {value!r}; it must be an object like {{"limit": 10, "period": "1m"}}')
    now = function.config.throttle
    period = value.get("period")
    if period is None and now is None:
        raise ProtocolError(f"throttle needs a period: function {function.id!r} has no throttle yet")
    return Throttle(
        limit=_whole(value.get("limit", now.limit if now is not None else None), "throttle.limit", 1, LIMIT_MAX),
        period_ms=parse_duration_ms(str(period)) if period is not None else now.period_ms if now is not None else 0,
        burst=_whole(value.get("burst", now.burst if now is not None else 0), "throttle.burst", 0, LIMIT_MAX),
        key=now.key if now is not None else None,
    )


def _whole(value: Any, what: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ProtocolError(f"{what} is {value!r}; it must be a whole number from {least} to {most}")
    return value


def shown_function(function: Function) -> dict[str, Any]:
    """A function in the page's list."""
    row, config = function.row, function.config
    return {
        "id": function.id,
        "name": row.name,
        "app": row.app_name,
        "triggers": [trigger.event_name or trigger.cron for trigger in config.triggers],
        "paused": row.paused,
        "draining": row.draining,
        "version": row.version,
        "retries": config.retries,
        "concurrency": [msgspec.to_builtins(limit) for limit in config.concurrency],
        "throttle": shown_throttle(config.throttle),
        "override": shown_override(function.override) if row.override is not None else None,
    }


def shown_throttle(throttle: Throttle | None) -> dict[str, Any] | None:
    """A throttle as requests write it."""
    if throttle is None:
        return None
    shown = {"limit": throttle.limit, "period": format_duration(throttle.period_ms), "burst": throttle.burst}
    return shown if throttle.key is None else {**shown, "key": throttle.key}


def shown_override(override: Override) -> dict[str, Any]:
    """What a person has changed, as requests write it."""
    return {
        "concurrency": override.limits,
        "throttle": shown_throttle(override.throttle),
        "weight": override.weight,
        "pin": override.pinned,
    }
