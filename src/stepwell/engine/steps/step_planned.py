"""`StepPlanned`: a step that is to be called by itself."""

from __future__ import annotations

from stepwell.engine.advance import Advance
from stepwell.engine.model import Item
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op


def on_step_planned(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Give the step an item of its own. Planned again by another discovery, it stays one item: its row is the reservation."""
    advance.plan(op)
    return None
