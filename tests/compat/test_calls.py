"""How many calls parallel steps take, and what stands in them: the protocol's own examples."""

from __future__ import annotations

import pytest

from tests.compat.recorder import Call
from tests.compat.rig import Rig, Trace

pytestmark = pytest.mark.compat


def ran(rig: Rig, function: str) -> tuple[Trace, list[Call], list[Call]]:
    """The trace of a run of `x`, `y` and the sleep `z` side by side and then `w`, its discoveries and its targeted calls."""
    trace = rig.run(function)
    assert trace.output == ["x", "y", "w"] and rig.notes.counts() == {"x": 1, "y": 1, "w": 1}
    calls = rig.calls(trace.id)
    discoveries = [call for call in calls if call.step_id == "step"]
    assert discoveries[0].ops == ["StepPlanned", "StepPlanned", "Sleep"]
    return trace, discoveries, [call for call in calls if call.step_id != "step"]


def joined(rig: Rig, function: str) -> None:
    """Request version 2: one discovery after the last of a group, and steps are run at once again after it."""
    trace, discoveries, targeted = ran(rig, function)
    assert {call.step_id for call in targeted} == {trace.steps["x"]["id"], trace.steps["y"]["id"]} and len(targeted) == 2
    assert all(call.request["ctx"]["disable_immediate_execution"] for call in targeted)
    assert not any(call.request["ctx"]["disable_immediate_execution"] for call in discoveries)
    assert [call.request["version"] for call in discoveries] == [-1] + [2] * (len(discoveries) - 1)
    assert set(discoveries[1].request["ctx"]["stack"]["stack"]) == {trace.steps[name]["id"] for name in "xyz"}


def each(rig: Rig, function: str) -> None:
    """Request version 1: a discovery after each step, and steps are planned for the rest of the run."""
    trace, discoveries, targeted = ran(rig, function)
    assert {call.step_id for call in targeted} == {trace.steps[name]["id"] for name in "xyw"} and len(targeted) == 3
    # The plan; after x, y and z; after w.
    assert len(discoveries) == 5 and len(trace.attempts) == 0
    assert all(call.request["ctx"]["disable_immediate_execution"] for call in (*discoveries[1:], *targeted))
    assert [call.request["version"] for call in discoveries] == [-1, 1, 1, 1, 1]


@pytest.mark.capability("parallel-calls")
def test_how_many_calls_a_parallel_group_takes(rig: Rig) -> None:
    """With version 2 five, or four where the steps after it are saved by checkpoints; with version 1 eight."""
    if rig.spec.ways == "each":
        each(rig, "exemplary")
    else:
        joined(rig, "exemplary")
        run_id = next(call.headers["x-run-id"] for call in reversed(rig.recorder.all()) if call.function_id == rig.slug("exemplary"))
        assert len(rig.calls(run_id)) == (4 if rig.spec.ways == "checkpointed" else 5)


@pytest.mark.capability("parallel-choice")
def test_a_function_chooses_how_parallel_steps_go_on(rig: Rig) -> None:
    """`optimizeParallelism` overrides what is the version's default."""
    each(rig, "exemplary-each")
    rig.notes.clear()
    joined(rig, "exemplary-joined")


@pytest.mark.capability("parallel-calls")
def test_chains_side_by_side(rig: Rig) -> None:
    """Each step runs once; joined, the second steps of all are planned together."""
    trace = rig.run("chains")
    assert trace.output == [[f"{name} 1", f"{name} 2"] for name in "abc"]
    assert rig.notes.counts() == {f"{name} {n}": 1 for name in "abc" for n in (1, 2)}
    calls = rig.calls(trace.id)
    targeted = [call.step_id for call in calls if call.step_id != "step"]
    assert len(targeted) == len(set(targeted)) == 6
    if rig.spec.ways != "each":
        assert len(calls) == 9


@pytest.mark.capability("parallel-calls")
def test_a_failing_step_does_not_disturb_its_siblings(rig: Rig) -> None:
    """It alone is tried again, and its last error is its result."""
    trace = rig.run("settled")
    assert trace.output == ["good", "bad"] and rig.notes.counts() == {"good": 1, "bad": 2}
    assert (trace.steps["good"]["status"], trace.steps["bad"]["status"]) == ("completed", "failed")
    attempts = [call.attempt for call in rig.calls(trace.id) if call.step_id == trace.steps["bad"]["id"]]
    assert attempts == [0, 1]


@pytest.mark.capability("parallel-choice")
def test_the_first_of_several_goes_on(rig: Rig) -> None:
    """With version 1 the function goes on after the first, and its next step runs while the other still sleeps."""
    trace = rig.run("first-of")
    assert trace.output == ["quick", "after"] and rig.notes.counts() == {"quick": 1, "after": 1}
    slow = trace.steps["slow"]["ended_ms"]
    assert slow is None or trace.steps["after"]["ended_ms"] < slow
