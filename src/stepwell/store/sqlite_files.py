"""What stands beside a database file: its data directory, and the lock that tells a second process who has the file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path

from stepwell.errors import StoreRefused

SQLITE_MAGIC = b"SQLite format 3\0"
APPLICATION_ID = 1400140912


class DataDirectory:
    """`FILE.d/`: locks, keys, users' files. Made when it is first needed."""

    def __init__(self, database: Path) -> None:
        self.path = Path(f"{database}.d")
        self._database = database
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the file for this process. Raises `StoreRefused` naming the process that has it."""
        try:
            self._database.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreRefused(f"{self._database} cannot be opened: {error}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(descriptor, 100).decode(errors="replace").strip()
            os.close(descriptor)
            raise StoreRefused(
                f"{self._database} is in use by process {owner or 'unknown'}: a database belongs to one server. "
                "Send to that server's URL instead, or stop it first"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def unlock(self) -> None:
        """Let the next one have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def checked_file(path: Path, known_version: int) -> None:
    """Raise `StoreRefused` for a file that is not one of ours: it is never overwritten."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreRefused(f"{path} cannot be read: {error}") from None
    if not head:
        return
    if not head.startswith(SQLITE_MAGIC):
        raise StoreRefused(f"{path} is not a SQLite database: choose another file with --db, or move this one away")
    try:
        # Asked of SQLite, not read from the file: after a crash the newest first page may still be in the WAL.
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise StoreRefused(f"{path} is damaged: {error}. Keep the file, and restore a backup or choose another with --db") from None
    if found != APPLICATION_ID:
        raise StoreRefused(f"{path} is a database of another program: choose another file with --db")
    if version > known_version:
        raise StoreRefused(f"{path} was written by a newer Stepwell (schema {version}, this one knows {known_version}): upgrade first")
