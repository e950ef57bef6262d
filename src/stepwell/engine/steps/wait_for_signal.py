"""`WaitForSignal`: a step that ends with a signal of a name, which one run at a time may wait for (§5.5)."""

from __future__ import annotations

from stepwell.engine.advance import Advance, error_json
from stepwell.engine.commands import SetRow
from stepwell.engine.mail import take
from stepwell.engine.model import Item, Name, RunStatus, Timer, TimerKind
from stepwell.engine.resume import signal_memo, signal_name, signal_of
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op, opts_of, timeout_ms


def on_wait_for_signal(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Take the name and wait; a signal of the name that is kept ends the step at once.

    A name that another run has fails this one, unless it is to be replaced: then the other one times out.
    A wait longer than may be fails the run.
    """
    if not signal_of(op):
        return Failed(error=error_json("InvalidWait", f"Step {op.label!r} waits for a signal without a name."), retriable=False)
    try:
        until_ms = timeout_ms(op, advance.now_ms)
    except ProtocolError as error:
        if error.code == "timeout_too_long":
            advance.ends(RunStatus.FAILED, error_json("InngestErrTimeoutTooLong", str(error)), "limit")
            return None
        return Failed(error=error_json("InvalidWait", str(error)), retriable=True)
    if not advance.is_new(op.id):
        return None
    kept, taken = take(advance.view, signal_of(op), advance.now_ms)
    advance.write(*taken)
    if kept is not None:
        if advance.finish(op, signal_memo(signal_of(op), kept), None):
            advance.rediscover(op, "-signal")
        return None
    run_id = advance.run.id
    holder = advance.view.name(signal_name(op))
    if holder is not None and opts_of(op).get("conflict") != "replace":
        message = f"Signal conflict; signal wait already exists for another run ({holder.run_id} waits for {signal_of(op)!r})"
        advance.ends(RunStatus.FAILED, error_json("SignalConflict", message), "signal")
        return None
    advance.write(SetRow(Name(id=signal_name(op), run_id=run_id, ref=op.id)))
    advance.wait(op, Timer(id=f"wait/{run_id}/{op.id}", due_ms=until_ms, kind=TimerKind.TIMEOUT, run_id=run_id, ref=op.id))
    return None
