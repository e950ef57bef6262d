"""Values between Workers of different processes: MessagePack, with what it has no form for as extensions of it."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from stepwell.workers.errors import BindingError
from stepwell.workers.web.blob import Blob, data_of
from stepwell.workers.web.content import content_of, headers_of
from stepwell.workers.web.request import Request, incoming
from stepwell.workers.web.response import FetchResponse, Response

BYTES_MAX = 32 * 1024 * 1024
_TIME, _SET, _ERROR, _NUMBER, _RESPONSE, _REQUEST, _BLOB = range(1, 8)
_WHOLE_MIN, _WHOLE_MAX = -(2**63), 2**64 - 1


class Call(msgspec.Struct, frozen=True):
    """A call of a method."""

    entrypoint: str
    method: str
    args: list[Any]
    kwargs: dict[str, Any]


class Outcome(msgspec.Struct, frozen=True):
    """What came of it: a value, or the name and the message of what was raised."""

    value: Any = None
    error: tuple[str, str] | None = None


async def encode(value: Call | Outcome) -> bytes:
    """The bytes. Raises `TypeError` for a value that cannot go to another process."""
    fields = msgspec.structs.asdict(value)
    bodies: dict[int, bytes | None] = {}
    await _read(fields, bodies)
    data = msgspec.msgpack.encode(_packed(fields, bodies))
    if len(data) > BYTES_MAX:
        raise BindingError(
            f"Serialized RPC arguments or return values are limited to {BYTES_MAX // 2**20}MiB, "
            f"but the size of this value was: {len(data)} bytes."
        )
    return data


def decode_call(data: bytes) -> Call:
    """A call."""
    return msgspec.msgpack.decode(data, type=Call, ext_hook=_unpacked)


def decode_outcome(data: bytes) -> Any:
    """The value of an outcome. Raises what was raised, by its name."""
    told = msgspec.msgpack.decode(data, type=Outcome, ext_hook=_unpacked)
    if told.error is not None:
        raise raised(*told.error)
    return told.value


def raised(name: str, message: str) -> Exception:
    """An exception of another process: of Python's own types, else an `Error` that has its name."""
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            made: Exception = known(message)
        except TypeError:
            return BindingError(f"{name}: {message}")
        return made
    return BindingError(message) if name == BindingError.__name__ else BindingError(f"{name}: {message}")


async def _read(value: Any, bodies: dict[int, bytes | None]) -> None:
    """Read the bodies of the requests and responses in a value. Without any nothing is waited for, and calls keep their order."""
    if isinstance(value, dict):
        for one in value.values():
            await _read(one, bodies)
    elif isinstance(value, list | tuple):
        for one in value:
            await _read(one, bodies)
    elif isinstance(value, FetchResponse | Request):
        bodies[id(value)] = None if content_of(value).is_empty else await value.bytes()


def _packed(value: Any, bodies: dict[int, bytes | None]) -> Any:
    if value is None or isinstance(value, bool | str | bytes | float):
        return value
    if isinstance(value, int):
        return value if _WHOLE_MIN <= value <= _WHOLE_MAX else Ext(_NUMBER, str(value).encode())
    if isinstance(value, dict):
        return {name: _packed(one, bodies) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(one, bodies) for one in value]
    if isinstance(value, set | frozenset):
        return _ext(_SET, [_packed(one, bodies) for one in value])
    if isinstance(value, datetime):
        return _ext(_TIME, value.timestamp())
    if isinstance(value, Exception):
        return _ext(_ERROR, str(value))
    if isinstance(value, FetchResponse):
        return _ext(_RESPONSE, [value.status, value.status_text, value.url, list(headers_of(value)), bodies[id(value)]])
    if isinstance(value, Request):
        return _ext(_REQUEST, [str(value.method), value.url, list(headers_of(value)), bodies[id(value)]])
    if isinstance(value, Blob):
        return _ext(_BLOB, [data_of(value), value.content_type])
    raise TypeError(f"{type(value)} cannot be sent to a Worker in another process: send plain values.")


def _ext(code: int, value: Any) -> Ext:
    return Ext(code, msgspec.msgpack.encode(value))


def _unpacked(code: int, data: memoryview) -> Any:
    if code == _NUMBER:
        return int(bytes(data))
    value = msgspec.msgpack.decode(data, ext_hook=_unpacked)
    match code:
        case 1:
            return datetime.fromtimestamp(value)
        case 2:
            return set(value)
        case 3:
            return Exception(value)
        case 5:
            status, text, url, headers, body = value
            made = Response(body, status, text, headers)
            made.url = url
            return made
        case 6:
            method, url, headers, body = value
            return incoming(method, url, [(name, one) for name, one in headers], body)
        case _:
            content, kind = value
            return Blob([content], kind)
