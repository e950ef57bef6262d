"""`RunComplete`: the function's result among the ops, as checkpointing apps send it."""

from __future__ import annotations

from stepwell.engine.advance import Advance
from stepwell.engine.model import Item, RunStatus
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op


def on_run_complete(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """End the run; its output is the raw result."""
    advance.ends(RunStatus.COMPLETED, op.data if op.data is not None else b"null")
    return None
