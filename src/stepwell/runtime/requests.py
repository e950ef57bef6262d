"""Requests that steps ask the server to make: kept in memory only, and told again by the app where they are gone (§5.6, §5.7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from stepwell.engine.model import Item
from stepwell.engine.steps.gateway import GATEWAY_JOB
from stepwell.protocol.calls import Answer, CallRequest, Failed, Ops, failed
from stepwell.protocol.ops import Op

Perform = Callable[[Op], Awaitable[Answer]]
CallApp = Callable[[CallRequest], Awaitable[Answer]]


class Requests:
    """The requests of live runs. `perform` makes one; without it none can be made here."""

    def __init__(self, perform: Perform | None) -> None:
        self._perform = perform
        self._kept: dict[str, dict[str, Op]] = {}

    @staticmethod
    def concerns(item: Item) -> bool:
        """Whether the item's call is a request that the server makes."""
        return item.id.endswith(f"-{GATEWAY_JOB}") and item.step_id != "step"

    def keep(self, run_id: str, op: Op) -> None:
        """A run's step wants this request made."""
        self._kept.setdefault(run_id, {})[op.id] = op

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        self._kept.pop(run_id, None)

    async def call(self, request: CallRequest, call_app: CallApp) -> Answer:
        """Make the item's request. One that this process was not told, since it was started later, the app is asked for once more."""
        op = self._kept.get(request.run_id, {}).get(request.step_id)
        if op is None:
            answer = await call_app(msgspec.structs.replace(request, step_id="step", disable_immediate_execution=True))
            if not isinstance(answer, Ops):
                return answer if isinstance(answer, Failed) else failed("RequestLost", "The app does not ask for the request any more.")
            op = next((one for one in answer.ops if one.id == request.step_id and one.op in ("Gateway", "AIGateway")), None)
            if op is None:
                return failed("RequestLost", f"The app does not ask for the request of step {request.step_id} any more.")
            self.keep(request.run_id, op)
        if self._perform is None:
            return failed("NoGateway", "This engine makes no HTTP requests for steps: run the app under a server.", retriable=False)
        return await self._perform(op)
