"""Key-value namespaces over HTTP, as our SDK asks for them: values as base64 text, since any bytes may be one."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs_primitives import KvWritten
from stepwell.engine.model_primitives import KvEntry
from stepwell.errors import ProtocolError
from stepwell.protocol.codec import canonicalize
from stepwell.protocol.kv import (
    KEYS_MAX,
    LIST_MAX,
    METADATA_BYTES_MAX,
    VALUE_BYTES_MAX,
    checked_key,
    checked_namespace,
    shown_key,
    stored_key,
)
from stepwell.protocol.queues import ContentType
from stepwell.runtime.node import Node
from stepwell.server.http import Guard, json_response
from stepwell.server.sdk_api import whole


class _Put(msgspec.Struct):
    key: str
    value: str
    content_type: ContentType = "json"
    metadata: msgspec.Raw = msgspec.Raw()
    expires_ms: int | None = None
    ttl_ms: int | None = None


class _Write(msgspec.Struct):
    puts: list[_Put] = []
    deletes: list[str] = []


class _Get(msgspec.Struct):
    keys: list[str]


_write = msgspec.json.Decoder(_Write)
_get = msgspec.json.Decoder(_Get)

NAMESPACES_MAX = 1000


class KvApi:
    """The routes over a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key, where one is needed."""
        return [
            Route("/kv", guard(self.namespaces)),
            Route("/kv/{namespace}", guard(self.list)),
            Route("/kv/{namespace}/get", guard(self.get), methods=["POST"]),
            Route("/kv/{namespace}/write", guard(self.write), methods=["POST"]),
        ]

    async def namespaces(self, request: Request) -> Response:
        """The namespaces that hold anything."""
        # The one without a name is the engine's own.
        return json_response({"namespaces": [name for name in await self._node.reader.kv_namespaces(NAMESPACES_MAX) if name]})

    async def get(self, request: Request) -> Response:
        """The values under keys; those that are not there are left out."""
        namespace = checked_namespace(request.path_params["namespace"])
        told = decoded(_get, await request.body())
        bounded(told.keys)
        keys = [stored_key(checked_key(key)) for key in told.keys]
        entries: tuple[KvEntry, ...] = await self._node.reader.kv_get(namespace, keys, self._node.clock.now_ms())
        return json_response({"entries": [shown(entry, value=True) for entry in entries]})

    async def write(self, request: Request) -> Response:
        """Put and delete, all or none; durable when answered."""
        namespace = checked_namespace(request.path_params["namespace"])
        told = decoded(_write, await request.body())
        bounded([*told.puts, *told.deletes])
        now_ms = self._node.clock.now_ms()
        puts = tuple(entry_of(namespace, put, now_ms) for put in told.puts)
        deletes = tuple(stored_key(checked_key(key)) for key in told.deletes)
        await self._node.submit(KvWritten(namespace, puts, deletes))
        return json_response({"ok": True})

    async def list(self, request: Request) -> Response:
        """Keys in the order of their bytes; `cursor` is where the next page begins, null after the last one."""
        namespace = checked_namespace(request.path_params["namespace"])
        query = request.query_params
        limit = whole(query.get("limit"), "limit", LIST_MAX, LIST_MAX)
        prefix, after = stored_key(query.get("prefix") or ""), place_of(query.get("cursor"))
        found: tuple[KvEntry, ...] = await self._node.reader.kv_list(namespace, prefix, after, limit + 1, self._node.clock.now_ms())
        cursor = base64.urlsafe_b64encode(found[limit - 1].key.encode()).decode() if len(found) > limit else None
        return json_response({"keys": [shown(entry, value=False) for entry in found[:limit]], "cursor": cursor})


def entry_of(namespace: str, put: _Put, now_ms: int) -> KvEntry:
    """The row of a put. Raises `ProtocolError` beyond a bound."""
    key = checked_key(put.key)
    try:
        value = base64.b64decode(put.value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(f"the value of key {key!r:.40} is no base64 text: {error}") from None
    if len(value) > VALUE_BYTES_MAX:
        raise ProtocolError(f"the value of key {key!r:.40} has {len(value)} bytes; at most {VALUE_BYTES_MAX} are taken", 413)
    metadata = canonicalize(bytes(put.metadata)) if bytes(put.metadata) else None
    if metadata is not None and len(metadata) > METADATA_BYTES_MAX:
        raise ProtocolError(f"the metadata of key {key!r:.40} have {len(metadata)} bytes; at most {METADATA_BYTES_MAX} are taken", 413)
    expires_ms = put.expires_ms if put.ttl_ms is None else now_ms + put.ttl_ms
    if expires_ms is not None and expires_ms <= now_ms:
        raise ProtocolError(f"key {key!r:.40} would expire at {expires_ms} ms, which is not in the future")
    return KvEntry(
        namespace=namespace,
        key=stored_key(key),
        value=value,
        content_type=put.content_type,
        metadata=None if metadata == b"null" else metadata,
        expires_ms=expires_ms,
    )


def shown(entry: KvEntry, *, value: bool) -> dict[str, Any]:
    """An entry as it is answered, what it has not left out."""
    told: dict[str, Any] = {"key": shown_key(entry.key), "content_type": entry.content_type}
    if entry.metadata is not None:
        told["metadata"] = msgspec.json.decode(entry.metadata)
    if entry.expires_ms is not None:
        told["expires_ms"] = entry.expires_ms
    return {**told, "value": base64.b64encode(entry.value).decode()} if value else told


def decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """A request's body. Raises `ProtocolError`."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the body is not what this route takes: {error}") from None


def bounded(keys: list[Any]) -> None:
    """Raise `ProtocolError` where there are too many keys, or none."""
    if not 1 <= len(keys) <= KEYS_MAX:
        raise ProtocolError(f"{len(keys)} keys; from 1 to {KEYS_MAX} are taken at once")


def place_of(cursor: str | None) -> str:
    """The key behind which a page begins. Raises `ProtocolError` for a cursor that is none."""
    if not cursor:
        return ""
    try:
        return base64.urlsafe_b64decode(cursor).decode()
    except (binascii.Error, ValueError):
        raise ProtocolError(f"the cursor {cursor!r:.60} is none: take it from the page before") from None
