"""A batch as its consumer sees it: the messages, and what the handler says of each and of all.

Of one message the first word counts, `ack()` or `retry()`; of several `retry()` the last one tells the delay. `ack_all()` and `retry_all()`
are for the messages of which nothing was said before, and of both the first counts; after `ack_all()` no message is retried, after
`retry_all()` none is acked, but each may still have a delay of its own.
"""

from __future__ import annotations

import base64
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from stepwell.protocol.codec import Json
from stepwell.protocol.queues import ContentType, Outcome
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.serializer import Codec

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

log = logging.getLogger("stepwell.queue")


class Decisions:
    """What a handler has said of a batch so far. Delays are in milliseconds, `None` where none was given."""

    def __init__(self) -> None:
        self.acks: dict[str, None] = {}
        self.retries: dict[str, int | None] = {}
        self.all: str | None = None
        self.all_delay_ms: int | None = None

    def ack(self, message_id: str) -> str | None:
        """A message is done with. Gives a warning where that has no effect."""
        earlier = "retry" if message_id in self.retries else "retryAll" if self.all == "retryAll" else None
        if earlier is not None and message_id not in self.acks:
            return ignored("ack", message_id, earlier)
        self.acks[message_id] = None
        return None

    def retry(self, message_id: str, delay_ms: int | None) -> str | None:
        """A message is to be delivered again. Gives a warning where that has no effect."""
        earlier = "ack" if message_id in self.acks else "ackAll" if self.all == "ackAll" else None
        if earlier is not None and message_id not in self.retries:
            return ignored("retry", message_id, earlier)
        self.retries[message_id] = delay_ms
        return None

    def ack_all(self) -> str | None:
        """All of which nothing was said are done with."""
        if self.all == "retryAll":
            return ignored_all("ackAll", "retryAll")
        self.all = "ackAll"
        return None

    def retry_all(self, delay_ms: int | None) -> str | None:
        """All of which nothing was said are to be delivered again; of several delays the last one counts."""
        if self.all == "ackAll":
            return ignored_all("retryAll", "ackAll")
        self.all = "retryAll"
        self.all_delay_ms = self.all_delay_ms if delay_ms is None else delay_ms
        return None

    def outcome(self, error: Json | None) -> Outcome:
        """The report to the server; with `error`, the handler threw it."""
        return Outcome(
            acks=tuple(self.acks),
            retries=dict(self.retries),
            ack_all=self.all == "ackAll",
            retry_all=self.all == "retryAll",
            retry_all_delay_ms=self.all_delay_ms,
            error=error,
        )


def ignored(call: str, message_id: str, earlier: str) -> str:
    """The warning about a word on a message that comes too late."""
    return (
        f"Received a call to {call}() on message {message_id} after {earlier}() was already called. "
        f"Calling {call}() on a message after calling {earlier}() has no effect."
    )


def ignored_all(call: str, earlier: str) -> str:
    """The warning about a word on the batch that comes too late."""
    return f"Received a call to {call}() after {earlier}() was already called. Calling {call}() after calling {earlier}() has no effect."


class Message(Generic[T]):
    """A message of a batch: `id`, `attempts` (1 in its first delivery), `body`, and what becomes of it."""

    def __init__(self, told: _Message, codec: Codec, decisions: Decisions) -> None:
        self.id, self.attempts = told.id, told.data.attempts
        self._ts, self._raw, self._type = told.ts, bytes(told.data.body), told.data.content_type
        self._codec, self._decisions = codec, decisions
        self._body: Any = _UNREAD

    @property
    def body(self) -> T:
        """What was sent: JSON by the consumer's annotation, a text, or bytes. Raises `UsageError` where it does not fit."""
        if self._body is _UNREAD:
            match self._type:
                case "json":
                    self._body = self._codec.decode(self._raw)
                case "text":
                    self._body = msgspec.json.decode(self._raw)
                case "bytes":
                    self._body = base64.b64decode(msgspec.json.decode(self._raw, type=str))
        return self._body  # type: ignore[no-any-return]

    @property
    def timestamp(self) -> datetime:
        """When it was sent."""
        return datetime.fromtimestamp(self._ts / 1000, UTC)

    def ack(self) -> None:
        """It is done with, whatever becomes of the rest of the batch."""
        warn(self._decisions.ack(self.id))

    def retry(self, *, delay: Duration | None = None) -> None:
        """Deliver it again, after a delay: the queue's `retry_delay` where none is given."""
        warn(self._decisions.retry(self.id, None if delay is None else duration_ms(delay, "retry: delay")))

    def __repr__(self) -> str:
        return f"<message {self.id} attempt {self.attempts}>"


class Backlog(msgspec.Struct, frozen=True):
    """What waits in the queue behind a batch: messages, their bytes, and when the first of them was sent (ms since the epoch)."""

    messages: int = 0
    bytes: int = 0
    oldest_ms: int | None = None


class MessageBatch(Generic[T]):
    """A batch of a queue's messages."""

    def __init__(self, queue: str, events: tuple[Json, ...], codec: Codec) -> None:
        self.queue = queue
        self.decisions = Decisions()
        told = [_decoder.decode(event) for event in events]
        self.messages: list[Message[T]] = [Message(one, codec, self.decisions) for one in told]
        self.backlog = told[0].data.backlog if told else Backlog()

    def ack_all(self) -> None:
        """All messages of which nothing was said yet are done with."""
        warn(self.decisions.ack_all())

    def retry_all(self, *, delay: Duration | None = None) -> None:
        """Deliver all messages of which nothing was said yet again, after a delay."""
        warn(self.decisions.retry_all(None if delay is None else duration_ms(delay, "retry_all: delay")))

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        return f"<batch of {len(self.messages)} messages of {self.queue}>"


def warn(warning: str | None) -> None:
    """Tell of a word that came too late."""
    if warning is not None:
        log.warning(warning)


_UNREAD: Any = object()


class _Data(msgspec.Struct):
    body: msgspec.Raw
    content_type: ContentType = "json"
    attempts: int = 1
    backlog: Backlog = Backlog()


class _Message(msgspec.Struct):
    id: str
    data: _Data
    ts: int = 0


_decoder = msgspec.json.Decoder(_Message)
