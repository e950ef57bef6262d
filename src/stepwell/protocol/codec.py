"""JSON in canonical form (RFC 8785), as stored, sent and signed.

Canonical bytes come from msgspec's sorted encoder wherever that writes what RFC 8785 asks for; a value with unusual floats, or with
keys beyond the Basic Multilingual Plane, takes the slow path, which writes numbers as ECMAScript does and sorts keys by UTF-16 code
units. A number keeps its value, not its spelling: `1.0` and `1e0` become `1`, `-0.0` becomes `0`. Whole numbers of any size written
without point and exponent are kept as they came, though others would round those beyond 2^53 (`first_unsafe_integer`).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from stepwell.errors import ProtocolError

Json = bytes
"""Canonical JSON text."""

NESTING_MAX = 256
"""How deep arrays and objects may lie in one another: every reader of ours and of the SDKs gets that far without running out of stack."""
INTEGER_SAFE_MAX = 2**53 - 1
"""The largest whole number that a JavaScript program reads as it was written, together with all smaller ones."""

_PLAIN_MIN, _PLAIN_MAX = 1e-4, 1e15
"""Between these, msgspec writes a float as ECMAScript does: shortest digits, no exponent."""

_encoder = msgspec.json.Encoder()
_sorted = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder()
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)")
"""One escape sequence of a string: a surrogate pair, a lone surrogate, or any other."""
_ASTRAL = re.compile(rb"[\xf0-\xf4]")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_STRING_OR_LONG_NUMBER = re.compile(_STRING.pattern + rb"|(-?[0-9]{16,})(?![0-9.eE])")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def decode(raw: bytes | str) -> Any:
    """The value of a JSON text. Raises `ProtocolError` where it is not JSON, or too deep.

    Half a surrogate pair, which JavaScript and Python write when a text was cut inside an emoji, is read as U+FFFD.
    """
    return _decode(_decoder, raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw)


def canonicalize(raw: bytes) -> Json:
    """The canonical text of a JSON text. Raises `ProtocolError` where it is not JSON, or too deep."""
    try:
        value = _decode(_plain_decoder, raw)
    except _UnusualFloat:
        return _slowly(decode(raw))
    if (raw.isascii() or _ASTRAL.search(raw) is None) and b"\\u" not in raw:
        return _sorted.encode(value)
    return _sorted.encode(value) if _has_plain_keys(value) else _slowly(decode(raw))


def canonical(value: Any) -> Json:
    """The canonical text of a value.

    Raises `ProtocolError` for numbers and texts that JSON cannot hold, `TypeError` for types that it cannot.
    """
    try:
        text = _encoder.encode(value)
        if b"null" in text and _holds_nonfinite(msgspec.to_builtins(value)):
            # msgspec writes NaN and the infinities as null; nothing of a user's changes silently.
            raise ProtocolError("NaN and infinity cannot be written as JSON")
    except UnicodeEncodeError as error:
        raise ProtocolError(f"half a surrogate pair cannot be written as JSON: {error}") from None
    except RecursionError:
        raise ProtocolError("the value contains itself, or is too deep to be written as JSON") from None
    return canonicalize(text)


def text(value: str) -> Json:
    """The canonical text of a string."""
    return _encoder.encode(value)


def with_key(json_object: Json, key: str, value: Json) -> Json:
    """A canonical object with one key set, its other values spliced as they are."""
    return join_object({**_raw_object.decode(json_object), key: msgspec.Raw(value)})


def without_key(json_object: Json, key: str) -> Json:
    """A canonical object without a key, its other values spliced as they are."""
    fields = _raw_object.decode(json_object)
    fields.pop(key, None)
    return join_object(fields)


def join_object(fields: dict[str, msgspec.Raw]) -> Json:
    """The canonical object of canonical values."""
    if _has_ordinary_order(fields):
        return _sorted.encode(fields)
    return b"{" + b",".join(_encoder.encode(key) + b":" + bytes(fields[key]) for key in sorted(fields, key=utf16)) + b"}"


def first_unsafe_integer(json_text: Json) -> str | None:
    """The first whole number that an app would change which reads numbers as doubles; `None` for none.

    The public SDKs for JavaScript and Python do so before they verify a signed body, and would refuse it.
    """
    for match in _STRING_OR_LONG_NUMBER.finditer(json_text):
        if match[1] is not None and abs(int(match[1])) > INTEGER_SAFE_MAX and number(float(match[1])) != match[1].decode():
            return match[1].decode()
    return None


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
    written = whole + ("" if fraction == "0" else fraction)
    digits = written.lstrip("0")
    # `point`: the decimal point stands behind this many of the digits.
    point = len(whole) + (int(exponent) if exponent else 0) - (len(written) - len(digits))
    digits = digits.rstrip("0")
    size = len(digits)
    if size <= point <= 21:
        shown = digits + "0" * (point - size)
    elif 0 < point <= 21:
        shown = digits[:point] + "." + digits[point:]
    elif -6 < point <= 0:
        shown = "0." + "0" * -point + digits
    else:
        shown = digits[0] + ("." + digits[1:] if size > 1 else "") + f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return ("-" if value < 0 else "") + shown


class _UnusualFloat(Exception):
    """A number that msgspec would not write as RFC 8785 does."""


def _plain_float(spelling: str) -> float | int:
    """A float as a value that msgspec writes canonically."""
    value = float(spelling)
    if value.is_integer() and abs(value) <= INTEGER_SAFE_MAX:
        return int(value)
    if _PLAIN_MIN <= abs(value) < _PLAIN_MAX:
        return value
    raise _UnusualFloat


_plain_decoder = msgspec.json.Decoder(float_hook=_plain_float)


def _decode(decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:
    if raw.count(b"[") + raw.count(b"{") > NESTING_MAX:
        _check_nesting(raw)
    try:
        return decoder.decode(raw)
    except _BAD as error:
        mended = _ESCAPE.sub(_mend, raw)
        if mended != raw:
            return _decode(decoder, mended)
        raise ProtocolError(f"not valid JSON: {error}") from None


def _mend(escape: re.Match[bytes]) -> bytes:
    sequence = escape[0]
    return b"\\ufffd" if len(sequence) == 6 and sequence[2:3] in b"dD" and sequence[3:4] in b"89abcdefABCDEF" else sequence


def _check_nesting(raw: bytes) -> None:
    """Raise `ProtocolError` where brackets lie too deep in one another. What is no JSON is found by the decoder."""
    depth = 0
    for bracket in _STRING.sub(b"", raw).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > NESTING_MAX:
            raise ProtocolError(f"arrays and objects lie more than {NESTING_MAX} deep in one another", code="too_deep")


def _has_plain_keys(value: Any) -> bool:
    """Whether the order of code points is the order of UTF-16 code units for every object's keys."""
    if type(value) is dict:
        return _has_ordinary_order(value) and all(map(_has_plain_keys, value.values()))
    return all(map(_has_plain_keys, value)) if type(value) is list else True


def _has_ordinary_order(fields: dict[str, Any]) -> bool:
    return all(key.isascii() or max(key) < "\ud800" for key in fields)


def _holds_nonfinite(value: Any) -> bool:
    """Whether a float in it is NaN or infinite."""
    if isinstance(value, float):
        return value - value != 0
    if isinstance(value, dict):
        return any(map(_holds_nonfinite, value.values()))
    return any(map(_holds_nonfinite, value)) if isinstance(value, list | tuple) else False


def _slowly(value: Any) -> Json:
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def _write(value: Any, parts: list[str]) -> None:
    if isinstance(value, float):
        parts.append(number(value))
    elif isinstance(value, dict):
        parts.append("{")
        for i, key in enumerate(sorted(value, key=utf16)):
            parts.append(("," if i else "") + _encoder.encode(key).decode() + ":")
            _write(value[key], parts)
        parts.append("}")
    elif isinstance(value, list):
        parts.append("[")
        for i, item in enumerate(value):
            if i:
                parts.append(",")
            _write(item, parts)
        parts.append("]")
    else:
        parts.append(_encoder.encode(value).decode())
