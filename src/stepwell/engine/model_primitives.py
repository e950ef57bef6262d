"""The rows of the other primitives: queues and key-value namespaces. Their machines are in `primitives`; what a row is, `model` says."""

from __future__ import annotations

from typing import Annotated

import msgspec

from stepwell.engine.model import Json, Row
from stepwell.protocol.queues import MAX_RETRIES_DEFAULT, RETENTION_MS_DEFAULT, VISIBILITY_MS_DEFAULT, ContentType

Blob = Annotated[bytes, msgspec.Meta(description="kept as bytes")]
"""Bytes that are no JSON text."""


class Queue(Row, frozen=True, kw_only=True):
    """A queue: `waiting` counts its messages that are not out, `waiting_bytes` their bodies.

    `max_retries`, `dead_letter` and `visibility_ms` are for pull consumers; a push consumer tells its own with its app.
    """

    id: str
    paused: bool = False
    waiting: int = 0
    waiting_bytes: int = 0
    retention_ms: int = RETENTION_MS_DEFAULT
    visibility_ms: int = VISIBILITY_MS_DEFAULT
    max_retries: int = MAX_RETRIES_DEFAULT
    dead_letter: str = ""


class Message(Row, frozen=True, kw_only=True):
    """A message of a queue. It waits from `ready_ms` on, or is out with a delivery. `attempts` counts how often it was delivered.

    `pulled`: it was given to a pull consumer last, and comes back at `ready_ms`. `losses` counts deliveries that were lost with their
    process. A dead letter says where it came from (`dead_of`) and the error that it died of.
    """

    id: str
    queue: str
    ready_ms: int
    sent_ms: int
    content_type: ContentType
    body: Blob
    attempts: int = 0
    losses: int = 0
    pulled: bool = False
    delivery: str | None = None
    dead_of: str | None = None
    error: Json | None = None


class Delivery(Row, frozen=True, kw_only=True):
    """A batch that is out: who has it, and its messages. Its id is good for one lease: a lost one goes, and its messages wait again."""

    id: str
    queue: str
    function_id: str
    holder: str
    messages: tuple[str, ...]
    leased_ms: int


class KvEntry(Row, frozen=True, kw_only=True):
    """A value under a key of a namespace (`protocol.kv.stored_key`), until `expires_ms`."""

    namespace: str
    key: str
    value: Blob
    content_type: ContentType
    metadata: Json | None
    expires_ms: int | None


def places_of(queue: str) -> str:
    """The counter of a queue's deliveries that are out."""
    return f"queue/{queue}"
