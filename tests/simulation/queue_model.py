"""A queue in plain Python, which watches the real one: each committed decision is judged by what the model knows, and then all rows are.

It shares no code with the machine but the names of its inputs and commands. What the machine is free to choose (how many messages a
claim looks at, when a cursor takes its next step) is not foretold, but judged: each thing done must have been allowed, in its order.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

from stepwell.engine.commands import Delete, Put, Reply
from stepwell.engine.inputs import AnyInput, TimerDue
from stepwell.engine.inputs_primitives import (
    BatchAnswered,
    DeliveriesReturned,
    LeasesSettled,
    MessageEdited,
    MessagesDeleted,
    MessagesMoved,
    MessagesPulled,
    MessagesSent,
    QueueClaimed,
    QueuePurged,
    QueueSet,
)
from stepwell.engine.model_primitives import Delivery
from stepwell.engine.tables import Tables
from stepwell.primitives.queue import BuryMessage
from stepwell.primitives.queue_claims import Deliver
from stepwell.protocol.answers import Lost
from stepwell.protocol.queues import Consumer
from tests.simulation.broken import Broken

LOSSES_MAX = 3
DAYS_4_MS = 4 * 86_400_000

Plan = dict[str, int | None]
"""What a consumer wants of a batch, whatever words it tells that by: again after so long, or (`None`) done with."""


@dataclasses.dataclass
class Told:
    """A message as the model knows it."""

    queue: str
    body: bytes
    sent_ms: int
    ready_ms: int
    attempts: int = 0
    losses: int = 0
    pulled: bool = False
    out: str | None = None
    dead_of: str | None = None


@dataclasses.dataclass
class Kept:
    """How a queue is kept. `consumer` is `None` for one that is pulled; `runs` for one whose messages start runs."""

    retention_ms: int = DAYS_4_MS
    visibility_ms: int = 30_000
    max_retries: int = 3
    dead_letter: str = ""
    paused: bool = False
    consumer: Consumer | None = None
    runs: bool = False


class Model:
    """What has been sent, and what became of it. `over` tells the end of each message that is there no more."""

    def __init__(self, *, local: bool = True) -> None:
        self.local = local
        self.messages: dict[str, Told] = {}
        self.queues: dict[str, Kept] = {}
        self.out: dict[str, tuple[str, str, tuple[str, ...], Consumer]] = {}
        self.plans: dict[str, Plan] = {}
        self.over: dict[str, str] = {}
        self.purges: dict[str, tuple[str, int]] = {}
        self.seen: Counter[str] = Counter()

    def queue(self, name: str) -> Kept:
        """The queue, which is there when it is spoken of."""
        return self.queues.setdefault(name, Kept())

    def waiting(self, name: str) -> list[tuple[int, str]]:
        """The places of what waits in a queue, in their order."""
        return sorted((one.ready_ms, key) for key, one in self.messages.items() if one.queue == name and one.out is None)

    # One decision.

    def decided(self, input: AnyInput, commands: Iterable[Any], now_ms: int) -> None:
        """Take in a committed decision. Raises `Broken` where it did what may not be done."""
        commands = list(commands)
        gone = [one.key for one in commands if isinstance(one, Delete) and one.table == "messages"]
        buried = {one.message_id: one for one in commands if isinstance(one, BuryMessage)}
        reply = next((one.value for one in commands if isinstance(one, Reply)), None)
        match input:
            case MessagesSent():
                self._sent(input, now_ms)
            case QueueClaimed():
                self._claimed(input, commands, gone, reply, now_ms)
            case BatchAnswered():
                self._answered(input, reply, now_ms)
            case DeliveriesReturned():
                for delivery_id in dict.fromkeys(input.delivery_ids):
                    self._lost(delivery_id, now_ms, counts=self.local)
            case MessagesPulled():
                self._pulled(input, reply, gone, buried, now_ms)
            case LeasesSettled():
                self._settled(input, reply, now_ms)
            case QueueSet():
                kept = self.queue(input.queue)
                for name in ("paused", "retention_ms", "visibility_ms", "max_retries", "dead_letter"):
                    if (value := getattr(input, name)) is not None:
                        setattr(kept, name, value)
            case QueuePurged():
                self.purges[f"purge/{input.queue}/{input.mark_ms}"] = (input.queue, input.mark_ms)
            case MessagesMoved():
                self._moved(input, reply, now_ms)
            case MessagesDeleted():
                for key in reply:
                    self._at_rest(key, input.queue, "is deleted")
                    self._ends(key, "deleted")
            case MessageEdited():
                self._edited(input, reply)
            case TimerDue():
                self._timer(input.timer_id, commands, gone, now_ms)
            case _:
                if gone or buried:
                    raise Broken(f"{input} took messages away: {gone}, {buried}")

    def _ends(self, key: str, how: str) -> None:
        del self.messages[key]
        self.over[key] = how
        self.seen[how] += 1

    def _at_rest(self, key: str, queue: str, what: str) -> Told:
        one = self.messages.get(key)
        if one is None or one.queue != queue or one.out is not None:
            raise Broken(f"message {key} {what} in {queue}, and is {one or self.over.get(key)}")
        return one

    def _sent(self, input: MessagesSent, now_ms: int) -> None:
        self.queue(input.queue)
        for new in input.messages:
            if new.id not in self.messages:
                # One that is over may be sent again: its request was repeated too late to be known.
                self.over.pop(new.id, None)
                self.messages[new.id] = Told(input.queue, new.body, now_ms, now_ms + new.delay_ms)

    def _expired(self, key: str, queue: str, now_ms: int) -> None:
        one = self._at_rest(key, queue, "expires")
        if one.ready_ms + self.queue(queue).retention_ms > now_ms:
            raise Broken(f"message {key} of {queue} is taken for old: {one} at {now_ms}")
        self._ends(key, "expired")

    # Claims.

    def _claimed(self, input: QueueClaimed, commands: list[Any], gone: list[str], reply: Any, now_ms: int) -> None:
        kept = self.queue(input.queue)
        delivers = [one for one in commands if isinstance(one, Deliver)]
        repeated, self.seen[input.claim_id] = self.seen[input.claim_id] > 0, 1
        if kept.paused or (kept.consumer is None and not kept.runs):
            if gone or delivers:
                raise Broken(f"{input.queue} has no consumer or is paused, and {delivers} go out")
            return
        if kept.runs:
            events = [one.row for one in commands if isinstance(one, Put) and getattr(one.row, "name", "").startswith("stepwell/queue.")]
            self.seen["runs"] += len(events)
            self._front(input.queue, gone, now_ms)
            for key in gone:
                old = self.messages[key].ready_ms + kept.retention_ms <= now_ms
                self._ends(key, "expired" if old else "ran")
            return
        for key in gone:
            self._expired(key, input.queue, now_ms)
        consumer = kept.consumer
        assert consumer is not None
        ready = [key for ready_ms, key in self.waiting(input.queue) if ready_ms <= now_ms]
        self._front(input.queue, [message.id for one in delivers for message in one.messages], now_ms)
        for one in delivers:
            self._delivered(one, consumer, now_ms)
        places = consumer.max_concurrency - sum(queue == input.queue for queue, _, _, _ in self.out.values())
        if places < 0:
            raise Broken(f"{input.queue} has {-places} deliveries out beyond its {consumer.max_concurrency}")
        left = ready[sum(len(one.messages) for one in delivers) :]
        if any(len(one.messages) < consumer.max_batch_size for one in delivers) and left:
            raise Broken(f"a part of a batch went out of {input.queue}, and {len(left)} are ready behind it")
        if len(left) >= consumer.max_batch_size and not (repeated or reply.more or places == 0):
            raise Broken(f"{input.queue} has a batch ready and a place for it; the claim says that there is no more to take")

    def _front(self, queue: str, taken: list[str], now_ms: int) -> None:
        """What is taken is what waits first, and is ready."""
        first = self.waiting(queue)[: len(taken)]
        if [key for _, key in first] != taken:
            raise Broken(f"{queue} gives {taken}; first in it are {first}")
        if any(ready_ms > now_ms for ready_ms, _ in first):
            raise Broken(f"{queue} gives {first} at {now_ms}")

    def _delivered(self, deliver: Deliver, consumer: Consumer, now_ms: int) -> None:
        delivery: Delivery = deliver.delivery
        if not 1 <= len(deliver.messages) <= consumer.max_batch_size:
            raise Broken(f"a batch of {delivery.queue} has {len(deliver.messages)} messages")
        if len(deliver.messages) < consumer.max_batch_size and deliver.messages[0].ready_ms + consumer.max_batch_timeout_ms > now_ms:
            raise Broken(f"a part of a batch of {delivery.queue} went out before its time")
        for message in deliver.messages:
            one = self._at_rest(message.id, delivery.queue, "goes out")
            if one.ready_ms + self.queue(one.queue).retention_ms <= now_ms:
                raise Broken(f"message {message.id} is too old, and goes out")
            one.out, one.attempts, one.pulled = delivery.id, one.attempts + 1, False
            if (message.attempts, message.body, message.sent_ms) != (one.attempts, one.body, one.sent_ms):
                raise Broken(f"message {message.id} is told as {message}; it is {one}")
        self.seen["deliveries"] += 1
        self.out[delivery.id] = (delivery.queue, delivery.holder, tuple(message.id for message in deliver.messages), consumer)

    # Ends of deliveries.

    def _answered(self, input: BatchAnswered, reply: Any, now_ms: int) -> None:
        if isinstance(input.outcome, Lost):
            self._lost(input.delivery_id, now_ms, counts=True)
            return
        if input.delivery_id not in self.out:
            if (reply.acked, reply.retried, reply.dead, reply.dropped) != (0, 0, (), ()):
                raise Broken(f"a late report is answered as if it counted: {reply}")
            self.seen["late"] += 1
            return
        _, _, keys, consumer = self.out.pop(input.delivery_id)
        plan = self.plans[input.delivery_id]
        told = Counter[str]()
        for key in keys:
            delay_ms = plan[key]
            if delay_ms is None:
                self._ends(key, "acked")
                told["acked"] += 1
            else:
                told[self._again(key, now_ms + delay_ms, consumer.max_retries, consumer.dead_letter, now_ms)] += 1
        if (reply.acked, reply.retried, len(reply.dead), len(reply.dropped)) != tuple(
            told[how] for how in ("acked", "retried", "dead", "dropped")
        ):
            raise Broken(f"a report is answered by {reply}; what became of its messages is {told}")

    def _again(self, key: str, ready_ms: int, max_retries: int, dead_letter: str, now_ms: int) -> str:
        one = self.messages[key]
        if one.attempts <= max_retries:
            one.out, one.ready_ms, one.losses, one.pulled = None, ready_ms, 0, False
            return "retried"
        if not dead_letter:
            self._ends(key, "dropped")
            return "dropped"
        self._bury(key, dead_letter, one.queue, now_ms)
        return "dead"

    def _bury(self, key: str, to: str, dead_of: str | None, now_ms: int) -> None:
        self.queue(to)
        one = self.messages[key]
        self.messages[key] = Told(to, one.body, one.sent_ms, now_ms, dead_of=dead_of)
        self.seen["dead"] += 1

    def _lost(self, delivery_id: str, now_ms: int, *, counts: bool) -> None:
        if delivery_id not in self.out:
            return
        _, _, keys, consumer = self.out.pop(delivery_id)
        self.seen["lost"] += 1
        for key in keys:
            one = self.messages[key]
            if one.losses + counts >= LOSSES_MAX:
                self._again(key, now_ms + consumer.retry_delay_ms, consumer.max_retries, consumer.dead_letter, now_ms)
            else:
                one.out, one.attempts, one.losses = None, one.attempts - 1, one.losses + counts

    # Pulls.

    def _pulled(self, input: MessagesPulled, reply: Any, gone: list[str], buried: dict[str, BuryMessage], now_ms: int) -> None:
        kept = self.queue(input.queue)
        if kept.paused and (gone or buried or reply.messages):
            raise Broken(f"{input.queue} is paused, and gives {reply}")
        handled = {*gone, *buried, *(message.id for message in reply.messages)}
        first = {key for _, key in self.waiting(input.queue)[: len(handled)]}
        if handled != first or len(handled) > input.limit:
            raise Broken(f"{input.queue} gives {handled}; first in it are {first}")
        for key in (*gone, *buried):
            one = self._at_rest(key, input.queue, "ends at a pull")
            old = one.ready_ms + kept.retention_ms <= now_ms
            worn = one.attempts > kept.max_retries
            if one.ready_ms > now_ms or not (old or worn) or (key in buried) != (not old and bool(kept.dead_letter)):
                raise Broken(f"message {key} ends at a pull, and is {one}")
            if key in buried:
                self._bury(key, kept.dead_letter, one.queue, now_ms)
            else:
                self._ends(key, "expired" if old else "dropped")
        visibility_ms = kept.visibility_ms if input.visibility_ms is None else input.visibility_ms
        for message in reply.messages:
            one = self._at_rest(message.id, input.queue, "is pulled")
            if one.ready_ms > now_ms or one.attempts > kept.max_retries:
                raise Broken(f"message {message.id} is pulled at {now_ms}, and is {one}")
            one.ready_ms, one.attempts, one.pulled = now_ms + visibility_ms, one.attempts + 1, True
            self.seen["pulled"] += 1

    def lease(self, key: str) -> str:
        """What the message's lease should be."""
        one = self.messages[key]
        return f"{key}.{one.attempts}.{one.ready_ms}"

    def _settled(self, input: LeasesSettled, reply: Any, now_ms: int) -> None:
        kept = self.queue(input.queue)
        stale, done = [], set()
        acked = retried = 0
        for lease, delay_ms in [*((lease, None) for lease in input.acks), *input.retries]:
            key = lease.split(".")[0]
            one = self.messages.get(key)
            if one is None or one.queue != input.queue or not one.pulled or key in done or lease != self.lease(key):
                stale.append(lease)
                continue
            done.add(key)
            if delay_ms is None:
                self._ends(key, "acked")
                acked += 1
            else:
                retried += 1
                self._again(key, now_ms + delay_ms, kept.max_retries, kept.dead_letter, now_ms)
        self.seen["stale"] += len(stale)
        if (reply.acked, reply.retried, list(reply.stale)) != (acked, retried, stale):
            raise Broken(f"leases are answered by {reply}; it should be {acked}, {retried}, {stale}")

    # Care.

    def _moved(self, input: MessagesMoved, reply: Any, now_ms: int) -> None:
        wanted = []
        for key in dict.fromkeys(input.ids):
            one = self.messages.get(key)
            if one is not None and one.queue == input.queue and one.out is None and (to := input.to or one.dead_of) is not None:
                wanted.append(key)
                self._bury(key, to, None, now_ms)
        if list(reply) != wanted:
            raise Broken(f"{reply} were moved; it should be {wanted}")

    def _edited(self, input: MessageEdited, reply: Any) -> None:
        one = self.messages.get(input.id)
        there = one is not None and one.queue == input.queue and one.out is None
        if there and one is not None:
            self._ends(input.id, "edited")
            self.messages[input.new_id] = dataclasses.replace(one, body=input.body)
        if reply is not (there or input.new_id in self.messages):
            raise Broken(f"an edit is answered by {reply}; the message is {one}")

    def _timer(self, timer_id: str, commands: list[Any], gone: list[str], now_ms: int) -> None:
        kind, _, rest = timer_id.partition("/")
        if kind == "redeliver":
            for one in commands:
                if isinstance(one, Delete) and one.table == "deliveries":
                    if self.out[str(one.key)][1] != rest:
                        raise Broken(f"{timer_id} brings back {one.key}, which {self.out[str(one.key)]} has")
                    self._lost(str(one.key), now_ms, counts=self.local)
        elif kind == "expiry":
            for key in gone:
                self._expired(key, rest, now_ms)
        elif kind == "purge":
            queue, mark_ms = self.purges[timer_id]
            for key in gone:
                if self._at_rest(key, queue, "is purged").sent_ms > mark_ms:
                    raise Broken(f"message {key} was sent after the mark of {timer_id}")
                self._ends(key, "purged")
        elif gone:
            raise Broken(f"{timer_id} took messages away: {gone}")

    # The rows.

    def judge(self, tables: Tables) -> None:
        """Whether all rows are as the model has them. Raises `Broken`."""
        rows = {
            row.id: (row.queue, row.body, row.sent_ms, row.ready_ms, row.attempts, row.losses, row.pulled, row.delivery, row.dead_of)
            for row in tables.messages
        }
        wanted: dict[str, Any] = {key: dataclasses.astuple(one) for key, one in self.messages.items()}
        if rows != wanted:
            wrong = {
                key: (rows.get(key), wanted.get(key), self.over.get(key)) for key in {*rows, *wanted} if rows.get(key) != wanted.get(key)
            }
            raise Broken(f"messages are not as they should be (row, model, end): {wrong}")
        deliveries = {row.id: (row.queue, row.holder, row.messages) for row in tables.deliveries}
        if deliveries != {key: one[:3] for key, one in self.out.items()}:
            raise Broken(f"deliveries are {deliveries}; they should be {self.out}")
        for row in tables.queues:
            kept = self.queue(row.id)
            waits = [self.messages[key] for _, key in self.waiting(row.id)]
            told = (row.waiting, row.waiting_bytes, row.paused, row.retention_ms, row.visibility_ms, row.max_retries, row.dead_letter)
            told_too = (kept.paused, kept.retention_ms, kept.visibility_ms, kept.max_retries, kept.dead_letter)
            if told != (len(waits), sum(len(one.body) for one in waits), *told_too):
                raise Broken(f"queue {row} should have {len(waits)} messages, and be {kept}")
            counter = tables.counters.rows.get(f"queue/{row.id}")
            places = sum(queue == row.id for queue, _, _, _ in self.out.values())
            if (0 if counter is None else counter.running) != places:
                raise Broken(f"{counter} counts the {places} deliveries of {row.id}")
