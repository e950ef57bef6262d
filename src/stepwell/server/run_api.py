"""What is done to runs from outside, as SDKs and their tools ask for it: signals, invocations, cancellations (§1.2, §5.5, §7.1)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.expression import compile_expression
from stepwell.engine.inputs import CancellationEnded, FunctionInvoked, RunHeld, RunsCancelled, SignalSent
from stepwell.engine.model import Cancellation
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import canonical, decode
from stepwell.protocol.durations import format_duration, parse_date_ms, parse_duration_ms
from stepwell.protocol.events import parse_event
from stepwell.protocol.ids import app_uuid, function_uuid, ulid
from stepwell.protocol.lifecycle import INVOKED
from stepwell.runtime.node import Node
from stepwell.runtime.questions import pause_of
from stepwell.server.http import Guard, enveloped, json_response
from stepwell.server.shapes import ACCOUNT_ID, ENVIRONMENT_ID, time_text

SIGNAL_BYTES_MAX = 512 * 1024
KEEP_MS_MAX = 366 * 24 * 3600 * 1000
CANCELLATIONS_MAX = 100
CLOCK_SKEW_MS = 5_000
"""How far `started_before` may lie in the future."""


class RunApi:
    """The routes over a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key, where one is needed."""
        return [
            Route("/v1/signals", guard(self.signal), methods=["POST"]),
            Route("/v1/runs/{run_id}/pause", guard(self.pause), methods=["POST"]),
            Route("/v1/runs/{run_id}/resume", guard(self.resume), methods=["POST"]),
            Route("/v1/cancellations", guard(self.cancel), methods=["POST"]),
            Route("/v1/cancellations", guard(self.cancellations)),
            Route("/v1/cancellations/{cancellation_id}", guard(self.forget), methods=["DELETE"]),
            Route("/invoke/{slug}", guard(self.invoke), methods=["POST"]),
        ]

    async def signal(self, request: Request) -> Response:
        """Resume the step that waits for a signal; 404 where none does, unless it is to be kept for one (`{"keep": "1h"}`)."""
        body = await fields(request)
        name, data = body.get("signal"), canonical(body.get("data"))
        if not isinstance(name, str) or not name:
            raise ProtocolError('a signal needs a name: {"signal": "…", "data": …}')
        if len(data) > SIGNAL_BYTES_MAX:
            raise ProtocolError(f"the data of signal {name!r} has {len(data)} bytes; at most {SIGNAL_BYTES_MAX} are taken")
        until_ms = None if "keep" not in body else self._node.clock.now_ms() + kept_ms(body["keep"])
        run_id: str | None = await self._node.submit(SignalSent(name, data, until_ms))
        if run_id is None and until_ms is None:
            raise NotFound(f"no run waits for the signal {name!r}")
        return self._data({"run_id": run_id})

    async def pause(self, request: Request) -> Response:
        """Call a run no more until it is resumed; 409 where it has ended. Says `pausing` while a call of it is out, else `paused`."""
        return self._data(await set_pause(self._node, request.path_params["run_id"], "API"))

    async def resume(self, request: Request) -> Response:
        """Have a paused run go on."""
        return self._data(await set_pause(self._node, request.path_params["run_id"], None))

    async def invoke(self, request: Request) -> Response:
        """Start one function, whatever its triggers say; the body is an event without a name."""
        clock = self._node.clock
        now_ms = clock.now_ms()
        event = parse_event(await request.body() or b"{}", received_ms=now_ms, internal_id=ulid(now_ms, clock.entropy(10)), name=INVOKED)
        run_id: str = await self._node.submit(FunctionInvoked(request.path_params["slug"], event))
        return json_response({"id": event.internal_id, "run_id": run_id, "status": 200})

    async def cancel(self, request: Request) -> Response:
        """End a function's runs that were made in a span of time."""
        body = await fields(request)
        app_name, slug, where = text_of(body, "app_id"), text_of(body, "function_id"), body.get("if")
        function = self._node.registry.named(slug) or self._node.registry.named(f"{app_name}-{slug}")
        if function is None or function.row.app_name != app_name:
            raise NotFound(f"app {app_name!r} has no function {slug!r}")
        before_ms = moment(body, "started_before")
        now_ms = self._node.clock.now_ms()
        if before_ms is None or before_ms > now_ms + CLOCK_SKEW_MS:
            raise ProtocolError(f"started_before is {body.get('started_before')!r}; it must be a date that is not in the future")
        if where is not None:
            compile_expression(str(where))
        cancellation = Cancellation(
            id=ulid(now_ms, self._node.clock.entropy(10)),
            app_name=app_name,
            function_id=function.id,
            after_ms=moment(body, "started_after"),
            before_ms=before_ms,
            where=where,
            created_ms=now_ms,
        )
        return self._data(shape(await self._node.submit(RunsCancelled(cancellation))))

    async def cancellations(self, request: Request) -> Response:
        """The latest bulk cancellations."""
        return self._data([shape(one) for one in await self._node.reader.cancellations(CANCELLATIONS_MAX)])

    async def forget(self, request: Request) -> Response:
        """Stop a bulk cancellation."""
        await self._node.submit(CancellationEnded(request.path_params["cancellation_id"]))
        return json_response({"ok": True})

    def _data(self, value: Any) -> Response:
        return enveloped(value, self._node.clock.now_ms())


async def set_pause(node: Node, run_id: str, by: str | None) -> dict[str, Any]:
    """Pause a run, or resume it (`by` nobody); says how it stands then. Raises `NotFound`, `RunHasEnded`."""
    await node.submit(RunHeld(run_id, by is not None, by or ""))
    run = await node.reader.run(run_id)
    return {"run_id": run_id, "paused": None if run is None else await pause_of(node.reader, run)}


def shape(cancellation: Cancellation) -> dict[str, Any]:
    """A bulk cancellation as the API gives it (§7.1)."""
    shown = {
        "created_at": time_text(cancellation.created_ms),
        "name": None,
        "id": cancellation.id,
        "account_id": ACCOUNT_ID,
        "environment_id": ENVIRONMENT_ID,
        "app_id": app_uuid(cancellation.app_name),
        "function_internal_id": function_uuid(cancellation.function_id),
        "function_id": cancellation.function_id,
        "started_after": None if cancellation.after_ms is None else time_text(cancellation.after_ms),
        "started_before": time_text(cancellation.before_ms),
        "kind": "BulkRun",
        "cause": "API",
    }
    return shown if cancellation.where is None else {**shown, "if": cancellation.where}


def kept_ms(value: Any) -> int:
    """How long a signal is kept. Raises `ProtocolError`."""
    if not isinstance(value, str):
        raise ProtocolError(f'keep is {value!r}; it must be a duration like "1h"')
    ms = parse_duration_ms(value)
    if not 0 < ms <= KEEP_MS_MAX:
        raise ProtocolError(f"keep is {value!r}; it must be more than nothing, and at most {format_duration(KEEP_MS_MAX)}")
    return ms


async def fields(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises `ProtocolError` for anything else."""
    raw = await request.body()
    try:
        body = decode(raw)
    except ProtocolError as error:
        raise ProtocolError(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise ProtocolError("the body must be a JSON object")
    return body


async def fields_or_none(request: Request) -> dict[str, Any]:
    """The request's JSON object; an empty one where it has no body."""
    return await fields(request) if await request.body() else {}


def text_of(body: dict[str, Any], name: str) -> str:
    """A field that has to be a text. Raises `ProtocolError`."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise ProtocolError(f"{name} is {value!r}; it must be a text")
    return value


def moment(body: dict[str, Any], name: str) -> int | None:
    """A field that may be a date. Raises `ProtocolError` for what is none."""
    value = body.get(name)
    if value is None:
        return None
    ms = parse_date_ms(value) if isinstance(value, str) else None
    if ms is None:
        raise ProtocolError(f"{name} is {value!r}; it must be a date like 2026-01-31T08:00:00Z")
    return ms
