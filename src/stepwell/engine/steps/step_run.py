"""`StepRun`, and `Step` of old SDKs: a step's result."""

from __future__ import annotations

from stepwell.engine.advance import Advance
from stepwell.engine.model import Item, Json
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op


def on_step_run(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Memoise the result and call the run again, where its group has no more to wait for. A second result changes nothing."""
    if advance.finish(op, memo_of(op), item):
        advance.rediscover(op)
    return None


def memo_of(op: Op) -> Json:
    """What the app is sent for the step from now on (§4.3): wrapped here, or as it came from old SDKs."""
    data = op.data if op.data is not None else b"null"
    return data if op.op == "Step" else b'{"data":' + data + b"}"
