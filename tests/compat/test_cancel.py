"""Runs that are ended from outside, or by their time."""

from __future__ import annotations

import urllib.error
from datetime import UTC, datetime

import pytest

from tests.compat.rig import Rig
from tests.support.processes import until

pytestmark = pytest.mark.compat


def asleep(rig: Rig, *names: str) -> dict[str, str]:
    """Runs that sleep for long, by the id in their event."""
    runs = {name: rig.start("cancelled", {"id": name}) for name in names}
    for run_id in runs.values():
        rig.waiting(run_id, "long")
    return runs


@pytest.mark.capability("cancel")
def test_an_event_cancels_the_runs_it_fits(rig: Rig) -> None:
    """A run whose rule does not fit goes on; the end is told once."""
    runs = asleep(rig, "a", "b")
    rig.send("stop", {"id": "a"})
    assert rig.ended(runs["a"]).status == "cancelled"
    assert rig.trace(runs["b"]).status == "waiting"
    (told,) = rig.told("function.cancelled", runs["a"])
    assert told["data"]["function_id"] == rig.slug("cancelled") and told["data"]["_inngest"]["status"] == "Cancelled"
    assert "error" not in told["data"] and rig.told("function.cancelled", runs["b"]) == []


@pytest.mark.capability("cancel")
def test_a_run_is_cancelled_by_the_api(rig: Rig) -> None:
    """It shows as cancelled, and its sleep never wakes it."""
    (run_id,) = asleep(rig, "api").values()
    rig.server.ask(f"/v1/runs/{run_id}", method="DELETE")
    assert rig.ended(run_id).status == "cancelled"
    assert rig.server.ask(f"/v1/runs/{run_id}")["data"]["status"] == "Cancelled"


@pytest.mark.capability("cancel")
def test_what_a_cancelled_runs_call_gives_is_not_kept(rig: Rig) -> None:
    """A call that is out goes on to its end; its result is dropped, and no other call follows."""
    run_id = rig.start("gated")
    until(lambda: rig.trace(run_id).status == "running", "the call is out")
    rig.server.ask(f"/v1/runs/{run_id}", method="DELETE")
    assert rig.ended(run_id).status == "cancelled"
    rig.notes.gate.set()
    until(lambda: rig.notes.count("busy") == 1 and (not rig.records or len(rig.calls(run_id)) == 1), "the call came to its end")
    rig.run("plain")
    trace = rig.trace(run_id)
    assert trace.status == "cancelled" and (not rig.records or len(rig.calls(run_id)) == 1)
    # With checkpoints the code up to the next step runs before the SDK hears that its checkpoint is refused.
    assert rig.notes.count("after") == (1 if rig.spec.ways == "checkpointed" else 0)
    assert all(step["status"] != "completed" for step in trace.step_list)


@pytest.mark.capability("cancel")
def test_a_run_that_has_ended_is_not_cancelled(rig: Rig) -> None:
    """The API says so, and the run stays as it is."""
    done, (run_id,) = rig.run("plain").id, asleep(rig, "v0").values()
    for _ in range(2):
        rig.server.ask(f"/v0/runs/{run_id}", method="DELETE")
        assert rig.ended(run_id).status == "cancelled"
    with pytest.raises(urllib.error.HTTPError) as refused:
        rig.server.ask(f"/v0/runs/{done}", method="DELETE")
    assert refused.value.code == 409 and rig.trace(done).status == "completed"


@pytest.mark.capability("rerun")
def test_a_run_is_run_again(rig: Rig) -> None:
    """With the same event, as a run of its own that names the first; an event's id does not stand in its way."""
    first = rig.run("whole", {"x": 1}, id=f"{rig.app_id}-rerun")
    again = rig.ended(rig.server.ask(f"/api/runs/{first.id}/rerun", b"", method="POST")["run_id"])
    assert again.id != first.id and again.output[4] == {"x": 1}
    assert rig.notes.count("first") == 2
    assert rig.server.ask(f"/v1/runs/{again.id}")["data"]["original_run_id"] == first.id


@pytest.mark.capability("cancel")
def test_bulk_cancellation_ends_what_waits(rig: Rig) -> None:
    """By app, function, span of time and condition."""
    runs = asleep(rig, "x", "y")
    now = datetime.now(UTC).isoformat()
    body = {"app_id": rig.app_id, "function_id": "cancelled", "started_before": now, "if": "event.data.id == 'x'"}
    made = rig.server.ask("/v1/cancellations", body)["data"]
    assert made["function_id"] == rig.slug("cancelled") and made["kind"] == "BulkRun"
    assert rig.ended(runs["x"]).status == "cancelled"
    assert rig.trace(runs["y"]).status == "waiting"
    assert made["id"] in [one["id"] for one in rig.server.ask("/v1/cancellations")["data"]]


@pytest.mark.capability("timeouts")
def test_a_run_that_takes_too_long_is_cancelled(rig: Rig) -> None:
    """`timeouts.finish` counts from the first call."""
    trace = rig.run("limited")
    assert trace.status == "cancelled" and trace.run["ended_ms"] - trace.run["started_ms"] >= 1000


@pytest.mark.capability("timeouts")
def test_a_run_that_starts_too_late_is_cancelled(rig: Rig) -> None:
    """`timeouts.start` counts while a run waits for a place."""
    first = rig.start("startlimited")
    until(lambda: rig.trace(first).status == "running", "the first run has the place")
    second = rig.start("startlimited")
    try:
        trace = rig.ended(second)
        assert trace.status == "cancelled" and trace.run["started_ms"] is None
    finally:
        rig.notes.gate.set()
    assert rig.ended(first).output == "started" and rig.notes.count("busy") == 1
