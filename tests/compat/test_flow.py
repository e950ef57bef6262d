"""Flow control: each setting as unmodified SDKs write it, seen from the app's side and in the runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compat.rig import Rig
from tests.support.processes import until

pytestmark = pytest.mark.compat


def queue(rig: Rig, function: str, *datas: dict[str, Any]) -> list[str]:
    """Send events one after the other; their runs."""
    return [rig.start(function, data) for data in datas]


def shown(rig: Rig, event_id: str) -> list[dict[str, Any]]:
    """The runs of an event as the page shows them, those that were dropped too."""
    runs: list[dict[str, Any]] = rig.server.ask(f"/api/events/{event_id}/runs")["runs"]
    return runs


@pytest.mark.capability("concurrency")
def test_one_call_of_a_key_at_a_time(rig: Rig) -> None:
    """The second run of a key waits, and can say for whom; a run of another key does not."""
    begins = f"{rig.event('narrow')} begins"
    first, second = queue(rig, "narrow", {"t": "a", "n": 1}, {"t": "a", "n": 2})
    until(lambda: rig.notes.count(begins) == 1, "the first is at work")
    (other,) = queue(rig, "narrow", {"t": "b", "n": 3})
    until(lambda: rig.notes.count(begins) == 2, "another key's run is at work beside it")
    why = rig.server.ask(f"/api/runs/{second}/why")
    assert (why["gate"], why["limit"], why["holders"]) == ("concurrency", 1, [first]), why
    rig.notes.gate.set()
    assert [rig.ended(run_id).output for run_id in (first, second, other)] == ["1", "2", "3"]
    ends, starts = (rig.trace(run_id).steps["work"] for run_id in (first, second))
    assert starts["started_ms"] >= ends["ended_ms"]


@pytest.mark.capability("throttle")
def test_starts_are_spread_over_time(rig: Rig) -> None:
    """The burst starts at once, each further run a period later; none is lost."""
    runs = [rig.ended(run_id).run for run_id in queue(rig, "throttled", *({"t": "x"} for _ in range(4)))]
    started = sorted(run["started_ms"] for run in runs)
    assert all(run["output"] == "ran" for run in runs)
    # Admitted a period apart; a busy machine makes the call of an earlier one later, and so the distance shorter.
    assert started[2] - started[0] >= 1700 and started[3] - started[2] >= 1700, started


@pytest.mark.capability("rate-limit")
def test_what_comes_too_often_is_dropped(rig: Rig) -> None:
    """The second event of the window starts nothing that SDKs see; the page shows why. An invoke is told."""
    assert rig.run("rated", {"t": "x"}).output == "ran"
    dropped = rig.send("rated", {"t": "x"})
    (run,) = until(lambda: shown(rig, dropped), "the page shows the dropped run")
    assert run["status"] == "skipped" and rig.runs_of(dropped) == []
    assert rig.run("rated", {"t": "y"}).output == "ran"
    assert "rate limited" in rig.run("asks-rated", {"t": "x"}).output


@pytest.mark.capability("rate-limit")
def test_an_idempotency_key_runs_once(rig: Rig) -> None:
    """Another event of the same value starts nothing."""
    assert rig.run("onceonly", {"t": "x"}).output == "ran"
    again = rig.send("onceonly", {"t": "x"})
    until(lambda: shown(rig, again), "the page shows the dropped run")
    assert rig.runs_of(again) == []


@pytest.mark.capability("debounce")
def test_the_last_event_starts_the_run(rig: Rig) -> None:
    """One run for a burst, with its last event, a second after it."""
    ids = [rig.send("debounced", {"t": "x", "n": n}) for n in range(4)]
    run = rig.ended(rig.server.run_of(ids[-1]))
    assert run.output == 3
    assert [rig.runs_of(event_id) for event_id in ids[:-1]] == [[], [], []]


@pytest.mark.capability("batch")
def test_events_are_joined_in_one_run(rig: Rig) -> None:
    """By their number at once, else by time; each of the events leads to the run."""
    ids = [rig.send("joined", {"t": "full", "n": n}) for n in range(3)]
    full = rig.ended(rig.server.run_of(ids[0]))
    assert full.output == [0, 1, 2]
    assert {rig.server.run_of(event_id) for event_id in ids} == {full.id}
    late = [rig.send("joined", {"t": "late", "n": n}) for n in range(2)]
    run = rig.ended(rig.server.run_of(late[1]))
    assert run.output == [0, 1] and run.run["started_ms"] - full.run["started_ms"] >= 1900


@pytest.mark.capability("priority")
def test_the_more_urgent_run_is_next(rig: Rig) -> None:
    """Of the queued runs; the one at work is left alone."""
    begins = f"{rig.event('urgent')} begins"
    (first,) = queue(rig, "urgent", {"n": 1})
    until(lambda: rig.notes.count(begins) == 1, "the first is at work")
    later, sooner = queue(rig, "urgent", {"n": 2}, {"n": 3, "plan": "pro"})
    rig.notes.gate.set()
    started = [rig.ended(run_id).run["started_ms"] for run_id in (first, sooner, later)]
    assert started == sorted(started), started


@pytest.mark.capability("singleton")
def test_a_second_run_is_skipped(rig: Rig) -> None:
    """While the first one lives; it is visible as skipped, and tells of no end."""
    begins = f"{rig.event('single')} begins"
    (first,) = queue(rig, "single", {"t": "x", "n": 1})
    until(lambda: rig.notes.count(begins) == 1, "the first is at work")
    (second,) = queue(rig, "single", {"t": "x", "n": 2})
    assert rig.ended(second).status == "skipped" and rig.told("function.finished", second) == []
    rig.notes.gate.set()
    assert rig.ended(first).output == "1"
    assert rig.run("single", {"t": "x", "n": 3}).output == "3"


@pytest.mark.capability("singleton")
def test_a_second_run_takes_the_first_ones_place(rig: Rig) -> None:
    """The first is cancelled, and tells so."""
    (first,) = queue(rig, "latest", {"t": "x", "n": 1})
    rig.waiting(first, "long")
    assert rig.run("latest", {"t": "x", "n": 2}).output == "ran"
    assert rig.ended(first).status == "cancelled" and len(rig.told("function.cancelled", first)) == 1
