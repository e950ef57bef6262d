"""Events: the schema that users declare, what a function receives, and the wire form of what is sent."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar, dataclass_transform

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json
from stepwell.sdk.serializer import ANY, Codec, codec_of

T_co = TypeVar("T_co", covariant=True)


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
class Event:
    """A schema of an event's data: `class OrderPaid(stepwell.Event, name="shop/order.paid"): order_id: str`.

    Subclasses are dataclasses with keyword-only fields. Use one as a trigger, send an instance, and find one in `ctx.event.data`.
    """

    event_name: ClassVar[str] = ""

    def __init_subclass__(cls, *, name: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if name:
            cls.event_name = name
        dataclasses.dataclass(kw_only=True)(cls)


class ReceivedEvent(Generic[T_co]):
    """An event as a function receives it; `data` is decoded when it is first asked for."""

    __slots__ = ("_codec", "_data", "_raw", "id", "name", "ts", "user", "v")

    def __init__(self, raw: Json, codec: Codec = ANY) -> None:
        wire = _decoder.decode(raw)
        self.id, self.name, self.ts, self.v = wire.id, wire.name, wire.ts, wire.v
        self.user: dict[str, Any] = wire.user or {}
        self._raw, self._codec, self._data = wire.data, codec, _UNREAD

    @property
    def data(self) -> T_co:
        """The event's data, as the function's annotation says. Raises `UsageError` where it does not fit."""
        if self._data is _UNREAD:
            try:
                self._data = self._codec.decode(bytes(self._raw))
            except UsageError as error:
                raise UsageError(f"the data of event {self.name!r} ({self.id}): {error}") from error
        data: T_co = self._data
        return data

    @property
    def raw(self) -> Json:
        """The data as JSON."""
        return bytes(self._raw)

    def check(self) -> None:
        """Read the data now, so that what does not fit is told now: raises `UsageError` with the field's path."""
        if self._codec is not ANY:
            _ = self.data

    @property
    def at(self) -> datetime:
        """When the event happened."""
        return datetime.fromtimestamp(self.ts / 1000, UTC)

    def __repr__(self) -> str:
        return f"<event {self.name} {self.id}>"


_UNREAD: Any = object()


class _Wire(msgspec.Struct):
    name: str = ""
    id: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")
    ts: int = 0
    user: dict[str, Any] | None = None
    v: str | None = None


_decoder = msgspec.json.Decoder(_Wire)


def name_of(event: type[Event] | Event) -> str:
    """The name of an event class. Raises `UsageError` where it has none."""
    if not event.event_name:
        kind = event if isinstance(event, type) else type(event)
        raise UsageError(f'event class {kind.__name__} has no name: write class {kind.__name__}(stepwell.Event, name="…")')
    return event.event_name


def outgoing(name: str, data: Any, *, id: str | None = None, ts_ms: int | None = None) -> Json:
    """An event as it is sent. Raises `UsageError` for data that is no object."""
    if not isinstance(name, str) or not name:
        raise UsageError(f"an event's name must be a string that is not empty, not {name!r}")
    body = b"{}" if data is None else codec_of(type(data)).encode(data)
    if body[:1] != b"{":
        raise UsageError(f"the data of event {name!r} is {data!r}; it must be an object: a dict, a dataclass, a model")
    text = msgspec.json.encode
    parts = [b'{"data":', body]
    if id is not None:
        parts += [b',"id":', text(id)]
    parts += [b',"name":', text(name)]
    if ts_ms is not None:
        parts += [b',"ts":%d' % ts_ms]
    parts.append(b"}")
    return b"".join(parts)


def outgoing_of(event: object, default_id: str | None = None) -> Json:
    """One element of `send([…])` or `send_event`: an `Event`, or a dict with name, data and perhaps id and ts."""
    if isinstance(event, Event):
        return outgoing(name_of(event), event, id=default_id)
    if isinstance(event, dict):
        unknown = sorted(set(event) - {"name", "data", "id", "ts"})
        if unknown:
            raise UsageError(f"an event has no field {unknown[0]!r}; it takes name, data, id and ts (milliseconds)")
        return outgoing(event.get("name", ""), event.get("data"), id=event.get("id", default_id), ts_ms=event.get("ts"))
    raise UsageError(f"{event!r} is no event: send an instance of a stepwell.Event class, or a dict with name and data")
