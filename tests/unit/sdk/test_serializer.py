"""Values as JSON and back."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import UsageError
from stepwell.sdk.serializer import ANY, codec_of, result_codec


class Colour(Enum):
    """An enum."""

    RED = "red"


@dataclass
class Point:
    """A dataclass with floats and one of what JSON does not know."""

    x: float
    y: float
    at: datetime
    colour: Colour = Colour.RED


class Money(msgspec.Struct):
    """A msgspec struct."""

    amount: Decimal
    id: UUID


class Model(pydantic.BaseModel):
    """A pydantic model; `named` has another name on the wire."""

    path: Path
    ratio: float
    named: int = pydantic.Field(alias="wireName")
    inner: list[Point] = []


class Row(TypedDict):
    """A TypedDict."""

    day: date
    values: list[float]


class Pair(NamedTuple):
    """A named tuple."""

    left: int
    right: float


POINT = Point(1.0, 2.5, datetime(2030, 1, 31, 8, tzinfo=UTC))
MODEL = Model(path=Path("/tmp/x"), ratio=3.0, wireName=4, inner=[POINT])


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Point, POINT),
        (Money, Money(Decimal("1.10"), UUID(int=5))),
        (Model, MODEL),
        (list[Model], [MODEL]),
        (dict[str, Model | None], {"a": MODEL, "b": None}),
        (Row, {"day": date(2030, 1, 31), "values": [1.0, 2.0]}),
        (Pair, Pair(1, 2.0)),
        (tuple[float, ...], (1.0, 2.0)),
        (set[int], {1, 2}),
        (dict[int, float], {1: 2.0}),
        (timedelta, timedelta(minutes=90)),
        (bytes, b"\x00\xff"),
        (Path, Path("a/b")),
        (int | float, 2.0),
        (int | float, 2),
        (float | None, 2.0),
        (list[Any], [1.0, 1, {"x": 2.0}]),
        (dict[str, Any], {"deep": {"list": [0.0, -0.5, 10.0**20]}}),
        (Any, {"$float": 1.0, "more": True}),
        (Any, {"$float": 1}),
        (Any, {"$plain": {"$float": 2.0}}),
        (Any, "1.0"),
        (Any, None),
    ],
)
def test_a_value_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    """Equal, and of the same types at every depth."""
    codec = codec_of(annotation)
    back = codec.decode(codec.encode(value, mark=True), marked=True)
    assert back == value
    assert repr(back).replace("TzInfo(0)", "datetime.timezone.utc") == repr(value)  # pydantic has a UTC of its own


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["$float", "$plain"]), inner),
    max_leaves=20,
)


@given(JSON)
def test_unannotated_values_keep_their_types(value: Any) -> None:
    """Whatever JSON can hold, floats and look-alikes of marks included."""
    back = ANY.decode(ANY.encode(value, mark=True), marked=True)
    assert back == value
    assert _kinds(back) == _kinds(value)


def _kinds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _kinds(item) for key, item in value.items()}
    return [_kinds(item) for item in value] if isinstance(value, list) else type(value)


def test_what_is_stored_is_plain_where_the_annotation_decides() -> None:
    """Marks stand only where nothing else says float; never in events and results of functions."""
    assert codec_of(float).encode(1.0, mark=True) == b"1"
    assert ANY.encode({"a": 1.0}, mark=True) == b'{"a":{"$float":1}}'
    assert ANY.encode({"a": 1.0}) == b'{"a":1}'
    assert codec_of(list[float]).encode([1.0, 0.5], mark=True) == b"[1,0.5]"


def test_canonical_form() -> None:
    """Sorted keys, ECMAScript's numbers, whatever the path through the encoder."""
    assert ANY.encode({"b": 1, "a": [True, None]}) == b'{"a":[true,null],"b":1}'
    assert ANY.encode({"€": 1e21, "a": 1e-7}) == '{"a":1e-7,"€":1e+21}'.encode()
    assert ANY.encode({"n": 2**60}) == b'{"n":1152921504606846976}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: object()}, {("a", "b"): 1}])
def test_what_json_cannot_hold_is_refused_with_a_sentence(value: Any) -> None:
    """It names the type and what to use instead."""
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        ANY.encode(value, mark=True)


def test_what_does_not_fit_is_refused() -> None:
    """With what was stored and what was wanted."""
    with pytest.raises(UsageError, match=r'^"x" does not fit the annotation int'):
        codec_of(int).decode(b'"x"')
    with pytest.raises(UsageError, match="does not fit"):
        codec_of(Model).decode(b'{"path":1}')


def test_result_codecs() -> None:
    """From annotations, also as strings, through partials; made once."""

    def unannotated(): ...  # type: ignore[no-untyped-def]

    def text() -> str: ...  # type: ignore[empty-body]

    assert result_codec(unannotated) is ANY
    assert result_codec(text).annotation is str
    assert result_codec(functools.partial(text)) is result_codec(text)
    assert result_codec(len) is ANY
