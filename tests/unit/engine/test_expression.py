"""Expressions in the protocol's dialect (inngest-protocol §10): what each gives, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.engine.expression import check_restricted, compile_expression, key_text
from stepwell.errors import EvaluationError, ExpressionError

EVENT: dict[str, Any] = {
    "name": "shop/order.paid",
    "id": "e-1",
    "ts": 1735689600000.0,
    "user": {},
    "data": {
        "amount": 12,
        "price": 12.0,
        "half": 1.5,
        "plan": "pro",
        "none": None,
        "yes": True,
        "tags": ["a", "b"],
        "items": [{"n": 1}, {"n": 2}, {"n": 3}],
        "nested": {"key with space": 7},
        "text": "Hello",
        "b64": "aGVsbG8=",
        "json": '{"x":[1,2]}',
    },
}

TABLE: list[tuple[str, Any]] = [
    # comparison, mixed numbers
    ("event.data.amount > 10", True),
    ("event.data.amount == 12.0", True),
    ("event.data.amount == event.data.price", True),
    ("event.data.amount != 13", True),
    ("event.data.half < 2", True),
    ("1 < 1.5", True),
    ("2.0 >= 2", True),
    ('"b" > "a"', True),
    ('"12" == 12', False),
    ("true == 1", False),
    # null and missing
    ("event.data.nope == null", True),
    ('event.data.nope == "x"', False),
    ("event.data.a.b == null", True),
    ("event.data.none == event.data.nope", True),
    ("2 > null", True),
    ("null > 0", False),
    ("3.1 <= null", False),
    ("null < 0", True),
    ("size(null) == 0", True),
    ("has(event.data.amount)", True),
    ("has(event.data.nope)", False),
    ("!event.data.nope", True),
    ("event.data.nope ? 1 : 2", 2),
    # logic
    ("true && false || true", True),
    ("false && event.data.text", False),
    ("true || event.data.text", True),
    ("event.data.text && false", False),
    ("!(1 == 2)", True),
    ("event.data.plan == 'pro' ? 120 : 0", 120),
    # arithmetic and +
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("7 / 2", 3),
    ("-7 / 2", -3),
    ("-7 % 3", -1),
    ("7.0 / 2", 3.5),
    ("1 + 1.5", 2.5),
    ('"a" + 1', "a1"),
    ('"a" + 1.0', "a1"),
    ('"a" + 1.5', "a1.5"),
    ('true + "b"', "trueb"),
    ('"x" + event.data.nope', "x"),
    ("[1] + [2]", [1, 2]),
    ("-event.data.amount", -12),
    # lists, maps, in, macros
    ('"a" in event.data.tags', True),
    ("2.0 in [1, 2]", True),
    ('"amount" in event.data', True),
    ("1 in null", False),
    ("event.data.tags[1]", "b"),
    ("event.data.tags[9] == null", True),
    ('event.data["plan"]', "pro"),
    ('event.data.nested["key with space"]', 7),
    ('{"a": 1}.a', 1),
    ("event.data.items.all(i, i.n > 0)", True),
    ("event.data.items.exists(i, i.n == 2)", True),
    ("event.data.items.exists_one(i, i.n > 1)", False),
    ("event.data.items.map(i, i.n * 2)", [2, 4, 6]),
    ("event.data.items.map(i, i.n > 1, i.n)", [2, 3]),
    ("event.data.items.filter(i, i.n > 2).size()", 1),
    ("event.data.nope.all(i, i > 1)", True),
    # functions
    ("size(event.data.tags)", 2),
    ('event.data.text.startsWith("He")', True),
    ('event.data.text.endsWith("lo")', True),
    ('event.data.text.contains("ell")', True),
    ('event.data.text.matches("^H.*o$")', True),
    ("lowercase(event.data.text)", "hello"),
    ("uppercase(event.data.text)", "HELLO"),
    ("b64decode(event.data.b64)", "hello"),
    ("json_parse(event.data.json).x[1]", 2),
    ('int("42") + 1', 43),
    ("double(2) / 4", 0.5),
    ("string(1.0)", "1"),
    ('type(1.5) == "double"', True),
    ('date("2025-01-01T00:00:00Z") < now()', True),
    ('date(event.ts) < now_plus("1h")', True),
    ('now_minus("24h") < now()', True),
    ('date("2025-03-04T05:06:07Z").getFullYear()', 2025),
    # literals
    ("0x1F", 31),
    ("1e3", 1000.0),
    ("'it''s' == \"its\"", None),
    (r'"\u00fc\n"', "ü\n"),
    (r'r"\n"', "\\n"),
    ('"""a "quoted" text"""', 'a "quoted" text'),
    ("5u", 5),
]
NOW_MS = 1_750_000_000_000


@pytest.mark.parametrize(("text", "value"), [row for row in TABLE if row[1] is not None], ids=lambda value: str(value)[:40])
def test_value(text: str, value: Any) -> None:
    """The expression gives the value, of the same type."""
    found = compile_expression(text).evaluate({"event": EVENT}, now_ms=NOW_MS)
    assert found == value and isinstance(found, type(value))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("event.data.", "expected a name"),
        ("1 +", "expected a value"),
        ("(1", "expected ')'"),
        ("1 2", "expected the end"),
        ("event.data.x ==== 1", "expected a value"),
        ("other.data.x", "no variable 'other'"),
        ("nosuch(1)", "no function 'nosuch'"),
        ("event.data.items.all(1, true)", "takes a variable"),
        ("has(1)", "has takes a field"),
        ("@", "not part of an expression"),
        ('"\\q"', "no escape"),
        ("(" * 200 + "1" + ")" * 200, "nested more than"),
        ("1" * 9000, "at most 8192"),
        ("'it''s'", "expected the end"),
    ],
)
def test_refused(text: str, part: str) -> None:
    """What cannot be compiled is refused with what and where."""
    with pytest.raises(ExpressionError, match=part.replace("(", r"\(").replace(")", r"\)").replace("'", "'")):
        compile_expression(text)


@pytest.mark.parametrize(
    "text",
    ["1 / 0", "9223372036854775807 + 1", "-event.data.text", "!event.data.text", "event.data.tags < 1", "1 - 'a'", "int('x')",
     "1 in 2", "'a'.matches('(a+)+$')", "'a'.matches('(')", "json_parse('{')", "b64decode('%')",
     "event.data.text ? 1 : 2", "1.all(x, true)", "{[1]: 2}"],
)  # fmt: skip
def test_values_that_do_not_fit(text: str) -> None:
    """An evaluation that cannot go on says so; where a boolean is wanted it is no match."""
    expression = compile_expression(text)
    with pytest.raises(EvaluationError):
        expression.evaluate({"event": EVENT})
    assert expression.is_true({"event": EVENT}) is False


def test_work_is_bounded() -> None:
    """Macros in macros over a large list end."""
    nested = compile_expression("event.data.all(a, event.data.all(b, event.data.all(c, a + b + c >= 0)))")
    with pytest.raises(EvaluationError, match="more than"):
        nested.evaluate({"event": {"data": list(range(1000))}})


def test_keys_are_known_by_value() -> None:
    """1 and 1.0 are one key, null and missing another; other values are told apart."""
    assert key_text(1) == key_text(1.0) == "1" and key_text(None) == ""
    assert len({key_text(value) for value in (1, 1.5, "a", True, ["a"], {"b": 1}, None)}) == 7


def test_paths_tell_what_is_read() -> None:
    """Fields by name or index, wherever they stand."""
    assert compile_expression("event.data.a == event.data['b'] && size(event.user) > 0").paths == {
        ("event", "data", "a"),
        ("event", "data", "b"),
        ("event", "user"),
    }


def test_cancel_rules_are_restricted() -> None:
    """Comparisons, logic, indexing, `in` and number conversions; nothing else."""
    both = ("event", "async")
    check_restricted(compile_expression("event.data.id == async.data.id && int(async.data.n) in [1, 2]", both))
    for text in ("event.data.n + 1 == 2", "event.data.x.startsWith('a')", "event.data.l.all(i, i == 1)", "lowercase(event.name) == 'x'"):
        with pytest.raises(ExpressionError, match="cannot be used here"):
            check_restricted(compile_expression(text, both))
