"""What crosses a wire of users' SQL: statements with their values there, results in D1's shapes back.

Values are JSON's, but for bytes, which JSON does not have: `{"base64": "…"}`. Whole numbers have all their 64 bits, and a number with a
point stays one (`1.0`), so these bodies are never brought into canonical form.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json

T = TypeVar("T", bound=msgspec.Struct)

NAME_CHARS_MAX = 64
"""A database's name."""
NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_CHARS_MAX}}}")
STATEMENTS_MAX = 1_000
"""Statements of a batch."""
SERVED_BY = "stepwell"

Form = Literal["objects", "arrays"]
"""Rows as objects by column, where of two columns of one name the last one is told, or as arrays with the columns beside them."""


class SqlStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One statement and its values."""

    sql: str
    params: tuple[Any, ...] = ()


class SqlQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Statements that are done all or not at all."""

    statements: tuple[SqlStatement, ...]
    form: Form = "objects"


class SqlScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Statements without values, one a line."""

    sql: str


class SqlMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement did; the names are D1's.

    `rows_read` counts the rows that it gave: how many SQLite looked at for them is not known here. `rows_written` counts rows inserted,
    updated and deleted, those of triggers, foreign keys and full-text tables too, but no index entries.
    """

    served_by: str = SERVED_BY
    duration: float
    changes: int
    last_row_id: int
    changed_db: bool
    size_after: int
    rows_read: int
    rows_written: int


class SqlArrays(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as arrays."""

    columns: tuple[str, ...]
    rows: list[list[Any]]


class SqlResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one statement gave."""

    success: bool = True
    results: SqlArrays | list[dict[str, Any]]
    meta: SqlMeta


class SqlArrayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The same with its rows as arrays, to be read."""

    results: SqlArrays
    meta: SqlMeta
    success: bool = True


class SqlAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a query of which the rows were asked for as arrays."""

    results: list[SqlArrayResult]


class SqlCount(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a script: its lines with a statement, and how many milliseconds they took."""

    count: int
    duration: float


def checked_name(name: str) -> str:
    """A database's name. Raises `ProtocolError` for one that cannot be."""
    if not NAME.fullmatch(name):
        raise ProtocolError(f"{name!r} is no name of a database: it has 1 to {NAME_CHARS_MAX} letters, digits, - and _")
    return name


def parse_query(body: Json) -> SqlQuery:
    """The statements of a request, with bytes as bytes. Raises `ProtocolError`."""
    query = _parsed(body, SqlQuery, '{"statements": [{"sql": "SELECT ?", "params": [1]}]}')
    if len(query.statements) > STATEMENTS_MAX:
        raise ProtocolError(f"a batch of {len(query.statements)} statements: at most {STATEMENTS_MAX} are taken, send several batches")
    return SqlQuery(
        statements=tuple(SqlStatement(one.sql, tuple(map(_value, one.params))) for one in query.statements),
        form=query.form,
    )


def parse_script(body: Json) -> SqlScript:
    """The text of a request. Raises `ProtocolError`."""
    return _parsed(body, SqlScript, '{"sql": "CREATE TABLE jobs (id INTEGER PRIMARY KEY)"}')


def _parsed(body: Json, kind: type[T], example: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the body is not what is asked for here, like {example}: {error}") from None


def _value(given: Any) -> Any:
    """A value of a request. What is no column's is left for the database to refuse, with its words."""
    if isinstance(given, dict) and given.keys() == {"base64"} and isinstance(given["base64"], str):
        try:
            return base64.b64decode(given["base64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError(f"a value says that it is base64, and is not: {error}") from None
    return given


def encode_query(statements: Iterable[tuple[str, Sequence[Any]]]) -> Json:
    """The body of a request for rows as arrays."""
    told = tuple(SqlStatement(sql, tuple(map(_told, values))) for sql, values in statements)
    return msgspec.json.encode(SqlQuery(statements=told, form="arrays"))


def result(columns: tuple[str, ...], rows: Iterable[Sequence[Any]], meta: SqlMeta, form: Form) -> SqlResult:
    """A statement's result in the form that was asked for."""
    if form == "arrays":
        return SqlResult(results=SqlArrays(columns=columns, rows=[list(map(_told, row)) for row in rows]), meta=meta)
    return SqlResult(results=[dict(zip(columns, map(_told, row), strict=True)) for row in rows], meta=meta)


def _told(value: Any) -> Any:
    """A value as it is written: msgspec writes bytes as base64."""
    return {"base64": value} if value.__class__ is bytes else value


def parse_answer(body: Json) -> list[SqlArrayResult]:
    """The results of an answer, with bytes as bytes."""
    found = msgspec.json.decode(body, type=SqlAnswer).results
    for one in found:
        for row in one.results.rows:
            for place, value in enumerate(row):
                if value.__class__ is dict:
                    row[place] = base64.b64decode(value["base64"])
    return found
