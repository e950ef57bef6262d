"""Databases of a real server that is killed in the midst of batches: each is there whole, or not at all, and every acknowledged one is."""

from __future__ import annotations

import http.client
import json
import os
import random
import sqlite3
import threading
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Server, free_port, running

pytestmark = pytest.mark.crash
ROUNDS = int(os.environ.get("STEPWELL_KILL_ROUNDS", "10"))
SEED = int(os.environ.get("STEPWELL_SEED", "1"))
CLIENTS = 3
DATABASES = ("one", "two")
ROWS = 20
"""Rows of a batch, each of its own statement."""


class Clients:
    """Threads that send batches until the server is gone, and know which were sent and which were acknowledged."""

    def __init__(self, server: Server, round_: int, kill_after: int) -> None:
        self.sent: set[tuple[str, str]] = set()
        self.acknowledged: set[tuple[str, str]] = set()
        self._server, self._round, self._kill_after = server, round_, kill_after
        self._enough = threading.Event()

    def run(self) -> None:
        """Send; kill the server after so many answers."""
        threads = [threading.Thread(target=self._send, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        assert self._enough.wait(60), "the server answered too few batches"
        self._server.kill()
        for thread in threads:
            thread.join()

    def _send(self, client: int) -> None:
        n = 0
        while True:
            n += 1
            database, batch = DATABASES[n % 2], f"{self._round}-{client}-{n}"
            inserts = [{"sql": "INSERT INTO parts VALUES (?, ?, ?)", "params": [batch, part, "x" * 500]} for part in range(ROWS)]
            whole = {"sql": "UPDATE total SET batches = batches + 1"}
            self.sent.add((database, batch))
            try:
                self._server.ask(f"/sql/{database}/query", {"statements": [*inserts, whole]})
            except urllib.error.HTTPError:
                raise
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                self._enough.set()
                return
            self.acknowledged.add((database, batch))
            if len(self.acknowledged) >= self._kill_after:
                self._enough.set()


def test_killed_in_the_midst_of_batches(tmp_path: Path) -> None:
    """Round after round on the same files; the server that follows reads what the one before has left."""
    chance = random.Random(SEED)
    port = str(free_port())
    acknowledged: set[tuple[str, str]] = set()
    sent: set[tuple[str, str]] = set()
    for round_ in range(ROUNDS):
        with running(Server(tmp_path, "--port", port)) as server:
            for database in DATABASES:
                create = "CREATE TABLE IF NOT EXISTS parts (batch, part, fill)\nCREATE TABLE IF NOT EXISTS total (batches)"
                server.ask(f"/sql/{database}/exec", {"sql": create})
                server.ask(
                    f"/sql/{database}/query",
                    {"statements": [{"sql": "INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total)"}]},
                )
                check(rows_by(server, database), database, acknowledged, sent)
            clients = Clients(server, round_, chance.randrange(1, 60))
            clients.run()
        acknowledged |= clients.acknowledged
        sent |= clients.sent
    assert len(acknowledged) >= ROUNDS
    for database in DATABASES:
        other = sqlite3.connect(tmp_path / "test.db.sql" / f"{database}.sqlite")
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = dict(other.execute("SELECT batch, count(*) FROM parts GROUP BY batch"))
        assert other.execute("SELECT batches FROM total").fetchall() == [(len(found),)]
        check(found, database, acknowledged, sent)
        other.close()


def rows_by(server: Server, database: str) -> dict[str, int]:
    """How many rows each batch has."""
    asked = [{"sql": "SELECT batch, count(*) AS n FROM parts GROUP BY batch"}]
    rows: list[dict[str, Any]] = server.ask(f"/sql/{database}/query", {"statements": asked})["results"][0]["results"]
    return {row["batch"]: row["n"] for row in rows}


def check(found: dict[str, int], database: str, acknowledged: set[tuple[str, str]], sent: set[tuple[str, str]]) -> None:
    """All of each batch or nothing; all that were acknowledged; none that nobody sent."""
    assert set(found.values()) <= {ROWS}
    assert {batch for name, batch in acknowledged if name == database} <= set(found)
    assert set(found) <= {batch for name, batch in sent if name == database}
