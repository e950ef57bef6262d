"""A D1 database as Workers have it, over `app.sql`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.errors import SqlError
from stepwell.sdk.sql import Database, Result, Statement
from stepwell.workers.bindings.calling import begins, options_of
from stepwell.workers.bindings.names import store_name
from stepwell.workers.errors import BindingError
from stepwell.workers.rpc import Record, python_from_rpc

if TYPE_CHECKING:
    from stepwell.sdk.app import App

SAFE = 2**53
"""Whole numbers up to here are numbers in JavaScript."""


class D1Statement:
    """A statement with its values; `bind` gives another one."""

    def __init__(self, inner: Statement) -> None:
        self._inner = inner

    def bind(self, *values: Any) -> D1Statement:
        """The statement with these values: `None`, numbers, texts, booleans, bytes."""
        try:
            return D1Statement(self._inner.bind(*map(_bound, values)))
        except SqlError as error:
            raise BindingError(str(error)) from None

    @begins
    async def all(self) -> Record:
        """`success`, `results` and `meta`."""
        return _record(await _done(self._inner.all()))

    @begins
    async def run(self) -> Record:
        """The same as `all`."""
        return _record(await _done(self._inner.all()))

    @begins
    async def first(self, column: str | None = None) -> Any:
        """The first row, or one of its columns; `None` where there is no row."""
        return _given(await _done(self._inner.first(column)))

    @begins
    async def raw(self, options: Any = None, **named: Any) -> list[list[Any]]:
        """The rows as lists; `columnNames=True` puts one of the columns' names before them."""
        rows = await _done(self._inner.raw(bool(options_of(options, named).get("columnNames"))))
        return [[_given(value) for value in row] for row in rows]

    def __repr__(self) -> str:
        return f"<D1 statement {self._inner.sql!r}>"


class D1Database:
    """A database. Its statements are done when they return, a batch all or not at all."""

    def __init__(self, app: App, name: str) -> None:
        self._database = Database(app, store_name(name))

    def prepare(self, query: str) -> D1Statement:
        """A statement, to be bound and run."""
        return D1Statement(self._database.prepare(query))

    @begins
    async def batch(self, statements: Sequence[D1Statement]) -> list[Record]:
        """Run statements in one transaction: their results in order."""
        return [_record(one) for one in await _done(self._database.batch([one._inner for one in statements]))]

    @begins
    async def exec(self, query: str) -> Record:
        """Run statements without values, one a line: `count` and `duration`."""
        return Record(msgspec.structs.asdict(await _done(self._database.exec(query))))

    def withSession(self, constraint: Any = None) -> D1Session:
        """A session: there is one database here, and what was written is what the next statement finds."""
        return D1Session(self._database._app, self._database.name)

    def __repr__(self) -> str:
        return f"<D1 database {self._database.name}>"


class D1Session(D1Database):
    """What `withSession` gives."""

    def getBookmark(self) -> None:
        """There are no replicas to be named."""


async def _done(work: Any) -> Any:
    try:
        return await work
    except SqlError as error:
        raise BindingError(str(error)) from None


def _bound(value: Any) -> Any:
    """JavaScript's numbers are REAL, whole ones too, and what booleans become."""
    return float(value) if isinstance(value, int) and abs(value) <= SAFE else value


def _given(value: Any) -> Any:
    """A value, or a row, as JavaScript has it: bytes are lists of numbers."""
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, dict):
        return Record((name, _given(one)) for name, one in value.items())
    return python_from_rpc(value)


def _record(result: Result) -> Record:
    meta = python_from_rpc(msgspec.structs.asdict(result.meta))
    return Record(success=True, meta=meta, results=[_given(row) for row in result.results])
