"""The functions of expressions: CEL's own, and the dialect's. Time enters as a parameter."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from stepwell.engine.expression.values import bounded, is_number, kind, text_of
from stepwell.errors import EvaluationError, ProtocolError
from stepwell.protocol.durations import parse_duration_ms

PATTERN_CHARS_MAX = 256
MATCHED_CHARS_MAX = 4096
_NESTED_REPEAT = re.compile(r"\((?:[^()\\]|\\.)*[*+}](?:[^()\\]|\\.)*\)[*+{]")
"""Patterns whose time may explode are refused; CEL's own engine has none such."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def call(name: str, args: list[Any], now_ms: int) -> Any:
    """A function's value; methods come with their object as the first argument. Raises `EvaluationError`."""
    function = FUNCTIONS.get(name)
    if function is None:
        raise EvaluationError(f"there is no function {name!r}")
    try:
        return function(args, now_ms)
    except (ValueError, TypeError, IndexError, OverflowError, KeyError, AttributeError) as error:
        raise EvaluationError(f"{name}: {error}") from None


def _size(args: list[Any], now_ms: int) -> int:
    (value,) = args
    if value is None:
        return 0
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    raise EvaluationError(f"{kind(value)} has no size")


def _text(method: Callable[[str, str], bool]) -> Callable[[list[Any], int], bool]:
    def on_strings(args: list[Any], now_ms: int) -> bool:
        text, other = args
        return isinstance(text, str) and isinstance(other, str) and method(text, other)

    return on_strings


def _matches(args: list[Any], now_ms: int) -> bool:
    text, pattern = args
    if not isinstance(text, str) or not isinstance(pattern, str):
        return False
    if len(pattern) > PATTERN_CHARS_MAX or len(text) > MATCHED_CHARS_MAX or _NESTED_REPEAT.search(pattern):
        raise EvaluationError("matches: the pattern or the text is too long, or the pattern repeats a repetition")
    try:
        return re.search(pattern, text) is not None
    except re.error as error:
        raise EvaluationError(f"matches: {error}") from None


def _int(args: list[Any], now_ms: int) -> int:
    (value,) = args
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, bool) or not (is_number(value) or isinstance(value, str)):
        raise EvaluationError(f"int: {kind(value)} is no number")
    return int(bounded(int(value)))


def _double(args: list[Any], now_ms: int) -> float:
    (value,) = args
    if isinstance(value, bool) or not (is_number(value) or isinstance(value, str)):
        raise EvaluationError(f"double: {kind(value)} is no number")
    return float(value)


def _bool(args: list[Any], now_ms: int) -> bool:
    (value,) = args
    named = {"true": True, "false": False, True: True, False: False}
    return named[value]


def _date(args: list[Any], now_ms: int) -> datetime:
    (value,) = args
    if isinstance(value, datetime):
        return value
    if is_number(value):
        # Seconds or milliseconds, told apart by size.
        return _EPOCH + timedelta(milliseconds=value if abs(value) >= 1e11 else value * 1000)
    date = datetime.fromisoformat(value)
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _duration(args: list[Any], now_ms: int) -> timedelta:
    (value,) = args
    if isinstance(value, timedelta):
        return value
    sign = -1 if value.startswith("-") else 1
    try:
        return sign * timedelta(milliseconds=parse_duration_ms(value.lstrip("-")))
    except ProtocolError as error:
        raise ValueError(str(error)) from None


def _now(args: list[Any], now_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=now_ms)


def _accessor(value_of: Callable[[datetime], int]) -> Callable[[list[Any], int], int]:
    return lambda args, now_ms: value_of(_date(args[:1], now_ms))


def _hours(args: list[Any], now_ms: int) -> int:
    value = args[0]
    return int(value.total_seconds() // 3600) if isinstance(value, timedelta) else _date(args[:1], now_ms).hour


def _minutes(args: list[Any], now_ms: int) -> int:
    value = args[0]
    return int(value.total_seconds() // 60) if isinstance(value, timedelta) else _date(args[:1], now_ms).minute


def _seconds(args: list[Any], now_ms: int) -> int:
    value = args[0]
    return int(value.total_seconds()) if isinstance(value, timedelta) else _date(args[:1], now_ms).second


def _b64decode(args: list[Any], now_ms: int) -> str:
    (value,) = args
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode()
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _json_parse(args: list[Any], now_ms: int) -> Any:
    return msgspec.json.decode(args[0])


def _lowercase(args: list[Any], now_ms: int) -> str:
    (value,) = args
    return text_of(value).lower()


def _uppercase(args: list[Any], now_ms: int) -> str:
    (value,) = args
    return text_of(value).upper()


FUNCTIONS: dict[str, Callable[[list[Any], int], Any]] = {
    "size": _size,
    "startsWith": _text(str.startswith),
    "endsWith": _text(str.endswith),
    "contains": _text(str.__contains__),
    "matches": _matches,
    "int": _int,
    "uint": _int,
    "double": _double,
    "string": lambda args, now_ms: text_of(args[0]),
    "bool": _bool,
    "bytes": lambda args, now_ms: text_of(args[0]).encode(),
    "type": lambda args, now_ms: kind(args[0]),
    "timestamp": _date,
    "date": _date,
    "duration": _duration,
    "now": _now,
    "now_plus": lambda args, now_ms: _now([], now_ms) + _duration(args, now_ms),
    "now_minus": lambda args, now_ms: _now([], now_ms) - _duration(args, now_ms),
    "lowercase": _lowercase,
    "uppercase": _uppercase,
    "b64decode": _b64decode,
    "json_parse": _json_parse,
    "getFullYear": _accessor(lambda date: date.year),
    "getMonth": _accessor(lambda date: date.month - 1),
    "getDayOfMonth": _accessor(lambda date: date.day - 1),
    "getDate": _accessor(lambda date: date.day),
    "getDayOfWeek": _accessor(lambda date: date.isoweekday() % 7),
    "getDayOfYear": _accessor(lambda date: date.timetuple().tm_yday - 1),
    "getHours": _hours,
    "getMinutes": _minutes,
    "getSeconds": _seconds,
    "getMilliseconds": _accessor(lambda date: date.microsecond // 1000),
}
