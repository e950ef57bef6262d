"""Checkpoint requests of SDKs over HTTP (inngest-protocol §5.12)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, decode, with_key
from stepwell.protocol.config import RETRIES_DEFAULT, RETRIES_MAX, FunctionConfig
from stepwell.protocol.events import OWN_KEY, Event, parse_event
from stepwell.protocol.ids import derived_ulid, is_ulid, ulid_ms
from stepwell.protocol.lifecycle import HTTP_REQUEST
from stepwell.protocol.ops import Op, parse_ops

IDEMPOTENCY_CHARS_MAX = 512
ADDRESS_CHARS_MAX = 2048
"""Of a domain, and of an endpoint's name or path."""
REQUEST_VERSION_ENDPOINT = 2
"""Of a run whose app does not tell its version: the SDKs that have endpoints are all of this one."""

_NOTHING = msgspec.Raw(b"[]")


class AsyncCheckpoint(msgspec.Struct, frozen=True):
    """Steps of a call that goes on. `item_id` is the opaque reference that the call was made with; generation 0: not told."""

    item_id: str
    generation: int
    ops: tuple[Op, ...]


class NewRun(msgspec.Struct, frozen=True):
    """A run that an app has begun by itself: whose endpoint it is of, the request that it answers, and what it has done so far."""

    run_id: str
    app_name: str
    function: FunctionConfig
    event: Event
    request_version: int
    ops: tuple[Op, ...]


class _Wire(msgspec.Struct):
    qi_id: str | None = None
    generation_id: int | None = None
    steps: msgspec.Raw = _NOTHING


class _NewRunWire(msgspec.Struct):
    run_id: str
    event: msgspec.Raw
    steps: msgspec.Raw = _NOTHING
    request_version: int | None = None
    retries: int | None = None
    idempotency: str | None = None


_checkpoint = msgspec.json.Decoder(_Wire)
_new_run = msgspec.json.Decoder(_NewRunWire)
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_async_checkpoint(body: bytes) -> AsyncCheckpoint:
    """A checkpoint of an engine-started run. Raises `ProtocolError` naming what is wrong."""
    wire = _decoded(_checkpoint, body)
    if not wire.qi_id:
        raise ProtocolError("the checkpoint has no qi_id: send the ctx.qi_id of the call that it belongs to")
    return AsyncCheckpoint(wire.qi_id, wire.generation_id or 0, parse_steps(wire.steps))


def parse_sync_steps(body: bytes) -> tuple[Op, ...]:
    """What an app reports of a run that it executes. Raises `ProtocolError`."""
    return parse_steps(_decoded(_checkpoint, body).steps)


def parse_new_run(body: bytes, *, sdk: str, received_ms: int) -> NewRun:
    """The request that begins a run. `sdk` names the SDK, which is kept with the event: it says how the body is written.

    Raises `ProtocolError` naming what is wrong.
    """
    wire = _decoded(_new_run, body)
    if not is_ulid(wire.run_id):
        raise ProtocolError(f"{wire.run_id[:40]!r} is no run id: a run's id is a ULID, 26 characters long")
    internal_id = derived_ulid(ulid_ms(wire.run_id), wire.run_id, HTTP_REQUEST)
    event = parse_event(bytes(wire.event), received_ms=received_ms, internal_id=internal_id, name=HTTP_REQUEST)
    data: dict[str, Any] = decode(event.data)
    domain, method, path = (_address(data, name) for name in ("domain", "method", "path"))
    named = data.get("fn")
    slug = named if isinstance(named, str) and named else f"{method.upper()} {path}"
    if len(slug) > ADDRESS_CHARS_MAX:
        raise ProtocolError(f"the endpoint's name {slug[:40]!r}… is longer than {ADDRESS_CHARS_MAX} characters")
    key = wire.idempotency or event.id
    if len(key) > IDEMPOTENCY_CHARS_MAX:
        raise ProtocolError(f"the idempotency key {key[:40]!r}… is longer than {IDEMPOTENCY_CHARS_MAX} characters")
    retries = RETRIES_DEFAULT if wire.retries is None else min(max(wire.retries, 0), RETRIES_MAX)
    version = wire.request_version
    return NewRun(
        run_id=wire.run_id,
        app_name=domain,
        function=FunctionConfig(id=f"{domain}-{slug}", name=slug, url=endpoint_url(data), retries=retries),
        event=msgspec.structs.replace(event, id=key, data=with_key(event.data, OWN_KEY, canonical({"sdk": sdk}))),
        request_version=version if version is not None and version > 0 else REQUEST_VERSION_ENDPOINT,
        ops=parse_steps(wire.steps),
    )


def parse_steps(raw: msgspec.Raw) -> tuple[Op, ...]:
    """The steps of a checkpoint. Raises `ProtocolError`: 413 for one whose output is larger than may be."""
    if bytes(raw) == b"null":
        return ()
    try:
        return parse_ops(bytes(raw))
    except ProtocolError as error:
        status = 413 if error.code in ("output_too_large", "input_too_large") else 400
        raise ProtocolError(str(error).replace("the app answered 206 with", "the checkpoint's steps are"), status, error.code) from None


def _decoded(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except _BAD as error:
        raise ProtocolError(f"the checkpoint is not what it should be: {error}") from None


def _address(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise ProtocolError(f"event.data.{name} is {value!r}; it must say where the endpoint is: domain, method and path")
    if len(value) > ADDRESS_CHARS_MAX or not value.isprintable():
        raise ProtocolError(f"event.data.{name} {value[:40]!r}… is too long, or holds what cannot be printed")
    return value


# The request that an endpoint was called with, and its response.


class HttpRequest(msgspec.Struct, frozen=True):
    """An HTTP request as it is made once more. `sdk` names the SDK of the code that answers it."""

    method: str
    url: str
    content_type: str
    body: bytes
    sdk: str


class HttpResponse(msgspec.Struct, frozen=True):
    """An HTTP response as an endpoint gave it."""

    status: int
    headers: dict[str, str]
    body: bytes


LOOPBACK = ("localhost", "127.", "[::1]", "0.0.0.0")


def endpoint_url(data: dict[str, Any]) -> str:
    """Where the endpoint is: its domain and path. A domain without a scheme is reached by TLS, but on this machine."""
    domain, path = str(data.get("domain") or ""), str(data.get("path") or "")
    if "://" not in domain:
        domain = f"{'http' if domain.startswith(LOOPBACK) else 'https'}://{domain}"
    return domain.rstrip("/") + (path if path.startswith("/") else f"/{path}")


def request_of(event: Json) -> HttpRequest:
    """The request that a run's event holds. Raises `ProtocolError` for another event."""
    data = decode(event).get("data")
    if not isinstance(data, dict) or not data.get("domain") or not data.get("method"):
        raise ProtocolError("the run's event holds no HTTP request: an endpoint is run by calling it, not by an event")
    sdk, query = sdk_of(data), data.get("query_params")
    url = endpoint_url(data) + (f"?{query.removeprefix('?')}" if isinstance(query, str) and query else "")
    content_type = data.get("content_type")
    return HttpRequest(
        method=str(data["method"]).upper(),
        url=url,
        content_type=content_type if isinstance(content_type, str) else "",
        body=body_of(data.get("body"), sdk),
        sdk=sdk,
    )


def sdk_of(data: dict[str, Any]) -> str:
    """The SDK that told of the request."""
    own = data.get(OWN_KEY)
    sdk = own.get("sdk") if isinstance(own, dict) else None
    return sdk if isinstance(sdk, str) else ""


def body_of(body: Any, sdk: str) -> bytes:
    """A body as bytes: Go's SDK writes it in base64, the others as it is."""
    if body is None:
        return b""
    if not isinstance(body, str):
        return canonical(body)
    if "go" in sdk.partition(":")[0].split("-"):
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error:
            return body.encode()
    return body.encode()


def response_of(output: Json, sdk: str) -> HttpResponse | None:
    """The HTTP response that is a run's output; `None` where it is something else."""
    value = decode(output)
    if not isinstance(value, dict):
        return None
    status = value.get("status", value.get("status_code", value.get("statusCode")))
    headers = value.get("headers")
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599 or "body" not in value:
        return None
    told = {str(name).lower(): _joined(one) for name, one in headers.items()} if isinstance(headers, dict) else {}
    return HttpResponse(status, told, body_of(value["body"], sdk))


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
