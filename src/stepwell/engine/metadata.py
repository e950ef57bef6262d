"""What apps and people note about runs and their parts, within bounds: with the steps that ops tell of, and by requests of their own.

It changes nothing of the run itself, so it may come at any time, after the run's end too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from stepwell.engine.commands import Command, Delete, Effect, Refuse, Reply, SetRow
from stepwell.engine.inputs import MetadataTold
from stepwell.engine.model import Metadata, MetadataScope, TraceTotals
from stepwell.engine.tables import span_value
from stepwell.engine.view import Scan, Select, Selection, View
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import canonical
from stepwell.protocol.metadata import RUN_BYTES_MAX, SPAN_BYTES_MAX, WARNINGS, Note, merged, notes_of_op
from stepwell.protocol.ops import Op

KINDS_MAX = 100
"""Kinds of metadata about one span."""

Place = tuple[MetadataScope, str]


class Notes:
    """What one transition notes about one run: gathered note by note, written once."""

    def __init__(self, view: View, run_id: str, now_ms: int) -> None:
        self._view, self._run_id, self._now_ms = view, run_id, now_ms
        totals: TraceTotals | None = view.get("trace_totals", run_id)
        self._totals = totals or TraceTotals(run_id=run_id)
        self._bytes = self._totals.metadata_bytes
        self._spans: dict[Place, dict[str, Metadata]] = {}
        self._before: dict[Place, dict[str, Metadata]] = {}

    def add(self, notes: Iterable[Note]) -> None:
        """Take them in, all or none. Raises `ProtocolError` (413) where they are more than may be."""
        spans, size = {place: dict(rows) for place, rows in self._spans.items()}, self._bytes
        for note in notes:
            rows = spans.get((note.scope, note.span))
            if rows is None:
                rows = spans[note.scope, note.span] = dict(self._of(note.scope, note.span))
            before = rows.pop(note.kind, None)
            size -= size_of(before)
            if note.change == "delete":
                continue
            values = note.values
            if note.change == "merge" and before is not None:
                values = canonical(merged(note.kind, msgspec.json.decode(before.values), msgspec.json.decode(note.values)))
            row = rows[note.kind] = Metadata(
                run_id=self._run_id, scope=note.scope, span=note.span, kind=note.kind, values=values, updated_ms=self._now_ms
            )
            size += size_of(row)
            self._check(note, sum(map(size_of, rows.values())), len(rows), size)
        self._spans, self._bytes = spans, size

    def _of(self, scope: MetadataScope, span: str) -> dict[str, Metadata]:
        known = self._before.get((scope, span))
        if known is None:
            found = self._view.scan("span_metadata", span_value(self._run_id, scope, span), KINDS_MAX)
            known = self._before[scope, span] = {row.kind: row for row in found}
        return known

    @staticmethod
    def _check(note: Note, span_bytes: int, kinds: int, run_bytes: int) -> None:
        what = f"the {note.scope} {note.span}".strip()
        if span_bytes > SPAN_BYTES_MAX:
            raise ProtocolError(f"metadata of {what} would have {span_bytes} bytes; at most {SPAN_BYTES_MAX} are kept of one", 413)
        if kinds > KINDS_MAX:
            raise ProtocolError(f"metadata of {what} would be of {kinds} kinds; at most {KINDS_MAX} are kept of one", 413)
        if run_bytes > RUN_BYTES_MAX:
            raise ProtocolError(f"metadata of the run would have {run_bytes} bytes; at most {RUN_BYTES_MAX} are kept", 413)

    def commands(self) -> list[Command]:
        """What is written of it."""
        commands: list[Command] = []
        for place, rows in self._spans.items():
            before = self._before[place]
            commands += [SetRow(row) for kind, row in rows.items() if before.get(kind) is not row]
            commands += [Delete("metadata", (self._run_id, *place, kind)) for kind in before.keys() - rows.keys()]
        if commands:
            commands.append(SetRow(msgspec.structs.replace(self._totals, metadata_bytes=self._bytes)))
        return commands


def size_of(row: Metadata | None) -> int:
    """The bytes that a row counts for."""
    return 0 if row is None else len(row.kind.encode()) + len(row.values)


def notes_of_ops(view: View, run_id: str, ops: Iterable[Op], now_ms: int) -> list[Command]:
    """What is written of the notes that ops carry. Those that are refused leave a warning with their step, and the run goes on."""
    carrying = [op for op in ops if op.metadata is not None]
    if not carrying:
        return []
    book = Notes(view, run_id, now_ms)
    for op in carrying:
        assert op.metadata is not None
        try:
            book.add(notes_of_op(op.metadata, op.id))
        except ProtocolError as error:
            refused: dict[str, Any] = {"metadata": f"refused: {error}"}
            book.add([Note(scope="step", span=op.id, kind=WARNINGS, change="merge", values=canonical(refused))])
    return book.commands()


def select_notes_of_ops(run_id: str, ops: Iterable[Op]) -> list[Selection]:
    """What the notes of ops take to be judged."""
    notes: list[Note] = []
    for op in ops:
        if op.metadata is not None:
            notes.append(Note(scope="step", span=op.id, kind=WARNINGS, change="merge", values=b"{}"))
            try:
                notes += notes_of_op(op.metadata, op.id)
            except ProtocolError:
                continue
    return select_notes(run_id, notes) if notes else []


def select_notes(run_id: str, notes: Iterable[Note]) -> list[Selection]:
    """What is known of the spans that are noted about, and how much there is of the run."""
    places = dict.fromkeys((note.scope, note.span) for note in notes)
    return [Select("trace_totals", run_id), *(Scan("span_metadata", span_value(run_id, *place), KINDS_MAX) for place in places)]


def select_told(told: MetadataTold) -> list[Selection]:
    """The run, and what is noted already."""
    keys = ((told.run_id, note.scope, note.span, note.kind) for note in told.notes)
    return [Select("runs", told.run_id), *select_notes(told.run_id, told.notes), *(Select("metadata", key) for key in dict.fromkeys(keys))]


def on_metadata_told(view: View, told: MetadataTold, now_ms: int) -> list[Command | Effect]:
    """Note it, whether the run has ended or not."""
    if view.run(told.run_id) is None:
        return [Refuse(NotFound(f"there is no run {told.run_id!r}"))]
    book = Notes(view, told.run_id, now_ms)
    try:
        book.add(told.notes)
    except ProtocolError as error:
        return [Refuse(error)]
    return [*book.commands(), Reply(None)]
