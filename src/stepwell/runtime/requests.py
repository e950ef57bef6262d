"""Requests that steps ask the server to make: kept in memory only, and told again by the app where they are gone (§5.6, §5.7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Raw

from stepwell.engine.model import Item
from stepwell.engine.steps.gateway import GATEWAY_JOB
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Answer, CallRequest, Failed, Ops, failed
from stepwell.protocol.ops import Op, opts_of
from stepwell.protocol.realtime import MESSAGE_BYTES_MAX, checked_name
from stepwell.runtime.realtime import Realtime

Perform = Callable[[Op], Awaitable[Answer]]
CallApp = Callable[[CallRequest], Awaitable[Answer]]

KEPT_BYTES_MAX = 64 * 1024 * 1024
"""Of requests that wait for their turn: beyond it the oldest are forgotten, and the app is asked again when their turn comes."""


class Requests:
    """The requests of live runs. `perform` makes one; without it none can be made here. Results are published by `realtime`."""

    def __init__(self, perform: Perform | None, realtime: Realtime, *, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._perform, self._realtime, self._kept_bytes_max = perform, realtime, kept_bytes_max
        self._kept: dict[tuple[str, str], Op] = {}
        self._of_run: dict[str, set[str]] = {}
        self._kept_bytes = 0

    @staticmethod
    def concerns(item: Item) -> bool:
        """Whether the item's call is a request that the server makes."""
        return item.id.endswith(f"-{GATEWAY_JOB}") and item.step_id != "step"

    def keep(self, run_id: str, op: Op) -> None:
        """A run's step wants this request made."""
        self._drop(run_id, op.id)
        self._kept[run_id, op.id] = op
        self._of_run.setdefault(run_id, set()).add(op.id)
        self._kept_bytes += _size(op)
        while self._kept_bytes > self._kept_bytes_max:
            self._drop(*next(iter(self._kept)))

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        for step_id in list(self._of_run.get(run_id, ())):
            self._drop(run_id, step_id)

    def _drop(self, run_id: str, step_id: str) -> None:
        op = self._kept.pop((run_id, step_id), None)
        if op is None:
            return
        self._kept_bytes -= _size(op)
        steps = self._of_run[run_id]
        steps.discard(step_id)
        if not steps:
            del self._of_run[run_id]

    async def call(self, request: CallRequest, call_app: CallApp) -> tuple[Answer, Callable[[], None]]:
        """Make the item's request: its answer, and what to do once that is committed.

        One that this process was not told, since it was started later, or has forgotten, the app is asked for once more.
        """
        op = self._kept.get((request.run_id, request.step_id))
        if op is None:
            answer = await call_app(msgspec.structs.replace(request, step_id="step", disable_immediate_execution=True))
            if not isinstance(answer, Ops):
                lost = failed("RequestLost", "The app does not ask for the request any more.")
                return answer if isinstance(answer, Failed) else lost, _nothing
            op = next((one for one in answer.ops if one.id == request.step_id and one.op in ("Gateway", "AIGateway")), None)
            if op is None:
                return failed("RequestLost", f"The app does not ask for the request of step {request.step_id} any more."), _nothing
        if self._perform is None:
            message = "This engine makes no HTTP requests for steps: run the app under a server."
            return failed("NoGateway", message, retriable=False), _nothing
        answer = await self._perform(op)
        return answer, lambda: self._settle(request.run_id, op, answer)

    def _settle(self, run_id: str, op: Op, answer: Answer) -> None:
        """A step's result is stored: send it to the topic that the op names, if it names one, and forget the request."""
        result = answer.ops[0] if isinstance(answer, Ops) else None
        if result is None or result.op != "StepRun" or result.data is None:
            return
        self._drop(run_id, op.id)
        wanted = opts_of(op).get("publish")
        if not isinstance(wanted, dict):
            return
        try:
            channel, topic = checked_name(wanted.get("channel"), "channel"), checked_name(wanted.get("topic"), "topic", publishes=True)
        except ProtocolError:
            return  # `Gateway.perform` has refused the op for it
        if len(result.data) <= MESSAGE_BYTES_MAX:
            self._realtime.publish(channel, (topic,), Raw(result.data), run_id=run_id)


def _size(op: Op) -> int:
    return len(op.opts or b"")


def _nothing() -> None:
    pass
