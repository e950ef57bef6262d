"""What starts a function."""

from __future__ import annotations

import time

import pytest

from tests.compat.rig import Rig
from tests.support.processes import until

pytestmark = pytest.mark.compat


@pytest.mark.capability("trigger")
def test_a_wildcard_with_a_condition(rig: Rig) -> None:
    """It runs where its condition holds, and only there."""
    ids = [rig.send("priced", {"amount": amount}) for amount in (5, 50)]
    assert rig.ended(rig.server.run_of(ids[1])).output == rig.event("priced")
    assert rig.runs_of(ids[0]) == []


@pytest.mark.capability("trigger")
def test_a_wildcard_after_a_dot(rig: Rig) -> None:
    """It takes what is below it, however deep, and not itself."""
    for name in ("a.b.c", "a.b.c.d"):
        assert rig.ended(rig.server.run_of(rig.send(name))).output == rig.event(name)
    above, marker = rig.send("a.b"), rig.start("plain")
    rig.ended(marker)
    assert rig.runs_of(above) == []


@pytest.mark.capability("trigger")
def test_several_triggers_start_one_run(rig: Rig) -> None:
    """A function runs once for an event, though two of its triggers fit."""
    event_id = rig.send("many", {"n": 2})
    assert rig.ended(rig.server.run_of(event_id)).output == [rig.event("many"), 1]
    assert len(rig.runs_of(event_id)) == 1
    assert rig.ended(rig.server.run_of(rig.send("more"))).output == [rig.event("more"), 1]


@pytest.mark.capability("trigger")
def test_one_event_starts_every_function_it_fits(rig: Rig) -> None:
    """Each has a run of its own."""
    event_id = rig.send("plain", {"amount": 50})
    runs = until(lambda: found if len(found := rig.runs_of(event_id)) == 2 else None, "both functions run")
    assert sorted(str(rig.ended(run["run_id"]).output) for run in runs) == sorted(["None", rig.event("plain")])


@pytest.mark.capability("delayed")
def test_an_event_of_the_future_runs_then(rig: Rig) -> None:
    """Not before its time."""
    ts = int(time.time() * 1000) + 1500
    trace = rig.run("delayed", ts=ts)
    assert trace.output == "ran" and rig.notes.count("delayed") == 1
    assert trace.run["started_ms"] >= ts


@pytest.mark.capability("cron")
def test_a_tick_starts_one_run(rig: Rig) -> None:
    """A cron function runs once a tick; the first minute of the rig is waited for, unless it is over."""
    ticks = until(rig.notes.ticks, "the minute's tick came", 70)
    shown = [event for event in rig.events("inngest/scheduled.timer") if event["data"]["cron"] == "* * * * *"]
    events = {event["id"]: event for event in shown}
    assert len(events) == len(shown), "a tick has two events"
    for event_id, count in ticks.items():
        event = events[event_id]
        assert count == 1 and event["data"]["cron"] == "* * * * *"
        (run,) = rig.runs_of(event["internal_id"])
        assert rig.ended(run["run_id"]).output == "* * * * *"
