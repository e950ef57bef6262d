"""Realtime on the wire: messages, names of channels and topics, what a token claims (inngest-protocol §5.11).

A topic belongs to a channel; a subscriber names the topics it wants by a token. Names that begin with `$` are the server's own: the
channel of a run, which is its id, has `$run`, `$step` and `$stream`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from stepwell.errors import ProtocolError
from stepwell.protocol.durations import format_date

MESSAGE_BYTES_MAX = 512 * 1024
"""What is published at once, and each part of a stream."""
TEE_BYTES_MAX = 1000 * 1024
"""What one `publish/tee` forwards."""
NAME_CHARS_MAX = 512
"""Of a channel's name, and of a topic's."""
TOPICS_PER_PUBLISH_MAX = 100
TOPICS_PER_TOKEN_MAX = 100
TOPICS_PER_SUBSCRIBER_MAX = 1000
TOKEN_CHARS_MAX = 7168
"""A token travels in a URL, and WebSocket servers read request lines of 8 KiB."""
REQUEST_BYTES_MAX = 64 * 1024
"""Of what a subscriber sends over its WebSocket, and of a request for a token."""

RUN_TOPIC, STEP_TOPIC, STREAM_TOPIC = "$run", "$step", "$stream"
BUILT_IN = frozenset((RUN_TOPIC, STEP_TOPIC, STREAM_TOPIC))

AUDIENCE = "realtime"
"""What tokens are for, so that one made for something else opens nothing here."""

Kind = Literal[
    "step", "run", "data", "datastream-start", "chunk", "datastream-end", "event", "ping", "pong", "sub", "unsub", "closing"
]  # fmt: skip


class Topic(msgspec.Struct, frozen=True, order=True):
    """A topic with its channel."""

    channel: str
    name: str

    def wire(self) -> dict[str, str]:
        """As in a token, and in what subscribers ask for."""
        return {"channel": self.channel, "name": self.name, "kind": "run"}


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message. Fields that say nothing are left out: readers refuse a null."""

    kind: Kind
    data: Raw | UnsetType = UNSET
    channel: str = ""
    topic: str = ""
    created_at: str = ""
    run_id: str = ""
    fn_id: str = ""
    fn_slug: str = ""
    env_id: str = ""
    stream_id: str = ""
    metadata: Raw | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode


def encode_message(message: Message, created_ms: int | None = None) -> bytes:
    """The message as it is sent, in one line."""
    return _encode(message if created_ms is None else msgspec.structs.replace(message, created_at=format_date(created_ms)))


def json_data(value: Any) -> Raw:
    """A value as a message's data. Raises `ProtocolError` for what JSON cannot hold."""
    try:
        return Raw(_encode(value))
    except (UnicodeEncodeError, RecursionError) as error:
        raise ProtocolError(f"the data cannot be written as JSON: {error}") from None


def data_of(body: bytes) -> Raw:
    """What a request's body publishes: JSON as it came, in one line; anything else as a text. Raises `ProtocolError`."""
    if len(body) > MESSAGE_BYTES_MAX:
        raise ProtocolError(f"the message has {len(body)} bytes; at most {MESSAGE_BYTES_MAX} are taken at once", 413)
    if not body.strip():
        return Raw(b"null")
    try:
        msgspec.json.decode(body)
        return Raw(msgspec.json.format(body, indent=-1))
    except RecursionError:
        raise ProtocolError("the message is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            return json_data(body.decode())
        except UnicodeDecodeError as error:
            raise ProtocolError(
                f"the message is neither JSON nor UTF-8 text: {error}. Send raw bytes to /v1/realtime/publish/tee"
            ) from None


def closing_message(reason: str) -> bytes:
    """The last message of a subscription that the server ends."""
    return encode_message(Message(kind="closing", data=json_data(reason)))


PING, PONG = encode_message(Message(kind="ping")), encode_message(Message(kind="pong"))


def checked_name(name: Any, what: str, *, publishes: bool = False) -> str:
    """The name of a channel or topic. Raises `ProtocolError`, also for the server's own names where somebody `publishes`."""
    if not isinstance(name, str) or not name:
        raise ProtocolError(f"the {what} is {name!r}; it must be a text, and not empty")
    if len(name) > NAME_CHARS_MAX:
        raise ProtocolError(f"the {what} {name[:40]!r}… has {len(name)} characters; at most {NAME_CHARS_MAX} are taken")
    if not name.isprintable():
        raise ProtocolError(f"the {what} {name[:40]!r} holds what cannot be printed")
    if publishes and what == "topic" and name.startswith("$"):
        raise ProtocolError(f"the topic {name!r} is the server's own: names that begin with $ cannot be published to")
    return name


def parse_topics(value: Any) -> tuple[Topic, ...]:
    """`[{"channel", "name", "kind"}]`, as SDKs ask for a token. Raises `ProtocolError`."""
    if not isinstance(value, list) or not value:
        raise ProtocolError('topics must be a list like [{"channel": "orders", "name": "status", "kind": "run"}]')
    if len(value) > TOPICS_PER_TOKEN_MAX:
        raise ProtocolError(f"{len(value)} topics are asked for; at most {TOPICS_PER_TOKEN_MAX} are taken at once")
    topics: dict[Topic, None] = {}
    for one in value:
        if not isinstance(one, dict):
            raise ProtocolError(f"a topic is {one!r}; it must be an object with channel and name")
        name = one.get("name", one.get("topic"))
        topics[Topic(checked_name(one.get("channel"), "channel"), checked_name(name, "topic"))] = None
    return tuple(topics)


class TokenTopic(msgspec.Struct, frozen=True):
    """A topic in a token."""

    channel: str
    name: str
    kind: str = "run"


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says: which topics may be read, or, with `publish`, written; none then means all."""

    jti: str
    iat: int
    exp: int
    aud: str = AUDIENCE
    topics: tuple[TokenTopic, ...] = ()
    publish: bool = False

    def readable(self) -> tuple[Topic, ...]:
        """The topics that the token lets one subscribe to."""
        return () if self.publish else tuple(Topic(one.channel, one.name) for one in self.topics)

    def lets_publish(self, channel: str, names: tuple[str, ...]) -> bool:
        """Whether the token lets one publish to these topics of a channel."""
        if not self.publish:
            return False
        allowed = {(one.channel, one.name) for one in self.topics}
        return not allowed or all((channel, name) in allowed for name in names)


class Asked(msgspec.Struct, frozen=True):
    """What a subscriber asks for over its WebSocket."""

    kind: Kind
    data: Any = None


def parse_asked(text: str | bytes) -> Asked:
    """A subscriber's message: `sub` with a token, `unsub` with topics, `ping`. Raises `ProtocolError`."""
    if len(text) > REQUEST_BYTES_MAX:
        raise ProtocolError(f"the message has more than {REQUEST_BYTES_MAX} bytes", 413)
    try:
        return msgspec.json.decode(text, type=Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f'the message is none that a subscriber sends, like {{"kind": "sub", "data": "<token>"}}: {error}') from None
