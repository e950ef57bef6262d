"""Steps side by side: planned, joined, raced, of every kind."""

from __future__ import annotations

import pytest

from tests.compat.rig import Rig

pytestmark = pytest.mark.compat


@pytest.mark.capability("parallel")
def test_parallel_steps_are_planned_and_joined(rig: Rig) -> None:
    """Each gets a call of its own; both are there before the function goes on."""
    trace = rig.run("whole")
    left, right, nap = (trace.steps[name] for name in ("left", "right", "nap"))
    assert max(left["ended_ms"], right["ended_ms"]) <= nap["queued_ms"]
    assert rig.notes.count("left") == rig.notes.count("right") == 1
    if rig.records and rig.spec.ways == "joined":
        calls = rig.calls(trace.id)
        targeted = [call for call in calls if call.step_id != "step"]
        assert {call.step_id for call in targeted} == {left["id"], right["id"]} and len(targeted) == 2
        assert all(call.request["ctx"]["disable_immediate_execution"] for call in targeted)
        assert sum(call.ops == ["StepPlanned", "StepPlanned"] for call in calls) == 1
        assert not any(call.request["ctx"]["disable_immediate_execution"] for call in calls if call.step_id == "step")


@pytest.mark.capability("parallel")
def test_steps_of_every_kind_are_joined(rig: Rig) -> None:
    """A run, a failing run, a sleep, an invocation and a wait, side by side; the function goes on once."""
    trace = rig.run("mixed")
    assert trace.output == ["quick", "caught bad", None, {"got": 1}, None]
    assert [rig.notes.count(text) for text in ("quick", "bad")] == [1, 1]
    # With version 1 the calls after the last two steps may both find everything there.
    assert rig.notes.count("joined") == 1 or rig.spec.ways == "each"
    ops = {name: step["op"] for name, step in trace.steps.items()}
    assert ops["nap"] == "sleep" and ops["quick"] == "run" and set(ops) == {"quick", "bad", "nap", "child", "never"}
    assert trace.steps["bad"]["status"] == "failed" and trace.steps["never"]["status"] == "completed"


@pytest.mark.capability("race")
def test_the_steps_of_a_race_go_on_by_themselves(rig: Rig) -> None:
    """A quick branch finishes its second step while the slow branch is still asleep."""
    trace = rig.run("races")
    assert trace.status == "completed"
    slow = trace.steps["slow nap"]["ended_ms"]
    assert slow is None or trace.steps["quick done"]["ended_ms"] < slow
    assert rig.notes.count("quick done") == 1
