"""One file of a user's, and the connection that runs their SQL in it.

A `UserDatabase` is for one thread at a time. Everything runs in a transaction that its owner opens and ends: users' statements can
neither begin nor end one. What is ours in the file (tables `_cf_…`) is reached by `own`, which is not for users' texts.

Statements of ours end in a comment that nobody can guess: SQLite asks for permission when it prepares a statement, and a user's text
equal to one of ours would be taken from Python's cache of prepared ones, with our permission.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stepwell.errors import SqlError, StaleFence, StoreRefused
from stepwell.userdb import failures, limits, policy
from stepwell.userdb.binding import Rules, Value, bound
from stepwell.userdb.statements import Statement, statements

BUSY_S = 5.0
"""How long to wait for another program that has the file open."""
STATEMENTS_KEPT = 256
STEPS_BETWEEN_LOOKS = 20_000
"""Instructions of SQLite's between two looks at the clock: about a millisecond."""
OWN_VALUE_BYTES_MAX = 2 * limits.VALUE_BYTES_MAX
"""Rows of ours, which may hold a user's value of full size beside its key."""

_TRANSACTIONS = frozenset(["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"])
_ROWS = frozenset(["INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "SELECT", "VALUES", "EXPLAIN", "PRAGMA"])
"""Statements that leave the schema as it is."""
_CHANGES = frozenset(["INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"])

_METADATA = "CREATE TABLE IF NOT EXISTS _cf_METADATA (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID"
_THINGS = """
    SELECT type, name
    FROM sqlite_schema
    WHERE name NOT LIKE '\\_cf\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND type IN ('trigger', 'view', 'table')
    ORDER BY type <> 'trigger', type <> 'view', sql NOT LIKE 'CREATE VIRTUAL%', rowid
    LIMIT 1
"""


class Deadline(msgspec.Struct, frozen=True):
    """When what is under way is stopped, by `time.monotonic`."""

    at_s: float
    limit_s: float

    @classmethod
    def after(cls, limit_s: float) -> Deadline:
        """So long from now."""
        return cls(time.monotonic() + limit_s, limit_s)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self.at_s


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What a call gave: the rows of its last statement, and what all its statements did.

    `changes` counts rows that the last statement itself inserted, updated or deleted; `rows_written` those of all statements, with what
    triggers, foreign keys and full-text tables did, but not index entries. How many rows SQLite looked at it does not tell Python.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]
    changes: int = 0
    rows_written: int = 0
    last_row_id: int = 0
    changed: bool = False


class UserDatabase:
    """Opens the file, or makes it. Raises `StoreRefused` for one that is no database, or cannot be opened."""

    def __init__(self, path: str | Path, *, bytes_max: int = limits.FILE_BYTES_MAX) -> None:
        self.path = Path(path)
        self._mark = f"/* {secrets.token_hex(16)} */"
        self._is_ours = True
        self._deadline: Deadline | None = None
        self._fence: int | None = None
        self._savepoints = 0
        self._is_stopped = False
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_KEPT
            )
            try:
                self._set_up(bytes_max)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise StoreRefused(f"{self.path} cannot be opened as a database: {error}") from None
        self._is_ours = False

    def _set_up(self, bytes_max: int) -> None:
        connection = self._connection
        # What is no text in a text column comes as near to it as can be, as it does there, instead of an error.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        self._page_bytes: int = page_bytes
        connection.execute(f"PRAGMA max_page_count = {max(1, bytes_max // page_bytes)}").fetchall()
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limits.VARIABLES_MAX)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, limits.TRIGGERS_DEEP_MAX)
        connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, limits.EXPRESSION_LEVELS_MAX)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.VALUE_BYTES_MAX)
        if sys.version_info >= (3, 12):  # full-text tables' insides cannot be written by SQL
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.set_progress_handler(self._is_late, STEPS_BETWEEN_LOOKS)
        connection.set_authorizer(self._may)

    def interrupt(self) -> None:
        """Have every statement fail from now on, the one that is under way too. From any thread."""
        self._is_stopped = True

    def close(self) -> None:
        """Take back what is open, and let go of the file."""
        self._connection.close()

    # Transactions.

    @property
    def in_transaction(self) -> bool:
        """Whether one is open. SQLite takes back a whole one by itself for `OR ROLLBACK`, a full disk, and what was stopped."""
        return self._connection.in_transaction

    def begin(self) -> None:
        """Open a transaction. Raises `StaleFence` where another activation has claimed the file since."""
        self._savepoints = 0
        self.own("BEGIN IMMEDIATE")
        if self._fence is not None and (stored := self._stored_fence()) != self._fence:
            self.rollback()
            raise StaleFence(f"{self.path} was claimed with fence {stored}; this one has {self._fence}, and may not write to it any more")

    def commit(self) -> None:
        """Make it durable. Raises `SqlError` where that cannot be, as for a deferred foreign key; then nothing of it is stored."""
        if not self.in_transaction:
            raise _ended()
        try:
            self.own("COMMIT")
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """Take it back."""
        if self.in_transaction:
            self.own("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self, deadline: Deadline | None = None) -> Iterator[None]:
        """All of what is run in it, or nothing. It is stopped at the deadline."""
        self.begin()
        self._deadline = deadline
        try:
            yield
            self._deadline = None
            self.commit()
        finally:
            self._deadline = None
            self.rollback()

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of a transaction that is taken back by itself when it raises."""
        self._savepoints += 1
        name = f"_cf_{self._savepoints}"
        self.own(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            if self.in_transaction:
                self.own(f"ROLLBACK TO {name}")
                self.own(f"RELEASE {name}")
            raise
        else:
            if not self.in_transaction:
                raise _ended()
            self.own(f"RELEASE {name}")
        finally:
            self._savepoints -= 1

    def claim(self, fence: int) -> None:
        """Have the file from now on; who claimed it with a smaller fence may not write to it any more.

        Raises `StaleFence` where it was claimed with a greater one.
        """
        self._fence = None
        with self.transaction():
            self.own(_METADATA)
            stored = self._stored_fence()
            if stored is not None and stored > fence:
                raise StaleFence(f"{self.path} was claimed with fence {stored}; {fence} is older, and may not have it any more")
            self.own("INSERT INTO _cf_METADATA (key, value) VALUES ('fence', ?) ON CONFLICT DO UPDATE SET value = excluded.value", (fence,))
        self._fence = fence

    def _stored_fence(self) -> int | None:
        found = self.own("SELECT value FROM _cf_METADATA WHERE key = 'fence'")
        return int(found[0][0]) if found else None

    # What is ours.

    def own(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement of ours: it may do what users may not. Never for a text that a user had a hand in."""
        self._is_ours = True
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, OWN_VALUE_BYTES_MAX)
        try:
            return self._connection.execute(f"{sql} {self._mark}", values).fetchall()
        except sqlite3.Error as error:
            raise failures.told(error) from None
        finally:
            self._is_ours = False
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.VALUE_BYTES_MAX)

    def clear(self) -> None:
        """Drop all that users have made, in the open transaction; what is ours stays."""
        self.own("PRAGMA defer_foreign_keys = ON")
        # One at a time: dropping a virtual table drops those that are its insides. Triggers first: no user's code runs with our rights.
        while found := self.own(_THINGS):
            ((kind, name),) = found
            quoted = name.replace('"', '""')
            self.own(f'DROP {kind.upper()} "{quoted}"')

    @property
    def size_bytes(self) -> int:
        """The file's size, once what is open is committed."""
        ((pages,),) = self.own("PRAGMA page_count")
        return int(pages) * self._page_bytes

    @property
    def last_row_id(self) -> int:
        """The row id of the connection's latest insert."""
        return int(self.own("SELECT last_insert_rowid()")[0][0])

    # What is the users'.

    def run(self, sql: str, values: Sequence[object], rules: Rules) -> Rows:
        """Run a user's text in the open transaction: one statement or several, of which the last one may take values.

        Raises `SqlError`, its text as Cloudflare's; what earlier statements of the text did stays until the transaction is taken back.
        """
        wanted = _checked(sql)
        last = wanted[-1]
        given = bound(values, rules)
        if last.variables != len(given):
            self._prepare(last.text)
            raise SqlError(failures.WRONG_COUNT)
        began, schema = self._connection.total_changes, None
        if any(statement.keyword not in _ROWS for statement in wanted):
            schema = self._schema_version()
        for statement in wanted:
            columns, rows, before = self._run(statement, given if statement is last else ())
        written = self._connection.total_changes - began
        changes, last_row_id = self.own("SELECT changes(), last_insert_rowid()")[0]
        return Rows(
            columns=columns,
            rows=rows,
            changes=changes if self._connection.total_changes > before and last.keyword in _CHANGES else 0,
            rows_written=written,
            last_row_id=last_row_id,
            changed=written > 0 or (schema is not None and self._schema_version() != schema),
        )

    def _run(self, statement: Statement, values: tuple[Value, ...]) -> tuple[tuple[str, ...], list[tuple[Value, ...]], int]:
        """Its columns, its rows, and the connection's count of changes before it."""
        if not self.in_transaction:
            raise _ended()
        before, rows, size = self._connection.total_changes, [], 0
        try:
            cursor = self._connection.execute(statement.positional, values)
            columns = tuple(column[0] for column in cursor.description or ())
            for row in cursor:
                rows.append(row)
                size += limits.CELL_BYTES * len(row)
                for value in row:
                    if value.__class__ is str or value.__class__ is bytes:
                        size += len(value)
                if size > limits.RESULT_BYTES_MAX:
                    cursor.close()
                    raise failures.too_large(limits.RESULT_BYTES_MAX)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._told(error, statement.text) from None
        return columns, rows, before

    def _prepare(self, sql: str) -> None:
        """Raise what is wrong with a statement before any of its values is looked at."""
        try:
            self._connection.execute(f"EXPLAIN {sql}")
        except (sqlite3.ProgrammingError, sqlite3.Warning):
            return  # it is right: what is missing is values
        except sqlite3.Error as error:
            raise self._told(error, sql) from None

    def _told(self, error: sqlite3.Error | sqlite3.Warning, sql: str) -> SqlError:
        if self._deadline is not None and self._deadline.passed and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return failures.stopped(self._deadline.limit_s)
        return failures.told(error, sql, self._problem_of)

    def _problem_of(self, sql: str) -> str | None:
        """The error that preparing a text has. It is explained, not run; so is one that explains already."""
        try:
            self._connection.execute(f"EXPLAIN {sql}")
        except (sqlite3.ProgrammingError, sqlite3.Warning):
            return None
        except sqlite3.Error as error:
            return str(error)
        return None

    def _schema_version(self) -> int:
        return int(self.own("PRAGMA schema_version")[0][0])

    # Asked by SQLite.

    def _may(self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
        return sqlite3.SQLITE_OK if self._is_ours else policy.allowed(action, first, second, database, trigger)

    def _is_late(self) -> bool:
        return not self._is_ours and (self._is_stopped or (self._deadline is not None and self._deadline.passed))


def _checked(sql: str) -> tuple[Statement, ...]:
    """The statements of a user's text. Raises `SqlError` for what is refused by the look of it, before anything is run."""
    try:
        size = len(sql.encode())
    except UnicodeEncodeError as error:
        raise SqlError(f"the SQL is no Unicode text: {error.reason}: SQLITE_ERROR") from None
    if size > limits.SQL_BYTES_MAX:
        raise SqlError(failures.TOO_LONG, "SQLITE_TOOBIG")
    wanted = statements(sql)
    if not wanted:
        raise SqlError(failures.NO_STATEMENT)
    for statement in wanted:
        if statement.keyword in _TRANSACTIONS:
            raise SqlError(failures.TRANSACTIONS)
        # SQLite asks what a trigger, a view or a foreign key names only when it is used, and that may be by a statement of ours.
        if any(policy.is_own(name) for name in statement.defines):
            raise SqlError(failures.NOT_AUTHORIZED, "SQLITE_AUTH")
        if statement.variables and statement is not wanted[-1]:
            raise SqlError(failures.LAST_ONLY)
    return wanted


def _ended() -> SqlError:
    return SqlError("the transaction is over: SQLite has taken it back, and nothing of it is stored: SQLITE_ABORT", "SQLITE_ABORT")
