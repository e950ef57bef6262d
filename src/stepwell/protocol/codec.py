"""JSON in canonical form (RFC 8785), as stored, sent and signed.

Canonical bytes come from msgspec's sorted encoder wherever a value holds no float and only ASCII keys; a value with floats or other
keys takes the slow path, which sorts keys by UTF-16 code units and writes numbers as ECMAScript does (`1.0` becomes `1`). Whole
numbers of any size are kept as they came.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from stepwell.errors import ProtocolError

Json = bytes
"""Canonical JSON text."""

_sorted = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder()
_NOT_PLAIN = re.compile(rb"[^\x00-\x7f]|\\u|[0-9][.eE]")
"""What the text of a value that needs the slow path holds: a non-ASCII byte, an escape, a number that may be a float."""


def decode(raw: bytes | str) -> Any:
    """The value of a JSON text. Raises `ProtocolError` where it is not JSON."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"not valid JSON: {error}") from None


def canonicalize(raw: bytes) -> Json:
    """The canonical text of a JSON text. Raises `ProtocolError` where it is not JSON."""
    value = decode(raw)
    if _NOT_PLAIN.search(raw) is None:
        return _sorted.encode(value)
    return canonical(value)


def canonical(value: Any) -> Json:
    """The canonical text of a value made of dicts with string keys, lists, strings, numbers, booleans and `None`."""
    if _is_plain(value):
        return _sorted.encode(value)
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and key.isascii() and _is_plain(item) for key, item in value.items())
    if kind is list or kind is tuple:
        return all(_is_plain(item) for item in value)
    return kind is not float


def _write(value: Any, parts: list[str]) -> None:
    if isinstance(value, float):
        parts.append(number(value))
    elif isinstance(value, dict):
        parts.append("{")
        for i, key in enumerate(sorted(value, key=utf16)):
            parts.append(("," if i else "") + _sorted.encode(key).decode() + ":")
            _write(value[key], parts)
        parts.append("}")
    elif isinstance(value, list | tuple):
        parts.append("[")
        for i, item in enumerate(value):
            if i:
                parts.append(",")
            _write(item, parts)
        parts.append("]")
    else:
        parts.append(_sorted.encode(value).decode())


def utf16(key: str) -> bytes:
    """What keys are sorted by (RFC 8785 §3.2.3)."""
    return key.encode("utf-16-be", "surrogatepass")


def number(value: float) -> str:
    """A float as ECMAScript writes it (RFC 8785 §3.2.2.3). Raises `ProtocolError` for what JSON cannot hold."""
    if value != value or value in (float("inf"), float("-inf")):
        raise ProtocolError(f"{value} cannot be written as JSON")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # `point`: the decimal point stands behind this many of the digits.
    point = len(whole) + (int(exponent) if exponent else 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    size = len(digits)
    if size <= point <= 21:
        text = digits + "0" * (point - size)
    elif 0 < point <= 21:
        text = digits[:point] + "." + digits[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        power = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
        text = digits[0] + ("." + digits[1:] if size > 1 else "") + power
    return ("-" if value < 0 else "") + text
