"""Failures: of steps and of functions, tried again or not, caught or not, told to handlers."""

from __future__ import annotations

import pytest

from tests.compat.rig import Rig
from tests.support.processes import until

pytestmark = pytest.mark.compat


@pytest.mark.capability("step-retry")
def test_a_failed_step_can_be_caught(rig: Rig) -> None:
    """After its last try the step's error reaches user code."""
    trace = rig.run("caught")
    assert trace.output == "caught boom"
    assert rig.notes.count("boom") == 2
    boom = trace.steps["boom"]
    assert (boom["status"], boom["tries"], boom["error"]["message"]) == ("failed", 2, "boom")
    assert [one["error"]["message"] for one in boom["attempts"]] == ["boom", "boom"]


@pytest.mark.capability("step-retry")
def test_a_failed_step_that_is_not_caught_fails_the_run(rig: Rig) -> None:
    """With the step's error, and without trying the function again."""
    trace = rig.run("uncaught")
    assert "boom" in trace.error["message"]
    assert rig.notes.count("boom") == 2
    # The function is called once for each try of the step, and once to hear of its end.
    assert rig.notes.count("uncaught") == 3


@pytest.mark.capability("step-retry")
def test_each_step_and_the_function_have_tries_of_their_own(rig: Rig) -> None:
    """One retry is enough for three failures in three places."""
    trace = rig.run("budget")
    assert trace.output == "passed"
    assert rig.notes.counts() == {"a": 2, "b": 2, "end": 2}
    assert [one["error"]["message"] for one in trace.attempts] == ["the end"]


@pytest.mark.capability("function-retry")
def test_a_failing_function_is_retried_and_fails(rig: Rig) -> None:
    """The function's error is the run's error, word for word, after all its attempts."""
    trace = rig.run("failing")
    assert trace.error["message"] == "the function itself" and trace.error["name"]
    assert rig.notes.count("failing") == 2 and len(trace.attempts) == 2
    if rig.records:
        assert [call.attempt for call in rig.calls(trace.id)] == [0, 1]
        assert [call.request["ctx"]["max_attempts"] for call in rig.calls(trace.id)] == [2, 2]
    shown = rig.server.ask(f"/v1/runs/{trace.id}")["data"]
    assert shown["status"] == "Failed" and shown["output"] == trace.error


@pytest.mark.capability("final")
def test_a_final_error_is_not_retried(rig: Rig) -> None:
    """`NonRetriableError` ends the run at once."""
    trace = rig.run("final")
    assert trace.error["message"] == "no use"
    assert rig.notes.count("final") == 1


@pytest.mark.capability("final")
def test_a_final_error_in_a_step_is_not_retried(rig: Rig) -> None:
    """Neither the step nor the function is tried again."""
    trace = rig.run("finalstep")
    assert "no use in a step" in trace.error["message"]
    assert rig.notes.count("no use") == 1


@pytest.mark.capability("no-json")
def test_a_result_that_is_no_json_fails(rig: Rig) -> None:
    """The SDK says so, and the run tells it."""
    assert rig.run("unserializable").error["message"]


@pytest.mark.capability("retry-after")
def test_an_error_says_when_to_try_again(rig: Rig) -> None:
    """In a step and in the function; the retry comes then, not when the server would have chosen."""
    trace = rig.run("later")
    assert trace.output == "free"
    assert rig.notes.counts() == {"busy": 2, "later": 2}
    tries = [one for step in trace.step_list for one in step["attempts"]] + trace.attempts
    assert sorted(one["error"]["message"] for one in tries) == ["come back", "once more"]
    assert trace.run["ended_ms"] - trace.run["started_ms"] >= 3000


@pytest.mark.capability("on-failure")
def test_the_failure_handler_is_told_once(rig: Rig) -> None:
    """By the lifecycle event, with the error and the event that started the run."""
    trace = rig.run("told", {"n": 1})
    until(lambda: rig.notes.count("on_failure tell them") == 1, "the failure handler ran")
    (failed,) = rig.told("function.failed", trace.id)
    data = failed["data"]
    assert (data["function_id"], data["error"]["message"], data["event"]["data"]) == (rig.slug("told"), "tell them", {"n": 1})
    assert failed["id"] == trace.id
    (handler,) = until(lambda: rig.runs_of(failed["internal_id"]), "the handler's run is there")
    assert rig.ended(handler["run_id"]).output == "told of it"


@pytest.mark.capability("system-events")
def test_every_end_is_told_once(rig: Rig) -> None:
    """A completed run has one `function.finished` with its result; a failed one has a `function.failed` as well."""
    good, bad = rig.run("values", {"value": 7}), rig.run("final")
    (finished,) = rig.told("function.finished", good.id)
    data = finished["data"]
    assert data["result"] == {"step": 7, "event": 7} and "error" not in data and data["_inngest"]["status"] == "Completed"
    assert data["event"]["name"] == rig.event("values")
    assert rig.told("function.failed", good.id) == []
    assert [event["data"]["error"]["message"] for event in rig.told("function.failed", bad.id)] == ["no use"]
    assert [event["data"]["_inngest"]["status"] for event in rig.told("function.finished", bad.id)] == ["Failed"]
