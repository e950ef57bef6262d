"""Calls of a real server: streamed answers, payloads too large to be sent along, limits of a run (§4.9, §4.10, §11.1)."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Server, refused, until
from tests.support.scripted_app import Answer, Call, ScriptedApp, op, ops, step_hash

MIB = 1024 * 1024
ONE = {"id": "one", "triggers": [{"event": "t/one"}], "retries": 1}


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., tuple[Server, ScriptedApp]]]:
    """Starts a server and an app that answers by a script, registered."""
    made: list[tuple[Server, ScriptedApp]] = []

    def run(script: Callable[[Call], Answer], *options: str, function: dict[str, Any] = ONE) -> tuple[Server, ScriptedApp]:
        app = ScriptedApp("t", script, function)
        server = Server(tmp_path, "--no-poll", "--retry-interval", "0.05", *options)
        made.append((server, app))
        app.server_url = server.url
        assert app.register()[0] == 200
        return server, app

    yield run
    for server, app in made:
        server.kill()
        app.stop()


def trace(server: Server, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """The trace of a run, when it has ended."""
    return server.ended(server.run_of(server.send("t/one", data)))


def envelope(status: int, body: Any, **headers: str) -> Answer:
    """A streamed answer: white space that keeps the connection alive, then the real one."""
    told = {"status": status, "headers": {"x-inngest-sdk": "inngest-py:v0.5.19", "x-inngest-req-version": "2", **headers}, "body": body}
    return 201, {}, b" \n " * 2000 + json.dumps(told).encode()


def test_streamed_answers(begin: Callable[..., tuple[Server, ScriptedApp]]) -> None:
    """The status inside counts; a body may be JSON or a text of it; a stream that breaks off is a failed attempt (§4.9)."""
    broken: list[str] = []

    def script(call: Call) -> Answer:
        if not call.done:
            return envelope(206, json.dumps([op("StepRun", "a", data=1)]))
        if not broken:
            broken.append("once")
            return 201, {}, b"   \n  "
        return envelope(200, {"whole": call.body["steps"][step_hash("a")]})

    server, _ = begin(script)
    seen = trace(server)
    assert seen["run"]["output"] == {"whole": {"data": 1}}, seen["run"]
    assert [one["error"]["code"] for one in seen["attempts"]] == ["stream_broken"]


def test_a_stream_tells_of_a_failure(begin: Callable[..., tuple[Server, ScriptedApp]]) -> None:
    """The status of HTTP is 201 whatever happened; a header inside says that no retry is wanted."""

    def script(call: Call) -> Answer:
        return envelope(500, {"name": "Error", "message": "inside"}, **{"x-inngest-no-retry": "true"})

    server, app = begin(script)
    run = trace(server)["run"]
    assert (run["status"], run["error"]["message"], len(app.calls)) == ("failed", "inside", 1)


def test_what_is_too_large_is_fetched(begin: Callable[..., tuple[Server, ScriptedApp]]) -> None:
    """Above 4 MiB the call says `use_api` in both places, and brings the first event only; the app asks for steps and events (§4.10)."""
    fetched: dict[str, Any] = {}

    def script(call: Call) -> Answer:
        n = len(call.done)
        if n < 3:
            return ops(op("StepRun", f"s{n}", data="x" * (3 * MIB // 2)))
        assert call.body["use_api"] is True and call.body["ctx"]["use_api"] is True
        assert call.body["steps"] == {} and call.body["events"] == [] and call.body["event"]["data"] == {"k": 1}
        for what in ("actions", "batch"):
            with urllib.request.urlopen(f"{app.server_url}/v0/runs/{call.body['ctx']['run_id']}/{what}", timeout=15) as answer:
                fetched[what] = json.loads(answer.read())
        return 200, {}, "done"

    server, app = begin(script)
    seen = trace(server, {"k": 1})
    assert seen["run"]["output"] == "done", seen["run"]
    assert {key: len(value["data"]) for key, value in fetched["actions"].items()} == {step_hash(f"s{n}"): 3 * MIB // 2 for n in range(3)}
    assert [event["data"] for event in fetched["batch"]] == [{"k": 1}]
    assert [call.body["use_api"] for call in app.calls] == [False, False, False, True]
    run_id = seen["run"]["id"]
    for what in ("actions", "batch"):
        assert refused(f"{server.url}/v0/runs/{run_id}/{what}")[0] == 410
        status, answer = refused(f"{server.url}/v0/runs/x/{what}")
        assert status == 400 and answer["status"] == 400 and "'x'" in answer["error"]


def test_limits_that_an_operator_set(begin: Callable[..., tuple[Server, ScriptedApp]]) -> None:
    """Steps and state: the run fails at once with the protocol's words, and no retry follows (§11.1)."""

    def script(call: Call) -> Answer:
        if call.body["event"]["data"].get("large"):
            return ops(op("StepRun", f"s{len(call.done)}", data="x" * 3000))
        return ops(op("StepRun", f"s{len(call.done)}", data=1))

    server, app = begin(script, "--max-steps", "3", "--max-state", "4KiB")
    run = trace(server)["run"]
    assert run["error"]["name"] == "InngestErrFunctionOverflowed"
    assert run["error"]["message"] == "The function run exceeded the step limit of 3 steps."
    assert len(app.calls) == 4
    run = trace(server, {"large": True})["run"]
    assert run["error"]["name"] == "InngestErrStateOverflowed"
    assert run["error"]["message"] == "The function run exceeded the state size limit of 4096 bytes."
    assert len(app.calls) == 6


def test_a_step_s_output_has_a_limit(begin: Callable[..., tuple[Server, ScriptedApp]]) -> None:
    """One step of 4 MiB is taken, a larger one fails the attempt, by name."""

    def script(call: Call) -> Answer:
        if not call.done:
            return ops(op("StepRun", "a", data="x" * (4 * MIB - 2)))
        return ops(op("StepRun", "b", data="x" * (4 * MIB - 1)))

    server, _ = begin(script)
    seen = trace(server)
    assert seen["run"]["status"] == "failed" and "the output of step 'b' has 4194305 bytes" in seen["run"]["error"]["message"]
    assert [one["error"]["code"] for one in seen["attempts"]] == ["output_too_large"] * 2


def test_an_app_that_asks_for_a_signature(begin: Callable[..., tuple[Server, ScriptedApp]]) -> None:
    """Which a development server does not have: the run's error says what to set."""

    def script(call: Call) -> Answer:
        return 401, {"x-inngest-no-retry": "true"}, {"message": "Unauthorized"}

    server, _ = begin(script)
    error = trace(server)["run"]["error"]
    assert error["code"] == "unauthorized" and error["message"].startswith("Unauthorized. The app asks for a signature (HTTP 401)")
    assert "INNGEST_DEV=1" in error["message"]


def test_an_event_to_come_starts_its_run_then(begin: Callable[..., tuple[Server, ScriptedApp]]) -> None:
    """A `ts` in the future delays the first call, not the run's row (§2.1)."""
    import time

    server, app = begin(lambda call: (200, {}, "done"))
    due_ms = int(time.time() * 1000) + 600
    run_id = server.run_of(server.send("t/one", ts=due_ms))
    assert server.ask(f"/api/runs/{run_id}")["run"]["status"] == "queued" and not app.calls
    run = server.ended(run_id)["run"]
    assert run["started_ms"] >= due_ms and run["output"] == "done"
    until(lambda: len(app.calls) == 1, "it was called once")
