"""Python values as SQL parameters.

A deliberate difference from Cloudflare: there every number is a JavaScript number and binds as REAL, so that `typeof(?)` of 1 is
`real`. Here an `int` binds as INTEGER and a `float` as REAL, so that whole numbers come back as what they were, up to 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from stepwell.errors import SqlError

Value = None | int | float | str | bytes
"""What a column holds."""

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """`infinity_is_null`: whether infinite numbers become NULL, as what is not a number does in any case."""

    infinity_is_null: bool


DATABASES = Rules(infinity_is_null=True)
"""Of D1: `None`, numbers, text, bytes; `True` and `False` are 1 and 0."""
ACTORS = Rules(infinity_is_null=False)
"""Of an actor's own file: the same, but for infinity. (A JavaScript actor's `true` is the text `true`; here it is 1 everywhere.)"""


def bound(values: Sequence[object], rules: Rules) -> tuple[Value, ...]:
    """The values as they are bound. Raises `SqlError` for one that no column can hold."""
    return tuple(_bound(value, rules) for value in values)


def _bound(value: object, rules: Rules) -> Value:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _refusal(value, f"it is no Unicode text: {error.reason}") from None
        return str(value)
    if isinstance(value, int):
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise _refusal(value, "an INTEGER has 64 bits; pass it as text")
        return int(value)
    if isinstance(value, float):
        if math.isnan(value) or (rules.infinity_is_null and math.isinf(value)):
            return None
        return float(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise _refusal(value, "pass None, a number, a text or bytes; anything else as text, for example JSON")


def _refusal(value: object, reason: str) -> SqlError:
    shown = ascii(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return SqlError(f"Type {type(value).__name__!r} not supported for value {shown}: {reason}", "TYPE_ERROR")
