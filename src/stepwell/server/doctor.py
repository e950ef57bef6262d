"""What `stepwell doctor` looks at: the database file, the disk, the clock, the keys, the apps. Nothing is changed."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

from stepwell.engine.model import AppRow
from stepwell.errors import Error, UsageError
from stepwell.server.auth import KeyFile
from stepwell.server.settings import shown_size
from stepwell.store.sqlite_health import SCHEMA_VERSION, Health, examine, owner

FREE_LOW_BYTES, FREE_LEAST_BYTES = 1024**3, 100 * 1024**2
WAL_LARGE_BYTES = 256 * 1024**2
CLOCK_SKEW_MS = 5_000
APP_TIMEOUT_S = 3.0


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at: how it stands, what was found, and what to do where it is not well."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


def versions() -> dict[str, str]:
    """What runs here."""
    return {"stepwell": metadata.version("stepwell"), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}


def examined(db: Path) -> list[Check]:
    """Everything, one after the other."""
    return list(_examined(db))


def _examined(db: Path) -> Iterator[Check]:
    pid = owner(db)
    yield Check("server", "ok", f"process {pid} has {db}" if pid is not None else f"no server has {db} now")
    yield _disk(db)
    yield _keys(db)
    if not db.exists():
        yield Check("database", "ok", f"{db} is not there yet; the first start makes it")
        return
    try:
        health = examine(db)
    except (Error, sqlite3.Error) as error:
        yield Check("database", "fail", str(error), "keep the file, and restore a backup or choose another with --db")
        return
    yield from _database(db, health)
    yield _clock(health)
    for app in health.apps:
        if not app.archived:
            yield _app(app)


def _database(db: Path, health: Health) -> Iterator[Check]:
    if health.problems:
        yield Check("database", "fail", f"{db} is damaged: {'; '.join(health.problems)}", "stop, keep the file, and restore a backup")
    else:
        yield Check("database", "ok", f"{db} is sound, {shown_size(health.bytes)}")
    if health.version == SCHEMA_VERSION:
        yield Check("schema", "ok", f"version {health.version}")
    else:
        yield Check(
            "schema", "warn", f"version {health.version}, this Stepwell has {SCHEMA_VERSION}", "the next start brings it up to date"
        )
    large = health.wal_bytes > WAL_LARGE_BYTES
    fix = "something reads the file for long; end it, or restart the server" if large else ""
    yield Check("wal", "warn" if large else "ok", shown_size(health.wal_bytes), fix)
    if health.set_aside:
        yield Check("set aside", "warn", f"{health.set_aside} inputs of the engine raised", "see GET /api/set-aside; please report them")
    else:
        yield Check("set aside", "ok", "no input of the engine raised")


def _disk(db: Path) -> Check:
    place = next((parent for parent in db.resolve().parents if parent.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    state: Literal["ok", "warn", "fail"] = "fail" if free < FREE_LEAST_BYTES else "warn" if free < FREE_LOW_BYTES else "ok"
    return Check(
        "disk", state, f"{free // 1024**2} MiB free at {place}", "" if state == "ok" else "make room, or move the database with --db"
    )


def _keys(db: Path) -> Check:
    file = KeyFile(db)
    if not file.path.exists():
        return Check("keys", "ok", f"none are kept in {file.path}")
    try:
        kept = file.kept()
    except UsageError as error:
        return Check("keys", "fail", str(error), "restore the file, or move it away to have new keys made")
    if stat.S_IMODE(file.path.stat().st_mode) & 0o077:
        return Check("keys", "warn", f"others may read {file.path}", f"chmod 600 {file.path}")
    older = len(kept.fallback_keys) + max(0, len(kept.event_keys) - 1)
    return Check("keys", "ok", f"kept in {file.path}" + (f", {older} older ones are still taken" if older else ""))


def _clock(health: Health) -> Check:
    ahead_ms = 0 if health.newest_ms is None else health.newest_ms - time.time_ns() // 10**6
    if ahead_ms > CLOCK_SKEW_MS:
        detail = f"the newest event came in {ahead_ms // 1000} s after now, by this machine's clock"
        return Check("clock", "fail", detail, "set the clock right: signatures and timers depend on it")
    return Check("clock", "ok", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def _app(app: AppRow) -> Check:
    name = f"app {app.name}"
    if app.driver != "http" or not app.url:
        return Check(name, "ok", f"served by {app.driver}, registers itself")
    request = urllib.request.Request(app.url, headers={"user-agent": "stepwell"})
    try:
        with urllib.request.urlopen(request, timeout=APP_TIMEOUT_S) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Check(name, "fail", f"{app.url} does not answer: {reason}", f"start it, or remove it: stepwell apps remove {app.name}")
    if status >= 500 or status == 404:
        return Check(name, "warn", f"{app.url} answers HTTP {status}", "is the path right, and is the app well?")
    return Check(name, "ok", f"{app.url} answers")
