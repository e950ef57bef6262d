"""A real server, a real file, an unmodified client, and SIGKILL at random moments: nothing acknowledged is lost or repeated."""

from __future__ import annotations

import http.client
import os
import random
import sqlite3
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.processes import Process, Server, free_port, refused, running, until

pytestmark = pytest.mark.crash
HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("STEPWELL_KILL_ROUNDS", "10"))
SENDERS = 4
SEED = int(os.environ.get("STEPWELL_SEED", "1"))


class Senders:
    """Threads that send events until the server is gone, and know which were acknowledged."""

    def __init__(self, server: Server, event: str, kill_after: int) -> None:
        self.acknowledged: list[str] = []
        self._server, self._event, self._kill_after = server, event, kill_after
        self._enough = threading.Event()

    def run(self) -> list[str]:
        """Send; kill the server after so many answers; give the acknowledged ids."""
        threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        assert self._enough.wait(60), "the server answered too few events"
        self._server.kill()
        for thread in threads:
            thread.join()
        return self.acknowledged

    def _send(self) -> None:
        while True:
            try:
                self.acknowledged.append(self._server.send(self._event, {"n": len(self.acknowledged)}))
            except (OSError, http.client.HTTPException):
                self._enough.set()
                return
            if len(self.acknowledged) >= self._kill_after:
                self._enough.set()


@pytest.mark.parametrize(
    "event, output, rounds", [("count/steps", "[0,1,2,3,4]", ROUNDS), ("count/mixed", "[0,1,2,4,null]", max(3, ROUNDS // 4))]
)
def test_killed_at_random_moments(event: str, output: str, rounds: int, tmp_path: Path) -> None:
    """Every acknowledged event's run ends once, no result is recorded twice, and a step is called again only where its call was lost."""
    chance = random.Random(SEED)
    calls_file = tmp_path / "calls"
    calls_file.touch()
    app_port, server_port = free_port(), free_port()
    options = ("-u", f"http://127.0.0.1:{app_port}/api/inngest", "--retry-interval", "0.1", "--port", str(server_port))
    app = Process(
        [sys.executable, "-m", "uvicorn", "counting_app:app", "--port", str(app_port), "--log-level", "warning"],
        tmp_path / "app.log",
        env={"CALLS_FILE": str(calls_file), "SERVER_URL": f"http://127.0.0.1:{server_port}"},
        cwd=HERE,
    )
    acknowledged: list[str] = []
    with running(app):
        for _ in range(rounds):
            server = Server(tmp_path, *options)
            with running(server):
                server.synced("count-steps")
                acknowledged += Senders(server, event, chance.randint(1, 40)).run()
        with running(Server(tmp_path, *options)) as server:
            server.synced("count-steps")
            run_ids = [server.run_of(event_id) for event_id in acknowledged]
            for run_id in run_ids:
                server.ended(run_id, 120)
            assert server.ask("/api/set-aside")["set_aside"] == []
            assert server.stop() == 0
    judge(tmp_path / "test.db", run_ids, output, calls_file)


def judge(database: Path, run_ids: list[str], output: str, calls_file: Path) -> None:
    """Look into the file itself, and at what the app saw."""
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    runs = dict(connection.execute("SELECT id, status FROM runs"))
    lost = Counter(run_id for (run_id,) in connection.execute("SELECT run_id FROM attempts WHERE kind = 'lost'"))
    worn_out = {run_id for (run_id,) in connection.execute("SELECT id FROM runs WHERE output LIKE '%WorkerDied%'")}
    outputs = dict(connection.execute("SELECT id, output FROM runs"))
    ticks = connection.execute("SELECT events.key FROM runs JOIN events ON events.id = runs.first_event_id WHERE cause = 'cron'").fetchall()
    # A cron line may have begun a run in the very minute in which the server was stopped: that one is under way.
    under_way = {run_id for (run_id,) in connection.execute("SELECT id FROM runs WHERE ended_ms IS NULL AND cause = 'cron'")}
    left = {run_id for table in ("waits", "names", "items") for (run_id,) in connection.execute(f"SELECT run_id FROM {table}")} - under_way
    connection.close()
    assert len(set(ticks)) == len(ticks), "a tick was fired twice"
    assert left == set(), "something waits for a run that has ended"
    assert len(set(run_ids)) == len(run_ids), "two events have one run"
    for run_id in run_ids:
        if run_id not in worn_out:
            assert (runs[run_id], outputs[run_id]) == ("completed", output), run_id
    called = Counter(calls_file.read_text().splitlines())
    for line, count in called.items():
        run_id = line.split()[0]
        assert count <= 1 + lost[run_id], f"{line} was called {count} times, with {lost[run_id]} lost calls"


def test_a_second_server_is_told_who_has_the_file(tmp_path: Path) -> None:
    """The file belongs to one process; the second one ends with a sentence that names the first."""
    with running(Server(tmp_path)) as server:
        second = Process(
            [sys.executable, "-m", "stepwell", "dev", "--port", "0", "--db", str(tmp_path / "test.db")], tmp_path / "second.log"
        )
        with running(second):
            assert second.popen.wait(15) == 1
            assert f"in use by process {server.popen.pid}" in second.text()
        assert server.ask("/health")["status"] == 200


def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """What is not ours is never overwritten."""
    foreign = tmp_path / "test.db"
    foreign.write_bytes(b"something else entirely" * 100)
    process = Process([sys.executable, "-m", "stepwell", "dev", "--port", "0", "--db", str(foreign)], tmp_path / "log")
    with running(process):
        assert process.popen.wait(15) == 1
    assert "is not a SQLite database" in process.text()
    assert foreign.read_bytes() == b"something else entirely" * 100


def test_bad_input_is_refused_clearly(tmp_path: Path) -> None:
    """Each wrong request has its status and a sentence; the server goes on."""
    with running(Server(tmp_path)) as server:
        cases = [
            (b"{nonsense", 400, "JSON"),
            ({"data": {}}, 400, "name"),
            ({"name": "inngest/mine"}, 400, "reserved"),
            ({"name": "x", "ts": 5}, 400, "1980"),
            ({"name": "x", "data": [1]}, 400, "object"),
            ({"name": "x", "data": {"big": "x" * (3 * 1024 * 1024)}}, 400, "bytes"),
            ([{"name": "x"}] * 5001, 400, "5000"),
        ]
        for body, status, part in cases:
            got, answer = refused(server.url + "/e/key", body)
            assert got == status and part in answer["error"], answer
        assert refused(server.url + "/v1/runs/nonsense")[0] == 400
        assert refused(server.url + "/v1/runs/01J00000000000000000000000")[0] == 404
        assert (
            refused(server.url + "/fn/register", {"appName": "x", "functions": [{"id": "x-f", "name": "f", "concurrency": "no"}]})[0] == 400
        )
        foreign = refused(server.url + "/api/runs", headers={"origin": "http://elsewhere.example"})
        assert foreign[0] == 403
        assert refused(server.url + "/api/runs", headers={"host": "rebound.example"})[0] == 403
        mixed = refused(server.url + "/e/key", [{"name": "good"}, {"name": ""}])
        assert mixed[0] == 400 and len(mixed[1]["ids"]) == 1
        until(lambda: server.ask(f"/v1/events/{mixed[1]['ids'][0]}")["data"]["name"] == "good", "the good one is stored")


def test_start_makes_keys_once_and_asks_for_them(tmp_path: Path) -> None:
    """A production server takes events by key, reads by signing key, and the page's API by token."""
    import json
    import stat

    with running(Server(tmp_path, command="start")) as server:
        path = tmp_path / "test.db.d" / "keys.json"
        keys = json.loads(path.read_text())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert keys["admin_token"] in server.text()
        assert refused(server.url + "/e/wrong", {"name": "x"})[0] == 401
        assert len(server.ask(f"/e/{keys['event_keys'][0]}", {"name": "x"})["ids"]) == 1
        assert refused(server.url + "/v1/events")[0] == 401
        assert len(server.ask("/v1/events", token=keys["signing_key"])["data"]) == 1
        assert refused(server.url + "/api/runs")[0] == 401
        assert server.ask("/api/runs", token=keys["admin_token"])["runs"] == []
        assert refused(server.url + "/dev", headers={"authorization": f"Bearer {keys['signing_key']}"})[0] == 404
        assert server.stop() == 0
    with running(Server(tmp_path, command="start")) as server:
        assert server.text().count(keys["admin_token"]) == 1, "shown again"
        assert server.ask("/api/runs", token=keys["admin_token"])["runs"] == []
