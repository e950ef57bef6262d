"""Queues of an app: sending to them, and the function that consumes one in batches."""

from __future__ import annotations

import base64
import functools
import inspect
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, cast, overload
from urllib.parse import quote

import msgspec

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.codec import Json, text
from stepwell.protocol.config import FunctionConfig
from stepwell.protocol.config_reader import read_function
from stepwell.protocol.durations import format_duration
from stepwell.protocol.ids import ENTROPY
from stepwell.protocol.queues import (
    BATCH_SIZE_DEFAULT,
    CONTENT_TYPES,
    DELAY_MS_MAX,
    MAX_RETRIES_DEFAULT,
    ContentType,
    Outcome,
    checked_name,
    encode_outcome,
    message_id,
)
from stepwell.sdk.batch import MessageBatch
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.failure import failure_of
from stepwell.sdk.function import Function
from stepwell.sdk.options import Trigger
from stepwell.sdk.remote import refusal
from stepwell.sdk.serializer import ANY, Codec, codec_of, hint_of
from stepwell.sdk.session import current
from stepwell.sdk.threads import in_thread

if TYPE_CHECKING:
    from stepwell.sdk.app import App
    from stepwell.sdk.session import Session


class OutgoingMessage(msgspec.Struct, frozen=True):
    """A message to send, with what is its own; made by `stepwell.message`."""

    body: Any
    delay: Duration | None = None
    content_type: ContentType | None = None


def message(body: Any, *, delay: Duration | None = None, content_type: ContentType | None = None) -> OutgoingMessage:
    """A message of a `send_batch` that has a delay or a content type of its own."""
    return OutgoingMessage(body, delay, content_type)


class Queue:
    """A queue, as an app sends to it and consumes it. As a trigger of a function, each message starts a run."""

    def __init__(self, app: App, name: str, settings: dict[str, Any], delivery_delay: Duration | None) -> None:
        try:
            checked_name(name)
        except ProtocolError as error:
            raise UsageError(f"app.queue({name!r}): {error}") from None
        self._app, self.name = app, name
        self.settings = _settings_wire(name, settings)
        self._delay_ms = 0 if delivery_delay is None else _delay_ms(delivery_delay, f"queue {name!r}: delivery_delay")

    # Sending.

    async def send(self, body: Any, *, delay: Duration | None = None, content_type: ContentType | None = None) -> str:
        """Send a message; gives its id when it is durable. `delay`: it is not delivered before.

        A value is sent as JSON, bytes as they are; `content_type="text"` sends a string as a text. Raises `UsageError`, `ProtocolError`
        beyond a limit (128,000 bytes).
        """
        return (await self.send_batch([OutgoingMessage(body, None, content_type)], delay=delay))[0]

    async def send_batch(self, messages: Iterable[Any], *, delay: Duration | None = None) -> list[str]:
        """Send messages, all or none: values, or `stepwell.message(…)` for those with a delay or a content type of their own."""
        path, body = self._request(messages, delay)
        status, answer = await self._app.way.ask("POST", path, body)
        if status >= 300:
            raise refusal("POST", path, status, answer)
        return msgspec.json.decode(answer, type=_Sent).ids

    def send_sync(self, body: Any, *, delay: Duration | None = None, content_type: ContentType | None = None) -> str:
        """As `send`, from code that is not async."""
        return self._app.wait_for(lambda: self.send(body, delay=delay, content_type=content_type))

    def send_batch_sync(self, messages: Iterable[Any], *, delay: Duration | None = None) -> list[str]:
        """As `send_batch`, from code that is not async."""
        return self._app.wait_for(lambda: self.send_batch(messages, delay=delay))

    def _request(self, messages: Iterable[Any], delay: Duration | None) -> tuple[str, bytes]:
        """The path and body of a send. Each message bears its id, so that a request made again sends nothing twice."""
        delay_ms = self._delay_ms if delay is None else _delay_ms(delay, f"queue {self.name!r}: delay")
        new_id = _fresh_ids()
        parts = [self._wire(one, delay_ms, new_id(n)) for n, one in enumerate(messages)]
        if not parts:
            raise UsageError(f"queue {self.name!r}: send_batch needs at least one message")
        return f"/queues/{quote(self.name, safe='')}/messages", b'{"messages":[' + b",".join(parts) + b"]}"

    def _wire(self, one: Any, delay_ms: int, new_id: str) -> bytes:
        given = one if isinstance(one, OutgoingMessage) else OutgoingMessage(one)
        kind = given.content_type or ("bytes" if isinstance(given.body, bytes | bytearray | memoryview) else "json")
        if given.delay is not None:
            delay_ms = _delay_ms(given.delay, f"queue {self.name!r}: delay")
        body = _encoded(given.body, kind, self.name)
        return b'{"body":%s,"content_type":"%s","delay_ms":%d,"id":"%s"}' % (body, kind.encode(), delay_ms, new_id.encode())

    # Consuming.

    @overload
    def consumer(self, fn: Callable[[Any], Any], /) -> Consumer: ...
    @overload
    def consumer(self, *, id: str | None = None, name: str | None = None) -> Callable[[Callable[[Any], Any]], Consumer]: ...

    def consumer(self, fn: Any = None, /, *, id: str | None = None, name: str | None = None) -> Any:  # type: ignore[misc]
        """Declare the function that the queue's batches are delivered to: `@jobs.consumer` on a function of a `MessageBatch`."""

        def declare(handler: Callable[[Any], Any]) -> Consumer:
            consumer = Consumer(self._app, handler, self, id=id, name=name)
            self._app.add(consumer)
            return consumer

        return declare if fn is None else declare(fn)

    def as_trigger(self) -> Trigger:
        """As a function's trigger: each message starts a run, whose event has the body as its data."""
        return Trigger(queue=self.name)

    def __repr__(self) -> str:
        return f"<queue {self.name}>"


class Consumer(Function[None]):
    """The function that a queue's batches are delivered to. It has no steps: what it does is done again where it is not acked."""

    def __init__(self, app: App, handler: Callable[[Any], Any], queue: Queue, *, id: str | None, name: str | None) -> None:
        if not callable(handler) or isinstance(handler, Function):
            raise UsageError(f"@{queue.name}.consumer stands on a function that takes a MessageBatch, not on {handler!r}")
        id = id if id is not None else getattr(handler, "__name__", "consumer").strip("_").replace("_", "-")
        super().__init__(app, handler, id=id, name=name or id, triggers=(), retries=0, settings={})
        self.queue = queue

    @functools.cached_property
    def body(self) -> Codec:
        """The codec of messages' bodies: from `MessageBatch[…]`."""
        hint = hint_of(self.handler, next(iter(inspect.signature(self.handler).parameters), ""))
        return codec_of(hint.__args__[0]) if getattr(hint, "__origin__", None) is MessageBatch else ANY

    async def start(self, session: Session, events: tuple[Json, ...]) -> Any:
        """Run the handler on a batch; gives the report of what becomes of its messages."""
        current.set(None)  # a step function called from here is a plain call
        batch: MessageBatch[Any] = MessageBatch(self.queue.name, events, self.body)
        return msgspec.json.decode(encode_outcome(await self.handle(batch)))

    async def handle(self, batch: MessageBatch[Any]) -> Outcome:
        """What the handler says of the batch, also where it throws: its explicit acks hold then."""
        error: Json | None = None
        try:
            if self.is_async:
                await cast(Callable[[Any], Awaitable[Any]], self.handler)(batch)
            else:
                await in_thread(functools.partial(self.handler, batch))
        except Exception as raised:
            error = failure_of(raised).error
        return batch.decisions.outcome(error)

    def config(self, url: str = "") -> FunctionConfig:
        """What the server is told of it."""
        return read_function({**self.wire(url), "triggers": [{"queue": self.queue.name}], "consumer": self.queue.settings})

    def __repr__(self) -> str:
        return f"<consumer {self.slug} of {self.queue.name}>"


class _Sent(msgspec.Struct):
    ids: list[str]


def _fresh_ids() -> Callable[[int], str]:
    """Ids in the order of their numbers, made at the edge."""
    ms, base = time.time_ns() // 10**6, int.from_bytes(secrets.token_bytes(10), "big")
    return lambda n: message_id((ms << 80) | ((base + n) % ENTROPY))


def _encoded(body: Any, kind: str, queue: str) -> bytes:
    match kind:
        case "json":
            return codec_of(type(body)).encode(body)
        case "text" if isinstance(body, str):
            return text(body)
        case "bytes" if isinstance(body, bytes | bytearray | memoryview):
            return b'"' + base64.b64encode(body) + b'"'
        case "text" | "bytes":
            wanted = "a string" if kind == "text" else "bytes"
            raise UsageError(f'queue {queue!r}: content type "{kind}" takes {wanted}, not {body!r:.60}')
    raise UsageError(f"queue {queue!r}: content_type {kind!r} is none of {', '.join(CONTENT_TYPES)}")


def _delay_ms(value: object, what: str) -> int:
    ms = duration_ms(value, what)
    if ms > DELAY_MS_MAX:
        raise UsageError(f"{what} is {value!r}; it must be at most {format_duration(DELAY_MS_MAX)}")
    return ms


def _settings_wire(queue: str, told: dict[str, Any]) -> dict[str, Any]:
    """A consumer's settings as they are registered. Raises `UsageError` for the first that is wrong."""
    durations = {"max_batch_timeout": "maxBatchTimeout", "retry_delay": "retryDelay", "retention": "retention"}
    names = {"max_batch_size": "maxBatchSize", "max_retries": "maxRetries", "max_concurrency": "maxConcurrency"}
    wire: dict[str, Any] = {"maxBatchSize": BATCH_SIZE_DEFAULT, "maxRetries": MAX_RETRIES_DEFAULT}
    for option, value in told.items():
        if value is None:
            continue
        if option in durations:
            wire[durations[option]] = format_duration(duration_ms(value, f"queue {queue!r}: {option}"))
        elif option in names:
            wire[names[option]] = value
        else:
            wire["deadLetter"] = value.name if isinstance(value, Queue) else value
    try:
        trial = {"id": "a-b", "name": "b", "triggers": [{"queue": queue}], "consumer": wire}
        read_function(trial)
    except ProtocolError as error:
        raise UsageError(f"queue {queue!r}: {str(error).partition(': ')[2]}") from None
    return wire
