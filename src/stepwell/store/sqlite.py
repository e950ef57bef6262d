"""The SQLite store: one file, one writer thread, one short commit a group.

The file belongs to one process (`files.py` holds the lock), so the rows that decisions look at can be kept: what was committed is
what the store says, and a hot run's rows are not read again. Statements take as many rows as there are in one step, since each
step of SQLite lets the interpreter's lock go and has to get it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from stepwell.engine.selection import Fetch, Fetched, resolve
from stepwell.engine.tables import SCAN_TABLE, SPECS
from stepwell.engine.view import Changes, Scan, Selection, View
from stepwell.errors import Conflict, StoreFull, StoreRefused, StoreUnavailable
from stepwell.store.base import Reader, Transaction
from stepwell.store.databases import Databases
from stepwell.store.resident import Resident
from stepwell.store.sqlite_files import APPLICATION_ID, DataDirectory, checked_file
from stepwell.store.sqlite_reader import SqliteReader
from stepwell.store.statements import CODECS, Statement, load_migrations, load_statements

T = TypeVar("T")

ROWS_AT_ONCE = (64, 16, 4, 1)
"""How many rows one statement takes; a list is cut into these sizes, so that few texts are prepared."""

CHECKPOINT_PAGES = 4000
"""Pages in the WAL after which it is brought into the file, off the commit path."""

MIGRATIONS = load_migrations("sqlite")
STATEMENTS = load_statements("sqlite")
RANGES = {
    "ended": ("end_runs_timers", "end_runs_items", "end_runs_waits", "end_runs_names"),
    "deleted": (
        "delete_runs_steps",
        "delete_runs_attempts",
        "delete_runs_inputs",
        "delete_runs_metadata",
        "delete_runs_spans",
        "delete_runs_trace_totals",
        "delete_runs_defers",
        "delete_runs_runs",
    ),
}


class SqliteStore:
    """A database file. `readers` is how many connections answer queries beside the writer."""

    def __init__(self, path: str | Path, *, readers: int = 2) -> None:
        self.path = Path(path)
        self._readers = readers
        self.databases = Databases(Path(f"{path}.sql"))
        self._directory = DataDirectory(self.path)
        self._writer: _Writer | None = None
        self._reader: SqliteReader | None = None
        self._resident = Resident()
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Open or make the file. Raises `StoreRefused` for one that another process has, is foreign, corrupt or too new."""
        self._directory.lock()
        try:
            checked_file(self.path, len(MIGRATIONS))
            self._writer = _Writer(self.path)
            await self._writer.run(self._writer.open)
            self._reader = SqliteReader(self.path, self._readers)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the threads and let go of the files."""
        await self.databases.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._writer is not None:
            with contextlib.suppress(StoreRefused):
                await self._writer.run(self._writer.close)
            self._writer.stop()
            self._writer = None
        self._resident = Resident()
        self._directory.unlock()

    @property
    def reader(self) -> Reader:
        """Queries on connections of their own."""
        assert self._reader is not None, "the store is not open"
        return self._reader

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A group's transaction. The database sees one only when it is saved: nothing else writes in between."""
        assert self._writer is not None, "the store is not open"
        async with self._turn:
            yield _Transaction(self._writer, self._resident)


class _Transaction:
    """Loads from the resident rows, else from the writer's connection; saves in one commit."""

    def __init__(self, writer: _Writer, resident: Resident) -> None:
        self._writer, self._resident = writer, resident

    async def load(self, selections: Iterable[Selection], view: View) -> None:
        """Level by level; a level that the resident rows answer costs no read."""
        levels = resolve(selections, view)
        try:
            wanted = next(levels)
            while True:
                known, missing = self._resident.answer(wanted)
                scanned: dict[tuple[str, str], list[Any]] = {}
                if missing.keys or missing.scans:
                    found = await self._writer.run(lambda missing=missing: self._writer.fetch(missing))  # type: ignore[misc]
                    self._resident.note_read(missing, found)
                    for table, rows in found.rows.items():
                        known.setdefault(table, []).extend(rows)
                    scanned = {(scan.name, scan.value): rows for scan, rows in zip(missing.scans, found.scans, strict=True)}
                # A scan that was not read is known to give nothing.
                wanted = levels.send(Fetched(known, [scanned.get((scan.name, scan.value), []) for scan in wanted.scans]))
        except StopIteration:
            return

    async def save(self, changes: Changes) -> None:
        """Write and commit, then remember."""
        try:
            await self._writer.run(lambda: self._writer.commit(changes))
        except BaseException:
            self._resident.clear()
            raise
        self._resident.note_commit(changes)


class _Writer:
    """The thread that owns the write connection, fed by a queue."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.AbstractEventLoop, asyncio.Future[Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="stepwell-writer", daemon=True)
        self._thread.start()
        self._connection: sqlite3.Connection | None = None
        self._insert = {name: _Rows(STATEMENTS[f"insert_{name}"], name, SPECS[name].row.__struct_fields__) for name in SPECS}
        self._update = {
            name: _Rows(statement, name, statement.columns) for name in SPECS if (statement := STATEMENTS.get(f"update_{name}")) is not None
        }
        self._checkpointer = _Checkpointer(path)

    async def run(self, job: Callable[[], T]) -> T:
        """Have the thread do something, and wait for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((job, loop, future))
        # A cancelled waiter must not leave while its job is under way: what becomes of a commit has to be known.
        return await asyncio.shield(future)

    def stop(self) -> None:
        """End the thread when its jobs are done."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, loop, future = entry
            try:
                result = job()
            except BaseException as error:
                outcome: tuple[Callable[..., None], Any] = (_fail, translated(error))
            else:
                outcome = (_settle, result)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(outcome[0], future, outcome[1])

    # On the thread.

    def open(self) -> None:
        """Connect, set what has to be set before the first page is written, and migrate."""
        new = not self._path.exists() or self._path.stat().st_size == 0
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=512)
        self._connection = connection
        if new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            # The mark goes into the file itself before the first commit: a file that is ours says so whenever it is read.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA cache_size = -65536")
        migrate(connection)
        # What processes that were killed left in the WAL goes into the file, so that it does not grow from crash to crash.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Bring the WAL into the file and disconnect."""
        if self._connection is not None:
            self._checkpointer.stop()
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
            self._connection = None

    def fetch(self, wanted: Fetch) -> Fetched:
        """The rows by key and the scans of one level."""
        connection = self._connection
        assert connection is not None
        rows = {}
        for table, keys in wanted.keys.items():
            found = connection.execute(STATEMENTS[f"select_{table}"].text, {"keys": msgspec.json.encode(keys).decode()})
            rows[table] = [CODECS[table].row_of(values) for values in found]
        return Fetched(rows, self._scan(connection, wanted.scans))

    @staticmethod
    def _scan(connection: sqlite3.Connection, wanted: list[Scan]) -> list[list[Any]]:
        """The rows of each scan. Those of one name and limit are asked together where there is a statement for many."""
        found: list[list[Any]] = [[] for _ in wanted]
        alike: dict[tuple[str, int], list[int]] = {}
        for place, scan in enumerate(wanted):
            alike.setdefault((scan.name, scan.limit), []).append(place)
        for (name, limit), places in alike.items():
            row_of = CODECS[SCAN_TABLE[name]].row_of
            many = STATEMENTS.get(f"{name}_many") if len(places) > 1 else None
            if many is None:
                for place in places:
                    told = connection.execute(STATEMENTS[name].text, {"value": wanted[place].value, "limit": limit})
                    found[place] = [row_of(values) for values in told]
            else:
                asked = msgspec.json.encode([wanted[place].value for place in places]).decode()
                for nth, *values in connection.execute(many.text, {"values": asked, "limit": limit}):
                    found[places[nth]].append(row_of(values))
        return found

    def commit(self, changes: Changes) -> None:
        """One transaction: the tables in their order, then the ranges, which spare what this group has leased.

        Durable when this returns.
        """
        connection = self._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        try:
            for table in SPECS:
                change = changes.tables.get(table)
                if change is None:
                    continue
                if change.deleted:
                    keys = msgspec.json.encode(change.deleted).decode()
                    connection.execute(STATEMENTS[f"delete_{table}"].text, {"keys": keys})
                if change.updated:
                    touched = self._update[table].execute(connection, change.updated)
                    if touched != len(change.updated):
                        raise Conflict(f"{len(change.updated) - touched} rows of {table} that were to change are not there")
                if change.inserted:
                    self._insert[table].execute(connection, change.inserted)
            if changes.ended_runs:
                self._ranges(connection, RANGES["ended"], changes.ended_runs)
            if changes.deleted_runs:
                self._ranges(connection, RANGES["deleted"], changes.deleted_runs)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._checkpointer.maybe()

    @staticmethod
    def _ranges(connection: sqlite3.Connection, names: tuple[str, ...], run_ids: list[str]) -> None:
        keys = msgspec.json.encode(run_ids).decode()
        for name in names:
            connection.execute(STATEMENTS[name].text, {"keys": keys})


class _Rows:
    """A statement over rows, prepared for a few sizes."""

    def __init__(self, statement: Statement, table: str, columns: tuple[str, ...]) -> None:
        self._values = CODECS[table].values(columns)
        group = "(" + ", ".join("?" * len(columns)) + ")"
        self._texts = [(size, statement.text.replace(":rows", ", ".join([group] * size))) for size in ROWS_AT_ONCE]

    def execute(self, connection: sqlite3.Connection, rows: list[Any]) -> int:
        """Run it over all rows; says how many it touched."""
        values = self._values
        touched = start = 0
        left = len(rows)
        for size, text in self._texts:
            while left >= size:
                flat: list[Any] = []
                for row in rows[start : start + size]:
                    flat += values(row)
                touched += connection.execute(text, flat).rowcount
                start += size
                left -= size
        return touched


class _Checkpointer:
    """Brings the WAL into the file from a connection and thread of its own, so that no commit waits for it."""

    def __init__(self, path: Path) -> None:
        self._path, self._wal = path, Path(f"{path}-wal")
        self._commits = 0
        self._asked = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def maybe(self) -> None:
        """Look at the WAL's size now and then, and wake the thread where it has grown."""
        self._commits += 1
        if self._commits % 32 == 0 and self._wal.stat().st_size > CHECKPOINT_PAGES * 4096:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="stepwell-checkpoint", daemon=True)
                self._thread.start()
            self._asked.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._asked.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            while True:
                self._asked.wait()
                self._asked.clear()
                if self._stopping:
                    return
                with contextlib.suppress(sqlite3.OperationalError):  # busy, or no room: the next look asks again
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            connection.close()


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, each migration in a transaction with its number."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, text in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{text}\nPRAGMA user_version = {number};\nCOMMIT;")


def translated(error: BaseException) -> BaseException:
    """An error of SQLite as one of ours, which says what is known."""
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(f"the database refused a row: {error}")
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
            return StoreFull(f"the database cannot be written: {error}. Make room on its disk; work goes on by itself then")
        return StoreUnavailable(f"the database does not answer: {error}")
    if isinstance(error, sqlite3.DatabaseError):
        return StoreRefused(f"the database is damaged: {error}. Stop, keep the file, and restore a backup")
    return error


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
