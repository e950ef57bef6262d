"""Functions that invoke functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.compat.rig import Rig
from tests.support.processes import until

pytestmark = pytest.mark.compat


@pytest.mark.capability("invoke")
def test_invokes_give_results_errors_and_timeouts(rig: Rig) -> None:
    """Another function's result or error becomes the step's; one that takes too long or is not there is an error too."""
    good, errors = rig.run("invokes").output
    assert good == {"got": [1, 2]}
    by_step = {step: (name, message) for step, name, message in errors}
    assert by_step["bad"][1] == "the child failed"
    assert by_step["slow"] == ("InngestInvokeTimeoutError", "Timed out waiting for invoked function to complete")
    assert f"could not find function with ID: {rig.slug('nobody')}" in by_step["nobody"][1]


@pytest.mark.capability("invoke")
def test_a_cancelled_child_is_an_error_of_its_parent(rig: Rig) -> None:
    """The parent goes on, and can catch it."""
    parent = rig.start("invokes-once", {"nap": 300})
    rig.waiting(parent, "child")
    child = until(lambda: _invoked(rig, parent), "the child is invoked")
    (child_id,) = until(lambda: [run["run_id"] for run in rig.runs_of(child[0]["internal_id"])], "the child runs")
    rig.waiting(child_id, "nap")
    rig.server.ask(f"/v1/runs/{child_id}", method="DELETE")
    caught, name, message = rig.ended(parent).output
    assert (caught, name) == ("caught", "InngestInvokeCancelledError") and child_id in message


@pytest.mark.capability("system-events")
def test_an_invocation_is_told_by_events(rig: Rig) -> None:
    """`function.invoked` starts the child, `function.finished` names the step that waits for it."""
    trace = rig.run("invokes-once", {"x": "y"})
    assert trace.output == {"got": "y"}
    correlation = f"{trace.id}.{trace.steps['child']['id']}"
    (invoked,) = _invoked(rig, trace.id)
    assert invoked["data"]["x"] == "y" and invoked["data"]["_inngest"]["correlation_id"] == correlation
    assert invoked["data"]["_inngest"]["fn_id"] == rig.slug("child")
    finished = [event for event in rig.events("inngest/function.finished") if event["data"].get("correlation_id") == correlation]
    assert [event["data"]["result"] for event in finished] == [{"got": "y"}]
    assert finished[0]["data"]["function_id"] == rig.slug("child")


@pytest.mark.capability("invoke-app")
def test_another_apps_function_is_invoked(rig: Rig, tmp_path: Path) -> None:
    """By the other app's id, in its own process."""
    other = f"{rig.app_id}-other"
    with rig.other_app(tmp_path, other, "child"):
        assert rig.run("invokes-other", {"app": other, "x": 5}).output == {"got": 5}
    finished = [event for event in rig.events("inngest/function.finished") if event["data"]["function_id"] == f"{other}-child"]
    assert [event["data"]["result"] for event in finished] == [{"got": 5}]


@pytest.mark.capability("invoke")
def test_functions_are_invoked_by_reference(rig: Rig) -> None:
    """Side by side, by the ids of app and function alone."""
    trace = rig.run("refers")
    assert trace.output == [{"got": "left"}, {"got": "right"}]
    assert {step["op"] for step in trace.step_list} == {"invokefunction"}


def _invoked(rig: Rig, parent: str) -> list[dict[str, Any]]:
    """The events that a run's invocations made."""
    events = rig.events("inngest/function.invoked")
    return [event for event in events if str(event["data"]["_inngest"]["correlation_id"]).startswith(parent)]
