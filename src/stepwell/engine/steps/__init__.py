"""What each op of an answer does to its run: a small file for each, one table for all (inngest-protocol §4.5)."""

from __future__ import annotations

from collections.abc import Callable

from stepwell.engine.advance import Advance, error_json
from stepwell.engine.model import Item
from stepwell.engine.steps.defer import on_defer_abort, on_defer_add
from stepwell.engine.steps.discovery import on_discovery_request
from stepwell.engine.steps.gateway import on_gateway
from stepwell.engine.steps.invoke import on_invoke
from stepwell.engine.steps.run_complete import on_run_complete
from stepwell.engine.steps.sleep import on_sleep
from stepwell.engine.steps.step_failed import on_step_failed
from stepwell.engine.steps.step_planned import on_step_planned
from stepwell.engine.steps.step_run import memo_of, on_step_run
from stepwell.engine.steps.wait_for_event import on_wait_for_event
from stepwell.engine.steps.wait_for_signal import on_wait_for_signal
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op

OnOp = Callable[[Advance, Op, Item, str], Failed | None]
"""Advances the run by one op; gives the failure of the whole attempt where the op cannot be taken."""

ADVANCES: dict[str, OnOp] = {
    "StepRun": on_step_run,
    "Step": on_step_run,
    "StepError": on_step_failed,  # without an attempt left: with one, the job is made again (`calls.on_ops`)
    "StepFailed": on_step_failed,
    "StepPlanned": on_step_planned,
    "Sleep": on_sleep,
    "WaitForEvent": on_wait_for_event,
    "WaitForSignal": on_wait_for_signal,
    "InvokeFunction": on_invoke,
    "Gateway": on_gateway,
    "AIGateway": on_gateway,
    "RunComplete": on_run_complete,
    "SyncRunComplete": on_run_complete,
    "DiscoveryRequest": on_discovery_request,
    "DeferAdd": on_defer_add,
    "DeferAbort": on_defer_abort,
}


def no_such_op(op: Op) -> Failed:
    """The failure of an answer with an op that this server does not perform."""
    message = f"The app answered with the op {op.op!r} (step {op.display_name or op.name or op.id!r}), which this server does not perform."
    return Failed(error=error_json("UnsupportedOp", message), retriable=False)


__all__ = ["ADVANCES", "memo_of", "no_such_op"]
