"""From waiting messages to deliveries: whole batches at once, a part of one when its first message has waited long enough.

A function that a queue triggers gets no batches: each message starts a run of it, and is gone with that.
"""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Charge, Command, Delete, Effect, Put, Reply, SetRow, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import event_body, stored
from stepwell.engine.flow.gates import OPEN, Gates
from stepwell.engine.flow.scheduling import Wish, ask_for_event, select_asked
from stepwell.engine.inputs_primitives import QueueClaimed
from stepwell.engine.model import EventRow, Timer, TimerKind
from stepwell.engine.model_primitives import Delivery, Message, Queue, places_of
from stepwell.engine.registry import Function, Registry
from stepwell.engine.view import Scan, Select, Selection, View
from stepwell.primitives.queue import Backlog, LeaseMessage, Ledger, QueueStirred, first_messages, select_queue
from stepwell.protocol.codec import Json, canonical, canonicalize
from stepwell.protocol.events import Event
from stepwell.protocol.ids import derived_ulid, run_ulid, ulid, ulid_ms
from stepwell.protocol.queues import Consumer, event_name

DELIVERIES_AT_ONCE = 4
"""Batches that one claim takes at most."""

STARTS_AT_ONCE = 50
"""Messages that one claim starts runs for at most."""

ONE_BY_ONE = Consumer(max_batch_size=1)
"""How messages are waited for that start runs."""


class Deliver(Effect, frozen=True):
    """A delivery's call is to go out. `backlog` is what waits behind it."""

    delivery: Delivery
    messages: tuple[Message, ...]
    backlog: Backlog


class Delivered(msgspec.Struct, frozen=True):
    """The reply to `QueueClaimed`: how many deliveries go out, and whether there may be more to take."""

    deliveries: int
    more: bool


def looked_at(function: Function, room: int) -> int:
    """How many messages one claim looks at."""
    consumer = function.config.consumer
    return STARTS_AT_ONCE if consumer is None else min(room, DELIVERIES_AT_ONCE) * consumer.max_batch_size


def select_queue_claimed(registry: Registry, claimed: QueueClaimed) -> list[Selection]:
    """The queue with its first messages, and the deliveries that these might become."""
    function = registry.consumers.get(claimed.queue)
    if function is None:
        return []
    return [
        *select_queue(claimed.queue),
        Select("counters", places_of(claimed.queue)),
        Select("timers", f"queue/{claimed.queue}"),
        Select("deliveries", delivery_id(claimed, 0)),
        Scan("queue_messages", claimed.queue, looked_at(function, claimed.room)),
    ]


def delivery_id(claimed: QueueClaimed, nth: int) -> str:
    """A delivery's id: a ULID, always the same for the same claim."""
    return claimed.claim_id if nth == 0 else derived_ulid(ulid_ms(claimed.claim_id), claimed.claim_id, str(nth))


def on_queue_claimed(registry: Registry, view: View, claimed: QueueClaimed, now_ms: int) -> list[Command | Effect]:
    """Deliver what is ready, as far as there is room."""
    function = registry.consumers.get(claimed.queue)
    queue = None if function is None else view.get("queues", claimed.queue)
    if function is None or queue is None or queue.paused or function.row.paused:
        return [Reply(Delivered(0, more=False))]
    if view.get("deliveries", delivery_id(claimed, 0)) is not None:
        # The same claim once more: its first commit's answer was lost. The node finds that it has no calls in hand for them.
        return [Reply(Delivered(0, more=False))]
    found = first_messages(view, claimed.queue, looked_at(function, claimed.room))
    old = [message for message in found if message.ready_ms + queue.retention_ms <= now_ms]
    waiting = found[len(old) :]
    # Where there are more behind those that were looked at, and these are all ready, the others may be ready too.
    behind = queue.waiting > len(found)
    more = behind and not (waiting and waiting[-1].ready_ms > now_ms)
    ledger = Ledger(view, now_ms)
    commands: list[Command | Effect] = []
    for message in old:
        ledger.goes(message)
        commands.append(Delete("messages", message.id))
    if function.config.consumer is None:
        begun, many = start_runs(registry, view, ledger, function, waiting, now_ms)
        left = waiting[many:]
        more = more or bool(left and left[0].ready_ms <= now_ms)
        if not more:
            commands += wake_later(view, claimed.queue, left, ONE_BY_ONE, behind=behind)
        return [*commands, *begun, *ledger.commands(), Reply(Delivered(0, more))]
    consumer = function.config.consumer
    free = consumer.max_concurrency - view.running(places_of(claimed.queue))
    batches = batched(waiting, consumer, now_ms, whole=not more)
    taken = batches[: max(0, min(claimed.room, DELIVERIES_AT_ONCE, free))]
    for nth, batch in enumerate(taken):
        commands += lease(ledger, claimed, nth, function, batch, now_ms)
    left = waiting[sum(map(len, taken)) :]
    more = (more or len(taken) < len(batches)) and free > len(taken)
    if not more and len(taken) == len(batches):
        commands += wake_later(view, claimed.queue, left, consumer, behind=behind)
    if taken:
        commands.append(Charge(places_of(claimed.queue), len(taken)))
        commands = with_backlog(commands, ledger.queue(claimed.queue), left or taken[-1][-1:])
    return [*commands, *ledger.commands(), Reply(Delivered(len(taken), more))]


def with_backlog(commands: list[Command | Effect], queue: Queue, next_ones: list[Message]) -> list[Command | Effect]:
    """The deliveries told what waits behind all of them."""
    backlog = Backlog(queue.waiting, queue.waiting_bytes, next_ones[0].sent_ms if queue.waiting else None)
    return [msgspec.structs.replace(one, backlog=backlog) if isinstance(one, Deliver) else one for one in commands]


def batched(messages: list[Message], consumer: Consumer, now_ms: int, *, whole: bool) -> list[list[Message]]:
    """The batches that may go out now: those that are full, and one that is not, if its first message has waited long enough.

    Unless these are the `whole` of what is ready, the last one may be filled by what is behind.
    """
    ready = [message for message in messages if message.ready_ms <= now_ms]
    size = consumer.max_batch_size
    batches = [ready[start : start + size] for start in range(0, len(ready), size)]
    if batches and len(batches[-1]) < size and not (whole and batches[-1][0].ready_ms + consumer.max_batch_timeout_ms <= now_ms):
        batches.pop()
    return batches


def lease(ledger: Ledger, claimed: QueueClaimed, nth: int, function: Function, batch: list[Message], now_ms: int) -> list[Command | Effect]:
    """One batch goes out."""
    delivery = Delivery(
        id=delivery_id(claimed, nth),
        queue=claimed.queue,
        function_id=function.id,
        holder=claimed.holder,
        messages=tuple(message.id for message in batch),
        leased_ms=now_ms,
    )
    out = []
    for message in batch:
        ledger.goes(message)
        out.append(msgspec.structs.replace(message, delivery=delivery.id, attempts=message.attempts + 1, pulled=False))
    leases = [LeaseMessage(message.id, delivery.id, message.attempts) for message in out]
    return [Put(delivery), *leases, Deliver(delivery, tuple(out), Backlog(0, 0))]


def wake_later(view: View, queue: str, left: list[Message], consumer: Consumer, *, behind: bool) -> list[Command | Effect]:
    """Look again when what is left becomes a batch, by its size or by its age; a timer that comes sooner does as well."""
    if not left:
        return []
    # Where fewer than a batch are left and those `behind` were not looked at: once the last of these is ready, they may be too.
    full_ms = left[min(consumer.max_batch_size, len(left)) - 1].ready_ms
    due_ms = left[0].ready_ms + consumer.max_batch_timeout_ms
    if len(left) >= consumer.max_batch_size or behind:
        due_ms = min(due_ms, full_ms)
    timer: Timer | None = view.timer(f"queue/{queue}")
    if timer is not None and timer.due_ms <= due_ms:
        return []
    wake = Timer(id=f"queue/{queue}", due_ms=due_ms, kind=TimerKind.QUEUE, ref=queue)
    return [SetRow(wake), TimerSet(wake.id, due_ms)]


def on_queue_due(timer: Timer) -> list[Command | Effect]:
    """A batch may be ready: whoever has room for it claims."""
    return [Delete("timers", timer.id), QueueStirred(timer.ref)]


# Runs in place of batches.


def start_runs(
    registry: Registry, view: View, ledger: Ledger, function: Function, waiting: list[Message], now_ms: int
) -> tuple[list[Command | Effect], int]:
    """A run for each message that waits now, through the function's own settings. Also says how many messages those were."""
    commands: list[Command | Effect] = []
    decision = Decision(registry, view, now_ms)
    events = [stored(event_of_message(message)) for message in waiting if message.ready_ms <= now_ms]
    gates_of = [function.rules.gates(event_body(event), now_ms) if function.gated else OPEN for event in events]
    view.require([selection for event, gates in zip(events, gates_of, strict=True) for selection in select_start(function, event, gates)])
    many = 0
    for message, event, gates in zip(waiting, events, gates_of, strict=False):
        if view.event(event.id) is not None:
            # The same message was sent once more when it had started its run.
            commands.append(Delete("messages", message.id))
            ledger.goes(message)
            many += 1
            continue
        wish = Wish(
            function=function,
            run_id=run_ulid(event.received_ms, function.id, event.id),
            event_ids=(event.id,),
            cause="event",
            origin=None,
            due_ms=event.ts,
            body=lambda event=event: event_body(event),  # type: ignore[misc]
            gates=gates,
        )
        if gates.name is not None and function.rules.singleton is not None and decision.ledger.is_taken_here(gates.name):
            break  # the next claim sees what this one makes
        commands += [Put(event), Delete("messages", message.id), *ask_for_event(decision, wish, event)]
        ledger.goes(message)
        many += 1
    return [*commands, *settle(decision)], many


def select_start(function: Function, event: EventRow, gates: Gates) -> list[Selection]:
    """What starting a run for a message looks at."""
    return [Select("events", event.id), *select_asked(function, gates)]


def event_of_message(message: Message) -> Event:
    """The event by which a message starts a run: its data is the body, put under `body` where that is no object."""
    event_id = ulid(int(message.id, 16) >> 80, (int(message.id, 16) & ((1 << 80) - 1)).to_bytes(10, "big"))
    return Event(
        internal_id=event_id,
        id=event_id,
        name=event_name(message.queue),
        data=event_data(message),
        user=b"{}",
        ts=message.sent_ms,
        v=None,
        meta=None,
        received_ms=message.sent_ms,
    )


def event_data(message: Message) -> Json:
    """A message's body as an event's data."""
    match message.content_type:
        case "json":
            body = canonicalize(message.body)
            return body if body[:1] == b"{" else b'{"body":' + body + b"}"
        case "text":
            return canonical({"body": message.body.decode()})
        case _:
            return msgspec.json.encode({"body": message.body})
