"""What only the SDK for JavaScript has."""

from __future__ import annotations

import pytest

from tests.compat.rig import Rig
from tests.support.processes import until

pytestmark = pytest.mark.compat


@pytest.mark.capability("match")
def test_a_wait_may_match_by_a_field(rig: Rig) -> None:
    """`match` names a field in which both events are equal; where both lack it they are."""
    run_id = rig.start("matches", {"id": 7})
    rig.waiting(run_id, "answer")
    for identity in (8, "7", 7.0):
        rig.send("matched", {"id": identity, "sent": str(identity)})
    assert rig.ended(run_id).output == {"id": 7, "sent": "7.0"}
    run_id = rig.start("matches")
    rig.waiting(run_id, "answer")
    rig.send("matched", {"n": 1})
    assert rig.ended(run_id).output == {"n": 1}


@pytest.mark.capability("match")
def test_a_cancellation_may_match_by_a_field(rig: Rig) -> None:
    """Only the run whose event has the same value ends."""
    runs = {name: rig.start("cancelled-match", {"id": name}) for name in ("a", "b")}
    for run_id in runs.values():
        rig.waiting(run_id, "long")
    rig.send("stop-match", {"id": "a"})
    assert rig.ended(runs["a"]).status == "cancelled"
    assert rig.trace(runs["b"]).status == "waiting"


@pytest.mark.capability("error-shape")
def test_a_steps_error_comes_back_as_it_was(rig: Rig) -> None:
    """As the SDK's `StepError`, with the name, the message and the cause."""
    is_step_error, name, message, cause = rig.run("error-shape").output
    assert (is_step_error, message, cause) == (True, "boom", "what lies behind") and name


@pytest.mark.capability("error-shape")
def test_a_final_error_of_a_step_can_be_caught(rig: Rig) -> None:
    """It is not tried again, and the function goes on."""
    assert rig.run("finalstep", {"catch": True}).output == "caught no use in a step"
    assert rig.notes.count("no use") == 1


@pytest.mark.capability("middleware")
def test_middleware_gives_a_function_what_it_needs(rig: Rig) -> None:
    """The SDK's own dependency injection, untouched."""
    assert rig.run("middleware").output == ["given", "GIVEN"]


@pytest.mark.capability("experiment")
def test_an_experiment_chooses_once(rig: Rig) -> None:
    """The choice is a step of a type of its own, and the variant's steps are steps like any."""
    trace = rig.run("experiments")
    assert trace.output == ["the new way", "new"]
    assert trace.steps["flow"]["type"] == "group.experiment" and set(trace.steps) == {"flow", "new"}


@pytest.mark.capability("sessions")
def test_sessions_are_handed_on(rig: Rig) -> None:
    """From the event that started a run to those that it sends, with what the sender adds."""
    trace = rig.run("meta", {}, meta={"sessions": {"chat": "c-1"}})
    assert trace.output == {"sessions": {"chat": "c-1"}}
    (sent,) = trace.steps["send"]["output"]["ids"]
    child = rig.ended(rig.server.run_of(sent))
    assert child.output == {"sessions": {"chat": "c-1", "own": "o"}}


@pytest.mark.capability("jitter")
def test_a_tick_may_be_late_by_chance(rig: Rig) -> None:
    """Never by more than `jitter`; the zone stands in the line."""

    def told() -> dict[str, object] | None:
        ticks = [event["data"] for event in rig.events("inngest/scheduled.timer") if event["data"]["cron"].startswith("TZ=Europe/Berlin")]
        return ticks[0] if ticks else None

    tick = until(told, "the minute's tick came", 70)
    seconds = float(str(tick["fireAt"])[17:].rstrip("Z")) - float(str(tick["scheduledAt"])[17:].rstrip("Z"))
    assert str(tick["scheduledAt"]).endswith(":00Z") and 0 <= seconds < 2.001
