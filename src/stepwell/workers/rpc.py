"""Values that go from one handler to another, to a binding or into a store: copied, and only of the kinds that may go.

On Cloudflare such values pass between Python and JavaScript. What comes back is what that leaves: dicts whose keys are attributes too.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from stepwell.workers.web.blob import Blob
from stepwell.workers.web.content import Readable
from stepwell.workers.web.form_data import FormData

DEPTH_MAX = 200


class Record(dict[str, Any]):
    """A dict whose keys are attributes as well, but for those that name a dict's own methods: `row["name"]`, `row.name`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r} in it: there are {', '.join(map(str, self)) or 'no keys'}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None


def python_to_rpc(value: Any) -> Any:
    """A copy of a value that may be sent. Raises `TypeError` for what may not: a tuple, a coroutine that nobody awaits, other objects."""
    return _sent(value, 0)


def python_from_rpc(value: Any) -> Any:
    """A value as its receiver gets it: dicts with attributes, times in the local zone without one, as a `datetime` is after such a way."""
    if isinstance(value, dict):
        return Record((key, python_from_rpc(item)) for key, item in value.items())
    if isinstance(value, list):
        return [python_from_rpc(item) for item in value]
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone().replace(tzinfo=None)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        # JavaScript has one kind of numbers.
        return int(value)
    return value


def _sent(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | str | bytes | datetime | Readable | Blob | FormData):
        return value
    if isinstance(value, int | float):
        return value
    if depth > DEPTH_MAX:
        raise TypeError(f"the value is nested more than {DEPTH_MAX} deep and cannot be sent over RPC.")
    if isinstance(value, dict):
        return {_key(key): _sent(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_sent(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return {_sent(item, depth + 1) for item in value}
    if isinstance(value, Exception):
        return Exception(str(value))
    if inspect.isawaitable(value) or isinstance(value, Awaitable):
        raise TypeError(f"Awaitable {type(value)} cannot be sent over RPC.")
    if isinstance(value, Callable) and not isinstance(value, type):  # type: ignore[arg-type]
        return value
    raise TypeError(f"{type(value)} cannot be sent over RPC.")


def _key(key: Any) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int | float):
        raise TypeError(f"a dict with the key {key!r} cannot be sent over RPC: keys are texts.")
    return str(key)
