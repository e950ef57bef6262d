"""What a store that alone writes its database keeps in memory."""

from __future__ import annotations

import msgspec
import pytest

from stepwell.engine.model import Counter, Item, Lane, LaneState
from stepwell.engine.selection import Fetch, Fetched
from stepwell.engine.view import Changes, Scan, TableChanges
from stepwell.store import resident
from stepwell.store.resident import Resident


def test_a_counter_that_went_is_known_to_be_absent() -> None:
    """A key's calls come and go: that nobody holds it is not read again each time."""
    rows = Resident()
    rows.note_commit(Changes({"counters": TableChanges(inserted=[Counter(id="k", running=1)])}, [], []))
    rows.note_commit(Changes({"counters": TableChanges(deleted=["k"])}, [], []))
    assert rows.answer(Fetch({"counters": ["k", "l"]}, [])) == ({"counters": []}, Fetch({"counters": ["l"]}, []))


def test_a_key_that_has_shut_no_lane_is_not_asked_again_until_it_has() -> None:
    """Every call of a key looks at its end for lanes to open; most keys have shut none."""
    rows = Resident()
    scans = [Scan("shut_lanes", "k", 4), Scan("shut_lanes", "l", 4), Scan("lane_items", "k", 4)]
    shut = Lane(id="b", function_id="f", keys=("l",), state=LaneState.SHUT, shut_by="l", tag=1)
    assert rows.answer(Fetch({}, scans))[1].scans == scans
    rows.note_read(Fetch({}, scans), Fetched({}, [[], [shut], []]))
    assert rows.answer(Fetch({}, scans))[1].scans == scans[1:], "only a key's lanes are remembered, and only that there are none"
    rows.note_commit(Changes({"lanes": TableChanges(updated=[msgspec.structs.replace(shut, shut_by="k")])}, [], []))
    assert rows.answer(Fetch({}, scans))[1].scans == scans
    rows.note_read(Fetch({}, scans[:1]), Fetched({}, [[]]))
    rows.clear()
    assert rows.answer(Fetch({}, scans))[1].scans == scans


def item(n: int) -> Item:
    """A row."""
    return Item(id=f"i{n}", run_id=f"r{n}", function_id="f", lane_id="f", keys=(), starts=1, order_ms=1, step_id="step")


def test_rows_that_went_count_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded by the rows that are there, not by all that ever were."""
    monkeypatch.setattr(resident, "ROWS_MAX", 3)
    rows = Resident()
    rows.note_read(Fetch({"counters": ["k"]}, []), Fetched({"counters": [Counter(id="k", running=1)]}, []))
    for n in range(9):
        rows.note_commit(Changes({"items": TableChanges(inserted=[item(n)])}, [], []))
        rows.note_commit(Changes({"items": TableChanges(deleted=[f"i{n}"])}, [], []))
    known, missing = rows.answer(Fetch({"counters": ["k"]}, []))
    assert known["counters"] and not missing.keys
    rows.note_commit(Changes({"items": TableChanges(inserted=[item(n) for n in range(3)])}, [], []))
    assert rows.answer(Fetch({"counters": ["k"]}, []))[1].keys == {"counters": ["k"]}
