"""Events and those who wait for them: what a group of inputs may do to each other."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.engine import meeting, selection
from stepwell.engine.inputs import EventsReceived
from stepwell.engine.model import RunStatus, TimerKind
from stepwell.protocol.config import Cancel
from stepwell.protocol.events import Event
from stepwell.protocol.functions import FunctionConfig, Trigger
from stepwell.protocol.ids import ulid
from tests.simulation.clock import at_once
from tests.unit.engine.bench import Bench


def test_an_event_meets_waits_behind_those_that_its_group_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing is left of what was read says nothing of what was not: a cursor looks."""
    for module in (selection, meeting):
        monkeypatch.setattr(module, "MEET_AT_ONCE", 1)
    bench = Bench(FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), cancel=(Cancel(event="stop"),)))
    for _ in range(2):
        bench.send("x")
    fields: dict[str, Any] = {"name": "stop", "data": b"{}", "user": b"{}", "ts": 1, "v": None, "meta": None, "received_ms": bench.clock.ms}
    ids = [ulid(bench.clock.ms, bytes([n] * 10)) for n in (1, 2)]
    stops = [EventsReceived((Event(internal_id=event_id, id=event_id, **fields),), fresh=True) for event_id in ids]
    at_once(bench.heart.handle(stops))
    cursors = {timer.ref for timer in bench.timers if timer.kind is TimerKind.MEET}
    assert cursors == set(ids)
    while bench.timers:
        bench.fire()
    assert [run.status for run in bench.tables.runs] == [RunStatus.CANCELLED] * 2
