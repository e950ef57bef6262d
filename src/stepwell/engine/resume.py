"""A waiting step's end, whatever it waited for: an event, a signal, another run, or its time."""

from __future__ import annotations

from stepwell.engine.advance import Advance
from stepwell.engine.commands import Delete
from stepwell.engine.model import Json, Step, StepStatus
from stepwell.protocol.codec import text
from stepwell.protocol.ops import Op, opts_of


def resume(advance: Advance, step_id: str, memo: Json, *, failed: bool = False, ref: str | None = None, job: str = "") -> bool:
    """Memoise the answer, take back the timer, and call the run again, where its group has no more to wait for (§4.6).

    Says whether the step was waiting at all: the first answer or the timeout counts, whichever comes first.
    """
    step = advance.knows_step(step_id)
    if step is None or step.status is not StepStatus.WAITING:
        return False
    op = op_of(step)
    advance.woke(timeout_id(step))
    take_back(advance, step)
    if advance.finish(op, memo, None, failed=failed, ref=ref):
        advance.rediscover(op, job)
    return True


def take_back(advance: Advance, step: Step) -> None:
    """What the step waited by is not needed any more: its wait for an event, its name among the signals."""
    match step.op:
        case "WaitForEvent":
            advance.write(Delete("waits", (step.run_id, step.id)))
        case "WaitForSignal":
            name = advance.view.name(signal_name(op_of(step)))
            if name is not None and (name.run_id, name.ref) == (step.run_id, step.id):
                advance.write(Delete("names", name.id))


def op_of(step: Step) -> Op:
    """The op that the step was told by."""
    return Op(op=step.op, id=step.id, name=step.name, opts=step.opts, started_ms=step.queued_ms)


def timeout_id(step: Step) -> str:
    """The timer that ends the step's wait."""
    return f"wait/{step.run_id}/{step.id}"


def signal_name(op: Op) -> str:
    """The unique name of the signal that the step waits for."""
    return f"signal/{signal_of(op)}"


def signal_memo(signal: str, data: Json) -> Json:
    """What a step that waits for a signal ends with."""
    return b'{"data":{"data":' + data + b',"signal":' + text(signal) + b"}}"


def signal_of(op: Op) -> str:
    """The signal's name as the user knows it."""
    signal = opts_of(op).get("signal")
    return signal if isinstance(signal, str) and signal else op.name
