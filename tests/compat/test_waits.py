"""Waiting for events."""

from __future__ import annotations

import pytest

from tests.compat.rig import Rig

pytestmark = pytest.mark.compat


@pytest.mark.capability("wait")
def test_a_wait_ends_with_its_event_or_its_time(rig: Rig) -> None:
    """Only an event that fits ends it; the whole event is the result, and nothing where the time was over."""
    run_id = rig.start("waits", {"id": "a"})
    rig.waiting(run_id, "answer")
    for data in ({"id": "b", "ok": True}, {"id": "a", "ok": False}, {"id": "a", "ok": True, "n": 3}):
        rig.send("answer", data)
    trace = rig.ended(run_id)
    assert trace.output == [{"id": "a", "ok": True, "n": 3}, rig.event("answer"), None]
    never = trace.steps["never"]
    assert never["ended_ms"] - never["queued_ms"] >= 1000
    assert trace.steps["answer"]["output"]["name"] == rig.event("answer")


@pytest.mark.capability("wait")
def test_a_wait_is_there_before_its_siblings_run(rig: Rig) -> None:
    """A step beside the wait may send the very event."""
    assert rig.run("both").output == [{"n": 1}, 1]


@pytest.mark.capability("wait")
def test_one_event_ends_every_wait_that_it_fits(rig: Rig) -> None:
    """Two runs wait for the same, and both go on."""
    runs = [rig.start("waits", {"id": "same"}) for _ in range(2)]
    for run_id in runs:
        rig.waiting(run_id, "answer")
    rig.send("answer", {"id": "same", "ok": True})
    for run_id in runs:
        assert rig.ended(run_id).output[0] == {"id": "same", "ok": True}


@pytest.mark.capability("wait")
def test_a_runs_own_event_does_not_end_its_wait(rig: Rig) -> None:
    """Nor does any other that came before it."""
    assert rig.run("waits-for-itself").output is None


@pytest.mark.capability("wait")
def test_a_condition_that_cannot_be_read_fails_the_run(rig: Rig) -> None:
    """At once, and with an error that says so."""
    trace = rig.run("waits-wrongly")
    assert trace.error["name"] in ("InvalidExpression", "CompileError")
    assert "Wait for event If expression failed to compile" in trace.error["message"]
    assert not rig.records or len(rig.calls(trace.id)) == 1
