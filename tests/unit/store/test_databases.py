"""Users' databases: a file for each name, turns, bounds, and what becomes of queries when there is no time or no room."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import QueueFull, SqlError, StoreRefused, UsageError
from stepwell.store import databases
from stepwell.store.databases import Databases, Result
from stepwell.store.memory import MemoryStore
from stepwell.store.sqlite import SqliteStore

TIMEOUT_S = 30
ENDLESS = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"


def within(directory: Path | None, test: Callable[[Databases], Awaitable[None]], **options: Any) -> None:
    """Run a test with databases, and close them."""

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            opened = Databases(directory, **options)
            try:
                await test(opened)
            finally:
                await opened.close()
        for thread in threading.enumerate():
            if thread.name.startswith("stepwell-sql"):
                thread.join(TIMEOUT_S)
                assert not thread.is_alive(), thread.name

    asyncio.run(main())


async def ask(opened: Databases, name: str, *statements: str, values: tuple[object, ...] = ()) -> list[Any]:
    """The rows of the last statement."""
    results = await opened.query(name, [(sql, values if sql is statements[-1] else ()) for sql in statements], list)
    return results[-1].rows.rows


def test_a_database_is_a_file(tmp_path: Path) -> None:
    """Made by its first query, with its folder; there when it is opened again; listed with its size."""
    folder = tmp_path / "db.sql"

    async def first(opened: Databases) -> None:
        assert await opened.names() == []
        await ask(opened, "b", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
        await ask(opened, "a", "SELECT 1")

    async def second(opened: Databases) -> None:
        assert await ask(opened, "b", "SELECT x FROM t") == [(1,)]
        assert [one.name for one in await opened.names()] == ["a", "b"]
        assert (await opened.names())[1].size_bytes == (folder / "b.sqlite").stat().st_size > 0

    within(folder, first)
    assert sorted(path.name for path in folder.iterdir()) == ["a.sqlite", "b.sqlite"], "the WAL is brought in"
    assert folder.stat().st_mode & 0o077 == 0
    within(folder, second)


def test_databases_of_a_store_in_memory_go_with_it() -> None:
    """Their folder is a temporary one."""
    found: list[Path] = []

    async def main() -> None:
        store = MemoryStore()
        await store.open()
        assert await store.databases.names() == []
        await ask(store.databases, "a", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
        assert await ask(store.databases, "a", "SELECT x FROM t") == [(1,)]
        assert store.databases._temporary is not None
        found.append(Path(store.databases._temporary.name))
        assert [file.name for file in found[0].glob("*.sqlite")] == ["a.sqlite"]
        assert [one.name for one in await store.databases.names()] == ["a"]
        await store.close()

    asyncio.run(main())
    assert not found[0].exists()


def test_databases_lie_beside_the_stores_file(tmp_path: Path) -> None:
    """And close with it."""

    async def main() -> None:
        store = SqliteStore(tmp_path / "stepwell.db")
        await store.open()
        await ask(store.databases, "a", "CREATE TABLE t (x)")
        await store.close()

    asyncio.run(main())
    assert [path.name for path in (tmp_path / "stepwell.db.sql").iterdir()] == ["a.sqlite"]


def test_a_query_is_one_transaction(tmp_path: Path) -> None:
    """What fails takes all with it, also in what is told of it; errors are told as D1 does."""

    async def test(opened: Databases) -> None:
        await ask(opened, "a", "CREATE TABLE t (x UNIQUE)")
        with pytest.raises(SqlError) as raised:
            await ask(opened, "a", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)")
        assert str(raised.value) == "D1_ERROR: UNIQUE constraint failed: t.x: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"
        assert raised.value.code == "SQLITE_CONSTRAINT_UNIQUE"

        def untold(results: list[Result]) -> None:
            raise SqlError("too large")

        with pytest.raises(SqlError, match="D1_ERROR: too large"):
            await opened.query("a", [("INSERT INTO t VALUES (1)", ())], untold)
        assert await ask(opened, "a", "SELECT count(*) FROM t") == [(0,)]
        with pytest.raises(SqlError, match=r"^D1_TYPE_ERROR: Type 'list' not supported for value \[\]"):
            await ask(opened, "a", "SELECT ?", values=([],))
        for nothing in ([], [("", ())], [("SELECT 1", ()), (" \n", ())]):
            with pytest.raises(SqlError, match=r"^D1_ERROR: No SQL statements detected\.$"):
                await opened.query("a", nothing, list)

    within(tmp_path, test)


def test_a_script_has_a_statement_a_line(tmp_path: Path) -> None:
    """Blank lines and comments do not count; an error names its line, and nothing stays."""

    async def test(opened: Databases) -> None:
        count, duration_ms = await opened.script(
            "a", "CREATE TABLE t (x);\n\n  -- a comment\nINSERT INTO t VALUES (1); INSERT INTO t VALUES (2)\r\n"
        )
        assert count == 2 and duration_ms > 0
        with pytest.raises(SqlError) as raised:
            await opened.script("a", "INSERT INTO t VALUES (3)\n\nINSERT INTO t\nVALUES (4)")
        assert str(raised.value) == "D1_EXEC_ERROR: Error in line 2: INSERT INTO t: incomplete input: SQLITE_ERROR"
        with pytest.raises(SqlError, match="Error in line 1: SELECT \\?: Wrong number of parameter bindings"):
            await opened.script("a", "SELECT ?")
        with pytest.raises(SqlError, match="No SQL statements detected"):
            await opened.script("a", " \n")
        assert await ask(opened, "a", "SELECT x FROM t") == [(1,), (2,)]

    within(tmp_path, test)


def test_few_are_open_at_a_time(tmp_path: Path) -> None:
    """One that is idle, and was used longest ago, makes room; where none is, one waits for its turn."""

    async def test(opened: Databases) -> None:
        await asyncio.gather(
            *(ask(opened, f"d{n % 7}", "CREATE TABLE IF NOT EXISTS t (x)", f"INSERT INTO t VALUES ({n})") for n in range(70))
        )
        assert len(opened._open) == 2
        found = [await ask(opened, f"d{n}", "SELECT count(*), sum(x) FROM t") for n in range(7)]
        assert found == [[(10, sum(range(n, 70, 7)))] for n in range(7)]
        await ask(opened, "d1", "SELECT 1")
        await ask(opened, "d2", "SELECT 1")
        await ask(opened, "d1", "SELECT 1")
        await ask(opened, "d3", "SELECT 1")
        assert list(opened._open) == ["d1", "d3"]

    within(tmp_path, test, open_max=2)


def test_time_is_counted_from_the_arrival_on(tmp_path: Path) -> None:
    """What is under way is stopped and taken back, what waits behind it is not begun, nor what found no place; then all goes on."""

    async def test(opened: Databases) -> None:
        await ask(opened, "a", "CREATE TABLE t (x)")
        late = opened.query("a", [("INSERT INTO t VALUES (1)", ()), (ENDLESS, ())], list)
        behind = opened.query("a", [("INSERT INTO t VALUES (2)", ())], list)
        other = opened.query("b", [("SELECT 1", ())], list)
        first, second, third = await asyncio.gather(late, behind, other, return_exceptions=True)
        assert str(first) == "D1_ERROR: the query took longer than 1 s and was stopped: SQLITE_INTERRUPT"
        busy = "D1_ERROR: the database is busy: the query had no turn within 1 s, and nothing of it is done: SQLITE_BUSY"
        assert str(second) == busy and str(third) == busy
        assert await ask(opened, "a", "SELECT count(*) FROM t") == [(0,)]
        assert await ask(opened, "b", "SELECT 1") == [(1,)]

    within(tmp_path, test, open_max=1, query_ms_max=1000)


def test_too_many_at_a_time_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a word on when to come again; so are too many databases, and names that are none."""
    monkeypatch.setattr(databases, "QUEUED_MAX", 3)
    monkeypatch.setattr(databases, "DATABASES_MAX", 2)

    async def test(opened: Databases) -> None:
        asked = await asyncio.gather(*(ask(opened, "a", "SELECT 1") for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(one, QueueFull) for one in asked) == 2 and asked.count([(1,)]) == 3
        await ask(opened, "b", "SELECT 1")
        with pytest.raises(UsageError, match="there are 2 databases, and no more are made: 'c'"):
            await ask(opened, "c", "SELECT 1")
        assert await ask(opened, "b", "SELECT 1") == [(1,)]
        with pytest.raises(UsageError, match="no name"):
            await ask(opened, "../a", "SELECT 1")

    within(tmp_path, test)


def test_closing_stops_what_is_under_way(tmp_path: Path) -> None:
    """At once, and takes it back; what waits is not begun."""

    async def test(opened: Databases) -> None:
        await ask(opened, "a", "CREATE TABLE t (x)")
        begun = asyncio.ensure_future(opened.query("a", [("INSERT INTO t VALUES (1)", ()), (ENDLESS, ())], list))
        waits = asyncio.ensure_future(opened.query("a", [("INSERT INTO t VALUES (2)", ())], list))
        other = sqlite3.connect(tmp_path / "a.sqlite", timeout=0, isolation_level=None)
        while True:
            try:
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            except sqlite3.OperationalError:
                break  # the first one has begun
            await asyncio.sleep(0)
        other.close()
        await opened.close()
        first, second = await asyncio.gather(begun, waits, return_exceptions=True)
        assert str(first) == "D1_ERROR: interrupted: SQLITE_INTERRUPT"
        assert str(second) == "D1_ERROR: the server stops, and nothing of the query is done: SQLITE_INTERRUPT"
        assert await ask(opened, "a", "SELECT count(*) FROM t") == [(0,)]

    within(tmp_path, test)


def test_who_does_not_wait_any_more_changes_nothing(tmp_path: Path) -> None:
    """A query whose asker has gone is done all the same, and keeps its place until then."""

    async def test(opened: Databases) -> None:
        await ask(opened, "a", "CREATE TABLE t (x)")
        gone = asyncio.ensure_future(ask(opened, "a", "INSERT INTO t VALUES (1)"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await ask(opened, "a", "SELECT count(*) FROM t") in ([(0,)], [(1,)])
        assert opened._queries == 0 and all(one.users == 0 for one in opened._open.values())

    within(tmp_path, test)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Is told, and harms no other."""
    (tmp_path / "bad.sqlite").write_text("no database at all" * 100)

    async def test(opened: Databases) -> None:
        with pytest.raises(StoreRefused, match=r"bad\.sqlite"):
            await ask(opened, "bad", "SELECT 1")
        assert await ask(opened, "good", "SELECT 1") == [(1,)]

    within(tmp_path, test)
