"""Key-value namespaces of an app: values under keys, until they expire. What was put is what the next get finds."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote, urlencode

import msgspec

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.codec import Json
from stepwell.protocol.kv import KEYS_MAX, METADATA_BYTES_MAX, VALUE_BYTES_MAX, checked_key, checked_namespace
from stepwell.protocol.queues import ContentType
from stepwell.sdk.durations import Duration, When, duration_ms, time_ms
from stepwell.sdk.remote import refusal
from stepwell.sdk.serializer import ANY, codec_of

if TYPE_CHECKING:
    from stepwell.sdk.app import App

T = TypeVar("T")


class KvValue(msgspec.Struct, frozen=True):
    """A value with what was put beside it. `expires_at` is `None` for one that stays."""

    value: Any
    metadata: Any = None
    expires_at: datetime | None = None


class KvKey(msgspec.Struct, frozen=True):
    """A key of a list."""

    name: str
    metadata: Any = None
    expires_at: datetime | None = None


class KvPage(msgspec.Struct, frozen=True):
    """Keys in the order of their bytes. `cursor` gives the next page; `None`: this is the last one."""

    keys: tuple[KvKey, ...]
    cursor: str | None = None


class Kv:
    """A namespace: the same one for every app of the server."""

    def __init__(self, app: App, name: str) -> None:
        try:
            checked_namespace(name)
        except ProtocolError as error:
            raise UsageError(f"app.kv({name!r}): {error}") from None
        self._app, self.name = app, name

    @overload
    async def get(self, key: str, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    async def get(self, key: str, default: Any = None) -> Any: ...

    async def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """The value under a key, or the default. `type` says what a JSON value becomes: a dataclass, a model. Raises `UsageError`."""
        found = await self._read([key])
        return default if not found else _value(found[0], type)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values under up to 100 keys, in the order asked; `None` for those that are not there."""
        wanted = list(dict.fromkeys(keys))
        if len(wanted) > KEYS_MAX:
            raise UsageError(f"kv {self.name!r}: {len(wanted)} keys; at most {KEYS_MAX} are read at once")
        found = {entry.key: _value(entry, Any) for entry in await self._read(wanted)}
        return {key: found.get(key) for key in wanted}

    async def get_with_metadata(self, key: str) -> KvValue | None:
        """The value under a key with its metadata and its end, or `None`."""
        found = await self._read([key])
        return None if not found else KvValue(_value(found[0], Any), found[0].metadata, _time(found[0].expires_ms))

    async def put(self, key: str, value: Any, *, ttl: Duration | None = None, expires_at: When | None = None, metadata: Any = None) -> None:
        """Put a value under a key, in place of what was there; durable when this returns.

        Bytes are kept as they are, all else as JSON. It is there for `ttl`, or until `expires_at`, or for good; `metadata`, up to 1 KiB of
        JSON, comes with lists. Raises `UsageError` for what cannot be kept: a value of more than 25 MiB, say.
        """
        where = f"kv {self.name!r}: put({key!r:.40})"
        raw, kind = _bytes(value)
        if len(raw) > VALUE_BYTES_MAX:
            raise UsageError(f"{where}: the value has {len(raw)} bytes; at most {VALUE_BYTES_MAX} are kept")
        if ttl is not None and expires_at is not None:
            raise UsageError(f"{where}: give ttl or expires_at, not both")
        told: dict[str, Any] = {"key": self._checked(key), "value": base64.b64encode(raw).decode(), "content_type": kind}
        if ttl is not None:
            told["ttl_ms"] = duration_ms(ttl, f"{where}: ttl")
        if expires_at is not None:
            told["expires_ms"] = time_ms(expires_at, f"{where}: expires_at")
        if metadata is not None:
            encoded = codec_of(_type(metadata)).encode(metadata)
            if len(encoded) > METADATA_BYTES_MAX:
                raise UsageError(f"{where}: the metadata have {len(encoded)} bytes; at most {METADATA_BYTES_MAX} are kept")
            told["metadata"] = msgspec.Raw(encoded)
        await self._asked("POST", "/write", msgspec.json.encode({"puts": [told]}))

    async def delete(self, *keys: str) -> None:
        """Delete up to 100 keys, whether they are there or not; durable when this returns."""
        if keys:
            await self._asked("POST", "/write", msgspec.json.encode({"deletes": [self._checked(key) for key in keys]}))

    async def list(self, prefix: str = "", *, limit: int = 1000, cursor: str | None = None) -> KvPage:
        """A page of the keys that begin with a prefix; `cursor` is that of the page before."""
        query = {"prefix": prefix, "limit": limit, **({} if cursor is None else {"cursor": cursor})}
        page = msgspec.json.decode(await self._asked("GET", f"?{urlencode(query)}"), type=_Page)
        return KvPage(tuple(KvKey(one.key, one.metadata, _time(one.expires_ms)) for one in page.keys), page.cursor)

    async def keys(self, prefix: str = "") -> AsyncIterator[KvKey]:
        """All keys that begin with a prefix, page by page."""
        cursor: str | None = None
        while True:
            page = await self.list(prefix, cursor=cursor)
            for key in page.keys:
                yield key
            if page.cursor is None:
                return
            cursor = page.cursor

    def _checked(self, key: str) -> str:
        try:
            return checked_key(key)
        except ProtocolError as error:
            raise UsageError(f"kv {self.name!r}: {error}") from None

    async def _read(self, keys: Sequence[str]) -> Sequence[_Entry]:
        body = msgspec.json.encode({"keys": [self._checked(key) for key in keys]})
        return msgspec.json.decode(await self._asked("POST", "/get", body), type=_Found).entries

    async def _asked(self, method: str, rest: str, body: bytes = b"") -> Json:
        path = f"/kv/{quote(self.name, safe='')}{rest}"
        status, answer = await self._app.way.ask(method, path, body)
        if status >= 300:
            raise refusal(method, path, status, answer)
        return answer

    def __repr__(self) -> str:
        return f"<kv {self.name}>"


class _Entry(msgspec.Struct):
    key: str
    content_type: ContentType = "json"
    value: str = ""
    metadata: Any = None
    expires_ms: int | None = None


class _Found(msgspec.Struct):
    entries: list[_Entry]


class _Page(msgspec.Struct):
    keys: list[_Entry]
    cursor: str | None = None


_type = type
"""The builtin, which a parameter of `get` has the name of."""


def _bytes(value: Any) -> tuple[bytes, ContentType]:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), "bytes"
    return codec_of(_type(value)).encode(value, mark=True), "json"


def _value(entry: _Entry, hint: Any) -> Any:
    raw = base64.b64decode(entry.value)
    match entry.content_type:
        case "bytes":
            return raw
        case "text":
            return raw.decode()
        case "json":
            return (ANY if hint is Any else codec_of(hint)).decode(raw, marked=True)


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
