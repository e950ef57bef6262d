"""`Sleep`: a step that ends by itself when its time has come."""

from __future__ import annotations

from stepwell.engine.advance import Advance, error_json
from stepwell.engine.commands import Command, Effect
from stepwell.engine.model import Item, RunStatus, Timer, TimerKind
from stepwell.engine.registry import Registry
from stepwell.engine.view import View
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op, sleep_until_ms


def on_sleep(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Set the timer. A sleep longer than may be fails the run; one that cannot be read fails the attempt (§5.2)."""
    try:
        due_ms = sleep_until_ms(op, advance.now_ms)
    except ProtocolError as error:
        if error.code == "timeout_too_long":
            advance.ends(RunStatus.FAILED, error_json("InngestErrTimeoutTooLong", str(error)), "limit")
            return None
        return Failed(error=error_json("InvalidSleep", str(error)), retriable=True)
    advance.wait(op, Timer(id=f"sleep/{advance.run.id}/{op.id}", due_ms=due_ms, kind=TimerKind.SLEEP, run_id=advance.run.id, ref=op.id))
    return None


def on_sleep_ended(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """The step is done, its result null, and the run is called again, where its group has no more to wait for."""
    assert timer.run_id is not None
    run, step = view.run(timer.run_id), view.step(timer.run_id, timer.ref)
    assert run is not None and run.ended_ms is None, f"timer {timer.id} has outlived its run"
    assert step is not None, f"timer {timer.id} has lost its step"
    advance = Advance(registry, view, run, now_ms)
    advance.woke(timer)
    op = Op(op="Sleep", id=step.id, name=step.name, opts=step.opts, started_ms=step.queued_ms)
    if advance.finish(op, b"null", None):
        advance.rediscover(op)
    return advance.commands()
