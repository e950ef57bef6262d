"""SQL databases for apps: `app.sql("jobs")`, in the shape of Cloudflare's D1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import msgspec

from stepwell.errors import ProtocolError, SqlError, UsageError
from stepwell.protocol.codec import decode
from stepwell.protocol.sql import (
    NAME_CHARS_MAX,
    SqlArrayResult,
    SqlCount,
    SqlMeta,
    SqlScript,
    checked_name,
    encode_query,
    parse_answer,
)
from stepwell.sdk.remote import refusal
from stepwell.userdb.binding import DATABASES, Value, bound

if TYPE_CHECKING:
    from stepwell.sdk.app import App

__all__ = ["Database", "Result", "SqlCount", "SqlMeta", "Statement"]


class Result:
    """What a statement gave. It iterates over its rows, each a dictionary by column; of two columns of one name it has the last.

    `success` is always true, since a statement that fails raises `SqlError`. `meta` tells what the statement did.
    """

    __slots__ = ("_told", "results")

    def __init__(self, told: SqlArrayResult) -> None:
        self._told = told
        columns = told.results.columns
        self.results: list[dict[str, Any]] = [dict(zip(columns, row, strict=True)) for row in told.results.rows]

    @property
    def success(self) -> bool:
        """True."""
        return self._told.success

    @property
    def meta(self) -> SqlMeta:
        """`changes`, `last_row_id`, `rows_read`, `rows_written`, `changed_db`, `size_after` (bytes), `duration` (ms), `served_by`."""
        return self._told.meta

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names, also where there are no rows."""
        return self._told.results.columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.results[index]

    def __repr__(self) -> str:
        return f"<{len(self)} rows, {self.meta.changes} changes>"


class Statement:
    """A text of SQL and the values of its parameters. It never changes: `bind` gives another one."""

    __slots__ = ("_database", "sql", "values")

    def __init__(self, database: Database, sql: str, values: tuple[Value, ...] = ()) -> None:
        self._database, self.sql, self.values = database, sql, values

    def bind(self, *values: Value | bool) -> Statement:
        """The statement with these values in place of any before: `None`, numbers, texts, bytes; `True` and `False` are 1 and 0.

        Raises `SqlError` for anything else.
        """
        try:
            return Statement(self._database, self.sql, bound(values, DATABASES))
        except SqlError as error:
            raise SqlError(f"D1_TYPE_ERROR: {error}", error.code) from None

    async def all(self) -> Result:
        """Run it: its rows, and what it did. Raises `SqlError`."""
        (result,) = await self._database.batch([self])
        return result

    async def run(self) -> Result:
        """The same as `all`, by the name for statements that are run for what they do."""
        return await self.all()

    @overload
    async def first(self, column: None = None) -> dict[str, Any] | None: ...
    @overload
    async def first(self, column: str) -> Any: ...

    async def first(self, column: str | None = None) -> Any:
        """The first row, or one of its columns; `None` where there is no row."""
        result = await self.all()
        if not result.results:
            return None
        row = result.results[0]
        if column is None:
            return row
        if column not in row:
            raise SqlError(f"D1_COLUMN_NOTFOUND: Column not found ({column})", "COLUMN_NOTFOUND")
        return row[column]

    async def raw(self, column_names: bool = False) -> list[list[Any]]:
        """The rows as lists, after one of the columns' names if asked for; columns of the same name are all there."""
        result = await self.all()
        rows = result._told.results.rows
        return [list(result.columns), *rows] if column_names else rows

    def all_sync(self) -> Result:
        """As `all`, from code that is not async."""
        return self._database._app.wait_for(self.all)

    def run_sync(self) -> Result:
        """As `run`, from code that is not async."""
        return self.all_sync()

    @overload
    def first_sync(self, column: None = None) -> dict[str, Any] | None: ...
    @overload
    def first_sync(self, column: str) -> Any: ...

    def first_sync(self, column: str | None = None) -> Any:
        """As `first`, from code that is not async."""
        return self._database._app.wait_for(lambda: self.first(column))

    def raw_sync(self, column_names: bool = False) -> list[list[Any]]:
        """As `raw`, from code that is not async."""
        return self._database._app.wait_for(lambda: self.raw(column_names))

    def __repr__(self) -> str:
        return f"<statement {self.sql!r} of {self._database.name}>"


class Database:
    """A SQLite database of the server's, made when it is first used."""

    __slots__ = ("_app", "name")

    def __init__(self, app: App, name: str) -> None:
        try:
            checked_name(name if isinstance(name, str) else "")
        except ProtocolError:
            shown = f'app.sql({name!r}): a name has 1 to {NAME_CHARS_MAX} letters, digits, - and _, like app.sql("jobs")'
            raise UsageError(shown) from None
        self._app, self.name = app, name

    def prepare(self, sql: str) -> Statement:
        """A statement, to be bound and run. It may hold several: all are run, the last one's rows are given, and it alone takes values."""
        if not isinstance(sql, str):
            raise UsageError(f"{self.name}.prepare({sql!r}): the SQL is a text")
        return Statement(self, sql)

    async def batch(self, statements: Sequence[Statement]) -> list[Result]:
        """Run statements in one transaction: all, or, where one fails, none. Their results in order. Raises `SqlError`."""
        for statement in statements:
            if not isinstance(statement, Statement) or statement._database.name != self.name:
                raise UsageError(f"{self.name}.batch([{statement!r}]): it takes statements that this database has prepared")
        body = encode_query((statement.sql, statement.values) for statement in statements)
        return [Result(told) for told in parse_answer(await self._ask("query", body))]

    async def exec(self, sql: str) -> SqlCount:
        """Run statements without values, one a line, all or none: how many lines (`count`), in how many milliseconds (`duration`)."""
        if not isinstance(sql, str):
            raise UsageError(f"{self.name}.exec({sql!r}): the SQL is a text")
        return msgspec.json.decode(await self._ask("exec", _encoded(SqlScript(sql=sql))), type=SqlCount)

    def batch_sync(self, statements: Sequence[Statement]) -> list[Result]:
        """As `batch`, from code that is not async."""
        return self._app.wait_for(lambda: self.batch(statements))

    def exec_sync(self, sql: str) -> SqlCount:
        """As `exec`, from code that is not async."""
        return self._app.wait_for(lambda: self.exec(sql))

    async def _ask(self, what: str, body: bytes) -> bytes:
        """The body of a good answer. Asked once: what was done and not told must not be done again."""
        path = f"/sql/{self.name}/{what}"
        status, answer = await self._app.way.ask("POST", path, body, once=True)
        if status < 300:
            return answer
        raise _sql_error(answer) or refusal("POST", path, status, answer)

    def __repr__(self) -> str:
        return f"<database {self.name}>"


def _encoded(body: SqlScript) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise SqlError(f"D1_ERROR: the SQL is no Unicode text: {error.reason}: SQLITE_ERROR") from None


def _sql_error(body: bytes) -> SqlError | None:
    """What a database said; `None` where it was the server that refused."""
    try:
        told = decode(body)
    except ProtocolError:
        return None
    if not isinstance(told, dict) or not str(told.get("error")).startswith("D1_"):
        return None
    return SqlError(str(told["error"]), str(told.get("code", "SQLITE_ERROR")))
