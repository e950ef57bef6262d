"""What happens to queues and key-value namespaces: inputs like all others, whose machines are in `primitives`."""

from __future__ import annotations

import msgspec

from stepwell.engine.input import Input
from stepwell.engine.model_primitives import Blob, KvEntry
from stepwell.protocol.answers import Lost
from stepwell.protocol.queues import ContentType, Outcome


class NewMessage(msgspec.Struct, frozen=True):
    """A message to be: its id (32 hex digits, made at the edge), its body, and how long it is kept back."""

    id: str
    body: Blob
    content_type: ContentType
    delay_ms: int = 0


class MessagesSent(Input, frozen=True):
    """Messages for a queue, all or none. `fresh` says that their ids were made for this very input, so that none is stored yet."""

    queue: str
    messages: tuple[NewMessage, ...]
    fresh: bool = False


class QueueClaimed(Input, frozen=True):
    """A node has room for deliveries of a queue. `claim_id`, a ULID, is what their ids are made of."""

    claim_id: str
    holder: str
    queue: str
    room: int


class BatchAnswered(Input, frozen=True):
    """A delivery came back: with what becomes of its messages, or lost."""

    delivery_id: str
    outcome: Outcome | Lost


class DeliveriesReturned(Input, frozen=True):
    """Deliveries that have no call in hand at the node that holds them."""

    delivery_ids: tuple[str, ...]
    reason: str


class MessagesPulled(Input, frozen=True):
    """A pull consumer takes messages, which nobody else sees for `visibility_ms`; `None`: as the queue says."""

    queue: str
    limit: int
    visibility_ms: int | None = None


class LeasesSettled(Input, frozen=True):
    """A pull consumer has done with messages, or wants them again after a delay; by their leases."""

    queue: str
    acks: tuple[str, ...]
    retries: tuple[tuple[str, int], ...]


class QueueSet(Input, frozen=True, kw_only=True):
    """Somebody pauses or resumes a queue, or says how it is kept; what is `None` stays. An empty `dead_letter` means none."""

    queue: str
    paused: bool | None = None
    retention_ms: int | None = None
    visibility_ms: int | None = None
    max_retries: int | None = None
    dead_letter: str | None = None


class QueuePurged(Input, frozen=True):
    """Somebody wants all messages gone that wait in a queue and were sent until `mark_ms`."""

    queue: str
    mark_ms: int


class MessagesMoved(Input, frozen=True):
    """Dead letters go back: to the queue they came from, or to another one. `ids` are in `queue` now."""

    queue: str
    ids: tuple[str, ...]
    to: str | None = None


class MessagesDeleted(Input, frozen=True):
    """Somebody takes messages away that are not out."""

    queue: str
    ids: tuple[str, ...]


class MessageEdited(Input, frozen=True):
    """Somebody gives a message that is not out another body: a new message takes its place, since no stored body changes."""

    queue: str
    id: str
    new_id: str
    body: Blob
    content_type: ContentType


class KvWritten(Input, frozen=True):
    """Values put in place of what was there, and keys deleted: all or none."""

    namespace: str
    puts: tuple[KvEntry, ...]
    deletes: tuple[str, ...]
