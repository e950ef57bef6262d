"""Pull consumers: they take messages for a time, and settle them by their leases.

A pulled message keeps its place in the queue, only later: where nobody settles it, it is there again when its time is over. Its lease
is its id, the number of that delivery and the time when it ends, so that an older one changes nothing: numbers alone begin anew with a
dead letter that was sent back.
"""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, Delete, Effect, Refuse, Reply
from stepwell.engine.inputs_primitives import LeasesSettled, MessagesPulled
from stepwell.engine.model_primitives import Message
from stepwell.engine.registry import Registry
from stepwell.engine.view import Scan, Select, Selection, View
from stepwell.errors import ProtocolError
from stepwell.primitives.queue import Ledger, ReturnMessage, bury, first_messages, select_queue


class Pulled(msgspec.Struct, frozen=True):
    """The reply to `MessagesPulled`: the messages, and how many the queue has that are not acked, these among them."""

    messages: tuple[Message, ...]
    backlog: int


class LeasesAnswered(msgspec.Struct, frozen=True):
    """The reply to `LeasesSettled`; `stale` leases changed nothing."""

    acked: int
    retried: int
    stale: tuple[str, ...]


def lease_of(message: Message) -> str:
    """What a pulled message is settled by."""
    return f"{message.id}.{message.attempts}.{message.ready_ms}"


def select_pulled(pulled: MessagesPulled) -> list[Selection]:
    """The queue with its first messages."""
    return [*select_queue(pulled.queue), Scan("queue_messages", pulled.queue, pulled.limit)]


def on_messages_pulled(registry: Registry, view: View, pulled: MessagesPulled, now_ms: int) -> list[Command | Effect]:
    """Give the messages that are ready. Those that had all their retries are dead letters instead."""
    if (function := registry.consumers.get(pulled.queue)) is not None:
        sentence = (
            f"queue {pulled.queue!r} is consumed by the function {function.id!r}: a queue has a push consumer or pull consumers, not both"
        )
        return [Refuse(ProtocolError(sentence, 409))]
    ledger = Ledger(view, now_ms)
    queue = ledger.queue(pulled.queue)
    if queue.paused:
        return [Reply(Pulled((), queue.waiting))]
    visibility_ms = queue.visibility_ms if pulled.visibility_ms is None else pulled.visibility_ms
    commands: list[Command | Effect] = []
    given: list[Message] = []
    for message in first_messages(view, pulled.queue, pulled.limit):
        if message.ready_ms > now_ms:
            break
        if message.ready_ms + queue.retention_ms <= now_ms:
            ledger.goes(message)
            commands.append(Delete("messages", message.id))
        elif message.attempts > queue.max_retries:
            commands += dead(view, ledger, message, queue.dead_letter, now_ms)
        else:
            ready_ms = now_ms + visibility_ms
            commands.append(ReturnMessage(message.id, ready_ms, message.attempts + 1, pulled=True))
            given.append(msgspec.structs.replace(message, ready_ms=ready_ms, attempts=message.attempts + 1, pulled=True))
    return [*commands, *ledger.commands(), Reply(Pulled(tuple(given), ledger.queue(pulled.queue).waiting))]


def dead(view: View, ledger: Ledger, message: Message, to: str, now_ms: int) -> list[Command | Effect]:
    """A message that has had all its retries goes to the queue's dead-letter queue, or is gone."""
    ledger.goes(message)
    return bury(view, ledger, message, to, None, now_ms) if to else [Delete("messages", message.id)]


def select_leases(settled: LeasesSettled) -> list[Selection]:
    """The queue, and the messages that the leases name."""
    named = (*settled.acks, *(lease for lease, _ in settled.retries))
    return [*select_queue(settled.queue), *(Select("messages", lease.partition(".")[0]) for lease in dict.fromkeys(named))]


def on_leases_settled(view: View, settled: LeasesSettled, now_ms: int) -> list[Command | Effect]:
    """Ack and retry what is still leased as the leases say; of two words on one lease the first counts."""
    ledger = Ledger(view, now_ms)
    queue = ledger.queue(settled.queue)
    commands: list[Command | Effect] = []
    stale: list[str] = []
    seen: set[str] = set()
    acked = retried = 0
    wishes: list[tuple[str, int | None]] = [*((lease, None) for lease in settled.acks), *settled.retries]
    for lease, delay_ms in wishes:
        message = leased(view, settled.queue, lease)
        if message is None or message.id in seen:
            stale.append(lease)
            continue
        seen.add(message.id)
        if delay_ms is None:
            ledger.goes(message)
            commands.append(Delete("messages", message.id))
            acked += 1
            continue
        retried += 1
        if message.attempts > queue.max_retries:
            commands += dead(view, ledger, message, queue.dead_letter, now_ms)
        else:
            commands.append(ReturnMessage(message.id, now_ms + delay_ms, message.attempts))
            ledger.waits_from(message.queue, now_ms + delay_ms)
    return [*commands, *ledger.commands(), Reply(LeasesAnswered(acked, retried, tuple(stale)))]


def leased(view: View, queue: str, lease: str) -> Message | None:
    """The message that a lease is good for."""
    message: Message | None = view.get("messages", lease.partition(".")[0])
    if message is None or message.queue != queue or not message.pulled or lease_of(message) != lease:
        return None
    return message
