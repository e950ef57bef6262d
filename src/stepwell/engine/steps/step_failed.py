"""`StepFailed`, and a `StepError` with no attempt left: a step's final error."""

from __future__ import annotations

from stepwell.engine.advance import Advance
from stepwell.engine.model import Item
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op


def on_step_failed(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Memoise the error and call the run again, so that user code can catch it."""
    error = op.error if op.error is not None else b"{}"
    if advance.finish(op, b'{"error":' + error + b"}", item, failed=True):
        advance.attempted(item, op.id, "failed", error, worker)
        advance.rediscover(op, "-failure")
    return None
