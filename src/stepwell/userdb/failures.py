"""What SQLite says, in the form in which Cloudflare tells it: `no such table: nope: SQLITE_ERROR`."""

from __future__ import annotations

import sqlite3

from stepwell.errors import SqlError
from stepwell.userdb.places import Prepared, offset

TRANSACTIONS = (
    "To execute a transaction, please use the state.storage.transaction() or state.storage.transactionSync() APIs instead of the SQL "
    "BEGIN TRANSACTION or SAVEPOINT statements. Statements that belong together go to batch([…])."
)
NO_STATEMENT = "SQL code did not contain a statement."
WRONG_COUNT = "Wrong number of parameter bindings for SQL query."
LAST_ONLY = "When executing multiple SQL statements in a single call, only the last statement can have parameters."
NOT_AUTHORIZED = "not authorized: SQLITE_AUTH"
TOO_LONG = "statement too long: SQLITE_TOOBIG"


def told(error: sqlite3.Error | sqlite3.Warning, sql: str = "", prepared: Prepared | None = None) -> SqlError:
    """An error of SQLite's for one statement. `prepared` helps to find the place in it."""
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    if not name.startswith("SQLITE_"):
        name = "SQLITE_ERROR"
    message = str(error)
    if prepared is not None and (place := offset(message, sql, prepared)) is not None:
        message = f"{message} at offset {place}"
    # SQLite's primary codes are one word each, and an extended code's name begins with its primary one's.
    primary = "_".join(name.split("_")[:2])
    extended = "" if name == primary else f" (extended: {name})"
    return SqlError(f"{message}: {primary}{extended}", name)


def stopped(limit_s: float) -> SqlError:
    """A statement that took too long."""
    return SqlError(f"the query took longer than {limit_s:g} s and was stopped: SQLITE_INTERRUPT", "SQLITE_INTERRUPT")


def too_large(bytes_max: int) -> SqlError:
    """A result that is too large."""
    size = f"{bytes_max // 2**20} MiB"
    return SqlError(f"the result is larger than {size}: ask for fewer rows, with LIMIT: SQLITE_TOOBIG", "SQLITE_TOOBIG")
