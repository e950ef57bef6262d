"""Events as they are received: every form of the event API's body, its rules and limits (inngest-protocol §2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, canonicalize, decode, text, without_key

EVENT_BYTES_MAX = 3 * 1024 * 1024
EVENTS_PER_REQUEST_MAX = 5000
EVENT_NAME_BYTES_MAX = 512
EVENT_ID_BYTES_MAX = 1024
EVENT_VERSION_BYTES_MAX = 256
SESSIONS_MAX = 5
SESSION_KEY_BYTES_MAX = 128
SESSION_ID_BYTES_MAX = 512
TS_MIN_MS = 315_532_800_000
"""1980-01-01."""
TS_MAX_MS = 4_102_444_800_000
"""2100-01-01."""
RESERVED_PREFIX = "inngest/"
OWN_KEY = "_inngest"
"""The key of an event's data that only the server writes."""


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
        parts = [b'{"data":', self.data, b',"id":', text(self.id)]
        if self.meta is not None:
            parts += [b',"meta":', self.meta]
        parts += [b',"name":', text(self.name), b',"ts":%d,"user":' % self.ts, self.user]
        if self.v is not None:
            parts += [b',"v":', text(self.v)]
        parts.append(b"}")
        return b"".join(parts)


class Parsed(msgspec.Struct, frozen=True):
    """The events before the first failing one, and what is wrong with that (`None`: nothing)."""

    events: tuple[Event, ...]
    error: ProtocolError | None


_object_of_raws = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_of_raws = msgspec.json.Decoder(list[msgspec.Raw])
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FIELDS = frozenset({"name", "data", "id", "ts", "user", "v", "meta"})
_EMPTY: Json = b"{}"


def parse_events(body: bytes, *, received_ms: int, new_id: Callable[[int], str], event_bytes_max: int = EVENT_BYTES_MAX) -> Parsed:
    """The events of a request's body: an object, an array of objects, or nothing. Never raises.

    `new_id(n)` gives the internal id of the n-th event, from 1.
    """
    head = body[:64].lstrip()[:1] or body.lstrip()[:1]
    if not head:
        return Parsed((), None)
    if head == b"{":
        raws: Sequence[bytes] = (body,)
    elif head == b"[":
        try:
            raws = [bytes(raw) for raw in _list_of_raws.decode(body)]
        except _BAD as error:
            return Parsed((), ProtocolError(f"the request is not valid JSON: {error}"))
        if len(raws) > EVENTS_PER_REQUEST_MAX:
            return Parsed((), ProtocolError(f"{len(raws)} events in one request; at most {EVENTS_PER_REQUEST_MAX} are taken"))
    else:
        return Parsed((), ProtocolError("the request is no event: send a JSON object, or an array of them"))
    events: list[Event] = []
    for n, raw in enumerate(raws, 1):
        try:
            events.append(parse_event(raw, received_ms=received_ms, internal_id=new_id(n), event_bytes_max=event_bytes_max))
        except ProtocolError as error:
            where = "" if head == b"{" else f" (event {n} of {len(raws)})"
            return Parsed(tuple(events), ProtocolError(f"{error}{where}", error.status, error.code))
    return Parsed(tuple(events), None)


def parse_event(
    raw: bytes, *, received_ms: int, internal_id: str, name: str | None = None, event_bytes_max: int = EVENT_BYTES_MAX
) -> Event:
    """One event. Raises `ProtocolError` naming the field that is wrong.

    `name` is of a payload that brings none of its own, as an invoke's (§5.4): given by the server, it may be a reserved one.
    """
    if len(raw) > event_bytes_max:
        raise ProtocolError(f"the event has {len(raw)} bytes; at most {event_bytes_max} are taken")
    try:
        fields = _object_of_raws.decode(raw)
    except _BAD as error:
        raise ProtocolError(f"the event is not valid JSON, or no object: {error}") from None
    if not fields.keys() <= _FIELDS:
        fields = {key.lower(): value for key, value in fields.items()} | {key: fields[key] for key in fields.keys() & _FIELDS}
    return Event(
        internal_id=internal_id,
        id=_text(fields.get("id"), "id", EVENT_ID_BYTES_MAX) or internal_id,
        name=_name(fields.get("name")) if name is None else name,
        data=_data(fields.get("data")),
        user=_object(fields.get("user"), "user"),
        ts=_ts(fields.get("ts"), received_ms),
        v=_text(fields.get("v"), "v", EVENT_VERSION_BYTES_MAX) or None,
        meta=parse_meta(fields.get("meta")),
        received_ms=received_ms,
    )


def events_answer(ids: Sequence[str], error: ProtocolError | None = None) -> tuple[int, bytes]:
    """Status and body of the event API's answer; no `error` on success, for there SDKs take even a null as one (§2.1)."""
    listed = b",".join([text(event_id) for event_id in ids])
    if error is None:
        return 200, b'{"ids":[%s],"status":200}' % listed
    return error.status, b'{"error":%s,"ids":[%s],"status":%d}' % (text(str(error)), listed, error.status)


def _name(raw: msgspec.Raw | None) -> str:
    name = _text(raw, "name", EVENT_NAME_BYTES_MAX)
    if not name:
        raise ProtocolError("event name is empty")
    if name[: len(RESERVED_PREFIX)].lower() == RESERVED_PREFIX:
        raise ProtocolError(f"event name {name!r} begins with {RESERVED_PREFIX!r}, which is reserved: choose another prefix")
    return name


def _text(raw: msgspec.Raw | None, field: str, bytes_max: int) -> str:
    if raw is None:
        return ""
    value = decode(bytes(raw))
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ProtocolError(f"event {field} must be a string, not {_shown(raw)}")
    if len(value) > bytes_max or (not value.isascii() and len(value.encode()) > bytes_max):
        raise ProtocolError(f"event {field} {value[:40]!r}… is longer than {bytes_max} bytes")
    return value


def _object(raw: msgspec.Raw | None, field: str) -> Json:
    if raw is None:
        return _EMPTY
    value = canonicalize(bytes(raw))
    if value == b"null":
        return _EMPTY
    if value[:1] != b"{":
        raise ProtocolError(f"event {field} must be an object, not {_shown(raw)}")
    return value


def _data(raw: msgspec.Raw | None) -> Json:
    data = _object(raw, "data")
    return without_key(data, OWN_KEY) if b'"_inngest"' in data else data


def _ts(raw: msgspec.Raw | None, received_ms: int) -> int:
    if raw is None:
        return received_ms
    value = decode(bytes(raw))
    if value is None or value == 0:
        return received_ms
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ProtocolError(f"event ts must be a whole number of milliseconds since 1970, not {_shown(raw)}")
    if not TS_MIN_MS <= value <= TS_MAX_MS:
        raise ProtocolError(f"event ts {int(value)} is not between 1980-01-01 and 2100-01-01 in milliseconds since 1970")
    return int(value)


def parse_meta(raw: msgspec.Raw | None) -> Json | None:
    """An event's `meta`: sessions, inherited ones merged under the event's own: a null removes one, `sessions: null` all (§2.1)."""
    if raw is None:
        return None
    meta = decode(bytes(raw))
    if meta is None:
        return None
    if not isinstance(meta, dict):
        raise ProtocolError(f"event meta must be an object, not {_shown(raw)}")
    own, inherited = meta.get("sessions", {}), meta.get("propagated_sessions") or {}
    if own is None:
        return None
    if not isinstance(own, dict) or not isinstance(inherited, dict):
        raise ProtocolError(f"event meta.sessions must be an object of strings, not {_shown(raw)}")
    sessions: dict[str, Any] = {key: value for key, value in {**inherited, **own}.items() if value is not None}
    if len(sessions) > SESSIONS_MAX:
        raise ProtocolError(f"event meta.sessions has {len(sessions)} sessions; at most {SESSIONS_MAX} are taken")
    for key, value in sessions.items():
        if not isinstance(value, str):
            raise ProtocolError(f"event meta.sessions[{key[:40]!r}] must be a string, not {value!r:.60}")
        if len(key.encode()) > SESSION_KEY_BYTES_MAX or len(value.encode()) > SESSION_ID_BYTES_MAX:
            limits = f"a key of {SESSION_KEY_BYTES_MAX} and an id of {SESSION_ID_BYTES_MAX} bytes"
            raise ProtocolError(f"event meta.sessions[{key[:40]!r}] is too long; at most {limits} are taken")
    return canonical({"sessions": sessions}) if sessions else None


def _shown(raw: msgspec.Raw) -> str:
    value = bytes(raw)
    return value[:60].decode("utf-8", "replace") + ("…" if len(value) > 60 else "")
