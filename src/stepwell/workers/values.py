"""Values of Workers as JSON and back: what a workflow's step returns, what an instance is given, what is stored of an object.

JSON has no bytes, times, sets, exceptions or numbers that are none. They are written as objects with one key of ours; a Worker's own
object that looks like one of these is wrapped in another.
"""

from __future__ import annotations

import base64
import math
from datetime import UTC, datetime
from typing import Any

from stepwell.workers.rpc import Record, python_to_rpc

_BYTES, _TIME, _SET, _ERROR, _NUMBER, _PLAIN = "$bytes", "$time", "$set", "$error", "$number", "$plain"
_MARKS = frozenset((_BYTES, _TIME, _SET, _ERROR, _NUMBER, _PLAIN))


def packed(value: Any) -> Any:
    """A value that JSON can hold. Raises `TypeError` for what may not be sent, or cannot be kept: a response, a function."""
    return _pack(python_to_rpc(value))


def unpacked(value: Any) -> Any:
    """The value again, as its receiver gets it: dicts with attributes, times in the local zone without one."""
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (mark, inner), *_ = value.items()
        if mark in _MARKS:
            return _unmarked(mark, inner)
    return Record((key, unpacked(item)) for key, item in value.items())


def _pack(value: Any) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_NUMBER: str(value)}
    if isinstance(value, list):
        return [_pack(item) for item in value]
    if isinstance(value, dict):
        inner = {key: _pack(item) for key, item in value.items()}
        return {_PLAIN: inner} if len(inner) == 1 and next(iter(inner)) in _MARKS else inner
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        # One without a zone is in the local zone, as everywhere in a Worker; times are kept to the millisecond.
        return {_TIME: math.floor(value.timestamp() * 1000 + 0.5)}
    if isinstance(value, set):
        return {_SET: [_pack(item) for item in value]}
    if isinstance(value, Exception):
        return {_ERROR: str(value)}
    raise TypeError(f"{type(value)} cannot be kept: it is no plain value.")


def _unmarked(mark: str, inner: Any) -> Any:
    match mark:
        case "$bytes":
            return base64.b64decode(inner)
        case "$time":
            return datetime.fromtimestamp(inner / 1000, UTC).astimezone().replace(tzinfo=None)
        case "$set":
            return {unpacked(item) for item in inner}
        case "$error":
            return Exception(inner)
        case "$number":
            return float(inner)
        case _:
            return Record((key, unpacked(item)) for key, item in inner.items())
