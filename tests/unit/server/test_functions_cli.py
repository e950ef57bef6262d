"""`stepwell fn limit`, `stepwell runs why`, `pause` and `resume` against a real server."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from stepwell.cli import main
from tests.support.processes import Server, running

STEP = {"id": "step", "runtime": {"url": "http://127.0.0.1:9/x"}, "retries": {"attempts": 0}}
APP = {
    "appName": "a",
    "url": "http://127.0.0.1:9/x",
    "sdk": "js:v4",
    "functions": [{"id": "a-f", "name": "f", "triggers": [{"event": "x"}], "steps": {"step": STEP}, "concurrency": 1}],
}


def test_limits_and_reasons_from_the_command_line(tmp_path: Path) -> None:
    """A limit is changed, shown, and taken back; what makes no sense is refused with the form it should have; a paused run says so."""
    with running(Server(tmp_path, "--no-poll")) as server:
        server.ask("/fn/register", APP)

        def run(*words: str) -> Result:
            return CliRunner().invoke(main, [*words, "--url", server.url])

        told = run("fn", "limit", "a-f", "--concurrency", "3", "--throttle", "10/1m+5", "--weight", "2", "--pin", "--json")
        assert json.loads(told.output)["override"] == {
            "concurrency": {"0": 3},
            "throttle": {"limit": 10, "period": "1m", "burst": 5},
            "weight": 2,
            "pin": True,
        }
        assert "has the limits that its app told" in run("fn", "limit", "a-f", "--reset").output
        for words, said in (
            (("--concurrency", "many"), "is neither a number nor PLACE=LIMIT"),
            (("--throttle", "10"), "is not LIMIT/PERIOD"),
            (("--concurrency", "1=3"), "no limit at place '1'"),
        ):
            refused = run("fn", "limit", "a-f", *words)
            assert refused.exit_code != 0 and said in refused.output, refused.output
        assert run("fn", "pause", "a-f").output == "a-f is paused\n"
        run_id = server.run_of(server.send("x"))
        assert "is paused" in run("runs", "why", run_id).output
        assert json.loads(run("runs", "why", run_id, "--json").output)["gate"] == "paused"
        assert run("runs", "pause", run_id).output == "paused\n"
        assert "The run is paused by a person" in run("runs", "why", run_id).output
        assert json.loads(run("runs", "resume", run_id, "--json").output) == {"run_id": run_id, "paused": None}
        assert run("runs", "resume", run_id).output == "resumed\n"
        refused = run("runs", "pause", "nobody")
        assert refused.exit_code != 0 and "there is no run 'nobody'" in refused.output
