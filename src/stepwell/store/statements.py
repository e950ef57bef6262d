"""Hand-written SQL, loaded by name from the files of a dialect; and the rows of tables as a database's columns."""

from __future__ import annotations

import enum
import re
import types
import typing
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import msgspec

from stepwell.engine.model import Item, Row
from stepwell.engine.model_primitives import Blob
from stepwell.engine.tables import SPECS

_NAME = re.compile(r"^-- name: (\w+)(?: \(([^)]*)\))?\n", re.MULTILINE)


class Statement(msgspec.Struct, frozen=True):
    """A statement's text, and the columns that its rows give, where it names them."""

    text: str
    columns: tuple[str, ...]


def load_statements(dialect: str) -> dict[str, Statement]:
    """Every named statement of a dialect's files."""
    statements = {}
    folder = resources.files("stepwell.store") / "sql" / dialect
    for file in folder.iterdir():
        if not file.name.endswith(".sql"):
            continue
        parts = _NAME.split(file.read_text())[1:]
        for name, columns, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            named = tuple(column.strip() for column in columns.split(",")) if columns else ()
            statements[name] = Statement(body.strip().rstrip(";"), named)
    return statements


def load_migrations(dialect: str) -> list[str]:
    """The numbered migrations of a dialect, in order. They are never edited."""
    folder = resources.files("stepwell.store") / "sql" / dialect / "migrations"
    return [file.read_text() for file in sorted(folder.iterdir(), key=lambda file: file.name) if file.name.endswith(".sql")]


class Codec:
    """A row type's columns: rows to values and back. JSON bodies are text, other bytes blobs, tuples JSON arrays,
    flags 0 or 1.
    """

    def __init__(self, row: type[Row]) -> None:
        self.row = row
        self.names = row.__struct_fields__
        hints = typing.get_type_hints(row, include_extras=True)
        pairs = [_converters(hints[name]) for name in self.names]
        self._out = {name: out for name, (out, _) in zip(self.names, pairs, strict=True)}
        self._in = [(i, back) for i, (_, back) in enumerate(pairs) if back is not None]

    def values(self, columns: Sequence[str]) -> Callable[[Any], list[Any]]:
        """What gives a row's values for these columns."""
        indexes = [self.names.index(column) for column in columns]
        converters = [(i, out) for i, column in enumerate(columns) if (out := self._out[column]) is not None]
        whole = indexes == list(range(len(self.names)))
        astuple = msgspec.structs.astuple

        def of(row: Any) -> list[Any]:
            fields = astuple(row)
            values = list(fields) if whole else [fields[i] for i in indexes]
            for i, out in converters:
                if (value := values[i]) is not None:
                    values[i] = out(value)
            return values

        return of

    def row_of(self, values: Sequence[Any]) -> Any:
        """The row of a database's values, which come in the order of the fields."""
        fields = list(values)
        for i, back in self._in:
            if fields[i] is not None:
                fields[i] = back(fields[i])
        return self.row(**dict(zip(self.names, fields, strict=True)))


def _converters(hint: Any) -> tuple[Callable[[Any], Any] | None, Callable[[Any], Any] | None]:
    """How a field's values go to a column and come back; `None` where they stay as they are."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    member = next(member for member in members if member is not type(None))
    if member is Blob:
        return None, None
    if member is bytes:
        return bytes.decode, str.encode
    if member is bool:
        return int, bool
    if member is Item:
        return lambda item: msgspec.json.encode(item).decode(), lambda text: msgspec.json.decode(text, type=Item)
    if typing.get_origin(member) is tuple:
        return _list_out, _list_in
    if isinstance(member, type) and issubclass(member, enum.StrEnum):
        return str, member
    return None, None


def _list_out(value: tuple[str, ...]) -> str:
    return msgspec.json.encode(value).decode() if value else "[]"


def _list_in(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(msgspec.json.decode(text))


CODECS: dict[str, Codec] = {name: Codec(spec.row) for name, spec in SPECS.items()}
