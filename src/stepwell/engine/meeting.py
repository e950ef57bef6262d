"""An event meets the runs that wait for it: waiting steps go on, runs with a cancel rule end.

Waits are found by the lookup keys of the event's topic, in the order in which they were made. A first few are met with the event
itself; where there are more, a cursor goes on, and it meets only waits that were there when the event was committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engine.advance import advance_of
from stepwell.engine.commands import Command, Delete, Effect, Put, SetRow, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import body_of, wire_of
from stepwell.engine.model import EventRow, RunStatus, Timer, TimerKind, Topic, Wait
from stepwell.engine.registry import Registry
from stepwell.engine.resume import resume
from stepwell.engine.run import CANCEL_PREFIX
from stepwell.engine.selection import MEET_AT_ONCE, MEET_BY_CURSOR
from stepwell.engine.tables import behind
from stepwell.engine.topics import holds, lookups
from stepwell.engine.view import Scan, View


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a cursor stands: a lookup key, the serial of the wait met last, and that of the last one to meet."""

    lookup: str
    after: int
    upto: int


def place_of(timer: Timer) -> Place:
    """The place of a `MEET` timer."""
    return msgspec.json.decode(timer.after, type=Place)


def first_waits(topic: Topic, body: Mapping[str, Any]) -> list[Scan]:
    """The first waits under each of an event's lookup keys, with what they resume."""
    return [Scan("waits_of", behind(lookup, 0), MEET_AT_ONCE, ("resume",)) for lookup in lookups(topic, body)]


class Meeting:
    """One event and its waits. `met` says whether it resumed or ended a run."""

    def __init__(self, decision: Decision, event: EventRow) -> None:
        self._decision, self._event = decision, event
        self._body = body_of(decision.view, event)
        self.met = False

    def now(self, topic: Topic) -> list[Command | Effect]:
        """Meet the first waits under each key, and leave the others to a cursor for each key."""
        view = self._decision.view
        waits: list[Wait] = []
        commands: list[Command | Effect] = []
        for lookup in lookups(topic, self._body):
            found = view.scan("waits_of", behind(lookup, 0), MEET_AT_ONCE)
            waits += found
            # Others of this group may have ended what was found: that nothing is left here says nothing of those that were not read.
            if view.more("waits_of", behind(lookup, 0), MEET_AT_ONCE):
                commands += self._cursor(Place(lookup, found[-1].serial if found else 0, topic.serial))
        self.meet(waits)
        return commands

    def later(self, topic: Topic) -> list[Command | Effect]:
        """Leave all waits that the event may find to cursors."""
        view = self._decision.view
        commands: list[Command | Effect] = []
        for lookup in lookups(topic, self._body):
            scan = behind(lookup, 0)
            if view.scan("waits_of", scan, MEET_AT_ONCE) or view.more("waits_of", scan, MEET_AT_ONCE):
                commands += self._cursor(Place(lookup, 0, topic.serial))
        return commands

    def meet(self, waits: list[Wait]) -> None:
        """Resume or end the runs of those waits that are for this event, each run once."""
        decision = self._decision
        by_run: dict[str, list[Wait]] = {}
        for wait in waits:
            if holds(wait, self._body, decision.now_ms):
                by_run.setdefault(wait.run_id, []).append(wait)
        for run_id, held in by_run.items():
            run = decision.view.run(run_id)
            if run is None or run.ended_ms is not None:
                continue
            self.met = True
            advance = advance_of(decision, run)
            if any(wait.id.startswith(CANCEL_PREFIX) for wait in held):
                advance.ends(RunStatus.CANCELLED, None, f"event {self._event.name}")
                continue
            for wait in held:
                resume(advance, wait.id, wire_of(decision.view, self._event), ref=self._event.id, job="-event")

    def _cursor(self, place: Place) -> list[Command | Effect]:
        timer = Timer(
            id=f"meet/{self._event.id}/{place.lookup}",
            due_ms=self._decision.now_ms,
            kind=TimerKind.MEET,
            ref=self._event.id,
            after=msgspec.json.encode(place).decode(),
        )
        return [Put(timer), TimerSet(timer.id, timer.due_ms)]


def on_meet(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of a cursor over the waits under one key."""
    event = view.event(timer.ref)
    assert event is not None, f"cursor {timer.id} has lost its event"
    place = place_of(timer)
    decision = Decision(registry, view, now_ms)
    scan = behind(place.lookup, place.after)
    found: list[Wait] = view.scan("waits_of", scan, MEET_BY_CURSOR)
    waits = [wait for wait in found if wait.serial <= place.upto]
    Meeting(decision, event).meet(waits)
    commands: list[Command | Effect] = []
    if len(waits) == len(found) and view.more("waits_of", scan, MEET_BY_CURSOR):
        after = Place(place.lookup, waits[-1].serial if waits else place.after, place.upto)
        commands.append(SetRow(msgspec.structs.replace(timer, after=msgspec.json.encode(after).decode())))
        commands.append(TimerSet(timer.id, now_ms))
    else:
        commands.append(Delete("timers", timer.id))
    return [*commands, *settle(decision)]
