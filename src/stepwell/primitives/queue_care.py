"""What people do to queues: pause them, purge them, look after their dead letters. And what time does: old messages go."""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, Delete, Effect, Put, Reply, SetRow, TimerSet
from stepwell.engine.inputs_primitives import MessageEdited, MessagesDeleted, MessagesMoved, QueuePurged, QueueSet
from stepwell.engine.model import Timer, TimerKind
from stepwell.engine.model_primitives import Message, Queue
from stepwell.engine.tables import behind
from stepwell.engine.view import Scan, Select, Selection, View
from stepwell.primitives.queue import BuryMessage, Ledger, QueueStirred, expire_at, first_messages, select_queue

SWEEP_QUEUE_AT_ONCE = 500
"""Messages that one step of a purge or of an expiry takes away."""


# Queues.


def on_queue_set(view: View, wanted: QueueSet, now_ms: int) -> list[Command | Effect]:
    """Change what is told; the queue is there from now on."""
    ledger = Ledger(view, now_ms)
    told = {name: value for name in QueueSet.__struct_fields__[1:] if (value := getattr(wanted, name)) is not None}
    queue = msgspec.structs.replace(ledger.queue(wanted.queue), **told)
    ledger.set(queue)
    commands: list[Command | Effect] = [SetRow(queue)] if view.get("queues", queue.id) is None else ledger.commands()
    expiry: Timer | None = view.timer(f"expiry/{queue.id}")
    if expiry is not None and wanted.retention_ms is not None:
        commands += expire_at(queue.id, now_ms)
    return [*commands, QueueStirred(queue.id), Reply(queue)]


def on_queue_purged(purged: QueuePurged, now_ms: int) -> list[Command | Effect]:
    """A cursor takes away what waits now; what is out may come back."""
    mark = f"{purged.mark_ms} "
    timer = Timer(id=f"purge/{purged.queue}/{purged.mark_ms}", due_ms=now_ms, kind=TimerKind.PURGE, ref=purged.queue, after=mark)
    return [SetRow(timer), TimerSet(timer.id, now_ms), Reply(None)]


def select_purged(purged: QueuePurged) -> list[Selection]:
    """The cursor, which a repeated input finds."""
    return [Select("timers", f"purge/{purged.queue}/{purged.mark_ms}")]


def on_purge(view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step: messages sent until the mark, behind the place where the last step ended."""
    mark, _, place = timer.after.partition(" ")
    scan = behind(timer.ref, place)
    view.require([*select_queue(timer.ref), Scan("queue_messages", scan, SWEEP_QUEUE_AT_ONCE)])
    messages = first_messages(view, scan, SWEEP_QUEUE_AT_ONCE)
    ledger = Ledger(view, now_ms)
    commands: list[Command | Effect] = []
    for message in messages:
        if message.sent_ms <= int(mark):
            ledger.goes(message)
            commands.append(Delete("messages", message.id))
    if view.more("queue_messages", scan, SWEEP_QUEUE_AT_ONCE):
        after = f"{mark} {place_of(messages[-1]) if messages else place}"
        return [*commands, *ledger.commands(), SetRow(msgspec.structs.replace(timer, after=after)), TimerSet(timer.id, now_ms)]
    return [*commands, *ledger.commands(), Delete("timers", timer.id)]


def place_of(message: Message) -> str:
    """A message's place in its queue, as scans go on behind it."""
    return f"{message.ready_ms} {message.id}"


def on_expiry(view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """Messages that were kept as long as the queue says go; the timer comes back for the oldest of the others."""
    view.require([*select_queue(timer.ref), Scan("queue_messages", timer.ref, SWEEP_QUEUE_AT_ONCE)])
    queue: Queue | None = view.get("queues", timer.ref)
    messages = first_messages(view, timer.ref, SWEEP_QUEUE_AT_ONCE)
    if queue is None or not (messages or view.more("queue_messages", timer.ref, SWEEP_QUEUE_AT_ONCE)):
        return [Delete("timers", timer.id)]
    ledger = Ledger(view, now_ms)
    old = [message for message in messages if message.ready_ms + queue.retention_ms <= now_ms]
    for message in old:
        ledger.goes(message)
    due_ms = now_ms if len(old) == len(messages) else messages[len(old)].ready_ms + queue.retention_ms
    gone = [Delete("messages", message.id) for message in old]
    return [*gone, *ledger.commands(), *expire_at(timer.ref, due_ms)]


# Messages.


def select_messages(queue: str, ids: tuple[str, ...]) -> list[Selection]:
    """The queue and messages of it."""
    return [*select_queue(queue), *(Select("messages", message_id) for message_id in ids)]


def at_rest(view: View, queue: str, ids: tuple[str, ...]) -> list[Message]:
    """Those of the messages that are in the queue and not out."""
    found = [view.get("messages", message_id) for message_id in dict.fromkeys(ids)]
    return [message for message in found if message is not None and message.queue == queue and message.delivery is None]


def on_messages_moved(view: View, moved: MessagesMoved, now_ms: int) -> list[Command | Effect]:
    """Messages wait at once in the queue that is named, or as dead letters in the one they came from; others stay. Replies the ids."""
    ledger = Ledger(view, now_ms)
    commands: list[Command | Effect] = []
    ids = []
    for message in at_rest(view, moved.queue, moved.ids):
        to = moved.to or message.dead_of
        if to is None:
            continue
        view.require(select_queue(to))
        ledger.goes(message)
        ledger.waits(to, len(message.body), now_ms)
        commands.append(BuryMessage(message.id, to, now_ms, None, None))
        ids.append(message.id)
    return [*commands, *ledger.commands(), Reply(tuple(ids))]


def on_messages_deleted(view: View, deleted: MessagesDeleted, now_ms: int) -> list[Command | Effect]:
    """Take them away; replies the ids of those that were there."""
    ledger = Ledger(view, now_ms)
    messages = at_rest(view, deleted.queue, deleted.ids)
    for message in messages:
        ledger.goes(message)
    gone = [Delete("messages", message.id) for message in messages]
    return [*gone, *ledger.commands(), Reply(tuple(message.id for message in messages))]


def on_message_edited(view: View, edited: MessageEdited, now_ms: int) -> list[Command | Effect]:
    """A new message with the body takes the place of the old one. Replies whether that was there and at rest."""
    found = at_rest(view, edited.queue, (edited.id,))
    if not found:
        return [Reply(view.get("messages", edited.new_id) is not None)]  # a repeated input finds what it has made
    ledger = Ledger(view, now_ms)
    ledger.goes(found[0])
    ledger.waits(edited.queue, len(edited.body), found[0].ready_ms)
    new = msgspec.structs.replace(found[0], id=edited.new_id, body=edited.body, content_type=edited.content_type)
    return [Delete("messages", edited.id), Put(new), *ledger.commands(), Reply(True)]
