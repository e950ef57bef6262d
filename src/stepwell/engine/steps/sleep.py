"""`Sleep`: a step that ends by itself when its time has come."""

from __future__ import annotations

import msgspec

from stepwell.engine.advance import Advance, error_json
from stepwell.engine.model import Item, RunStatus, Timer, TimerKind
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Failed
from stepwell.protocol.codec import canonical
from stepwell.protocol.ops import Op, opts_of, sleep_until_ms


def on_sleep(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Set the timer. A sleep longer than may be fails the run; one that cannot be read fails the attempt (§5.2)."""
    try:
        due_ms = sleep_until_ms(op, advance.now_ms)
    except ProtocolError as error:
        if error.code == "timeout_too_long":
            advance.ends(RunStatus.FAILED, error_json("InngestErrTimeoutTooLong", str(error)), "limit")
            return None
        return Failed(error=error_json("InvalidSleep", str(error)), retriable=True)
    if advance.is_new(op.id):
        timer_id = f"sleep/{advance.run.id}/{op.id}"
        told = msgspec.structs.replace(op, opts=canonical({**opts_of(op), "until_ms": due_ms}))
        advance.wait(told, Timer(id=timer_id, due_ms=due_ms, kind=TimerKind.SLEEP, run_id=advance.run.id, ref=op.id))
    return None
