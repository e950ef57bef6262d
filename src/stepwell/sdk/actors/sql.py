"""SQL on an actor's own file, as users write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepwell.errors import SqlError
from stepwell.sdk.actors.file import FileMemory
from stepwell.userdb.connection import Rows


class ActorSql:
    """The SQL of one actor: statements run at once, in the unit that is being written."""

    def __init__(self, memory: FileMemory) -> None:
        self._memory = memory

    def exec(self, sql: str, *values: object) -> ActorRows:
        """Run a statement, or several of which the last may take values (`?`). Raises `SqlError`."""
        return ActorRows(self._memory.execute(sql, values))


class ActorRows:
    """What a statement gave: its rows, as dictionaries, and what it did."""

    def __init__(self, rows: Rows) -> None:
        self.columns = rows.columns
        self.rows = rows.rows
        self.changes = rows.changes
        self.rows_written = rows.rows_written
        self.last_row_id = rows.last_row_id

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def all(self) -> list[dict[str, Any]]:
        """All rows."""
        return list(self)

    def one(self) -> dict[str, Any]:
        """The only row. Raises `SqlError` where there is none, or another."""
        if len(self.rows) != 1:
            found = "no results" if not self.rows else "multiple results"
            raise SqlError(f"Expected exactly one result from SQL query, but got {found}.")
        return next(iter(self))
