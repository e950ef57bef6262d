"""A KV namespace as Cloudflare's Workers have it, over the server's namespaces: what was put is what the next `get` finds."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlencode

from stepwell.protocol.codec import canonical
from stepwell.protocol.kv import KEY_BYTES_MAX, KEYS_MAX, LIST_MAX, METADATA_BYTES_MAX, VALUE_BYTES_MAX
from stepwell.workers.bindings.calling import begins, number_of, options_of, shown_number
from stepwell.workers.bindings.names import store_name
from stepwell.workers.errors import BindingError
from stepwell.workers.rpc import Record, python_from_rpc
from stepwell.workers.web.streams import Buffer, ReadableStream

if TYPE_CHECKING:
    from stepwell.sdk.app import App

TYPES = ("text", "json", "arrayBuffer", "stream")
TTL_S_MIN, CACHE_TTL_S_MIN = 60, 30
ONLY = "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values."
_UNKNOWN_TYPE = 'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".'


class KvNamespace:
    """A namespace. Values are bytes; how they are read is said when they are read."""

    def __init__(self, app: App, id: str) -> None:
        self._app, self._path, self._id = app, f"/kv/{quote(store_name(id), safe='')}", id

    @begins
    async def get(self, key: Any, options: Any = None, **named: Any) -> Any:
        """The value under a key as text, or as `type` says; of a list of keys, a dict. `None` where there is none."""
        kind = _kind(options, named)
        if isinstance(key, list):
            return {name: None if found is None else found[0] for name, found in (await self._many(key, kind)).items()}
        found = await self._one(key, kind)
        return None if found is None else found[0]

    @begins
    async def getWithMetadata(self, key: Any, options: Any = None, **named: Any) -> Any:
        """The same with what was put beside it: `value` and `metadata`."""
        kind = _kind(options, named)
        if isinstance(key, list):
            told = await self._many(key, kind)
            return {name: None if found is None else Record(value=found[0], metadata=found[1]) for name, found in told.items()}
        value, metadata = await self._one(key, kind) or (None, None)
        return Record(value=value, metadata=metadata, cacheStatus=None)

    @begins
    async def put(self, key: Any, value: Any, options: Any = None, **named: Any) -> None:
        """Put a value under a key, in place of all that was there: for `expirationTtl` seconds, until `expiration`, or for good."""
        chosen = options_of(options, named)
        told: dict[str, Any] = {"key": _key(key, "PUT")}
        kind, raw = await _content(value)
        if len(raw) > VALUE_BYTES_MAX:
            _refuse("PUT", 413, f"Value length of {len(raw)} exceeds limit of {VALUE_BYTES_MAX}.")
        told |= {"content_type": kind, "value": base64.b64encode(raw).decode()} | _end(chosen)
        if (metadata := chosen.get("metadata")) is not None:
            size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
            if size > METADATA_BYTES_MAX:
                _refuse("PUT", 413, f"Metadata length of {size} exceeds limit of {METADATA_BYTES_MAX}.")
            told["metadata"] = metadata
        await self._asked("PUT", "/write", {"puts": [told]})

    @begins
    async def delete(self, key: Any) -> None:
        """Delete a key, whether it is there or not."""
        # A list is no list of keys: it becomes the text of one, as it does in JavaScript.
        name = ",".join(map(str, key)) if isinstance(key, list) else key
        await self._asked("DELETE", "/write", {"deletes": [_key(name, "DELETE")]})

    @begins
    async def list(self, options: Any = None, **named: Any) -> Record:
        """A page of the keys in order: `keys`, `list_complete`, and a `cursor` where there are more."""
        chosen = options_of(options, named)
        limit = number_of(chosen.get("limit"))
        if limit > LIST_MAX:
            _refuse("GET", 400, f"Invalid key_count_limit of {shown_number(limit)}. Please specify an integer less than {LIST_MAX}.")
        asked: dict[str, Any] = {"prefix": chosen.get("prefix") or "", "limit": int(limit) if limit >= 1 else LIST_MAX}
        cursor = chosen.get("cursor")
        status, answer = await self._app.way.ask("GET", f"{self._path}?{urlencode(asked | ({'cursor': cursor} if cursor else {}))}")
        if status == 400 and cursor:
            # A cursor that is none is left out, as it is there.
            status, answer = await self._app.way.ask("GET", f"{self._path}?{urlencode(asked)}")
        page = _answer("GET", status, answer)
        told = Record(keys=[_shown(one) for one in page["keys"]], list_complete=page.get("cursor") is None, cacheStatus=None)
        if page.get("cursor") is not None:
            told["cursor"] = page["cursor"]
        return told

    async def _one(self, key: Any, kind: str) -> tuple[Any, Any] | None:
        if kind not in TYPES:
            raise TypeError(_UNKNOWN_TYPE)
        entries = (await self._asked("GET", "/get", {"keys": [_key(key, "GET")]}))["entries"]
        return _read(entries[0], kind) if entries else None

    async def _many(self, keys: Any, kind: str) -> dict[str, tuple[Any, Any] | None]:
        wanted = list(dict.fromkeys(map(str, keys)))
        if not keys:
            _refuse("GET_BULK", 400, "You must request a minimum of 1 key")
        if len(keys) > KEYS_MAX:
            _refuse("GET_BULK", 400, f"You can request a maximum of {KEYS_MAX} keys")
        if kind not in ("text", "json"):
            _refuse("GET_BULK", 400, f'"{kind}" is not a valid type. Use "json" or "text"')
        if "" in wanted:
            _refuse("GET_BULK", 400, "Key names must not be empty")
        entries = (await self._asked("GET_BULK", "/get", {"keys": [_key(key, "GET_BULK") for key in wanted]}))["entries"]
        try:
            found = {one["key"]: _read(one, kind) for one in entries}
        except json.JSONDecodeError:
            _refuse("GET_BULK", 400, "At least one of the requested keys corresponds to a non-json value")
        return {key: found.get(key) for key in wanted}

    async def _asked(self, method: str, rest: str, body: Any) -> Any:
        status, answer = await self._app.way.ask("POST", self._path + rest, canonical(body))
        return _answer(method, status, answer)

    def __repr__(self) -> str:
        return f"<KV namespace {self._id}>"


def _answer(method: str, status: int, body: bytes) -> Any:
    told = json.loads(body)
    if status >= 300:
        _refuse(method, status, str(told.get("error")) if isinstance(told, dict) else body.decode("utf-8", "replace"))
    return told


def _refuse(method: str, status: int, why: str) -> NoReturn:
    raise BindingError(f"KV {method} failed: {status} {why}")


def _kind(options: Any, named: dict[str, Any]) -> str:
    """What a value is to be read as."""
    chosen = dict(named, type=options) if isinstance(options, str) else options_of(options, named)
    if (cache := chosen.get("cacheTtl")) is not None and not number_of(cache) >= CACHE_TTL_S_MIN:
        shown = shown_number(number_of(cache))
        _refuse("GET", 400, f"Invalid cache_ttl of {shown}. Cache TTL must be at least {CACHE_TTL_S_MIN}.")
    return str(chosen.get("type") or "text")


def _key(key: Any, method: str) -> str:
    name = str(key)
    if not name:
        raise TypeError("Key name cannot be empty.")
    if name in (".", ".."):
        raise TypeError(f'"{name}" is not allowed as a key name.')
    size = len(name.encode("utf-8", "replace"))
    if size > KEY_BYTES_MAX:
        _refuse(method, 414, f"UTF-8 encoded length of {size} exceeds key length limit of {KEY_BYTES_MAX}.")
    return name


async def _content(value: Any) -> tuple[str, bytes]:
    """A value's content type and bytes."""
    if isinstance(value, str):
        return "text", value.encode("utf-8", "replace")
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes", bytes(value)
    if isinstance(value, ReadableStream | AsyncIterable):
        return "bytes", b"".join([bytes(chunk) async for chunk in value])
    if value is None or isinstance(value, bool):
        return "text", json.dumps(value).encode()
    if isinstance(value, int | float):
        return "text", (str(value) if isinstance(value, int) else shown_number(value)).encode()
    raise TypeError(ONLY)


def _end(chosen: dict[str, Any]) -> dict[str, int]:
    """When a value is over. Of both ways to say it, `expirationTtl` holds."""
    if (ttl := chosen.get("expirationTtl")) is not None:
        seconds = number_of(ttl)
        if not seconds > 0 or math.isinf(seconds):
            _refuse("PUT", 400, f"Invalid expiration_ttl of {shown_number(seconds)}. Please specify integer greater than 0.")
        if seconds < TTL_S_MIN:
            _refuse("PUT", 400, f"Invalid expiration_ttl of {shown_number(seconds)}. Expiration TTL must be at least {TTL_S_MIN}.")
        return {"ttl_ms": int(seconds) * 1000}
    if (at := chosen.get("expiration")) is None:
        return {}
    seconds, now = number_of(at), time.time()
    if not seconds > now or math.isinf(seconds):
        why = "Please specify integer greater than the current number of seconds since the UNIX epoch."
        _refuse("PUT", 400, f"Invalid expiration of {shown_number(seconds)}. {why}")
    if seconds < now + TTL_S_MIN:
        shown = shown_number(seconds)
        _refuse("PUT", 400, f"Invalid expiration of {shown}. Expiration times must be at least {TTL_S_MIN} seconds in the future.")
    return {"expires_ms": int(seconds) * 1000}


def _read(entry: dict[str, Any], kind: str) -> tuple[Any, Any]:
    """An entry's value and metadata."""
    raw = base64.b64decode(entry["value"])
    value: Any
    match kind:
        case "json":
            value = python_from_rpc(json.loads(raw.decode("utf-8", "replace")))
        case "arrayBuffer":
            value = Buffer(raw)
        case "stream":
            value = ReadableStream(_once(raw))
        case _:
            value = raw.decode("utf-8", "replace")
    return value, python_from_rpc(entry.get("metadata"))


async def _once(raw: bytes) -> AsyncIterator[bytes]:
    yield raw


def _shown(entry: dict[str, Any]) -> Record:
    told = Record(name=entry["key"])
    if "expires_ms" in entry:
        told["expiration"] = entry["expires_ms"] // 1000
    if "metadata" in entry:
        told["metadata"] = python_from_rpc(entry["metadata"])
    return told
