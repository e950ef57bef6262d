"""Statements and results as they cross a wire: bytes, whole numbers, names."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import ProtocolError
from stepwell.protocol.sql import (
    STATEMENTS_MAX,
    SqlMeta,
    checked_name,
    encode_query,
    parse_answer,
    parse_query,
    parse_script,
    result,
)

META = SqlMeta(duration=0.5, changes=1, last_row_id=2, changed_db=True, size_after=4096, rows_read=0, rows_written=1)
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)


def same(one: list[Any], other: list[Any]) -> bool:
    """Equal, of the same types, zeros with their signs."""
    return [(type(value), repr(value)) for value in one] == [(type(value), repr(value)) for value in other]


@given(st.lists(values, max_size=6))
def test_values_go_there_and_back(row: list[Any]) -> None:
    """As what they were: `1.0` is no whole number, and a whole number keeps all of its digits."""
    (statement,) = parse_query(encode_query([("SELECT 1", row)])).statements
    assert statement.sql == "SELECT 1" and same(list(statement.params), row)
    body = json_of({"results": [result(tuple(f"c{n}" for n in range(len(row))), [row], META, "arrays")]})
    (told,) = parse_answer(body)
    assert same(told.results.rows[0], row) and told.meta == META


def json_of(value: Any) -> bytes:
    """As the server writes it."""
    return msgspec.json.encode(value)


def test_results_have_d1s_shapes() -> None:
    """Golden: rows as objects, where the last column of a name counts, or as arrays with the columns."""
    rows = [(1, b"\x00\xff", None), (math.inf, 2.0, "x")]
    meta = {
        "served_by": "stepwell",
        "duration": 0.5,
        "changes": 1,
        "last_row_id": 2,
        "changed_db": True,
        "size_after": 4096,
        "rows_read": 0,
        "rows_written": 1,
    }
    told = json.loads(json_of(result(("a", "b", "b"), rows, META, "objects")))
    assert told == {"success": True, "results": [{"a": 1, "b": None}, {"a": None, "b": "x"}], "meta": meta}
    assert list(told) == ["success", "results", "meta"]
    told = json.loads(json_of(result(("a", "b", "b"), rows, META, "arrays")))
    assert told["results"] == {"columns": ["a", "b", "b"], "rows": [[1, {"base64": "AP8="}, None], [None, 2.0, "x"]]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is not what is asked for here, like"),
        (b"[]", "Expected `object`"),
        (b'{"sql": "SELECT 1"}', "unknown field `sql`"),
        (b'{"statements": [{"params": []}]}', "missing required field `sql`"),
        (b'{"statements": [{"sql": 1}]}', r"\$.statements\[0\].sql"),
        (b'{"statements": [], "form": "csv"}', "csv"),
        (b'{"statements": [{"sql": "SELECT ?", "params": [{"base64": "a"}]}]}', "says that it is base64"),
        (b'{"statements": [{"sql": "\xff"}]}', "the body is not"),
        (json.dumps({"statements": [{"sql": "SELECT 1"}] * (STATEMENTS_MAX + 1)}).encode(), "at most 1000"),
    ],
)
def test_bad_queries_are_refused(body: bytes, words: str) -> None:
    """With what is wrong and how it should be."""
    with pytest.raises(ProtocolError, match=words):
        parse_query(body)


def test_a_script_is_a_text() -> None:
    """And nothing else."""
    assert parse_script(b'{"sql": "SELECT 1"}').sql == "SELECT 1"
    with pytest.raises(ProtocolError, match="CREATE TABLE jobs"):
        parse_script(b'{"statements": []}')


def test_objects_that_are_no_bytes_are_left_for_the_database() -> None:
    """Which says what it takes."""
    query = parse_query(b'{"statements": [{"sql": "SELECT ?", "params": [{"base64": 1}, {"a": "b"}, [1]]}]}')
    assert query.statements[0].params == ({"base64": 1}, {"a": "b"}, [1])


def test_names() -> None:
    """Letters, digits, - and _, at most 64: nothing that leads out of a folder."""
    for name in ("a", "A-1_b", "x" * 64):
        assert checked_name(name) == name
    for name in ("", "x" * 65, "a.b", "../a", "a/b", "é", "a\n", " a"):
        with pytest.raises(ProtocolError, match="no name of a database"):
            checked_name(name)
