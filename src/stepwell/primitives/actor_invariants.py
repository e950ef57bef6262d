"""What holds for actors after every commit: each a sentence, for tests and simulations."""

from __future__ import annotations

from collections import Counter

from stepwell.engine.model import TimerKind
from stepwell.engine.model_actors import Actor
from stepwell.engine.tables import Tables
from stepwell.primitives.actor import alarm_timer, size_of
from stepwell.protocol.actors import RETRIES_MAX


def actor_violations(tables: Tables) -> list[str]:
    """What does not hold."""
    wrong: list[str] = []
    for actor in tables.actors:
        wrong += of_alarm(tables, actor)
    wrong += of_entries(tables)
    actors = {alarm_timer(actor.kind, actor.name) for actor in tables.actors}
    wrong += [f"{timer.id} has no actor" for timer in tables.timers if timer.kind is TimerKind.ALARM and timer.id not in actors]
    return wrong


def of_alarm(tables: Tables, actor: Actor) -> list[str]:
    """The alarm's timer is there exactly while one is pending and none is running."""
    who, wrong = f"{actor.kind}/{actor.name}", []
    has_timer = alarm_timer(actor.kind, actor.name) in tables.timers.rows
    if has_timer != (actor.alarm_ms is not None and actor.firing is None):
        wrong.append(f"{who}: the alarm is {actor.alarm_ms}, running {actor.firing}, and its timer is {'' if has_timer else 'not '}there")
    if actor.firing is None and actor.fired_ms is not None:
        wrong.append(f"{who}: no alarm runs, but there is one that may be tried again")
    if not 0 <= actor.alarm_retry <= RETRIES_MAX or not 0 <= actor.fired_retry <= RETRIES_MAX:
        wrong.append(f"{who}: its alarm has failed {max(actor.alarm_retry, actor.fired_retry)} times and is tried again")
    return wrong


def of_entries(tables: Tables) -> list[str]:
    """An actor counts its entries; those of an older generation are on their way out, and there are none of a later one."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for entry in tables.actor_entries:
        key = (entry.kind, entry.name)
        actor = tables.actors.rows.get(key)
        if actor is not None and entry.generation == actor.generation:
            counts[key] += 1
            sizes[key] += size_of(entry)
        elif f"clear/{entry.kind}/{entry.generation}/{entry.name}" not in tables.timers.rows:
            wrong.append(f"{entry.kind}/{entry.name}: the entry {entry.key!r} of generation {entry.generation} is nobody's, and stays")
    for actor in tables.actors:
        key = (actor.kind, actor.name)
        if (actor.entries, actor.bytes) != (counts[key], sizes[key]):
            wrong.append(f"{key} counts {actor.entries} entries of {actor.bytes} bytes; it has {counts[key]} of {sizes[key]}")
    return wrong
