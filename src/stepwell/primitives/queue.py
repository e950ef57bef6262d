"""A queue's life: messages are sent, delivered in batches, acked, delivered again, and at last dead letters.

A delivery is what is leased. Its id is good for that one lease, so that a late answer finds nothing. A message that waits has no delivery;
its place is `ready_ms`, by which a delay, a retry and a pull consumer's visibility are nothing but a later place.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from stepwell.engine.commands import Command, Delete, Edit, Effect, Put, Release, Reply, SetRow, TimerSet
from stepwell.engine.inputs import AppSynced, NodeStarted
from stepwell.engine.inputs_primitives import BatchAnswered, DeliveriesReturned, MessagesSent
from stepwell.engine.model import Json, Timer, TimerKind
from stepwell.engine.model_primitives import Delivery, Message, Queue, places_of
from stepwell.engine.registry import Registry
from stepwell.engine.selection import delivery_messages
from stepwell.engine.view import Scan, Select, Selection, View
from stepwell.protocol.answers import Lost
from stepwell.protocol.queues import Consumer, Outcome, Retry, settled

LOSSES_MAX = 3
"""How often in a row a delivery of a message may be lost with its process before that counts as a failed try."""

REDELIVER_AT_ONCE = 8
"""Deliveries that come back in one step of their cursor: a batch may hold a hundred messages, with their bodies."""


class QueueStirred(Effect, frozen=True):
    """A queue may have a batch to deliver."""

    queue: str


class Backlog(msgspec.Struct, frozen=True):
    """What waits in a queue: how much, and when the first of it was sent."""

    messages: int
    bytes: int
    oldest_ms: int | None = None


class Sent(msgspec.Struct, frozen=True):
    """The reply to `MessagesSent`: the ids, and what waited before."""

    ids: tuple[str, ...]
    before: Backlog


class Settled(msgspec.Struct, frozen=True):
    """The reply to `BatchAnswered`: what became of the batch. `dead` were moved to a dead-letter queue, `dropped` are gone."""

    acked: int = 0
    retried: int = 0
    dead: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    dead_letter: str = ""


class LeaseMessage(Edit, frozen=True):
    """A message goes out with a delivery."""

    table = "messages"
    message_id: str
    delivery: str
    attempts: int
    pulled: bool = False


class ReturnMessage(Edit, frozen=True):
    """A message waits again: from `ready_ms` on."""

    table = "messages"
    message_id: str
    ready_ms: int
    attempts: int
    losses: int = 0
    pulled: bool = False
    delivery: str | None = None


class BuryMessage(Edit, frozen=True):
    """A message becomes a dead letter of another queue."""

    table = "messages"
    message_id: str
    queue: str
    ready_ms: int
    dead_of: str | None
    error: Json | None
    attempts: int = 0
    losses: int = 0
    pulled: bool = False
    delivery: str | None = None


class Ledger:
    """The queues that one transition touches, each written once, with the timers that keep them going."""

    def __init__(self, view: View, now_ms: int) -> None:
        self._view, self._now_ms = view, now_ms
        self._queues: dict[str, Queue] = {}
        self._first_ms: dict[str, int] = {}

    def queue(self, name: str) -> Queue:
        """The queue as this transition leaves it; one that was never used is there from now on."""
        queue = self._queues.get(name)
        if queue is None:
            stored: Queue | None = self._view.get("queues", name)
            queue = self._queues[name] = stored if stored is not None else Queue(id=name)
        return queue

    def set(self, queue: Queue) -> None:
        """Change it."""
        self._queues[queue.id] = queue

    def waits(self, name: str, size: int, ready_ms: int) -> None:
        """A message waits from now on."""
        queue = self.queue(name)
        self._queues[name] = msgspec.structs.replace(queue, waiting=queue.waiting + 1, waiting_bytes=queue.waiting_bytes + size)
        self.waits_from(name, ready_ms)

    def waits_from(self, name: str, ready_ms: int) -> None:
        """A message that waits does so from another time on."""
        self._first_ms[name] = min(ready_ms, self._first_ms.get(name, ready_ms))

    def goes(self, message: Message) -> None:
        """A message waits no more."""
        queue = self.queue(message.queue)
        waiting_bytes = queue.waiting_bytes - len(message.body)
        self._queues[queue.id] = msgspec.structs.replace(queue, waiting=queue.waiting - 1, waiting_bytes=waiting_bytes)

    def commands(self) -> list[Command | Effect]:
        """All of it. What has come to wait stirs its queue, and is not kept for ever."""
        commands: list[Command | Effect] = [SetRow(queue) for queue in self._queues.values() if queue != self._view.get("queues", queue.id)]
        for name, first_ms in self._first_ms.items():
            commands.append(QueueStirred(name))
            expiry, due_ms = self._view.timer(f"expiry/{name}"), first_ms + self._queues[name].retention_ms
            if expiry is None or expiry.due_ms > due_ms:  # a message that was kept back may have been the first
                commands += expire_at(name, due_ms)
        return commands


def expire_at(queue: str, due_ms: int) -> list[Command | Effect]:
    """The cursor that takes away what is old looks at the queue at a time."""
    expiry = Timer(id=f"expiry/{queue}", due_ms=due_ms, kind=TimerKind.EXPIRY, ref=queue)
    return [SetRow(expiry), TimerSet(expiry.id, due_ms)]


def first_messages(view: View, value: str, limit: int) -> list[Message]:
    """The first messages of a queue, or those behind a place, as far as the store was read.

    What this group has sent or given back behind that is left for later: between there may be others, which would be passed over.
    """
    found: list[Message] = view.scan("queue_messages", value, limit)
    last: Message | None = view.horizon("queue_messages", value)
    if last is None:
        return found
    return [message for message in found if (message.ready_ms, message.id) <= (last.ready_ms, last.id)]


def select_queue(name: str) -> list[Selection]:
    """A queue's row, and the timer by which its messages go when they are old."""
    return [Select("queues", name), Select("timers", f"expiry/{name}")]


# Sending.


def select_sent(sent: MessagesSent) -> list[Selection]:
    """The queue; and the messages, where they may be there already."""
    selections = select_queue(sent.queue)
    if not sent.fresh:
        selections += [Select("messages", message.id) for message in sent.messages]
    return selections


def on_messages_sent(view: View, sent: MessagesSent, now_ms: int) -> list[Command | Effect]:
    """Store the messages that are not there yet."""
    ledger = Ledger(view, now_ms)
    queue = ledger.queue(sent.queue)
    before = Backlog(queue.waiting, queue.waiting_bytes)
    commands: list[Command | Effect] = []
    ids = tuple(dict.fromkeys(new.id for new in sent.messages))
    told = {new.id: new for new in reversed(sent.messages)}  # of two with one id, the first
    for new in (told[message_id] for message_id in ids):
        if not sent.fresh and view.get("messages", new.id) is not None:
            continue  # a repeated send
        ready_ms = now_ms + new.delay_ms
        commands.append(
            Put(Message(id=new.id, queue=sent.queue, ready_ms=ready_ms, sent_ms=now_ms, content_type=new.content_type, body=new.body))
        )
        ledger.waits(sent.queue, len(new.body), ready_ms)
    return [*commands, *ledger.commands(), Reply(Sent(tuple(new.id for new in sent.messages), before))]


# The end of a delivery.


def select_answered(answered: BatchAnswered) -> list[Selection]:
    """The delivery with its messages and its queue."""
    return [Select("deliveries", answered.delivery_id, ("messages",))]


def on_batch_answered(registry: Registry, view: View, answered: BatchAnswered, now_ms: int) -> list[Command | Effect]:
    """Do with each message what the consumer says; a late answer finds no delivery and changes nothing."""
    delivery: Delivery | None = view.get("deliveries", answered.delivery_id)
    if delivery is None:
        return [Reply(Settled())]
    ending = Ending(registry, view, delivery, now_ms)
    if isinstance(answered.outcome, Lost):
        return [*ending.lost(answered.outcome.reason, counts=True), Reply(ending.told())]
    return [*ending.settled(answered.outcome), Reply(ending.told())]


class Ending:
    """What becomes of one delivery's messages."""

    def __init__(self, registry: Registry, view: View, delivery: Delivery, now_ms: int, ledger: Ledger | None = None) -> None:
        self._view, self._delivery, self._now_ms = view, delivery, now_ms
        # As the function says that has the batch, also where its app has taken it away meanwhile: its dead letters stay such.
        function = registry.functions.get(delivery.function_id)
        self._consumer = (None if function is None else function.config.consumer) or Consumer()
        self._own = ledger is None
        self._ledger = ledger or Ledger(view, now_ms)
        self._acked = self._retried = 0
        self._dead: list[str] = []
        self._dropped: list[str] = []

    def settled(self, outcome: Outcome) -> list[Command | Effect]:
        """As the consumer reports."""
        commands = self._closed()
        decided = settled(outcome, self._delivery.messages, self._consumer.retry_delay_ms)
        for message in self._messages():
            retry = decided[message.id]
            if retry is None:
                commands.append(Delete("messages", message.id))
                self._acked += 1
            else:
                commands += self._again(message, retry, outcome.error)
        return self._with_ledger(commands)

    def lost(self, reason: str, *, counts: bool) -> list[Command | Effect]:
        """As it was, but for one more loss, where that may be the messages' own doing; one lost too often has had a failed try."""
        commands = self._closed()
        for message in self._messages():
            losses = message.losses + counts
            if losses >= LOSSES_MAX:
                commands += self._again(message, Retry(self._consumer.retry_delay_ms), lost_error(reason))
                continue
            commands.append(ReturnMessage(message.id, message.ready_ms, message.attempts - 1, losses))
            self._ledger.waits(message.queue, len(message.body), message.ready_ms)
        return self._with_ledger(commands)

    def told(self) -> Settled:
        """What became of it."""
        return Settled(self._acked, self._retried, tuple(self._dead), tuple(self._dropped), self._consumer.dead_letter)

    def _closed(self) -> list[Command | Effect]:
        return [Delete("deliveries", self._delivery.id), Release(places_of(self._delivery.queue)), QueueStirred(self._delivery.queue)]

    def _messages(self) -> Iterable[Message]:
        for message_id in self._delivery.messages:
            message: Message | None = self._view.get("messages", message_id)
            assert message is not None and message.delivery == self._delivery.id, f"delivery {self._delivery.id} has lost {message_id}"
            yield message

    def _again(self, message: Message, retry: Retry, error: Json | None) -> list[Command | Effect]:
        """Deliver it again; one that has had all its retries is a dead letter, at once, or is gone."""
        if message.attempts <= self._consumer.max_retries:
            self._retried += 1
            ready_ms = self._now_ms + retry.delay_ms
            self._ledger.waits(message.queue, len(message.body), ready_ms)
            return [ReturnMessage(message.id, ready_ms, message.attempts)]
        to = self._consumer.dead_letter
        if not to:
            self._dropped.append(message.id)
            return [Delete("messages", message.id)]
        self._dead.append(message.id)
        return bury(self._view, self._ledger, message, to, error, self._now_ms)

    def _with_ledger(self, commands: list[Command | Effect]) -> list[Command | Effect]:
        return [*commands, *self._ledger.commands()] if self._own else commands


def bury(view: View, ledger: Ledger, message: Message, to: str, error: Json | None, now_ms: int) -> list[Command | Effect]:
    """The message waits in its dead-letter queue: with its id, time and body, its attempts beginning anew."""
    view.require(select_queue(to))
    ledger.waits(to, len(message.body), now_ms)
    return [BuryMessage(message.id, to, now_ms, message.queue, error)]


def lost_error(reason: str) -> Json:
    """The error of a message whose deliveries were lost too often."""
    return msgspec.json.encode(
        {"message": f"its deliveries were lost {LOSSES_MAX} times in a row; the last one: {reason}", "name": "WorkerDied"}
    )


# Syncs.


def select_synced(synced: AppSynced) -> list[Selection]:
    """The queues that the app's functions consume."""
    return [selection for queue, _ in consumed(synced) for selection in select_queue(queue)]


def consumed(synced: AppSynced) -> list[tuple[str, Consumer | None]]:
    """The queues that an app's functions consume, each with how that is done."""
    configs = synced.registration.functions
    return [(trigger.queue, config.consumer) for config in configs for trigger in config.triggers if trigger.queue is not None]


def on_queues_told(view: View, synced: AppSynced, now_ms: int) -> list[Command | Effect]:
    """A queue is there from the sync on that tells who consumes it, and keeps its messages as long as that says."""
    commands: list[Command | Effect] = []
    for name, consumer in consumed(synced):
        before: Queue | None = view.get("queues", name)
        queue = before or Queue(id=name)
        if consumer is not None and consumer.retention_ms is not None:
            queue = msgspec.structs.replace(queue, retention_ms=consumer.retention_ms)
        if queue != before:
            commands.append(SetRow(queue))
        if before is not None and queue.retention_ms < before.retention_ms and view.timer(f"expiry/{name}") is not None:
            commands += expire_at(name, now_ms)
    return commands


# Deliveries without a call.


def select_returned(returned: DeliveriesReturned) -> list[Selection]:
    """The deliveries with their messages."""
    return [Select("deliveries", delivery_id, ("messages",)) for delivery_id in returned.delivery_ids]


def on_deliveries_returned(registry: Registry, view: View, returned: DeliveriesReturned, now_ms: int) -> list[Command | Effect]:
    """The node has no call in hand for them: their messages wait again."""
    found = [view.get("deliveries", delivery_id) for delivery_id in returned.delivery_ids]
    deliveries = [delivery for delivery in found if delivery is not None]
    return [*come_back(registry, view, deliveries, returned.reason, now_ms), Reply(len(deliveries))]


def select_node_started(started: NodeStarted) -> list[Selection]:
    """The cursors over deliveries of the epochs that are over."""
    return [Select("timers", f"redeliver/{other}") for other in started.others]


def on_node_started(view: View, started: NodeStarted, now_ms: int) -> list[Command | Effect]:
    """A node begins its epoch: each other one's deliveries come back."""
    if view.holder(started.holder) is not None:
        return []  # the same input once more
    return [command for other in started.others if view.holder(other) is not None for command in redeliver_later(other, now_ms)]


def redeliver_later(holder: str, now_ms: int) -> list[Command | Effect]:
    """The cursor that brings back the deliveries of an epoch that is over."""
    timer = Timer(id=f"redeliver/{holder}", due_ms=now_ms, kind=TimerKind.REDELIVER, ref=holder)
    return [SetRow(timer), TimerSet(timer.id, now_ms)]


def on_redeliver(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of that cursor."""
    view.require([Scan("holder_deliveries", timer.ref, REDELIVER_AT_ONCE, ("messages",))])
    deliveries: list[Delivery] = view.scan("holder_deliveries", timer.ref, REDELIVER_AT_ONCE)
    commands = come_back(registry, view, deliveries, "the server was restarted", now_ms)
    more = view.more("holder_deliveries", timer.ref, REDELIVER_AT_ONCE)
    return [*commands, TimerSet(timer.id, now_ms) if more else Delete("timers", timer.id)]


def come_back(registry: Registry, view: View, deliveries: list[Delivery], reason: str, now_ms: int) -> list[Command | Effect]:
    """Deliveries without a call: lost, which may be their messages' doing where user code runs in the node's own process."""
    commands: list[Command | Effect] = []
    ledger = Ledger(view, now_ms)
    for delivery in deliveries:
        view.require(delivery_messages(delivery))
        function = registry.functions.get(delivery.function_id)
        counts = function is not None and function.driver == "local"
        commands += Ending(registry, view, delivery, now_ms, ledger).lost(reason, counts=counts)
    return [*commands, *ledger.commands()]
