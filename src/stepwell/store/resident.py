"""Rows kept in memory by a store that alone writes its database: what decisions look at again and again.

Only what was committed is here. A run that was put in by this process is known whole, so that the absence of one of its steps is
known too, and so are the keys that have shut no lane: each call's end asks. When there are too many rows, all are let go at once:
they are read again when needed.
"""

from __future__ import annotations

from typing import Any

from stepwell.engine.model import Key, Row
from stepwell.engine.selection import Fetch, Fetched
from stepwell.engine.tables import SPECS
from stepwell.engine.view import Changes

ROWS_MAX = 20_000
KEPT = ("runs", "items", "steps", "lanes", "counters", "clocks", "timers", "topics", "rates", "holds", "queues", "actors")
"""Tables whose rows are looked at again."""


class Resident:
    """Committed rows by table and key; `None` for one that is known to be absent."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[Key, Any]] = {name: {} for name in KEPT}
        self._whole: set[str] = set()
        self._of_run: dict[str, list[tuple[str, Key]]] = {}
        self._shut_none: set[str] = set()

    def clear(self) -> None:
        """Know nothing: a commit's outcome is not known, or there is too much."""
        for rows in self._rows.values():
            rows.clear()
        self._whole.clear()
        self._of_run.clear()
        self._shut_none.clear()

    def answer(self, wanted: Fetch) -> tuple[dict[str, list[Row]], Fetch]:
        """The rows that are here, and what is left to be read: of the scans, those that may give something."""
        known: dict[str, list[Row]] = {}
        missing: dict[str, list[Key]] = {}
        for table, keys in wanted.keys.items():
            rows = self._rows.get(table)
            if rows is None:
                missing[table] = keys
                continue
            found = known.setdefault(table, [])
            for key in keys:
                row = rows.get(key, self)
                if row is self:
                    if table == "steps" and key[0] in self._whole:
                        continue
                    missing.setdefault(table, []).append(key)
                elif row is not None:
                    found.append(row)
        return known, Fetch(missing, [scan for scan in wanted.scans if scan.name != "shut_lanes" or scan.value not in self._shut_none])

    def note_read(self, asked: Fetch, found: Fetched) -> None:
        """Keep what was read by key, that the others are absent, and which keys have shut no lane."""
        for scan, lanes in zip(asked.scans, found.scans, strict=True):
            if scan.name == "shut_lanes" and not lanes:
                self._shut_none.add(scan.value)
        for table, keys in asked.keys.items():
            rows = self._rows.get(table)
            if rows is None:
                continue
            spec = SPECS[table]
            read: dict[Key, Any] = {spec.key_of(row): row for row in found.rows.get(table, ())}
            for key in keys:
                row = rows[key] = read.get(key)
                if row is not None and table in ("items", "timers") and row.run_id is not None:
                    self._of_run.setdefault(row.run_id, []).append((table, key))
        self._bound()

    def note_commit(self, changes: Changes) -> None:
        """Keep what was written."""
        for table, change in changes.tables.items():
            rows = self._rows.get(table)
            if rows is None:
                continue
            key_of = SPECS[table].key_of
            if table == "runs":
                self._whole.update(row.id for row in change.inserted)
                for row in change.updated:
                    if row.ended_ms is not None:
                        self._whole.discard(row.id)
            elif table == "lanes":
                self._shut_none.difference_update(row.shut_by for row in (*change.inserted, *change.updated) if row.shut_by is not None)
            of_run = table in ("items", "timers")
            for row in change.inserted:
                key = key_of(row)
                rows[key] = row
                if of_run and row.run_id is not None:
                    self._of_run.setdefault(row.run_id, []).append((table, key))
            for row in change.updated:
                rows[key_of(row)] = row
            for key in change.deleted:
                if table == "counters":
                    rows[key] = None  # it comes and goes with each call of a key
                else:
                    rows.pop(key, None)
        for run_id in changes.ended_runs:
            for table, key in self._of_run.pop(run_id, ()):
                row = self._rows[table].get(key)
                if table == "timers" or (row is not None and row.holder is None):
                    self._rows[table].pop(key, None)
        if changes.deleted_runs:
            self.clear()
        self._bound()

    def _bound(self) -> None:
        if sum(map(len, self._rows.values())) + len(self._shut_none) > ROWS_MAX:
            self.clear()
