"""Actors: who has one in memory, what it stores, and its alarm.

What is leased is the **activation**, not the call: a new one takes the next fence, and what an older one says changes nothing any
more. Calls are not known here. What an activation stores comes in **units**, each one input: its entries and its alarm's timer, all
or nothing. Units are numbered, so that one given again is known, and none is applied behind one that was refused.

The alarm's timer is there while an alarm is pending and none is running. When it is due the alarm is marked as running, which its
answer ends; an alarm that was running on a node whose epoch is over goes off again.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from stepwell.engine.commands import Command, Delete, Effect, Put, Refuse, Reply, SetRow, TimerSet
from stepwell.engine.inputs_actors import Activated, ActorActivated, ActorsReleased, ActorWrote, AlarmAnswered
from stepwell.engine.model import Timer, TimerKind
from stepwell.engine.model_actors import Actor, ActorEntry
from stepwell.engine.selection import CLEAR_AT_ONCE, REFIRE_AT_ONCE, WHOLE_KEYS, is_small
from stepwell.engine.tables import entries_value
from stepwell.engine.timing import jitter
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import Conflict
from stepwell.protocol.actors import RETRIES_MAX

RETRY_S = (2, 4, 8, 16, 32, 64)
"""How long after a failure the alarm goes off again; after the last it is dropped."""

JITTER_SHARE = 4
"""Each wait is lengthened by up to this part of it, by a hash of the alarm's identity."""


class AlarmFired(Effect, frozen=True):
    """An alarm goes off: its actor is to be activated, wherever it lives, and told."""

    kind: str
    name: str
    firing: int
    scheduled_ms: int
    retry_count: int


class StaleActivation(Conflict):
    """Another activation has the actor, or a unit before this one was refused: nothing was stored."""


class ActorElsewhere(Conflict):
    """Another node that lives has the actor in memory."""


# Activations.


def select_activated(activated: ActorActivated) -> list[Selection]:
    """The actor, with its entries where they are few, and whether its holder lives."""
    return [Select("actors", (activated.kind, activated.name), ("entries", "holder"))]


def on_actor_activated(view: View, activated: ActorActivated, now_ms: int) -> list[Command | Effect]:
    """Take the next fence. The same input once more takes another one, which makes the first harmless."""
    actor = view.actor(activated.kind, activated.name)
    if actor is None:
        # Not 1: a row goes with its last activation, where nothing was stored, and its fences must not come again.
        row = Actor(kind=activated.kind, name=activated.name, fence=now_ms, holder=activated.holder)
        return [Put(row), Reply(Activated(row.fence, None, (), True))]
    if actor.holder is not None and actor.holder != activated.holder and not is_over(view, actor.holder):
        return [Refuse(ActorElsewhere(f"actor {actor.kind}/{actor.name} lives on node {actor.holder}"))]
    row = msgspec.structs.replace(actor, fence=max(actor.fence + 1, now_ms), holder=activated.holder, written=0)
    entries: list[ActorEntry] = []
    if actor.entries and is_small(actor):
        entries = view.scan("actor_entries", entries_value(actor), WHOLE_KEYS + 1)
    told = tuple((entry.key, entry.value) for entry in entries)
    return [SetRow(row), Reply(Activated(row.fence, row.alarm_ms, told, is_small(actor)))]


def is_over(view: View, holder: str) -> bool:
    """Whether a node's epoch has ended: its row is gone, or the cursor is at work that brings back what it held."""
    return view.holder(holder) is None or view.timer(f"return/{holder}") is not None


def select_released(released: ActorsReleased) -> list[Selection]:
    """The actors."""
    return [Select("actors", (kind, name)) for kind, name, _ in released.actors]


def on_actors_released(view: View, released: ActorsReleased) -> list[Command | Effect]:
    """Nobody has them in memory. One that has stored nothing leaves no row behind."""
    commands: list[Command | Effect] = []
    for kind, name, fence in released.actors:
        actor = view.actor(kind, name)
        if actor is None or actor.fence != fence or actor.holder is None:
            continue
        commands.append(kept(msgspec.structs.replace(actor, holder=None)))
    return [*commands, Reply(None)]


def kept(actor: Actor) -> Command:
    """The actor's row as it is now; none for one that nobody has in memory and nobody would miss."""
    return Delete("actors", (actor.kind, actor.name)) if actor.holder is None and is_empty(actor) else SetRow(actor)


def is_empty(actor: Actor) -> bool:
    """Whether nothing would be missed. A generation stays: the cursor that clears an older one may still be at work."""
    return not actor.entries and not actor.generation and actor.alarm_ms is None and actor.firing is None and actor.error is None


# Units.


def select_wrote(wrote: ActorWrote) -> list[Selection]:
    """The actor, and its alarm's timer where that changes."""
    chosen: list[Selection] = [Select("actors", (wrote.kind, wrote.name))]
    if wrote.alarm is not msgspec.UNSET:
        chosen.append(Select("timers", alarm_timer(wrote.kind, wrote.name)))
    return chosen


def select_wrote_entries(view: View, wrote: ActorWrote) -> list[Selection]:
    """The entries that a unit replaces or takes away."""
    actor = view.actor(wrote.kind, wrote.name)
    if actor is None or actor.fence != wrote.fence or wrote.clear:
        return []
    of_actor = (wrote.kind, wrote.name, actor.generation)
    return [Select("actor_entries", (*of_actor, key)) for key in (*wrote.deletes, *(key for key, _ in wrote.puts))]


def on_actor_wrote(view: View, wrote: ActorWrote, now_ms: int) -> list[Command | Effect]:
    """Store the unit."""
    actor = view.actor(wrote.kind, wrote.name)
    if actor is None or actor.fence != wrote.fence:
        return [Refuse(StaleActivation(f"actor {wrote.kind}/{wrote.name} has been activated elsewhere"))]
    if wrote.number <= actor.written:
        return [Reply(None)]  # the same input once more: its first commit's answer was lost
    if wrote.number != actor.written + 1:
        return [Refuse(StaleActivation(f"actor {wrote.kind}/{wrote.name}: unit {actor.written + 1} was not stored"))]
    actor = msgspec.structs.replace(actor, written=wrote.number)
    commands: list[Command | Effect] = []
    if wrote.clear and actor.entries:
        commands += clear_later(actor, now_ms)
        actor = msgspec.structs.replace(actor, generation=actor.generation + 1, entries=0, bytes=0)
    actor, stored = store(view, actor, wrote)
    commands += stored
    if wrote.alarm is not msgspec.UNSET:
        actor, timer = set_alarm(view, actor, wrote.alarm)
        commands += timer
    return [SetRow(actor), *commands, Reply(None)]


def store(view: View, actor: Actor, wrote: ActorWrote) -> tuple[Actor, list[Command | Effect]]:
    """The unit's entries, and what the actor has then."""
    commands: list[Command | Effect] = []
    entries, size = actor.entries, actor.bytes
    of_actor = (actor.kind, actor.name, actor.generation)
    if not wrote.clear:
        view.require(select_wrote_entries(view, wrote))
    for key in wrote.deletes:
        before: ActorEntry | None = None if wrote.clear else view.get("actor_entries", (*of_actor, key))
        if before is not None:
            commands.append(Delete("actor_entries", (*of_actor, key)))
            entries -= 1
            size -= size_of(before)
    for key, value in wrote.puts:
        before = None if wrote.clear else view.get("actor_entries", (*of_actor, key))
        entry = ActorEntry(kind=actor.kind, name=actor.name, generation=actor.generation, key=key, value=value)
        size += size_of(entry)
        if before is None:
            commands.append(Put(entry))
            entries += 1
        else:
            commands.append(SetRow(entry))
            size -= size_of(before)
    return msgspec.structs.replace(actor, entries=entries, bytes=size), commands


def size_of(entry: ActorEntry) -> int:
    """What an entry counts."""
    return len(entry.key.encode()) + len(entry.value)


def clear_later(actor: Actor, now_ms: int) -> list[Command | Effect]:
    """The cursor that takes the entries of this generation away; from now on nobody sees them."""
    timer = Timer(
        id=f"clear/{actor.kind}/{actor.generation}/{actor.name}",
        due_ms=now_ms,
        kind=TimerKind.CLEAR,
        ref=entries_value(actor),
    )
    return [Put(timer), TimerSet(timer.id, now_ms)]


def on_clear(view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of the cursor."""
    old: list[ActorEntry] = view.scan("actor_entries", timer.ref, CLEAR_AT_ONCE)
    gone = [Delete("actor_entries", (entry.kind, entry.name, entry.generation, entry.key)) for entry in old]
    if view.more("actor_entries", timer.ref, CLEAR_AT_ONCE):
        return [*gone, TimerSet(timer.id, now_ms)]
    return [*gone, Delete("timers", timer.id)]


# Alarms.


def alarm_timer(kind: str, name: str) -> str:
    """The id of an actor's alarm's timer."""
    return f"alarm/{kind}/{name}"


def set_alarm(view: View, actor: Actor, alarm_ms: int | None) -> tuple[Actor, list[Command | Effect]]:
    """Another alarm in place of the pending one, or none. While one runs, the new one waits for its end, and replaces its retry."""
    if alarm_ms is None and actor.firing is not None:
        actor = msgspec.structs.replace(actor, fired_ms=None)
    actor = msgspec.structs.replace(actor, alarm_ms=alarm_ms, alarm_retry=0)
    if alarm_ms is None:
        timer_id = alarm_timer(actor.kind, actor.name)
        return actor, [] if view.timer(timer_id) is None else [Delete("timers", timer_id)]
    return actor, [] if actor.firing is not None else due(actor, alarm_ms)


def due(actor: Actor, due_ms: int) -> list[Command | Effect]:
    """The alarm's timer."""
    timer_id = alarm_timer(actor.kind, actor.name)
    timer = Timer(id=timer_id, due_ms=due_ms, kind=TimerKind.ALARM, ref=f"{actor.kind}/{actor.name}")
    return [SetRow(timer), TimerSet(timer_id, due_ms)]


def on_alarm_due(view: View, timer: Timer, holder: str) -> list[Command | Effect]:
    """The alarm goes off."""
    kind, _, name = timer.ref.partition("/")
    actor = view.actor(kind, name)
    assert actor is not None and actor.alarm_ms is not None and actor.firing is None, f"timer {timer.id} has outlived its alarm"
    running = msgspec.structs.replace(
        actor,
        alarm_ms=None,
        alarm_retry=0,
        firing=holder,
        fired_ms=actor.alarm_ms,
        fired_retry=actor.alarm_retry,
        firings=actor.firings + 1,
    )
    fired = AlarmFired(kind, name, running.firings, actor.alarm_ms, actor.alarm_retry)
    return [Delete("timers", timer.id), SetRow(running), fired]


def select_alarm_answered(answered: AlarmAnswered) -> list[Selection]:
    """The actor and its alarm's timer."""
    return [Select("actors", (answered.kind, answered.name)), Select("timers", alarm_timer(answered.kind, answered.name))]


def on_alarm_answered(view: View, answered: AlarmAnswered, now_ms: int) -> list[Command | Effect]:
    """The alarm's run has ended: what was set meanwhile is next, else a failed one again after a while, else nothing."""
    actor = view.actor(answered.kind, answered.name)
    if actor is None or actor.firing is None or actor.firings != answered.firing:
        return [Reply(None)]
    actor, commands = ended(actor, answered, now_ms)
    return [kept(actor), *commands, Reply(None)]


def ended(actor: Actor, answered: AlarmAnswered, now_ms: int) -> tuple[Actor, list[Command | Effect]]:
    """The actor after its alarm's run, and its next timer."""
    fired_ms, retries = actor.fired_ms, actor.fired_retry
    actor = msgspec.structs.replace(actor, firing=None, fired_ms=None, fired_retry=0)
    if answered.outcome != "lost":
        actor = msgspec.structs.replace(actor, error=answered.error)
    if actor.alarm_ms is not None:
        return actor, due(actor, actor.alarm_ms)
    if answered.outcome == "ok" or fired_ms is None:
        return actor, []
    if answered.outcome == "lost":
        return again(actor, fired_ms, retries, now_ms)
    if retries == RETRIES_MAX:
        return actor, []
    return again(actor, fired_ms, retries + 1, now_ms + retry_ms(actor, fired_ms, retries))


def again(actor: Actor, alarm_ms: int, retries: int, due_ms: int) -> tuple[Actor, list[Command | Effect]]:
    """The same alarm, later. Its own time stays what it was."""
    actor = msgspec.structs.replace(actor, alarm_ms=alarm_ms, alarm_retry=retries)
    return actor, due(actor, due_ms)


def retry_ms(actor: Actor, scheduled_ms: int, retries: int) -> int:
    """How long after its failure an alarm goes off again."""
    wait_ms = RETRY_S[retries] * 1000
    return wait_ms + jitter(f"{actor.kind}/{actor.name}/{scheduled_ms}/{retries}", wait_ms // JITTER_SHARE)


# Epochs.


def refire_later(view: View, others: Iterable[str], now_ms: int) -> list[Command | Effect]:
    """For each epoch that is over, the cursor that has the alarms go off again which it was running."""
    commands: list[Command | Effect] = []
    for other in others:
        if view.holder(other) is not None:
            timer = Timer(id=f"refire/{other}", due_ms=now_ms, kind=TimerKind.REFIRE, ref=other)
            commands += [SetRow(timer), TimerSet(timer.id, now_ms)]
    return commands


def select_refire(others: Iterable[str]) -> list[Selection]:
    """The cursors' timers, which may be there."""
    return [Select("timers", f"refire/{other}") for other in others]


def on_refire(view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of the cursor."""
    running: list[Actor] = view.scan("firing_actors", timer.ref, REFIRE_AT_ONCE)
    view.require(Select("timers", alarm_timer(actor.kind, actor.name)) for actor in running)
    more = view.more("firing_actors", timer.ref, REFIRE_AT_ONCE)
    commands: list[Command | Effect] = []
    for actor in running:
        actor, timers = ended(actor, AlarmAnswered(actor.kind, actor.name, actor.firings, "lost"), now_ms)
        commands += [kept(actor), *timers]
    return [*commands, TimerSet(timer.id, now_ms) if more else Delete("timers", timer.id)]
