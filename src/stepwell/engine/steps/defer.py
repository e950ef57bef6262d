"""`DeferAdd` and `DeferAbort`: what is to run after the run's end, and taking it back (§5.10)."""

from __future__ import annotations

from stepwell.engine.advance import Advance
from stepwell.engine.model import Item
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op


def on_defer_add(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Keep it with the run."""
    advance.defers.add(op)
    return None


def on_defer_abort(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Take it back, if the run has not ended."""
    advance.defers.abort(op)
    return None
