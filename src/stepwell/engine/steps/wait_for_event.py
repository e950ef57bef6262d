"""`WaitForEvent`: a step that ends with the first event that fits, or with its time (§5.3)."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.engine.advance import Advance, error_json
from stepwell.engine.events import body_of
from stepwell.engine.model import Item, RunStatus, Timer, TimerKind
from stepwell.errors import ExpressionError, ProtocolError
from stepwell.protocol.calls import Failed
from stepwell.protocol.codec import canonical
from stepwell.protocol.ops import Op, opts_of, wait_until_ms


def on_wait_for_event(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Wait. A condition that does not compile and a wait longer than may be fail the run."""
    opts = opts_of(op)
    name = opts.get("event") if isinstance(opts.get("event"), str) and opts["event"] else op.name
    where = opts.get("if")
    if not name:
        return Failed(error=error_json("InvalidWait", f"Step {op.label!r} waits for an event without a name."), retriable=False)
    try:
        until_ms = wait_until_ms(op, advance.now_ms)
    except ProtocolError as error:
        if error.code == "timeout_too_long":
            advance.ends(RunStatus.FAILED, error_json("InngestErrTimeoutTooLong", str(error)), "limit")
            return None
        return Failed(error=error_json("InvalidWait", str(error)), retriable=True)
    if not advance.is_new(op.id):
        return None
    condition = where if isinstance(where, str) and where.strip() else None
    own = first_event(advance) if condition is not None else {}
    run_id = advance.run.id
    try:
        advance.decision.topics.wait(run_id, op.id, name, condition, own, until_ms, advance.now_ms)
    except ExpressionError as error:
        message = f"Wait for event If expression failed to compile: {error}"
        advance.ends(RunStatus.FAILED, error_json("CompileError", message), "expression")
        return None
    told = msgspec.structs.replace(op, opts=canonical({**opts, "event": name}))
    advance.wait(told, Timer(id=f"wait/{run_id}/{op.id}", due_ms=until_ms, kind=TimerKind.TIMEOUT, run_id=run_id, ref=op.id))
    return None


def first_event(advance: Advance) -> dict[str, Any]:
    """The run's own event, as conditions see it."""
    row = advance.view.event(advance.run.event_ids[0])
    return {} if row is None else body_of(advance.view, row)
