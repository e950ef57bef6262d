"""The state of a database file as it looks from outside, beside the server that may have it: nothing is written, no lock is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path

import msgspec

from stepwell.engine.model import AppRow
from stepwell.store.sqlite import MIGRATIONS, STATEMENTS
from stepwell.store.sqlite_files import DataDirectory, checked_file
from stepwell.store.statements import CODECS

SCHEMA_VERSION = len(MIGRATIONS)
PROBLEMS_MAX = 5
"""Damages that are told of one file."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `problems` are SQLite's own words; `version` is the schema's; `newest_ms` when the latest event came in."""

    bytes: int
    wal_bytes: int
    version: int
    problems: tuple[str, ...]
    set_aside: int
    newest_ms: int | None
    apps: tuple[AppRow, ...]


def examine(path: Path) -> Health:
    """Look at a file that is there. Raises `StoreRefused` for one that is not ours, or cannot be opened."""
    checked_file(path, SCHEMA_VERSION)
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        found = [str(row[0]) for row in connection.execute(f"PRAGMA quick_check({PROBLEMS_MAX})")]
        known = version == SCHEMA_VERSION
        (set_aside,) = connection.execute(STATEMENTS["count_set_aside"].text).fetchone() if known else (0,)
        newest = connection.execute(STATEMENTS["newest_event"].text).fetchone() if known else None
        apps = connection.execute(STATEMENTS["catalogue_apps"].text).fetchall() if known else []
        return Health(
            bytes=_size(path),
            wal_bytes=_size(Path(f"{path}-wal")),
            version=version,
            problems=tuple(problem for problem in found if problem != "ok"),
            set_aside=set_aside,
            newest_ms=None if newest is None else newest[0],
            apps=tuple(CODECS["apps"].row_of(values) for values in apps),
        )


def owner(path: Path) -> int | None:
    """The process that has the file; `None` where nobody has."""
    try:
        descriptor = os.open(DataDirectory(path).path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        told = os.read(descriptor, 100).decode(errors="replace").strip()
        return int(told) if told.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
