"""Waits: for an event that fits, for a signal of a name; each gives `None` when its time is over first."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json, canonical
from stepwell.protocol.config import EXPRESSION_CHARS_MAX, NAME_CHARS_MAX
from stepwell.protocol.durations import format_duration
from stepwell.protocol.ops import WAIT_MAX_MS
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.event import Event, ReceivedEvent, name_of
from stepwell.sdk.request import Errand, Request, decode_memo
from stepwell.sdk.serializer import ANY, codec_of

T_co = TypeVar("T_co", covariant=True)

OnConflict = Literal["fail", "replace"]
"""What becomes of a wait for a signal that another run waits for: this run fails, or takes the name over."""


class Signal(msgspec.Struct, Generic[T_co], frozen=True):
    """A signal as it was sent."""

    name: str = msgspec.field(name="signal")
    data: T_co


def waiting_for_event(request: Request, event: str | type[Event], timeout: Duration, where: str | None) -> Request:
    """The request ends with the first event of a name for which `where` holds."""
    what = f"step {request.id!r}: wait_for_event"
    codec = ANY
    if isinstance(event, type) and issubclass(event, Event):
        event, codec = name_of(event), codec_of(event)
    if not isinstance(event, str) or not event or len(event) > NAME_CHARS_MAX:
        raise UsageError(f"{what}: the event {event!r} must be a name of 1 to {NAME_CHARS_MAX} characters, or an Event class")
    opts = {"event": event, "timeout": _timeout(timeout, what)}
    if where is not None:
        if not isinstance(where, str) or not where.strip() or len(where) > EXPRESSION_CHARS_MAX:
            raise UsageError(
                f"{what}: where is {where!r}; it must be an expression of at most {EXPRESSION_CHARS_MAX} characters over event "
                'and async, the event that comes, like "async.data.order_id == event.data.order_id"'
            )
        opts["if"] = where
    request.errand = Errand(op="WaitForEvent", name=event, opts=canonical(opts))
    request.codec = codec
    request.read = _event
    return request


def _event(request: Request, memo: Json) -> ReceivedEvent[Any] | None:
    """The event, whole as it is stored (§4.3); what its class does not fit is refused here, with the field's path."""
    if memo.strip() == b"null":
        return None
    if memo.startswith(b'{"error":'):
        decode_memo(request, memo)
    event: ReceivedEvent[Any] = ReceivedEvent(memo, request.codec)
    if not event.name:
        raise UsageError(f"the stored result of step {request.id!r} is no event: a step that becomes a wait needs a new id")
    event.check()
    return event


def waiting_for_signal(request: Request, name: str, timeout: Duration, on_conflict: OnConflict) -> Request:
    """The request ends with the signal of a name."""
    what = f"step {request.id!r}: wait_for_signal"
    _check_name(name, what)
    if on_conflict not in ("fail", "replace"):
        raise UsageError(f'{what}: on_conflict is {on_conflict!r}; it must be "fail" or "replace"')
    opts = {"signal": name, "timeout": _timeout(timeout, what)}
    if on_conflict == "replace":
        opts["conflict"] = "replace"
    request.errand = Errand(op="WaitForSignal", name=name, opts=canonical(opts))
    request.codec = codec_of(Signal[Any])
    request.read = _signal
    return request


def _signal(request: Request, memo: Json) -> Any:
    return None if memo.strip() == b"null" else decode_memo(request, memo, marked=False)


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not name or len(name) > NAME_CHARS_MAX:
        raise UsageError(f"{what}: the signal {name!r} must be a name of 1 to {NAME_CHARS_MAX} characters")


def signal_name(name: object, id: str) -> str:
    """A signal's name. Raises `UsageError`."""
    _check_name(name, f"step {id!r}: send_signal")
    assert isinstance(name, str)
    return name


def _timeout(timeout: Duration, what: str) -> str:
    ms = duration_ms(timeout, f"{what}: timeout")
    if ms > WAIT_MAX_MS:
        raise UsageError(f"{what}: timeout is {timeout!r}; it must be at most {format_duration(WAIT_MAX_MS)}")
    return format_duration(ms)
