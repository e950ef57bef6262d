"""Steps saved while a call goes on: how many calls it takes, and what happens to a call that was given up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.compat.rig import SIGNING_KEY, Rig
from tests.support.processes import refused, until

pytestmark = pytest.mark.compat
STEPS = ["one", "two", "three", "four", "five"]


def ran(rig: Rig, function: str) -> tuple[list[str], list[list[str]]]:
    """The run's ops by call, after a look at its output and trace."""
    rig.notes.clear()
    trace = rig.run(function)
    assert trace.output == STEPS and rig.notes.counts() == dict.fromkeys(STEPS, 1)
    assert [step["name"] for step in trace.step_list] == STEPS
    assert all(step["status"] == "completed" and step["tries"] == 1 and step["output"] == step["name"] for step in trace.step_list)
    calls = rig.calls(trace.id)
    assert all(call.step_id == "step" and call.attempt == 0 for call in calls)
    return [str(call.status) for call in calls], [call.ops for call in calls]


@pytest.mark.capability("serial")
def test_how_many_calls_five_steps_take(rig: Rig) -> None:
    """One with checkpoints; else one for each step, and one for the end."""
    statuses, ops = ran(rig, "five")
    if rig.spec.ways == "checkpointed":
        assert ops == [["RunComplete"]]
    else:
        assert ops == [*[["StepRun"]] * 5, []] and statuses[-1] == "200"


@pytest.mark.capability("checkpoint")
def test_checkpoints_are_a_functions_choice(rig: Rig) -> None:
    """On: one call. Off: six. Buffered: what is left rides along with the end."""
    assert ran(rig, "five-saved")[1] == [["RunComplete"]]
    assert len(ran(rig, "five-unsaved")[1]) == 6
    assert ran(rig, "five-buffered")[1] == [["StepRun", "RunComplete"]]


@pytest.mark.capability("checkpoint")
def test_a_call_that_may_take_no_longer_ends(rig: Rig) -> None:
    """After its time the next step is planned; the steps before it stay."""
    trace = rig.run("five-slow")
    assert trace.output == "done" and [step["name"] for step in trace.step_list] == STEPS
    assert all(step["tries"] == 1 for step in trace.step_list)
    calls = rig.calls(trace.id)
    assert calls[0].ops == ["StepPlanned"] and 3 <= len(calls) <= 5 and calls[-1].ops == ["RunComplete"]


@pytest.mark.capability("checkpoint")
def test_a_sleep_ends_the_call(rig: Rig) -> None:
    """The next one brings what was saved."""
    trace = rig.run("saved-and-asleep")
    assert trace.output == ["before", "after"] and rig.notes.counts() == {"before": 1, "after": 1}
    first, second = rig.calls(trace.id)
    assert (first.ops, second.ops) == (["Sleep"], ["RunComplete"])
    before, nap = trace.steps["before"]["id"], trace.steps["nap"]["id"]
    assert second.request["steps"] == {before: {"data": "before"}, nap: None}
    assert second.request["ctx"]["stack"]["stack"] == [before, nap]


@pytest.mark.capability("checkpoint")
def test_what_was_saved_is_not_done_again(rig: Rig) -> None:
    """A function that fails after a checkpoint is tried again from there, with all its attempts."""
    trace = rig.run("crashes")
    assert trace.output == "last" and rig.notes.count("first") == rig.notes.count("last") == 1
    first, second = rig.calls(trace.id)[:2]
    assert first.status == 500 and list(second.request["steps"]) == [trace.steps["first"]["id"]]
    assert [one["error"]["message"] for one in trace.attempts] == ["after a checkpoint"]


@pytest.mark.capability("superseded")
def test_a_call_that_was_given_up_stops_at_its_next_checkpoint(rig: Rig) -> None:
    """The server does not hear of a call any more and makes another; the first one's checkpoint is refused, and it runs no further step."""
    run_id = rig.start("superseded")
    until(lambda: rig.notes.count("held") == 1, "the first call is held")
    rig.recorder.cut(run_id)
    rig.waiting(run_id, "nap")
    assert rig.notes.counts() == {"first": 1, "held": 2}
    rig.notes.gate.set()
    (given_up,) = until(lambda: [call for call in rig.calls(run_id) if call.status >= 400], "the first call ends")
    assert given_up.request["ctx"]["generation_id"] == 1 and "Stale" in given_up.answer.decode()
    trace = rig.ended(run_id)
    assert trace.output == "last" and rig.notes.counts() == {"first": 1, "held": 2, "last": 1}


@pytest.mark.capability("checkpoint")
def test_what_a_checkpoint_is_answered(rig: Rig) -> None:
    """409 for a call that was given up, 400 for an op that cannot be saved so and for a run that has ended, 413 for too much."""
    run_id = rig.start("superseded")
    until(lambda: rig.notes.count("held") == 1, "the call is held")
    url = f"{rig.server.url}/v1/checkpoint/{run_id}/async"
    headers = {"content-type": "application/json"}
    if rig.spec.kind == "cloud":
        assert refused(url, {})[0] == 401
        headers["authorization"] = f"Bearer {SIGNING_KEY}"
    told = {"run_id": run_id, "fn_id": "", "qi_id": f"{run_id}-start", "generation_id": 1, "ts": 1}

    def answered(steps: list[dict[str, Any]], **fields: object) -> int:
        body = json.dumps({**told, "steps": steps, **fields}).encode()
        return refused(url, body, headers=headers)[0]

    step = {"op": "StepRun", "id": "0" * 40, "name": "x", "data": 1}
    assert answered([step], generation_id=7) == 409
    assert answered([step], qi_id="another") == 409
    assert answered([{**step, "op": "Sleep", "name": "5m"}]) == 400
    assert answered([{**step, "data": "x" * (4 * 1024 * 1024 + 1)}]) == 413
    rig.notes.gate.set()
    rig.ended(run_id)
    assert answered([step]) == 400
