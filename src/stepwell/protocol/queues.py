"""Queues as they cross wires: settings of consumers, content types, and what a consumer reports of a batch.

Defaults and bounds are those of Cloudflare Queues. What becomes of each message of a batch is decided here, from the report alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, canonicalize

ContentType = Literal["json", "text", "bytes"]
CONTENT_TYPES: tuple[str, ...] = get_args(ContentType)

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
BATCH_SIZE_DEFAULT = 10
BATCH_SIZE_MAX = 100
BATCH_TIMEOUT_MS_DEFAULT = 5_000
BATCH_TIMEOUT_MS_MAX = 60_000
MAX_RETRIES_DEFAULT = 3
MAX_RETRIES_MAX = 100
DELAY_S_MAX = 86_400
DELAY_MS_MAX = DELAY_S_MAX * 1000
CONCURRENCY_MAX = 250
MESSAGE_BYTES_MAX = 128_000
SEND_MESSAGES_MAX = 100
SEND_BYTES_MAX = 256_000
RETENTION_MS_DEFAULT = 4 * 86_400_000
RETENTION_MS_MIN = 60_000
RETENTION_MS_MAX = 14 * 86_400_000
VISIBILITY_MS_DEFAULT = 30_000
VISIBILITY_MS_MAX = 12 * 3_600_000
PULL_SIZE_DEFAULT = 5


class Consumer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a queue's messages are delivered: in batches of so many, or after so long; again so often; beyond that to another queue."""

    max_batch_size: int = BATCH_SIZE_DEFAULT
    max_batch_timeout_ms: int = BATCH_TIMEOUT_MS_DEFAULT
    max_retries: int = MAX_RETRIES_DEFAULT
    retry_delay_ms: int = 0
    max_concurrency: int = CONCURRENCY_MAX
    dead_letter: str = ""
    retention_ms: int | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a consumer reports of a batch: how its handler ended, and what it said of the batch and of single messages.

    `acks` and `retries` (id → delay, `None` where none was said) are the messages with an own decision. `ack_all` and `retry_all`
    are the batch's; whoever reports keeps the first of them only. A handler that threw tells its `error`.
    """

    acks: tuple[str, ...] = ()
    retries: dict[str, int | None] = {}
    ack_all: bool = False
    retry_all: bool = False
    retry_all_delay_ms: int | None = None
    error: Json | None = None


class Retry(msgspec.Struct, frozen=True):
    """A message is to be delivered again, after so long."""

    delay_ms: int


def settled(outcome: Outcome, ids: Iterable[str], retry_delay_ms: int) -> dict[str, Retry | None]:
    """What becomes of each message: delivered again, or (`None`) done with. Ids that the report names and the batch has not are nothing.

    A handler that returned acks what it says nothing of; one that threw has that delivered again, while its explicit acks hold.
    A report that contradicts itself loses nothing: what it wants again comes again. A delay beyond what may be is what may be.
    """
    decided: dict[str, Retry | None] = {}
    acks = frozenset(outcome.acks)
    fallback = retry_delay_ms if outcome.retry_all_delay_ms is None else outcome.retry_all_delay_ms
    again = outcome.retry_all or (outcome.error is not None and not outcome.ack_all)
    for message_id in ids:
        if message_id in outcome.retries:
            delay_ms = outcome.retries[message_id]
            decided[message_id] = Retry(bounded(fallback if delay_ms is None else delay_ms))
        elif message_id in acks or not again:
            decided[message_id] = None
        else:
            decided[message_id] = Retry(bounded(fallback))
    return decided


def bounded(delay_ms: int) -> int:
    """The delay of a retry, within what is taken: whoever reports it may be anybody's code."""
    return max(0, min(delay_ms, DELAY_MS_MAX))


def checked_name(name: object, what: str = "a queue") -> str:
    """A queue's name. Raises `ProtocolError` for what is none."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ProtocolError(f"{name!r:.80} is no name of {what}: 1 to 64 letters, digits and -_.")
    return name


_MESSAGE_ID = re.compile(r"[0-9a-f]{32}")


def is_message_id(text: str) -> bool:
    """Whether the text has the form of a message's id."""
    return _MESSAGE_ID.fullmatch(text) is not None


def message_id(ulid_number: int) -> str:
    """A message's id from a ULID's number: 32 hex digits, in the order of their times."""
    return f"{ulid_number:032x}"


EVENT_PREFIX = "stepwell/queue."
"""A trigger for an event with such a name is one for the queue: so SDKs of others name queues."""


def event_name(queue: str) -> str:
    """The name that events of a queue's messages have, where they start runs or reach a consumer over the protocol of functions."""
    return EVENT_PREFIX + queue


OUTCOME_KEY = "stepwell/batch"
"""The one key of what our own SDK's consumers return; anything else that a function returns acks its batch."""


class _Told(msgspec.Struct):
    acks: tuple[str, ...] = ()
    retries: dict[str, int | None] = {}
    ack_all: bool = False
    retry_all: bool = False
    retry_all_delay_ms: int | None = None
    error: msgspec.Raw = msgspec.Raw()  # no union with None: msgspec would take None alone then


class _Returned(msgspec.Struct):
    told: msgspec.Raw = msgspec.field(name=OUTCOME_KEY)


_told = msgspec.json.Decoder(_Told)
_returned = msgspec.json.Decoder(_Returned)


def encode_outcome(outcome: Outcome) -> Json:
    """What our own SDK's consumers return: canonical JSON."""
    told: dict[str, object] = {name: getattr(outcome, name) for name in Outcome.__struct_fields__ if getattr(outcome, name)}
    told |= {} if outcome.retry_all_delay_ms is None else {"retry_all_delay_ms": outcome.retry_all_delay_ms}
    told |= {} if outcome.error is None else {"error": msgspec.Raw(outcome.error)}
    return canonicalize(msgspec.json.encode({OUTCOME_KEY: told}))


def decode_outcome(data: Json) -> Outcome:
    """The outcome in what a function returned; anything else that it returned acks its batch. A report that cannot be read acks nothing."""
    try:
        raw = _returned.decode(data).told
    except msgspec.DecodeError:
        return Outcome()
    try:
        told = _told.decode(raw)
    except msgspec.DecodeError as error:
        return Outcome(error=canonical({"name": "ProtocolError", "message": f"the report on the batch cannot be read: {error}"}))
    fields = {name: getattr(told, name) for name in Outcome.__struct_fields__}
    return Outcome(**{**fields, "error": None if bytes(told.error) in (b"", b"null") else bytes(told.error)})
