"""An actor's own SQLite file: its entries, its SQL and its alarm in one place, and one transaction a unit.

What is written opens a transaction, which is committed when the task yields. The alarm's timer is the server's, and can be moved only
by asking it: before the commit it is set to the earlier of the alarm that is stored and the new one, after it to the new one. So a
crash between leaves a timer that does nothing, never an alarm without one; when the timer goes off, the file is asked. While
the server is asked, what is written belongs to the same unit. An alarm that runs stays in the file until it has succeeded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from stepwell.errors import StaleFence, Superseded
from stepwell.sdk.actors.memory import Link, Unit
from stepwell.userdb.binding import ACTORS
from stepwell.userdb.connection import Rows, UserDatabase

COMMITS_AT_ONCE = 8
"""Files that are committed at a time, each in a thread."""

_threads = ThreadPoolExecutor(COMMITS_AT_ONCE, thread_name_prefix="stepwell-actor")
_ENTRIES = "CREATE TABLE IF NOT EXISTS _cf_KV (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


class FileMemory:
    """As `Memory`, over the file of one activation. `on_failed` is told when a unit could not be stored."""

    waits = 0

    def __init__(self, path: str, fence: int, link: Link, *, now_ms: Callable[[], int], on_failed: Callable[[BaseException], None]) -> None:
        self._path, self._fence, self._link, self._now_ms, self._on_failed = Path(path), fence, link, now_ms, on_failed
        self._db: UserDatabase | None = None
        self._alarm_ms: int | None = None
        self._stored_ms: int | None = None
        self._running: int | None = None
        self._told = 0
        self._open = 0
        self._flushing = False
        self._commit: Future[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self.closed = False

    async def open(self) -> None:
        """Open the file, or make it, and claim it. Raises `StaleFence` where a later activation has it."""
        self._db = await asyncio.get_running_loop().run_in_executor(_threads, self._opened)
        self._alarm_ms = self._stored_ms = self._read_alarm()

    def _opened(self) -> UserDatabase:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = UserDatabase(self._path)
        try:
            db.claim(self._fence)
            with db.transaction():
                db.own(_ENTRIES)
        except BaseException:
            db.close()
            raise
        return db

    # The file.

    @property
    def db(self) -> UserDatabase:
        """The file, with nobody else at work in it."""
        if self.closed or self._db is None:
            raise Superseded("this activation of the actor is over; what it does changes nothing any more")
        if self._commit is not None:
            # A commit is under way in a thread; it takes a moment, and cannot be interrupted.
            commit, self._commit = self._commit, None
            commit.exception()
        return self._db

    def _writing(self) -> UserDatabase:
        db = self.db
        if not db.in_transaction:
            try:
                db.begin()
            except StaleFence as error:
                self._on_failed(error)
                raise
        if not self._open:
            self._flush_soon()
        return db

    def execute(self, sql: str, values: tuple[object, ...]) -> Rows:
        """Run a user's SQL, in the unit."""
        return self._writing().run(sql, values, ACTORS)

    # Entries.

    async def value(self, key: str) -> bytes | None:
        """The value of a key."""
        found = self.db.own("SELECT value FROM _cf_KV WHERE key = ?", (key,))
        return bytes(found[0][0]) if found else None

    async def values(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Those keys that have a value, sorted."""
        found = {key: await self.value(key) for key in sorted(set(keys))}
        return {key: value for key, value in found.items() if value is not None}

    async def range(self, start: str, end: str | None, reverse: bool, limit: int | None) -> dict[str, bytes]:
        """The entries of a range, in order."""
        order = "DESC" if reverse else "ASC"
        sql = f"SELECT key, value FROM _cf_KV WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) ORDER BY key {order} LIMIT ?3"
        return {key: bytes(value) for key, value in self.db.own(sql, (start, end, -1 if limit is None else limit))}

    async def has_room(self) -> None:
        """Nothing is kept in memory."""

    def put(self, key: str, value: bytes) -> None:
        """Set a key."""
        self._writing().own("INSERT INTO _cf_KV VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value))

    def remove(self, key: str) -> None:
        """Take a key away."""
        self._writing().own("DELETE FROM _cf_KV WHERE key = ?", (key,))

    def clear(self) -> None:
        """Take everything away, tables too."""
        db = self._writing()
        db.clear()
        db.own("DELETE FROM _cf_KV")

    # The alarm.

    @property
    def alarm_ms(self) -> int | None:
        """When the pending alarm is due; one that runs is not pending, though the file has it."""
        return None if self._running is not None and self._alarm_ms == self._running else self._alarm_ms

    def set_alarm(self, alarm_ms: int | None) -> None:
        """Another alarm, or none."""
        self._write_alarm(alarm_ms)
        self._running = None

    def _write_alarm(self, alarm_ms: int | None) -> None:
        db = self._writing()
        if alarm_ms is None:
            db.own("DELETE FROM _cf_METADATA WHERE key = 'alarm'")
        else:
            sql = "INSERT INTO _cf_METADATA VALUES ('alarm', ?) ON CONFLICT DO UPDATE SET value = excluded.value"
            db.own(sql, (alarm_ms,))
        self._alarm_ms = alarm_ms

    def _read_alarm(self) -> int | None:
        found = self.db.own("SELECT value FROM _cf_METADATA WHERE key = 'alarm'")
        return int(found[0][0]) if found else None

    def alarm_due(self, now_ms: int) -> int | None:
        """The timer has gone off: the alarm's own time, where the file says that it is due. Else the timer is set anew, or not needed."""
        if self._alarm_ms is None:
            return None
        if self._alarm_ms > now_ms:
            self._tell(self._alarm_ms)
            return None
        self._running = self._alarm_ms
        return self._alarm_ms

    def alarm_ended(self, *, again: bool) -> None:
        """It has run. One that is not tried again goes, unless another was set meanwhile."""
        if self._running is not None and not again and self._alarm_ms == self._running:
            self._write_alarm(None)
        self._running = None

    # Transactions.

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Callable[[], None]]:
        """What is written inside is one unit, or undone where it raises. Gives what undoes it without raising; they nest."""
        self._open += 1
        name = f"_cf_tx{self._open}"
        db = self._writing()
        db.own(f"SAVEPOINT {name}")

        def roll_back() -> None:
            if db.in_transaction:
                self.db.own(f"ROLLBACK TO {name}")
            self._alarm_ms = self._read_alarm()

        try:
            yield roll_back
        except BaseException:
            if not self.closed:
                roll_back()
            raise
        finally:
            self._open -= 1
            if not self.closed and db.in_transaction:
                db.own(f"RELEASE {name}")
            if not self._open and not self.closed:
                self._flush_soon()

    # Units.

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """End the unit, but not in a transaction."""
        if self.closed or self._open or self._settling is not None or self._db is None or not self._db.in_transaction:
            return
        self._settling = asyncio.get_running_loop().create_task(self._settle())

    async def _settle(self) -> None:
        """Move the timer where the alarm is another one, commit, move it again; then what was written meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            while self._db is not None and self._db.in_transaction and not self._open and not self.closed:
                stored, wanted = self._stored_ms, self._alarm_ms
                if wanted is not None and wanted != stored:
                    # One that is past is being tried again, and must not go off for this.
                    await self._tell_and_wait(wanted if stored is None or stored <= self._now_ms() else min(stored, wanted))
                    if self._alarm_ms != wanted or self._open:
                        continue
                if self.closed:
                    return
                self._commit = _threads.submit(self._db.commit)
                await asyncio.wrap_future(self._commit, loop=loop)
                self._stored_ms = wanted
                if wanted != stored and (wanted is None or (stored is not None and stored < wanted)):
                    await self._tell_and_wait(wanted)
        except Superseded:
            return
        except Exception as error:
            self._on_failed(error)
        finally:
            self._settling = None
            if self._db is not None and not self.closed and not self._open:
                self._flush_soon()

    def _tell(self, alarm_ms: int | None) -> None:
        self._told += 1
        unit = Unit()
        unit.number, unit.alarm = self._told, alarm_ms
        self._link.store(unit)

    async def _tell_and_wait(self, alarm_ms: int | None) -> None:
        self._tell(alarm_ms)
        await self._link.sync()

    async def durable(self) -> None:
        """End the unit; returns when it is stored."""
        self.flush()
        while self._settling is not None and not self._open:
            await asyncio.wait([self._settling])
            self.flush()

    def close(self) -> None:
        """Take back what is not committed, and let go of the file."""
        if self.closed:
            return
        self.closed = True
        db, commit = self._db, self._commit
        if db is not None:
            if commit is not None:
                commit.exception()
            db.close()
