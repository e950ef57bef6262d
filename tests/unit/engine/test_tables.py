"""Tables and their indexes, which are built when they are first asked."""

from __future__ import annotations

import msgspec

from stepwell.engine.model import Lane, LaneState
from stepwell.engine.tables import SPECS, Table


def test_an_index_knows_what_came_before_it_was_asked_and_keeps_in_step() -> None:
    """Rows that were put, changed and removed before the first question and after it are found under what they are."""
    table: Table[Lane] = Table(SPECS["lanes"])
    for name in "abc":
        table.put(name, Lane(id=name, function_id="f", keys=(), state=LaneState.READY))
    table.remove("c")
    assert {lane.id for lane in table.find("ready", "f")} == {"a", "b"}
    table.put("a", msgspec.structs.replace(table.rows["a"], state=LaneState.EMPTY))
    table.put("d", Lane(id="d", function_id="f", keys=(), state=LaneState.READY))
    table.remove("b")
    assert {lane.id for lane in table.find("ready", "f")} == {"d"}
    assert {lane.id for lane in table.find("empty", "")} == {"a"}
