"""Steps that tell others: events sent, signals sent, data published. Each is a request of the SDK's own, made once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.codec import Json
from stepwell.protocol.realtime import MESSAGE_BYTES_MAX, checked_name
from stepwell.sdk.event import Event, outgoing_of
from stepwell.sdk.request import Request
from stepwell.sdk.serializer import codec_of
from stepwell.sdk.tools.options import StepOptions
from stepwell.sdk.tools.waits import signal_name

if TYPE_CHECKING:
    from stepwell.sdk.session import Session


def sending_events(session: Session, request: Request, options: StepOptions, events: tuple[Event | dict[str, Any], ...]) -> Request:
    """The request sends events, under ids that are the same for each try: one whose answer was lost starts nothing twice."""
    own = f"{session.run_id}-{request.hash[:12]}"
    bodies: Json = b"[" + b",".join(outgoing_of(event, f"{own}-{n}") for n, event in enumerate(events)) + b"]"
    request.fn = functools.partial(session.function.app.send_body, bodies)
    request.codec = codec_of(list[str])
    options.apply(request, "step.sendEvent")
    return request


def sending_signal(session: Session, request: Request, options: StepOptions, name: str, data: Any) -> Request:
    """The request sends a signal; its result is the run that waited for it, or `None`."""
    name = signal_name(name, request.id)
    body = b"null" if data is None else codec_of(type(data)).encode(data)
    request.fn = functools.partial(session.function.app.way.signal, name, body)
    request.codec = codec_of(str | None)
    options.apply(request, "step.sendSignal")
    return request


def publishing(session: Session, options: StepOptions, topic: str, data: Any, channel: str | None) -> functools.partial[Any]:
    """What publishes data to those who are subscribed to a topic of a channel, the run's own where none is given."""
    try:
        checked_name(topic, "topic", publishes=True)
        checked_name(session.run_id if channel is None else channel, "channel")
    except ProtocolError as error:
        raise UsageError(f"publish: {error}") from None
    body = b"null" if data is None else codec_of(type(data)).encode(data)
    if len(body) > MESSAGE_BYTES_MAX:
        raise UsageError(f"publish({topic!r}): the data has {len(body)} bytes; at most {MESSAGE_BYTES_MAX} are taken")
    return functools.partial(session.function.app.way.publish, channel or session.run_id, topic, body, session.run_id)
