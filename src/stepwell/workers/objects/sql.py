"""SQL of an object: statements run at once, in the unit that is being written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from stepwell.errors import SqlError
from stepwell.sdk.actors.file import FileMemory
from stepwell.workers.errors import BindingError
from stepwell.workers.rpc import Record, python_from_rpc
from stepwell.workers.web.streams import Buffer

SAFE = 2**53


class ObjectSql:
    """The SQL of one object."""

    def __init__(self, memory: FileMemory) -> None:
        self._memory = memory

    def exec(self, query: str, *bindings: Any) -> Cursor:
        """Run a statement, or several of which the last may take values."""
        try:
            rows = self._memory.execute(str(query), tuple(map(_bound, bindings)))
        except SqlError as error:
            raise BindingError(str(error)) from None
        return Cursor(list(rows.columns), rows.rows, rows.rows_written)


class Cursor:
    """The rows of a statement, read once."""

    def __init__(self, columns: list[str], rows: list[Any], written: int) -> None:
        self.columnNames, self.rowsRead, self.rowsWritten = columns, 0, written
        self._rows = iter(rows)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return Record(zip(self.columnNames, self._row(), strict=True))

    def _row(self) -> list[Any]:
        row = next(self._rows)
        self.rowsRead += 1
        return [_given(value) for value in row]

    def next(self) -> Record:
        """The next row as `value`, or `done`."""
        try:
            return Record(done=False, value=next(self))
        except StopIteration:
            return Record(done=True)

    def toArray(self) -> list[Record]:
        """The rows that are left."""
        return list(self)

    def one(self) -> Record:
        """The only row. Raises where there is none, or another."""
        rows = self.toArray()
        if len(rows) != 1:
            raise BindingError(f"Expected exactly one result from SQL query, but got {'no results' if not rows else 'multiple results'}.")
        return rows[0]

    def raw(self) -> RawRows:
        """The rows that are left, as lists."""
        return RawRows(self)


class RawRows:
    """Rows as lists, where columns of one name are all there."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def __iter__(self) -> Iterator[list[Any]]:
        return self

    def __next__(self) -> list[Any]:
        return self._cursor._row()

    def toArray(self) -> list[list[Any]]:
        """All that are left."""
        return list(self)


def _bound(value: Any) -> Any:
    """A binding as the platform takes it: numbers are REAL, booleans their text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) <= SAFE:
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _given(value: Any) -> Any:
    return Buffer(value) if isinstance(value, bytes) else python_from_rpc(value)
