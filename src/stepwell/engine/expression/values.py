"""The loosened rules of the dialect: how values of different types are compared, added and shown."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.errors import EvaluationError

INT_MAX = 2**63 - 1
INT_MIN = -(2**63)


def kind(value: Any) -> str:
    """The name of a value's CEL type."""
    match value:
        case None:
            return "null_type"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "double"
        case str():
            return "string"
        case bytes():
            return "bytes"
        case list():
            return "list"
        case dict():
            return "map"
        case _:
            return type(value).__name__


def is_number(value: Any) -> bool:
    """Whether it is an int or a double; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(a: Any, b: Any) -> bool:
    """Numbers by value whatever their type, null equal to missing, lists and maps by their parts; other types differ."""
    if is_number(a) and is_number(b):
        return bool(a == b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return kind(a) == kind(b) and bool(a == b)


def less(a: Any, b: Any) -> bool:
    """null below everything else; numbers by value; otherwise like types only. Raises `EvaluationError` for the rest."""
    if a is None or b is None:
        return a is None and b is not None
    if (is_number(a) and is_number(b)) or (kind(a) == kind(b) and not isinstance(a, list | dict)):
        return bool(a < b)
    if isinstance(a, str) != isinstance(b, str) and (is_number(a) or is_number(b)):
        number = as_number(a if isinstance(a, str) else b)
        if number is not None:
            return bool(number < b) if isinstance(a, str) else bool(a < number)
    raise EvaluationError(f"{kind(a)} and {kind(b)} cannot be compared")


def as_number(text: str) -> float | None:
    """The number that a string spells, if it does."""
    try:
        return float(text)
    except ValueError:
        return None


def text_of(value: Any) -> str:
    """A value as a string: true, 12, 1.5, null as nothing; lists and maps as JSON."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "replace")
        case list() | dict():
            return msgspec.json.encode(value, order="sorted").decode()
        case _:
            return str(value)


def add(a: Any, b: Any) -> Any:
    """Numbers, lists and durations add up; with a string the other side is made one; null adds nothing."""
    if isinstance(a, str) or isinstance(b, str):
        return text_of(a) + text_of(b)
    if a is None or b is None:
        return b if a is None else a
    if is_number(a) and is_number(b):
        return bounded(a + b)
    if kind(a) == kind(b) and isinstance(a, list | bytes):
        return a + b
    try:
        return a + b
    except TypeError:
        raise EvaluationError(f"{kind(a)} and {kind(b)} cannot be added") from None


def bounded(value: Any) -> Any:
    """The number, if it is within 64 bits. Raises `EvaluationError` otherwise, as CEL does."""
    if isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
        raise EvaluationError("a whole number beyond 64 bits")
    return value
