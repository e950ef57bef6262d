"""Users' databases: a SQLite file for each name, a thread for each that is open, errors as D1 tells them.

A query is a transaction of all its statements, in the order in which queries came to the database. It has a time limit from its
arrival on, waiting included: what is not begun by then is not done at all, and what is under way is stopped and taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from stepwell.errors import QueueFull, SqlError, UsageError
from stepwell.protocol.sql import NAME
from stepwell.userdb.binding import DATABASES
from stepwell.userdb.connection import Deadline, Rows, UserDatabase
from stepwell.userdb.statements import statements

T = TypeVar("T")

SUFFIX = ".sqlite"
OPEN_MAX = 64
"""Databases that are open at a time, with a thread and a connection each; the one that was used longest ago makes room."""
QUERY_MS_MAX = 25_000
"""How long a query may take. Less than clients wait for an answer, so that they learn what became of it."""
QUEUED_MAX = 1_000
"""Queries that are under way or wait their turn, of all databases."""
DATABASES_MAX = 10_000
"""Databases of a server."""

NONE_SENT = "D1_ERROR: No SQL statements detected."


class DatabaseFile(msgspec.Struct, frozen=True):
    """A database and how many bytes its file has."""

    name: str
    size_bytes: int


class Result(msgspec.Struct, frozen=True):
    """What one statement gave, how long it took, and how large the database is after it."""

    rows: Rows
    duration_ms: float
    size_bytes: int


class Databases:
    """The databases of a directory, which is made when it is first needed; without one they last until `close`."""

    def __init__(self, directory: Path | None, *, open_max: int = OPEN_MAX, query_ms_max: int = QUERY_MS_MAX) -> None:
        self._directory, self._open_max, self._limit_s = directory, open_max, query_ms_max / 1000
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._freed = asyncio.Event()
        self._queries = 0

    async def names(self) -> list[DatabaseFile]:
        """All of them, by name."""
        return await asyncio.to_thread(self._listed)

    async def query(self, name: str, asked: Sequence[tuple[str, Sequence[object]]], tell: Callable[[list[Result]], T]) -> T:
        """Do statements, all or none. `tell` is given the results before they are committed: what cannot be told is not done.

        Raises `SqlError`.
        """
        if not asked or any(not sql.strip() for sql, _ in asked):
            raise SqlError(NONE_SENT)
        return await self._turn(name, lambda db, deadline: _query(db, asked, tell, deadline))

    async def script(self, name: str, sql: str) -> tuple[int, float]:
        """Do the statements of a text, each on a line of its own, all or none: how many lines, and how many milliseconds they took."""
        lines = [line.strip() for line in sql.split("\n") if line.strip()]
        if not lines:
            raise SqlError(NONE_SENT)
        return await self._turn(name, lambda db, deadline: _script(db, lines, deadline))

    async def close(self) -> None:
        """Stop what is under way, which is taken back, and let go of the files."""
        opened = list(self._open.values())
        self._open.clear()
        for one in opened:
            one.interrupt()
        for one in opened:
            await one.close()
        if self._temporary is not None:
            temporary, self._temporary = self._temporary, None
            await asyncio.to_thread(temporary.cleanup)

    # Turns.

    async def _turn(self, name: str, work: Callable[[UserDatabase, Deadline], T]) -> T:
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a database")
        if self._queries >= QUEUED_MAX:
            raise QueueFull(f"{self._queries} queries are under way or wait; database {name!r} takes more in a moment", 1)
        deadline = Deadline.after(self._limit_s)
        self._queries += 1
        try:
            async with self._using(name, deadline) as opened:
                return await opened.run(lambda: work(opened.connection(deadline), deadline))
        finally:
            self._queries -= 1

    @asynccontextmanager
    async def _using(self, name: str, deadline: Deadline) -> AsyncIterator[_Open]:
        """The open database of a name, kept open meanwhile."""
        try:
            async with asyncio.timeout(max(0.0, deadline.at_s - time.monotonic())):
                opened = await self._place(name)
        except TimeoutError:
            raise _late(deadline) from None
        opened.users += 1
        self._open.move_to_end(name)
        try:
            yield opened
        finally:
            opened.users -= 1
            if not opened.users:
                self._freed.set()

    async def _place(self, name: str) -> _Open:
        """Its place among the open ones; where all are taken, that of the one whose latest use is longest ago."""
        while (opened := self._open.get(name)) is None:
            if len(self._open) < self._open_max:
                self._open[name] = _Open(self._path(name), self._listed)
                continue
            idle = next((known for known, one in self._open.items() if not one.users), None)
            if idle is None:
                self._freed.clear()
                await self._freed.wait()
            else:
                await self._open.pop(idle).close()
        return opened

    # Files.

    def _path(self, name: str) -> Path:
        if self._directory is not None:
            return self._directory / f"{name}{SUFFIX}"
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="stepwell-sql-")
        return Path(self._temporary.name) / f"{name}{SUFFIX}"

    def _listed(self) -> list[DatabaseFile]:
        directory = self._directory if self._temporary is None else Path(self._temporary.name)
        found = []
        for path in sorted(directory.glob(f"*{SUFFIX}")) if directory is not None else ():
            with contextlib.suppress(FileNotFoundError):
                found.append(DatabaseFile(path.name.removesuffix(SUFFIX), path.stat().st_size))
        return found


class _Open:
    """A database that is open or about to be: its thread, which opens it with its first turn."""

    def __init__(self, path: Path, listed: Callable[[], list[DatabaseFile]]) -> None:
        self.users = 0
        self._path, self._listed = path, listed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"stepwell-sql-{path.stem}")
        self._db: UserDatabase | None = None
        self._stopping = False

    async def run(self, work: Callable[[], T]) -> T:
        """Have the thread do something, in turn."""
        # A cancelled waiter must not free the place while its work is under way.
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def interrupt(self) -> None:
        """Stop what is under way, and begin nothing more."""
        self._stopping = True
        if self._db is not None:
            self._db.interrupt()

    async def close(self) -> None:
        """Close the file, which brings its WAL into it, and end the thread."""
        try:
            await self.run(self._close)
        finally:
            self._thread.shutdown(wait=False)

    # On the thread.

    def connection(self, deadline: Deadline) -> UserDatabase:
        """The open file. Raises `SqlError` where the turn has come too late."""
        if self._stopping:
            raise SqlError("D1_ERROR: the server stops, and nothing of the query is done: SQLITE_INTERRUPT", "SQLITE_INTERRUPT")
        if deadline.passed:
            raise _late(deadline)
        if self._db is None:
            if not self._path.exists():
                if len(self._listed()) >= DATABASES_MAX:
                    raise UsageError(f"there are {DATABASES_MAX} databases, and no more are made: {self._path.stem!r} is not there")
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = UserDatabase(self._path)
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _query(db: UserDatabase, asked: Sequence[tuple[str, Sequence[object]]], tell: Callable[[list[Result]], T], deadline: Deadline) -> T:
    try:
        with db.transaction(deadline):
            results = []
            for sql, values in asked:
                began = time.perf_counter()
                rows = db.run(sql, values, DATABASES)
                results.append(Result(rows, (time.perf_counter() - began) * 1000, db.size_bytes))
            return tell(results)
    except SqlError as error:
        raise _told(error) from None


def _script(db: UserDatabase, lines: Sequence[str], deadline: Deadline) -> tuple[int, float]:
    began, count = time.perf_counter(), 0
    try:
        with db.transaction(deadline):
            for number, line in enumerate(lines, 1):
                try:
                    # A line with nothing but a comment is no error, nor is it counted.
                    if statements(line):
                        db.run(line, (), DATABASES)
                        count += 1
                except SqlError as error:
                    raise SqlError(f"D1_EXEC_ERROR: Error in line {number}: {line}: {error}", error.code) from None
    except SqlError as error:
        raise _told(error) from None
    return count, (time.perf_counter() - began) * 1000


def _told(error: SqlError) -> SqlError:
    """An error as D1 tells it."""
    text = str(error)
    if text.startswith("D1_"):
        return error
    kind = "D1_TYPE_ERROR" if error.code == "TYPE_ERROR" else "D1_ERROR"
    return SqlError(f"{kind}: {text}", error.code)


def _late(deadline: Deadline) -> SqlError:
    text = f"the database is busy: the query had no turn within {deadline.limit_s:g} s, and nothing of it is done"
    return SqlError(f"D1_ERROR: {text}: SQLITE_BUSY", "SQLITE_BUSY")
