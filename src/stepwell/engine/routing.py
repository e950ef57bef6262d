"""From an event to runs: which functions it starts, once each, and the cursor that goes on where there are too many."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.engine.commands import Command, Delete, Effect, Put, ReceiveAgain, Reply, SetRow, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import body_of, event_body, stored
from stepwell.engine.flow.gates import OPEN, Gates
from stepwell.engine.flow.scheduling import Wish, ask_for_event, select_asked
from stepwell.engine.inputs import EventsAccepted, EventsReceived
from stepwell.engine.meeting import Meeting, first_waits
from stepwell.engine.model import EventRow, Timer, TimerKind
from stepwell.engine.registry import Function, Registry
from stepwell.engine.view import Select, Selection, View
from stepwell.protocol.events import Event
from stepwell.protocol.ids import run_ulid
from stepwell.protocol.lifecycle import DEFERRED

FANOUT_MAX = 100
"""Functions that one transition schedules for one event; a cursor does the rest."""

RECEIPTS_MAX = 100
"""How many receipts of one event are counted."""

RUNS_PER_INPUT_MAX = 256
"""Runs that one input of several events makes; the events beyond are routed by cursors."""


class Due(msgspec.Struct, frozen=True):
    """A function that an event starts, and what the event says to its settings."""

    function: Function
    gates: Gates


def matching(registry: Registry, event: EventRow | Event, body: dict[str, Any] | None, now_ms: int, after: str = "") -> list[Due]:
    """The functions behind `after`, by id, that the event starts: a trigger's name fits and its condition is true."""
    due = []
    for function in registry.listening(event.name):
        if function.id <= after:
            continue
        if not function.conditional and not function.gated:
            due.append(Due(function, OPEN))
            continue
        if body is None:
            body = event_body(event)
        # It listens, so the name of one of its triggers fits.
        if not function.conditional or starts(function, event.name, body, now_ms):
            due.append(Due(function, function.rules.gates(body, now_ms) if function.gated else OPEN))
    return due


def starts(function: Function, name: str, body: dict[str, Any], now_ms: int) -> bool:
    """Whether one of the function's triggers wants the event."""
    return any(
        (trigger.event == name or (trigger.event.endswith("*") and name.startswith(trigger.event[:-1])))
        and (trigger.where is None or trigger.where.is_true({"event": body}, now_ms=now_ms))
        for trigger in function.triggers
    )


def select_events(registry: Registry, received: EventsReceived, now_ms: int) -> list[Selection]:
    """Nothing for fresh events that start ungated functions; else what may be there already, and the gates."""
    selections: list[Selection] = []
    for event in received.events:
        if not received.fresh:
            selections.append(Select("events", event.internal_id))
        selections.append(Select("topics", event.name))
        selections += select_due(event.id, event.internal_id, matching(registry, event, None, now_ms))
    return selections


def select_meetings(view: View, received: EventsReceived) -> list[Selection]:
    """Once it is known which of the events something waits for: the first waits that each may find."""
    selections: list[Selection] = []
    for event in received.events:
        topic = view.topic(event.name)
        if topic is not None:
            selections += first_waits(topic, event_body(event))
    return selections


def select_due(key: str, event_id: str, due: list[Due]) -> list[Select]:
    """The dedup rows of runs to be, and what asking for them looks at."""
    selections: list[Select] = []
    for one in due[:FANOUT_MAX]:
        if key != event_id:
            selections.append(Select("dedups", (one.function.id, key)))
        selections += select_asked(one.function, one.gates)
    return selections


def on_events(registry: Registry, view: View, received: EventsReceived, now_ms: int) -> list[Command | Effect]:
    """Store each event that is not there yet, start what it starts, and let it meet who waits for it."""
    commands: list[Command | Effect] = []
    decision = Decision(registry, view, now_ms)
    begun: set[tuple[str, str]] = set()
    budget = RUNS_PER_INPUT_MAX
    met = False
    for event in received.events:
        earlier = None if received.fresh else view.event(event.internal_id)
        if earlier is not None:
            # A repeated send: what it started, it has started.
            if received.seeded and earlier.receipts < RECEIPTS_MAX:
                commands.append(ReceiveAgain(event.internal_id, earlier.receipts + 1))
            continue
        row = stored(event)
        commands.append(Put(row))
        if registry.listening(row.name):
            if budget <= 0:
                commands += route_later(row, "", now_ms, first=True)
            else:
                routed, runs = route(decision, row, begun)
                commands += routed
                budget -= runs
        topic = view.topic(row.name)
        if topic is not None:
            meeting = Meeting(decision, row)
            # What one event does to a run is seen by the next one only when it is committed: one of them meets waits here.
            commands += meeting.later(topic) if met else meeting.now(topic)
            met = met or meeting.met
    commands += settle(decision)
    commands.append(Reply(EventsAccepted(tuple(event.internal_id for event in received.events))))
    return commands


def route(decision: Decision, event: EventRow, begun: set[tuple[str, str]], after: str = "") -> tuple[list[Command | Effect], int]:
    """Start a run of each matching function, `FANOUT_MAX` at most, and leave the rest to a cursor. Also says how many began.

    `begun` holds what this transition has begun already, since two events of one array may bear the same key.
    """
    view, now_ms = decision.view, decision.now_ms
    body = None if event.run_id is None else body_of(view, event)
    due = matching(decision.registry, event, body, now_ms, after)
    commands: list[Command | Effect] = []
    runs = 0
    for i, one in enumerate(due[:FANOUT_MAX]):
        function_id = one.function.id
        if event.key != event.id:
            if (function_id, event.key) in begun:
                continue
            begun.add((function_id, event.key))
            earlier = view.dedup(function_id, event.key)
            if earlier is not None and earlier.expires_ms > now_ms:
                continue
        if is_to_end_what_begins_here(decision, one):
            # The run that has the name is made by this very transition, and can be ended only when that is committed.
            after = due[i - 1].function.id if i else after
            return [*commands, *route_later(event, after, now_ms, first=view.timers.rows.get(f"route/{event.id}") is None)], runs
        wish = Wish(
            function=one.function,
            run_id=run_ulid(event.received_ms, function_id, event.id),
            event_ids=(event.id,),
            cause="event" if event.run_id is None else "lifecycle",
            origin=event.run_id,
            due_ms=event.ts,
            body=lambda: body_of(view, event),
            gates=one.gates,
        )
        commands += ask_for_event(decision, wish, event)
        runs += 1
    if len(due) > FANOUT_MAX:
        commands += route_later(event, due[FANOUT_MAX - 1].function.id, now_ms, first=view.timers.rows.get(f"route/{event.id}") is None)
    return commands, runs


def is_to_end_what_begins_here(decision: Decision, due: Due) -> bool:
    """Whether the run would end a singleton that this transition makes."""
    rule, name_id = due.function.rules.singleton, due.gates.name
    return rule is not None and name_id is not None and rule.mode == "cancel" and decision.ledger.is_taken_here(name_id)


def route_later(event: EventRow, after: str, now_ms: int, *, first: bool) -> list[Command | Effect]:
    """A cursor, due now, that starts the functions behind `after`."""
    timer = Timer(id=f"route/{event.id}", due_ms=now_ms, kind=TimerKind.ROUTE, ref=event.id, after=after)
    # The first step of a cursor is made with its event; a further one takes the place of the step before.
    return [Put(timer) if first else SetRow(timer), TimerSet(timer.id, now_ms)]


def on_route(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of a route cursor. An event of the engine's own, which begins with it, meets who waits for it in the first step."""
    event = view.event(timer.ref)
    assert event is not None, f"route cursor {timer.id} has lost its event"
    decision = Decision(registry, view, now_ms)
    body = None if event.run_id is None else body_of(view, event)
    view.require(select_due(event.key, event.id, matching(registry, event, body, now_ms, timer.after)))
    commands, _ = route(decision, event, set(), timer.after)
    topic = view.topic(event.name)
    if (event.run_id is not None or event.name == DEFERRED) and not timer.after and topic is not None:
        commands += Meeting(decision, event).now(topic)
    if not any(isinstance(command, TimerSet) and command.timer_id == timer.id for command in commands):
        commands.append(Delete("timers", timer.id))
    return [*commands, *settle(decision)]
