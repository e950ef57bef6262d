"""Actors under SIGKILL, of their server and of their processes: no turn overlaps another, units stay whole, alarms go off."""

from __future__ import annotations

import http.client
import os
import random
import signal
import sqlite3
import threading
import urllib.error
from pathlib import Path

import psutil
import pytest

from tests.support.processes import Server, running, until

pytestmark = pytest.mark.crash
APP = str(Path(__file__).parent / "actor_app.py")
ROUNDS = max(3, int(os.environ.get("STEPWELL_KILL_ROUNDS", "10")) // 2)
SEED = int(os.environ.get("STEPWELL_SEED", "1"))
NAMES = ("a", "b", "c", "d", "e", "f")
CALLERS = 6
KINDS = ("Account", "Ledger")


class Callers:
    """Threads that call actors until they are stopped, and know what was answered. A call that fails is only noted."""

    def __init__(self, server: Server, chance: random.Random, kind: str) -> None:
        self.answered: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.count = self.failed = 0
        self._server, self._kind, self._stop = server, kind, threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(random.Random(chance.random()),)) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _call(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            name = chance.choice(NAMES)
            try:
                count = self._server.ask(f"/v1/actors/kill-{self._kind}/{name}/add", {}, method="POST")
            except (OSError, http.client.HTTPException, urllib.error.HTTPError):
                self.failed += 1
                continue
            self.answered[name] = max(self.answered[name], count)
            self.count += 1

    def stop(self) -> None:
        """No more calls."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def judge(server: Server, kind: str, answered: dict[str, int], folder: Path) -> None:
    """Whole units, nothing that was answered lost, every alarm done, and no turn beside another."""
    for name in NAMES:

        def settled(name: str = name) -> dict[str, int] | None:
            told: dict[str, int] = server.ask(f"/v1/actors/kill-{kind}/{name}/look", {}, method="POST")
            return told if told.get("seen") == told.get("a") else None

        told = until(settled, f"the alarm of {name} has seen what was written with it")
        if not told["notes"]:
            continue
        assert told["a"] == told["b"] == told["notes"], "half a unit"
        assert told.get("c", 0) <= told["a"], "a unit out of its order"
        assert told["a"] >= answered[name], "what was answered is lost"
    overlaps = folder / "overlaps"
    assert not overlaps.exists(), overlaps.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_is_killed_at_random_moments(kind: str, tmp_path: Path) -> None:
    """Again and again, in the midst of turns, commits and alarms."""
    chance = random.Random(SEED)
    turns = tmp_path / "turns"
    turns.mkdir()
    answered = dict.fromkeys(NAMES, 0)
    for _ in range(ROUNDS):
        with running(Server(tmp_path, APP, env={"TURNS_DIR": str(turns)})) as server:
            server.synced("kill-ready")
            callers = Callers(server, chance, kind)
            wanted = chance.randint(1, 150)
            until(lambda: callers.count >= wanted, f"{wanted} answers")  # noqa: B023 - called at once
            server.kill()
            callers.stop()
            answered = {name: max(answered[name], callers.answered[name]) for name in NAMES}
    with running(Server(tmp_path, APP, env={"TURNS_DIR": str(turns)})) as server:
        server.synced("kill-ready")
        judge(server, kind, answered, turns)
        assert server.ask("/api/set-aside")["set_aside"] == []
        assert server.stop() == 0
    connection = sqlite3.connect(tmp_path / "test.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM actors WHERE firing IS NOT NULL OR alarm_ms IS NOT NULL").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_of_actors_is_killed(kind: str, tmp_path: Path) -> None:
    """Its calls fail, its actors come to life elsewhere with what they had stored, and the others go on."""
    chance = random.Random(SEED)
    turns = tmp_path / "turns"
    turns.mkdir()
    with running(Server(tmp_path, APP, env={"TURNS_DIR": str(turns)})) as server:
        server.synced("kill-ready")
        callers = Callers(server, chance, kind)
        process = psutil.Process(server.popen.pid)
        for _ in range(ROUNDS):
            wanted = callers.count + chance.randint(10, 100)
            until(lambda: callers.count >= wanted, f"{wanted} answers")  # noqa: B023 - called at once
            children = until(process.children, "there is a child")
            chance.choice(children).send_signal(signal.SIGKILL)
        callers.stop()
        judge(server, kind, callers.answered, turns)
        assert server.ask("/health")["status"] == 200
        assert server.stop() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_moves_actors_between_turns(kind: str, tmp_path: Path) -> None:
    """The app's file changes under load: no call fails, and no turn of the new code begins before the old one's has ended."""
    chance = random.Random(SEED)
    turns = tmp_path / "turns"
    turns.mkdir()
    code = tmp_path / "app" / "actor_app.py"
    code.parent.mkdir()
    code.write_text(Path(APP).read_text())
    with running(Server(tmp_path, str(code), env={"TURNS_DIR": str(turns)})) as server:
        server.synced("kill-ready")
        callers = Callers(server, chance, kind)
        for n in range(3):
            said = server.text().count("runs anew")
            until(lambda: callers.count >= 50 * (n + 1), "answers")  # noqa: B023 - called at once
            code.write_text(code.read_text() + f"\n# change {n}\n")
            until(lambda: server.text().count("runs anew") > said, "the app runs anew")  # noqa: B023 - called at once
        done = callers.count
        until(lambda: callers.count >= done + 50, "answers of the last code")
        callers.stop()
        assert callers.failed == 0
        judge(server, kind, callers.answered, turns)
        assert server.stop() == 0
