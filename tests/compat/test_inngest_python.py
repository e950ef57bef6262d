"""Apps written with the unmodified `inngest` package from PyPI run on `stepwell dev -u …`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.processes import Process, Server, free_port, until

pytestmark = pytest.mark.compat
APPS = Path(__file__).parent / "apps"


class Rig:
    """A dev server with the FastAPI app synced."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.calls_file = directory / "calls"
        self.calls_file.touch()
        self.server = Server(directory, "-u", f"http://127.0.0.1:{port}/api/inngest", "--no-poll", "--retry-interval", "0.2")
        self.app = Process(
            [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", str(port), "--log-level", "warning"],
            directory / "app.log",
            env={"CALLS_FILE": str(self.calls_file), "SERVER_URL": self.server.url},
            cwd=APPS,
        )
        self.server.synced("py-whole")

    def calls(self, what: str) -> int:
        """How often the app noted this call."""
        return self.calls_file.read_text().splitlines().count(what)

    def run(self, event: str, data: dict[str, object] | None = None) -> dict[str, object]:
        """Send an event and give the ended run's trace."""
        return self.server.ended(self.server.run_of(self.server.send(event, data)))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One server and app for the module's tests."""
    made = Rig(tmp_path_factory.mktemp("compat"))
    try:
        yield made
    finally:
        made.app.kill()
        made.server.kill()


def test_run_parallel_sleep_retry_and_send(rig: Rig) -> None:
    """Every step runs as often as it has to, and the output is what the function returned."""
    trace = rig.run("t/whole", {"x": [1, "ü"]})
    run = trace["run"]
    assert run["status"] == "completed", run["error"]
    number = {"whole": 1, "half": 1.5}
    assert run["output"] == [number, [number, number], 3, 1, {"x": [1, "ü"]}]
    assert {what: rig.calls(what) for what in ("first", "left", "right", "flaky")} == {"first": 1, "left": 1, "right": 1, "flaky": 3}
    steps = {step["name"]: step for step in trace["steps"]}
    assert set(steps) == {"first", "left", "right", "nap", "flaky", "send"}
    assert steps["flaky"]["tries"] == 3 and [one["error"]["message"] for one in steps["flaky"]["attempts"]] == ["try 1", "try 2"]
    assert 250 <= steps["nap"]["ended_ms"] - steps["nap"]["queued_ms"] < 2000


def test_events_sent_from_a_step_are_stored(rig: Rig) -> None:
    """What `send_event` sent can be read, with its data."""
    rig.run("t/whole", {})
    events = until(lambda: rig.server.ask("/v1/events?name=t/sent")["data"], "the sent event is there")
    assert events[0]["data"] == {"from": "whole"}


def test_a_failed_step_can_be_caught(rig: Rig) -> None:
    """After its last try the step's error reaches user code."""
    trace = rig.run("t/caught")
    assert trace["run"]["output"] == "caught boom"
    assert rig.calls("boom") == 2


def test_a_failing_function_is_retried_and_fails(rig: Rig) -> None:
    """The function's error is the run's error, word for word, after all its attempts."""
    trace = rig.run("t/failing")
    assert trace["run"]["status"] == "failed"
    assert (trace["run"]["error"]["name"], trace["run"]["error"]["message"]) == ("ValueError", "the function itself")
    assert rig.calls("failing") == 2 and len(trace["attempts"]) == 2


def test_a_final_error_is_not_retried(rig: Rig) -> None:
    """`NonRetriableError` ends the run at once."""
    assert rig.run("t/final")["run"]["status"] == "failed"
    assert rig.calls("final") == 1


def test_on_failure_is_told(rig: Rig) -> None:
    """The failure handler runs once, by the lifecycle event."""
    rig.run("t/told")
    until(lambda: rig.calls("on_failure") == 1, "the failure handler ran")
    failed = until(lambda: rig.server.ask("/v1/events?name=inngest/function.failed")["data"], "the failure is an event")
    assert any(event["data"]["function_id"] == "py-told" and event["data"]["error"]["message"] == "tell them" for event in failed)


def test_triggers_with_wildcard_and_condition(rig: Rig) -> None:
    """A wildcard trigger runs where its condition holds, and only there."""
    ids = [rig.server.send("t/priced", {"amount": amount}) for amount in (5, 50)]
    run_id = rig.server.run_of(ids[1])
    assert rig.server.ended(run_id)["run"]["output"] == 1
    assert rig.server.ask(f"/v1/events/{ids[0]}/runs")["data"] == []


def test_a_second_event_with_the_same_id_starts_nothing(rig: Rig) -> None:
    """The event's own id is its idempotency key; both events are stored."""
    first = rig.server.send("t/caught", id="once")
    second = rig.server.send("t/caught", id="once")
    rig.server.ended(rig.server.run_of(first))
    assert rig.server.ask(f"/v1/events/{second}/runs")["data"] == []
    assert rig.server.ask(f"/v1/events/{second}")["data"]["id"] == "once"


def test_an_app_that_is_gone_fails_the_run_clearly(rig: Rig) -> None:
    """An app that answers nothing is a failed attempt, visible on the run; nothing else is disturbed."""
    body = {
        "appName": "gone",
        "url": "http://127.0.0.1:9/api/inngest",
        "sdk": "js:v4",
        "functions": [
            {
                "id": "gone-f",
                "name": "f",
                "triggers": [{"event": "gone/x"}],
                "steps": {"step": {"id": "step", "runtime": {"url": "http://127.0.0.1:9/x"}, "retries": {"attempts": 1}}},
            }
        ],
    }
    assert rig.server.ask("/fn/register", body)["ok"] is True
    trace = rig.run("gone/x")
    assert trace["run"]["status"] == "failed"
    assert "http://127.0.0.1:9" in trace["run"]["error"]["message"]


def test_a_wait_ends_with_its_event_or_its_time(rig: Rig) -> None:
    """Only an event that fits ends it; the whole event is the result, and nothing where the time was over."""
    run_id = rig.server.run_of(rig.server.send("t/waits", {"id": "a"}))
    until(lambda: rig.server.ask(f"/api/runs/{run_id}")["steps"], "the run waits")
    for data in ({"id": "b", "ok": True}, {"id": "a", "ok": False}, {"id": "a", "ok": True, "n": 3}):
        rig.server.send("t/answer", data)
    run = rig.server.ended(run_id)["run"]
    assert run["output"] == [{"id": "a", "ok": True, "n": 3}, "t/answer", None], run


def test_a_wait_is_there_before_its_siblings_run(rig: Rig) -> None:
    """A step beside the wait may send the very event."""
    assert rig.run("t/both")["run"]["output"] == [{"n": 1}, 1]


def test_invokes_give_results_errors_and_timeouts(rig: Rig) -> None:
    """Another function's result or error becomes the step's; one that takes too long or is not there is an error too."""
    run = rig.run("t/invokes")["run"]
    good, errors = run["output"]
    assert good == {"got": [1, 2]}
    by_step = {step: (name, message) for step, name, message in errors}
    assert by_step["bad"][1] == "the child failed"
    assert by_step["slow"] == ("InngestInvokeTimeoutError", "Timed out waiting for invoked function to complete")
    assert "could not find function with ID: py-nobody" in by_step["nobody"][1]
    finished = rig.server.ask("/v1/events?name=inngest/function.finished")["data"]
    assert any(event["data"].get("correlation_id", "").startswith(run["id"]) for event in finished)


def test_an_event_cancels_the_runs_it_fits(rig: Rig) -> None:
    """A run whose rule does not fit goes on."""
    runs = {name: rig.server.run_of(rig.server.send("t/cancelled", {"id": name})) for name in ("a", "b")}
    for run_id in runs.values():
        until(lambda run_id=run_id: rig.server.ask(f"/api/runs/{run_id}")["steps"], "the run sleeps")
    rig.server.send("t/stop", {"id": "a"})
    assert rig.server.ended(runs["a"])["run"]["status"] == "cancelled"
    assert rig.server.ask(f"/api/runs/{runs['b']}")["run"]["status"] == "waiting"
    cancelled = rig.server.ask("/v1/events?name=inngest/function.cancelled")["data"]
    assert [event["data"]["run_id"] for event in cancelled if event["data"]["function_id"] == "py-cancelled"] == [runs["a"]]


def test_a_run_that_takes_too_long_is_cancelled(rig: Rig) -> None:
    """`timeouts.finish` counts from the first call."""
    run = rig.run("t/limited")["run"]
    assert run["status"] == "cancelled" and run["ended_ms"] - run["started_ms"] >= 1000


def test_the_first_of_a_race_wins(rig: Rig) -> None:
    """Each step of a race calls the function again by itself."""
    assert rig.run("t/races")["run"]["status"] == "completed"


def test_a_tick_starts_one_run(rig: Rig) -> None:
    """A cron function runs once a tick; the next minute is waited for."""
    until(lambda: rig.calls("tick") >= 1, "the minute's tick came", 70)
    events = rig.server.ask("/v1/events?name=inngest/scheduled.timer")["data"]
    assert len({event["id"] for event in events}) == len(events) == rig.calls("tick")
    assert events[0]["data"]["cron"] == "* * * * *"


def test_bulk_cancellation_ends_what_waits(rig: Rig) -> None:
    """By app, function, span of time and condition."""
    runs = {name: rig.server.run_of(rig.server.send("t/cancelled", {"id": name})) for name in ("x", "y")}
    for run_id in runs.values():
        until(lambda run_id=run_id: rig.server.ask(f"/api/runs/{run_id}")["steps"], "the run sleeps")
    now = datetime.now(UTC).isoformat()
    body = {"app_id": "py", "function_id": "cancelled", "started_before": now, "if": "event.data.id == 'x'"}
    made = rig.server.ask("/v1/cancellations", body)["data"]
    assert made["function_id"] == "py-cancelled" and made["kind"] == "BulkRun"
    assert rig.server.ended(runs["x"])["run"]["status"] == "cancelled"
    assert rig.server.ask(f"/api/runs/{runs['y']}")["run"]["status"] == "waiting"
    assert [one["id"] for one in rig.server.ask("/v1/cancellations")["data"]] == [made["id"]]
