"""Events as they are received: every form of the event API's body, its rules and limits (inngest-protocol §2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, canonicalize

EVENT_BYTES_MAX = 3 * 1024 * 1024
EVENTS_PER_REQUEST_MAX = 5000
EVENT_NAME_BYTES_MAX = 512
REQUEST_BYTES_MAX = 64 * 1024 * 1024
SESSIONS_MAX = 5
SESSION_KEY_BYTES_MAX = 128
SESSION_ID_BYTES_MAX = 512
TS_MIN_MS = 315_532_800_000
"""1980-01-01."""
TS_MAX_MS = 4_102_444_800_000
"""2100-01-01."""
RESERVED_PREFIX = "inngest/"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event: `id` is the user's, or the internal ULID where the user gave none."""

    internal_id: str
    id: str
    name: str
    data: Json
    user: Json
    ts: int
    v: str | None
    meta: Json | None
    received_ms: int

    def wire(self) -> Json:
        """The object that functions see, in canonical form."""
        parts = [b'{"data":', self.data, b',"id":', _encode(self.id)]
        if self.meta is not None:
            parts += [b',"meta":', self.meta]
        parts += [b',"name":', _encode(self.name), b',"ts":', str(self.ts).encode(), b',"user":', self.user]
        if self.v is not None:
            parts += [b',"v":', _encode(self.v)]
        parts.append(b"}")
        return b"".join(parts)


class Parsed(msgspec.Struct, frozen=True):
    """The events before the first failing one, and what is wrong with that (`None`: nothing)."""

    events: tuple[Event, ...]
    error: ProtocolError | None


class _Wire(msgspec.Struct):
    """An event's fields, undecoded where they are bodies."""

    name: msgspec.Raw | None = None
    data: msgspec.Raw | None = None
    id: msgspec.Raw | None = None
    ts: msgspec.Raw | None = None
    user: msgspec.Raw | None = None
    v: msgspec.Raw | None = None
    meta: msgspec.Raw | None = None


_encode = msgspec.json.encode
_one = msgspec.json.Decoder(_Wire)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_any = msgspec.json.Decoder()
_EMPTY: Json = b"{}"


def parse_events(body: bytes, *, received_ms: int, new_id: Callable[[int], str]) -> Parsed:
    """The events of a request's body: an object, an array of objects, or nothing.

    `new_id(n)` gives the internal id of the n-th event, from 1.
    """
    head = body[:64].lstrip()[:1] or body.lstrip()[:1]
    if not head:
        return Parsed((), None)
    if head == b"{":
        raws = [body]
    elif head == b"[":
        try:
            raws = [bytes(raw) for raw in _raws.decode(body)]
        except (msgspec.DecodeError, RecursionError) as error:
            return Parsed((), ProtocolError(f"the request is not valid JSON: {error}"))
        if len(raws) > EVENTS_PER_REQUEST_MAX:
            return Parsed((), ProtocolError(f"{len(raws)} events in one request; at most {EVENTS_PER_REQUEST_MAX} are taken"))
    else:
        return Parsed((), ProtocolError("the request is no event: send a JSON object, or an array of them"))
    events: list[Event] = []
    for n, raw in enumerate(raws, 1):
        try:
            events.append(parse_event(raw, received_ms=received_ms, internal_id=new_id(n)))
        except ProtocolError as error:
            return Parsed(tuple(events), error)
    return Parsed(tuple(events), None)


def parse_event(raw: bytes, *, received_ms: int, internal_id: str) -> Event:
    """One event. Raises `ProtocolError` naming the field that is wrong."""
    if len(raw) > EVENT_BYTES_MAX:
        raise ProtocolError(f"the event has {len(raw)} bytes; at most {EVENT_BYTES_MAX} are taken")
    try:
        wire = _one.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"the event is not valid JSON: {error}") from None
    name = _text(wire.name, "name")
    if not name:
        raise ProtocolError("event name is empty")
    if len(name.encode("utf-8", "surrogatepass")) > EVENT_NAME_BYTES_MAX:
        raise ProtocolError(f"event name is longer than {EVENT_NAME_BYTES_MAX} bytes")
    if name[:8].lower() == RESERVED_PREFIX:
        raise ProtocolError(f"event name {name!r} begins with the reserved prefix {RESERVED_PREFIX!r}")
    return Event(
        internal_id=internal_id,
        id=_text(wire.id, "id") or internal_id,
        name=name,
        data=_data(wire.data),
        user=_object(wire.user, "user"),
        ts=_ts(wire.ts, received_ms),
        v=_text(wire.v, "v") or None,
        meta=_meta(wire.meta),
        received_ms=received_ms,
    )


def _text(raw: msgspec.Raw | None, field: str) -> str:
    if raw is None or bytes(raw) == b"null":
        return ""
    try:
        return _string.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ProtocolError(f"event {field} must be a string, not {_shown(raw)}") from None


def _object(raw: msgspec.Raw | None, field: str) -> Json:
    if raw is None or bytes(raw) == b"null":
        return _EMPTY
    canonical_text = canonicalize(bytes(raw))
    if canonical_text[:1] != b"{":
        raise ProtocolError(f"event {field} must be an object, not {_shown(raw)}")
    return canonical_text


def _data(raw: msgspec.Raw | None) -> Json:
    data = _object(raw, "data")
    if b'"_inngest"' not in data:
        return data
    value = _any.decode(data)
    value.pop("_inngest", None)
    return canonical(value)


def _ts(raw: msgspec.Raw | None, received_ms: int) -> int:
    if raw is None:
        return received_ms
    value = _any.decode(raw)
    if value is None or value == 0:
        return received_ms
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ProtocolError(f"event ts must be a whole number of milliseconds, not {_shown(raw)}")
    if not TS_MIN_MS <= value <= TS_MAX_MS:
        raise ProtocolError(f"event ts {int(value)} is not between 1980-01-01 and 2100-01-01 in milliseconds")
    return int(value)


def _meta(raw: msgspec.Raw | None) -> Json | None:
    """Sessions, inherited ones merged under the event's own: a null removes one, `sessions: null` all (§2.1)."""
    if raw is None or bytes(raw) == b"null":
        return None
    meta = _any.decode(raw)
    if not isinstance(meta, dict):
        raise ProtocolError(f"event meta must be an object, not {_shown(raw)}")
    own, inherited = meta.get("sessions", {}), meta.get("propagated_sessions") or {}
    if own is None:
        return None
    if not isinstance(own, dict) or not isinstance(inherited, dict):
        raise ProtocolError("event meta.sessions must be an object of strings")
    sessions: dict[str, Any] = {key: value for key, value in {**inherited, **own}.items() if value is not None}
    if len(sessions) > SESSIONS_MAX:
        raise ProtocolError(f"event meta.sessions has {len(sessions)} sessions; at most {SESSIONS_MAX} are taken")
    for key, value in sessions.items():
        if not isinstance(value, str):
            raise ProtocolError(f"event meta.sessions[{key!r}] must be a string")
        if len(key.encode()) > SESSION_KEY_BYTES_MAX or len(value.encode()) > SESSION_ID_BYTES_MAX:
            limits = f"a key of {SESSION_KEY_BYTES_MAX} and an id of {SESSION_ID_BYTES_MAX} bytes"
            raise ProtocolError(f"event meta.sessions[{key[:40]!r}] is too long; at most {limits} are taken")
    return canonical({"sessions": sessions}) if sessions else None


def _shown(raw: msgspec.Raw) -> str:
    text = bytes(raw)[:60].decode("utf-8", "replace")
    return text if len(bytes(raw)) <= 60 else text + "…"
