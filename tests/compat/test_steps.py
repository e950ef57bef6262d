"""Steps: run once, remembered, repeated by name, asleep, sending."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.compat.rig import Rig
from tests.support.processes import until

pytestmark = pytest.mark.compat

CALLS_OF_WHOLE = {"joined": 10}
"""Discoveries and targeted calls: first, the plan, left and right, nap, three tries of flaky, send, the end."""

VALUES = {
    "texts": ["", "ü", "\u0000", "\u2028", "😀", '"\\/'],
    "numbers": [0, -1, 1.5, 1e21, 9007199254740991, 0.1],
    "others": [None, True, False, [], {}, [[[]]]],
    "keys": {"": 1, "a.b": 2, "ü": 3, "data": {"data": 4}, "error": {"name": "x", "message": "y"}},
}


@pytest.mark.capability("run")
def test_every_step_runs_as_often_as_it_has_to(rig: Rig) -> None:
    """A finished step is remembered; the output is what the function returned; the trace shows it all."""
    trace = rig.run("whole", {"x": [1, "ü"]})
    number = {"whole": 1, "half": 1.5}
    assert trace.output == [number, [number, number], 3, 1, {"x": [1, "ü"]}]
    assert rig.notes.counts() == {"first": 1, "left": 1, "right": 1, "flaky": 3}
    assert set(trace.steps) == {"first", "left", "right", "nap", "flaky", "send"}
    tries = {name: step["tries"] for name, step in trace.steps.items() if step["op"] == "run"}
    assert tries == {"first": 1, "left": 1, "right": 1, "flaky": 3, "send": 1}
    assert [one["error"]["message"] for one in trace.steps["flaky"]["attempts"]] == ["try 1", "try 2"]
    assert trace.steps["first"]["output"] == number and trace.attempts == []
    if rig.records and rig.spec.ways in CALLS_OF_WHOLE:
        assert len(rig.calls(trace.id)) == CALLS_OF_WHOLE[rig.spec.ways]


@pytest.mark.capability("run")
def test_a_run_is_shown_by_the_public_api(rig: Rig) -> None:
    """`/v1` tells of the run and of its event, with the fields that SDKs read."""
    event_id = rig.send("plain", {"n": 1}, user={"name": "somebody"})
    run_id = rig.server.run_of(event_id)
    rig.ended(run_id)
    run = rig.server.ask(f"/v1/runs/{run_id}")["data"]
    assert (run["run_id"], run["event_id"], run["status"], run["output"]) == (run_id, event_id, "Completed", None)
    event = rig.server.ask(f"/v1/events/{event_id}")["data"]
    assert (event["name"], event["data"], event["user"]) == (rig.event("plain"), {"n": 1}, {"name": "somebody"})


@pytest.mark.capability("values")
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_come_back_as_they_were(rig: Rig, value: Any) -> None:
    """Through the event, a step's memo and the output."""
    trace = rig.run("values", {"value": value})
    assert trace.output == {"step": value, "event": value}
    assert trace.steps["same"]["output"] == value


@pytest.mark.capability("repeated")
def test_a_step_id_may_come_several_times(rig: Rig) -> None:
    """Each repetition is a step of its own."""
    trace = rig.run("repeated")
    assert trace.output == [1, 2, 3]
    # Some SDKs show the repetition in the name.
    assert [step["name"].split(":")[0] for step in trace.step_list] == ["again"] * 3
    assert len({step["id"] for step in trace.step_list}) == 3


@pytest.mark.capability("stepless")
def test_a_function_without_steps(rig: Rig) -> None:
    """One call, no step, and nothing as its output."""
    trace = rig.run("plain")
    assert trace.output is None and trace.step_list == []
    assert rig.notes.count("plain") == 1
    assert not rig.records or len(rig.calls(trace.id)) == 1


@pytest.mark.capability("sleep")
def test_a_sleep_lasts_as_long_as_it_should(rig: Rig) -> None:
    """Neither shorter nor much longer, and without a call meanwhile."""
    nap = rig.run("whole").steps["nap"]
    assert nap["op"] == "sleep" and 250 <= nap["ended_ms"] - nap["queued_ms"] < 10_000


@pytest.mark.capability("sleep")
def test_a_sleep_until_a_date_never_wakes_early(rig: Rig) -> None:
    """And one until a date that is over does not sleep."""
    at = time.time() + 1.2
    trace = rig.run("until", {"at": at})
    assert trace.output == "awake"
    assert at * 1000 - 2 <= trace.steps["until"]["ended_ms"] < at * 1000 + 10_000
    assert trace.steps["past"]["ended_ms"] - trace.steps["past"]["queued_ms"] < 5000


@pytest.mark.capability("too-long")
def test_a_sleep_of_more_than_a_year_fails_the_run(rig: Rig) -> None:
    """At once."""
    trace = rig.run("sleeps-too-long")
    assert trace.error["name"] == "InngestErrTimeoutTooLong" and "366d" in trace.error["message"]
    assert not rig.records or len(rig.calls(trace.id)) == 1


def sent_ids(step: dict[str, Any]) -> list[str]:
    """The ids that a step which sent events gives: a list in Python, in an object in JavaScript."""
    output = step["output"]
    return output["ids"] if isinstance(output, dict) else output


@pytest.mark.capability("send")
def test_events_sent_from_a_step_are_stored(rig: Rig) -> None:
    """What `send_event` sent can be read, with its data, and its ids are the step's result."""
    trace = rig.run("whole")
    (event_id,) = sent_ids(trace.steps["send"])
    event = rig.server.ask(f"/v1/events/{event_id}")["data"]
    assert (event["name"], event["data"]) == (rig.event("sent"), {"from": "whole"})


@pytest.mark.capability("send")
def test_many_events_are_sent_at_once(rig: Rig) -> None:
    """In order, each with an id of its own, whatever its user's id is."""
    trace = rig.run("sends")
    ids = trace.output
    assert len(set(ids)) == 3
    events = [rig.server.ask(f"/v1/events/{event_id}")["data"] for event_id in ids]
    assert [event["data"]["n"] for event in events] == [0, 1, 2]
    assert [event["id"] for event in events] == [f"{trace.id}-{n % 2}" for n in range(3)]


@pytest.mark.capability("lost")
def test_an_app_that_breaks_off_is_called_again(rig: Rig) -> None:
    """A connection that closes without an answer is a failed attempt that is made again; finished steps stay finished."""
    run_id = rig.start("budget-sleeps")
    rig.waiting(run_id, "nap")
    rig.recorder.unreachable = True
    try:
        until(lambda: rig.trace(run_id).attempts, "a call failed")
    finally:
        rig.recorder.unreachable = False
    trace = rig.ended(run_id)
    assert trace.output == ["before", "after"]
    assert rig.notes.counts() == {"before": 1, "after": 1}
    assert all(rig.recorder.url in one["error"]["message"] for one in trace.attempts)
