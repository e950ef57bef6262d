"""Queues with consumers in child processes, and SIGKILL of the server and of its children at random moments, in the midst of batches."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.processes import Server, running, until

pytestmark = pytest.mark.crash
APP = str(Path(__file__).parent / "queue_app.py")
ROUNDS = int(os.environ.get("STEPWELL_KILL_ROUNDS", "6"))
SEED = int(os.environ.get("STEPWELL_SEED", "1"))
SENDERS = 3
QUEUES = ("jobs", "wild")
EVENT_KEY = "0123456789"


class Traffic:
    """Threads that send numbered messages until the server is gone, and know which were acknowledged."""

    def __init__(self, server: Server, first: int) -> None:
        self.acknowledged: list[tuple[str, int]] = []
        self._server, self._next = server, first
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Send meanwhile."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    @property
    def next(self) -> int:
        """The first number that nobody has taken."""
        return self._next

    def _send(self) -> None:
        while not self._over.is_set():
            with self._lock:
                numbers = range(self._next, self._next + 3)
                self._next += 3
            queue = QUEUES[numbers[0] % 2]
            try:
                self._server.ask(f"/queues/{queue}/messages", {"messages": [{"body": {"n": n}} for n in numbers]})
            except (OSError, http.client.HTTPException):
                return
            with self._lock:
                self.acknowledged += [(queue, n) for n in numbers]


def acked(path: Path) -> set[tuple[str, int]]:
    """What a file that nobody has open no longer holds, of what was ever noted: its ack is durable."""
    return noted(path.parent).keys() - left(path)


def left(path: Path) -> set[tuple[str, int]]:
    """The messages that a file holds."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT queue, json_extract(CAST(body AS TEXT), '$.n') FROM messages").fetchall()
    connection.close()
    return {(queue, number) for queue, number in rows}


def noted(folder: Path) -> Counter[tuple[str, int]]:
    """How often each message was given to a consumer."""
    lines = (folder / "notes").read_text().splitlines() if (folder / "notes").exists() else []
    return Counter((line.split()[0], int(line.split()[1])) for line in lines)


def consumed(folder: Path, target: int) -> None:
    """Wait until consumers have been given so many messages in all."""
    until(lambda: sum(noted(folder).values()) >= target, f"{target} messages are consumed", 60)


def children(server: Server) -> list[psutil.Process]:
    """The processes that consume, one at least."""
    return until(lambda: psutil.Process(server.popen.pid).children(), "children live")


@pytest.mark.parametrize("command", ["dev", "start"])
def test_killed_in_the_midst_of_batches(command: str, tmp_path: Path) -> None:
    """No acknowledged message is lost; none comes again once its ack is durable; what died with a process comes again until it is acked."""
    chance = random.Random(SEED)
    acknowledged: list[tuple[str, int]] = []
    done: set[tuple[str, int]] = set()
    seen_done: Counter[tuple[str, int]] = Counter()
    number = 1
    env = {"NOTES_FILE": str(tmp_path / "notes")}
    keys = ("--signing-key", "signkey-test-0123456789abcdef", "--event-key", EVENT_KEY) if command == "start" else ()
    for _ in range(max(2, ROUNDS // 2)):
        server = Started(tmp_path, APP, *keys, command=command, env=env)
        with running(server):
            before = sum(noted(tmp_path).values())
            traffic = Traffic(server, number)
            with traffic.flowing():
                for _ in range(chance.randint(0, 2)):
                    target = sum(noted(tmp_path).values()) + chance.randint(1, 30)
                    consumed(tmp_path, target)
                    victim = chance.choice(children(server))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim.pid, signal.SIGKILL)
                target = before + chance.randint(20, 120)
                consumed(tmp_path, target)
                server.kill()
            acknowledged += traffic.acknowledged
            number = traffic.next
        until(lambda: not any(_is_of(process, tmp_path) for process in psutil.process_iter()), "no child is left")
        counted = noted(tmp_path)
        for key, count in seen_done.items():
            assert counted[key] == count, f"{key} came again, and its ack was durable"
        done = acked(tmp_path / "test.db")
        seen_done = Counter({key: counted[key] for key in done})
    with running(Started(tmp_path, APP, *keys, command=command, env=env)) as server:
        until(lambda: not _waiting(tmp_path / "test.db"), "everything is consumed", 120)
        assert server.stop() == 0
    counted = noted(tmp_path)
    assert set(acknowledged) <= set(counted), f"lost: {set(acknowledged) - set(counted)}"
    for key, count in seen_done.items():
        assert counted[key] == count, f"{key} came again, and its ack was durable"
    assert left(tmp_path / "test.db") == set()
    judge(tmp_path / "test.db")


def judge(path: Path) -> None:
    """The file is whole, and counts rightly."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM deliveries").fetchone() == (0,)
    assert connection.execute("SELECT sum(waiting), sum(waiting_bytes) FROM queues").fetchone() == (0, 0)
    assert connection.execute("SELECT count(*) FROM counters").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM set_aside").fetchone() == (0,)
    connection.close()


def _waiting(path: Path) -> bool:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    (count,) = connection.execute("SELECT count(*) FROM messages WHERE queue <> 'dead'").fetchone()
    errors = connection.execute("SELECT DISTINCT error FROM messages WHERE queue = 'dead'").fetchall()
    connection.close()
    assert not errors, f"these consumers fail once in each message's life at most, and messages died: {errors}"
    return bool(count)


def _is_of(process: psutil.Process, folder: Path) -> bool:
    """Whether a process is a child of a server on this file, which ends by itself when the server is gone."""
    try:
        return process.environ().get("NOTES_FILE") == str(folder / "notes") and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Started(Server):
    """A server whose requests bear an event key, with which messages are sent where keys are asked for."""

    def ask(self, path: str, body: object = None, *, method: str | None = None, token: str | None = None) -> object:
        """A JSON request."""
        return super().ask(path, body, method=method, token=token or EVENT_KEY)
