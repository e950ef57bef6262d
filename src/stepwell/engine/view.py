"""The working set of one group: the rows that its inputs selected, changed in place by commands, with what changed kept apart.

A view answers the same lookups as the memory store, over what was loaded and with the group's own changes in it. Absent is
`None`; a row or scan that nobody selected raises `NotLoaded`, and the group starts again with it. What one transition writes
is applied wholly or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.engine import model, model_actors
from stepwell.engine.model import Key, Row
from stepwell.engine.tables import SCAN_TABLE, SCANS, SPECS, TABLE_OF, Tables

if TYPE_CHECKING:
    from stepwell.engine.commands import Command


class Select(msgspec.Struct, frozen=True):
    """A row by key, and the relations to follow from it (`selection.RELATIONS`)."""

    table: str
    key: Key
    follow: tuple[str, ...] = ()


class Scan(msgspec.Struct, frozen=True):
    """At most `limit` rows of a named scan (`tables.SCANS`), and the relations to follow from each."""

    name: str
    value: str
    limit: int
    follow: tuple[str, ...] = ()


Selection = Select | Scan


class NotLoaded(Exception):
    """A decision looked at rows or scans that were not selected: these."""

    def __init__(self, *selections: Selection) -> None:
        super().__init__(f"not selected: {selections!r}")
        self.selections = selections


class IllegalChange(Exception):
    """A transition's commands contradict each other or the rows: a bug of the engine, not of its users."""


class TableChanges(msgspec.Struct):
    """The net effect of a group on one table."""

    inserted: list[Any] = []
    updated: list[Any] = []
    deleted: list[Key] = []


class Changes(msgspec.Struct):
    """The net effect of a group: what to write, by table in the lock order; rows of a run that go by range come last."""

    tables: dict[str, TableChanges]
    ended_runs: list[str]
    deleted_runs: list[str]

    def __bool__(self) -> bool:
        return bool(self.tables or self.ended_runs or self.deleted_runs)


_ABSENT = object()


class View(Tables):
    """Rows that were selected, and the changes made to them.

    A new row's key is supposed free, and the store's unique keys are the guard; a `careful` view, made after such a key
    refused a commit, has it looked up first.
    """

    def __init__(self, *, careful: bool = False) -> None:
        super().__init__()
        self._careful = careful
        self._absent: dict[str, set[Key]] = {name: set() for name in SPECS}
        self._scans: dict[tuple[str, str], tuple[int, bool, Row | None]] = {}
        self._before: dict[tuple[str, Key], Row | None] = {}
        self._undo: list[tuple[str, Key, object]] = []
        self._written: dict[tuple[str, Key], set[str]] = {}
        self._ended_runs: dict[str, None] = {}
        self._deleted_runs: dict[str, None] = {}

    # Loading, for stores.

    def knows(self, table: str, key: Key) -> bool:
        """Whether the row is here, or known to be absent."""
        return key in self.by_name[table].rows or key in self._absent[table]

    def unknown(self, table: str, keys: Iterable[Key]) -> list[Key]:
        """Those of the keys whose rows are neither here nor known to be absent."""
        rows, absent = self.by_name[table].rows, self._absent[table]
        return [key for key in keys if key not in rows and key not in absent]

    def knows_scan(self, name: str, value: str, limit: int) -> bool:
        """Whether the scan was loaded with at least this limit."""
        scan = self._scans.get((name, value))
        return scan is not None and (scan[0] >= limit or scan[1])

    def admit(self, table: str, asked: Iterable[Key], found: Iterable[Row]) -> None:
        """Take in the rows found for the keys asked; the others are absent."""
        rows = self.by_name[table]
        for row in found:
            if not self._is_over(row):
                rows.put(rows.spec.key_of(row), row)
        self._absent[table].update(key for key in asked if key not in rows.rows)

    def admit_scan(self, scan: Scan, found: Sequence[Row]) -> None:
        """Take in a scan's rows. Rows that are here already stay as they are, changes and all."""
        table = SCAN_TABLE[scan.name]
        rows = self.by_name[table]
        for row in found:
            key = rows.spec.key_of(row)
            if not self.knows(table, key) and not self._is_over(row):
                rows.put(key, row)
        self._scans[scan.name, scan.value] = (scan.limit, len(found) < scan.limit, found[-1] if found else None)

    def _is_over(self, row: Row) -> bool:
        """Whether the row, read late, belongs to a run that this group has ended: the store's row goes by range."""
        if not self._ended_runs:
            return False
        waits = isinstance(row, model.Timer | model.Wait | model.Name) or (isinstance(row, model.Item) and row.holder is None)
        return waits and row.run_id in self._ended_runs  # type: ignore[attr-defined]

    # Lookups, for decisions.

    def require(self, selections: Iterable[Selection]) -> None:
        """Raise `NotLoaded` with those of the rows and scans that nobody selected: for decisions that learn late what they need."""
        missing = [wanted for wanted in selections if not self._has(wanted)]
        if missing:
            raise NotLoaded(*missing)

    def _has(self, wanted: Selection) -> bool:
        if isinstance(wanted, Select):
            return self.knows(wanted.table, wanted.key)
        return self.knows_scan(wanted.name, wanted.value, wanted.limit)

    def get(self, table: str, key: Key) -> Any:
        """The row, or `None` where there is none. Raises `NotLoaded` where nobody asked the store."""
        row = self.by_name[table].rows.get(key)
        if row is None and key not in self._absent[table]:
            raise NotLoaded(Select(table, key))
        return row

    def event(self, event_id: str) -> model.EventRow | None:
        """A stored event by its internal id."""
        return self.get("events", event_id)  # type: ignore[no-any-return]

    def dedup(self, function_id: str, event_key: str) -> model.Dedup | None:
        """The run that an event key started for a function."""
        return self.get("dedups", (function_id, event_key))  # type: ignore[no-any-return]

    def run(self, run_id: str) -> model.Run | None:
        """A run by id."""
        return self.get("runs", run_id)  # type: ignore[no-any-return]

    def step(self, run_id: str, step_id: str) -> model.Step | None:
        """A step by its run and hashed id."""
        return self.get("steps", (run_id, step_id))  # type: ignore[no-any-return]

    def item(self, item_id: str) -> model.Item | None:
        """An item by id."""
        return self.get("items", item_id)  # type: ignore[no-any-return]

    def held_item(self, item_id: str, fence: int) -> model.Item | None:
        """The item, if it is leased under this very fence: only then may a report change anything."""
        item = self.item(item_id)
        if item is None or item.holder is None or item.fence != fence:
            return None
        return item

    def lane(self, lane_id: str) -> model.Lane | None:
        """A lane by id; lanes without keys have no row."""
        return self.get("lanes", lane_id)  # type: ignore[no-any-return]

    def counter(self, counter_id: str) -> model.Counter | None:
        """A key's counter; `None` while it has never been charged."""
        return self.get("counters", counter_id)  # type: ignore[no-any-return]

    def running(self, counter_id: str) -> int:
        """How many leased calls hold the key."""
        counter = self.counter(counter_id)
        return 0 if counter is None else counter.running

    def timer(self, timer_id: str) -> model.Timer | None:
        """A timer by id."""
        return self.get("timers", timer_id)  # type: ignore[no-any-return]

    def topic(self, name: str) -> model.Topic | None:
        """What is known of the waits for events of a name."""
        return self.get("topics", name)  # type: ignore[no-any-return]

    def name(self, name_id: str) -> model.Name | None:
        """Who has a name."""
        return self.get("names", name_id)  # type: ignore[no-any-return]

    def holder(self, holder_id: str) -> model.Holder | None:
        """A node's epoch."""
        return self.get("holders", holder_id)  # type: ignore[no-any-return]

    def actor(self, kind: str, name: str) -> model_actors.Actor | None:
        """An actor."""
        return self.get("actors", (kind, name))  # type: ignore[no-any-return]

    def virtual_time(self, function_id: str) -> int:
        """The tag of the function's lane that was served last."""
        clock: model.FairClock | None = self.get("clocks", function_id)
        return 0 if clock is None else clock.virtual

    def scan(self, name: str, value: str, limit: int) -> list[Any]:
        """The first rows of a named scan, the group's own changes included. Raises `NotLoaded` where it was not selected."""
        return self.page(name, value, limit)[0]

    def more(self, name: str, value: str, limit: int) -> bool:
        """Whether there may be more than `limit` rows: the store did not give all it has, or the group has added some.

        A scan that ran dry says that none is left only where this is false.
        """
        return not self._scans[name, value][1] or len(SCANS[name](self, value)) > limit

    def page(self, name: str, value: str, limit: int) -> tuple[list[Any], bool]:
        """The first rows of a named scan, as `scan` gives them, and whether there may be more."""
        if not self.knows_scan(name, value, limit):
            raise NotLoaded(Scan(name, value, limit))
        rows = SCANS[name](self, value)
        return rows[:limit], not self._scans[name, value][1] or len(rows) > limit

    def horizon(self, name: str, value: str) -> Any:
        """The last row, as the store had it, of a scan that left more behind; `None` where all of it is here.

        A row that the group itself put behind that place is in the scan before others that nobody has read yet: for a cursor it is
        beyond what may be looked at.
        """
        _, dry, last = self._scans[name, value]
        return None if dry else last

    # Changing, for the node.

    def apply(self, commands: Iterable[Command]) -> None:
        """Apply one transition's commands: all of them, or none where one is refused (`IllegalChange`, `NotLoaded`)."""
        self._undo.clear()
        self._written.clear()
        ended, deleted = len(self._ended_runs), len(self._deleted_runs)
        try:
            for command in commands:
                command.apply(self)
        except BaseException:
            for table, key, before in reversed(self._undo):
                rows = self.by_name[table]
                if before is _ABSENT:
                    rows.remove(key)
                else:
                    rows.put(key, before)
            for runs, size in ((self._ended_runs, ended), (self._deleted_runs, deleted)):
                while len(runs) > size:
                    runs.popitem()
            raise

    def put(self, row: Row) -> None:
        """A row that was not there (`Put`)."""
        table = TABLE_OF[type(row)]
        rows = self.by_name[table]
        key = rows.spec.key_of(row)
        if key in rows.rows:
            raise IllegalChange(f"{table} {key!r} is there already")
        if self._careful:
            self.get(table, key)
        self._note(table, key, None)
        rows.put(key, row)

    def edit(self, table: str, key: Key, columns: dict[str, Any]) -> None:
        """New values for a row's columns (`Edit`). One transition writes a column once."""
        row = self.get(table, key)
        if row is None:
            raise IllegalChange(f"{table} {key!r} is not there")
        written = self._written.get((table, key))
        if written is None:
            self._written[table, key] = set(columns)
        elif written.isdisjoint(columns):
            written.update(columns)
        else:
            raise IllegalChange(f"{table} {key!r}: {sorted(written.intersection(columns))} written twice by one transition")
        self._note(table, key, row)
        self.by_name[table].put(key, msgspec.structs.replace(row, **columns))

    def delete(self, table: str, key: Key) -> None:
        """A row that goes (`Delete`)."""
        row = self.get(table, key)
        if row is None:
            raise IllegalChange(f"{table} {key!r} is not there")
        self._drop(table, key, row)

    def replace(self, row: Row) -> None:
        """A row that may be there already (`SetRow`)."""
        table = TABLE_OF[type(row)]
        rows = self.by_name[table]
        key = rows.spec.key_of(row)
        self._note(table, key, self.get(table, key))
        rows.put(key, row)

    def count(self, counter_id: str, slots: int) -> None:
        """Take (`Charge`) or give back (`Release`) slots of a key. A counter at zero has no row."""
        counter = self.counter(counter_id)
        running = slots if counter is None else counter.running + slots
        if running < 0:
            raise IllegalChange(f"counter {counter_id!r} would count {running}")
        self._note("counters", counter_id, counter)
        if running:
            self.counters.put(counter_id, model.Counter(id=counter_id, running=running))
        else:
            self.counters.remove(counter_id)
            self._absent["counters"].add(counter_id)

    def end_run(self, run_id: str) -> None:
        """The run's timers, waits, names and waiting items go, whether loaded or not (`DeleteOfRun`)."""
        self._ended_runs[run_id] = None
        for name in ("timers", "waits", "names"):
            table = self.by_name[name]
            for row in table.find("run", run_id):
                self._drop(name, table.spec.key_of(row), row)
        for item in self.items.find("run", run_id):
            if item.holder is None:
                self._drop("items", item.id, item)

    def delete_run(self, run_id: str) -> None:
        """The run with its steps, attempts and all else goes, whether loaded or not (`DeleteRun`)."""
        self._deleted_runs[run_id] = None
        if (run := self.runs.rows.get(run_id)) is not None:
            self._drop("runs", run_id, run)
        for name in ("steps", "attempts", "timers", "inputs", "metadata", "spans", "defers"):
            table = self.by_name[name]
            for row in table.find("run", run_id):
                self._drop(name, table.spec.key_of(row), row)
        if (totals := self.trace_totals.rows.get(run_id)) is not None:
            self._drop("trace_totals", run_id, totals)

    def _drop(self, table: str, key: Key, row: Row) -> None:
        self._note(table, key, row)
        self.by_name[table].remove(key)
        self._absent[table].add(key)

    def _note(self, table: str, key: Key, before: Row | None) -> None:
        self._undo.append((table, key, _ABSENT if before is None else before))
        # First touch only: the net effect is judged against what the store has. A note that outlives an undone transition does
        # no harm, since a row equal to what was loaded is no change.
        self._before.setdefault((table, key), before)

    def changes(self) -> Changes:
        """The net effect: a row made and deleted within the group is not in it, nor one that is as it was."""
        tables: dict[str, TableChanges] = {}
        for (table, key), before in self._before.items():
            now = self.by_name[table].rows.get(key)
            if now is before:
                continue
            of_table = tables.get(table)
            if of_table is None:
                of_table = tables[table] = TableChanges([], [], [])
            if before is None:
                of_table.inserted.append(now)
            elif now is None:
                of_table.deleted.append(key)
            else:
                of_table.updated.append(now)
        return Changes(tables, list(self._ended_runs), list(self._deleted_runs))
