"""`RunComplete`: the function's result among the ops, as checkpointing apps send it; `SyncRunComplete`: an endpoint's, in a wrapper."""

from __future__ import annotations

from stepwell.engine.advance import Advance
from stepwell.engine.model import Item, Json, RunStatus
from stepwell.protocol.calls import Failed
from stepwell.protocol.codec import canonical, decode
from stepwell.protocol.ops import Op


def on_run_complete(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """End the run; its output is the raw result."""
    advance.ends(RunStatus.COMPLETED, result_of(op))
    return None


def result_of(op: Op) -> Json:
    """The function's result; of an endpoint it is the HTTP response."""
    data = op.data if op.data is not None else b"null"
    if op.op == "SyncRunComplete" and data[:1] == b"{" and "data" in (wrapper := decode(data)):
        return canonical(wrapper["data"])
    return data
