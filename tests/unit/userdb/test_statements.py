"""Texts are cut and parameters counted as SQLite does it: compared with SQLite itself."""

from __future__ import annotations

import sqlite3
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.userdb.statements import statements
from stepwell.userdb.tokens import tokens

PIECES = [
    *("SELECT", "create", "TEMP", "trigger", "explain", "END", "a", "1", "1.5e-3", "0x1F", "x'00'", "'a;b'", "'it''s'", '"q;"', "`b;`"),
    *(
        "[c;]",
        ";",
        "(",
        ")",
        ",",
        "?",
        "?2",
        ":a",
        "@b",
        "$c::d(e)",
        "::",
        "-- c;\n",
        "/* ; */",
        "\n",
        "->>",
        "||",
        "é",
        "'",
        '"',
        "/*",
        "--",
        "[",
    ),
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join)


def cut_by_sqlite(text: str) -> list[str]:
    """Cut at every `;` at which SQLite says that what has come is complete."""
    found, begin = [], 0
    for place, mark in enumerate(text, 1):
        if mark == ";" and sqlite3.complete_statement(text[begin:place]):
            found.append(text[begin:place])
            begin = place
    return [*found, text[begin:]]


@given(texts)
def test_a_statement_ends_where_sqlite_says_so(text: str) -> None:
    """Whatever stands in it; what holds nothing but a `;` is left out."""
    expected = [piece for piece in cut_by_sqlite(text) if any(token.text != ";" for token in tokens(piece))]
    assert [statement.text for statement in statements(text)] == expected


@given(texts)
def test_tokens_are_the_text(text: str) -> None:
    """Between them stands nothing but white space and comments."""
    end = 0
    for token in tokens(text):
        between = text[end : token.start]
        assert not list(tokens(between))
        assert text[token.start : token.end] == token.text
        end = token.end


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" ;;\n; -- nothing\n /* here */", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1;", " SELECT 2;"]),
        ("SELECT ';' ; -- a;\nSELECT \"b;\"", ["SELECT ';' ;", ' -- a;\nSELECT "b;"']),
        (
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT CASE WHEN 1 THEN 2 END; END; SELECT 3",
            ["CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT CASE WHEN 1 THEN 2 END; END;", " SELECT 3"],
        ),
        ("create temp /* x */ trigger t begin select 1; end;select 2", ["create temp /* x */ trigger t begin select 1; end;", "select 2"]),
        ("explain create trigger t begin; end; select 1", ["explain create trigger t begin; end;", " select 1"]),
        ("CREATE TABLE trigger_log (a); SELECT 1", ["CREATE TABLE trigger_log (a);", " SELECT 1"]),
        ("SELECT 'open; SELECT 2", ["SELECT 'open; SELECT 2"]),
    ],
)
def test_cutting(text: str, found: list[str]) -> None:
    """By the `;` that end statements, not by those in texts, comments and triggers."""
    assert [statement.text for statement in statements(text)] == found


@pytest.mark.parametrize(
    ("text", "keyword"),
    [("select 1", "SELECT"), ("/* a */ -- b\n Begin", "BEGIN"), (";; COMMIT", "COMMIT"), ("(select 1)", "("), ("'x'", "'X'")],
)
def test_the_first_word(text: str, keyword: str) -> None:
    """Behind comments and empty statements."""
    assert statements(text)[0].keyword == keyword


PARAMETERS = ["?", "?1", "?3", "?12", ":a", ":b", "@a", "$a", "$a::b", "$a(1)", "'?'", '"?"', "/* ? */"]


@given(st.lists(st.sampled_from(PARAMETERS), min_size=1, max_size=8))
def test_parameters_are_counted_as_sqlite_does(parameters: list[str]) -> None:
    """Numbered, named and mixed; and the numbered text takes the same values at the same places."""
    (statement,) = statements("SELECT " + ", ".join(f"quote({one if one[:2] != '/*' else '1' + one})" for one in parameters))
    values = [100 + n for n in range(statement.variables)]
    connection = sqlite3.connect(":memory:")
    connection.execute('CREATE TABLE "?" ("?")')
    for wrong in (values[1:] if values else [1], [*values, 0]):
        with pytest.raises(sqlite3.ProgrammingError, match="binding"):
            connection.execute(statement.positional.replace('"?"', "'q'"), wrong)
    got = connection.execute(statement.positional.replace('"?"', "'q'"), values).fetchall()
    named = connection.execute(statement.text.replace('"?"', "'q'"), values).fetchall()
    assert got == named


def test_long_texts_take_no_time() -> None:
    """Whatever they are made of: cutting is linear."""
    began = time.process_time()
    for piece in ("$a(", "'", "''", "/*", "[", "x'", "1e", ";", "create trigger a;", "a.", "::", ":a ", '"', "-- "):
        statements((piece * 100_000)[:100_000])
    assert time.process_time() - began < 10
