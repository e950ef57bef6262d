"""A run that is asked for goes through its function's settings: it waits with others, is dropped or skipped, or is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from stepwell.engine.advance import advance_of
from stepwell.engine.commands import Command, Effect, Put, RunEnded, SetRow
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import body_of
from stepwell.engine.flow.gates import OPEN, Gates
from stepwell.engine.flow.singleton import SINGLETON
from stepwell.engine.lanes import lane_id
from stepwell.engine.model import Cause, Dedup, EventRow, Hold, Member, Name, Run, RunStatus, Step, Timer
from stepwell.engine.registry import Function, Registry
from stepwell.engine.run import begin_run
from stepwell.engine.view import Select, View
from stepwell.protocol.ids import derived_ulid

DEDUP_MS = 24 * 3600 * 1000
"""How long an event's own id keeps a second one from starting the same function (§2.3)."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is asked for. `body` gives its first event as expressions see it; `due_ms`: not before then.

    `carried`: finished steps that it begins with, told by an app of `request_version`.
    """

    function: Function
    run_id: str
    event_ids: tuple[str, ...]
    cause: Cause
    origin: str | None
    due_ms: int
    body: Callable[[], dict[str, Any]]
    gates: Gates = OPEN
    carried: tuple[Step, ...] = ()
    request_version: int = -1


def select_made(function: Function, gates: Gates) -> list[Select]:
    """What making a run looks at: its lane, its name, the events that may cancel it."""
    selections = [Select("topics", rule.event) for rule in function.config.cancel]
    if gates.keys:
        selections += [Select("lanes", lane_id(function.id, gates.keys)), Select("clocks", function.id)]
    if gates.name is not None:
        selections.append(Select("names", gates.name, ("run",)))
    return selections


def select_asked(function: Function, gates: Gates) -> list[Select]:
    """What asking for a run looks at: all that making one does, its rate, and whom it may wait with."""
    selections = select_made(function, gates)
    if gates.rate is not None:
        selections.append(Select("rates", gates.rate))
    for hold_id in (gates.batch, gates.debounce):
        if hold_id is not None:
            selections += [Select("holds", hold_id), Select("timers", f"hold/{hold_id}")]
    return selections


def ask_for_event(decision: Decision, wish: Wish, event: EventRow) -> list[Command | Effect]:
    """A run for an event: batched, limited or debounced before it is made, as its function says."""
    gates, rules, ledger = wish.gates, wish.function.rules, decision.ledger
    if gates.batch is not None:
        assert rules.batch is not None
        hold = rules.batch.joined(ledger.hold(gates.batch), gates.batch, event, gates.keys, decision.now_ms)
        seen = remembered(wish.function.id, event, batch_run_id(hold), decision.now_ms)
        if rules.batch.is_full(hold):
            ledger.close_hold(hold.id)
            return [*seen, *make(decision, of_batch(wish.function, hold, wish.cause, wish.body))]
        ledger.set_hold(hold)
        return seen
    if (reason := refused(decision, wish)) is not None:
        return [*remembered(wish.function.id, event, wish.run_id, decision.now_ms), *skip(decision, wish, reason)]
    if gates.debounce is not None:
        assert rules.debounce is not None
        ledger.set_hold(rules.debounce.kept(ledger.hold(gates.debounce), gates.debounce, event, decision.now_ms))
        return []
    return [*remembered(wish.function.id, event, wish.run_id, decision.now_ms), *make(decision, wish)]


def ask_at_once(decision: Decision, wish: Wish) -> tuple[list[Command | Effect], str | None]:
    """A run that somebody invokes or a clock fires: it waits with no others. Also says why it was skipped, where it was."""
    decision.view.require(select_asked(wish.function, wish.gates))
    reason = refused(decision, wish)
    if reason is None:
        other_id = blocked(decision, wish)
        reason = None if other_id is None else f"{SINGLETON}{other_id}"
    return (make(decision, wish) if reason is None else skip(decision, wish, reason)), reason


def refused(decision: Decision, wish: Wish) -> str | None:
    """The setting that drops the run, where its window is full; else a place in the window is taken."""
    rule, rate_id = wish.function.rules.rate_limit, wish.gates.rate
    if rule is None or rate_id is None:
        return None
    taken = rule.taken(decision.ledger.rate(rate_id), rate_id, decision.now_ms)
    if taken is None:
        return rule.name
    decision.ledger.set_rate(taken)
    return None


def blocked(decision: Decision, wish: Wish) -> str | None:
    """The run that keeps this one from being made: it has the name of both, and is to be let alone."""
    rule, name_id = wish.function.rules.singleton, wish.gates.name
    if rule is None or name_id is None or rule.mode == "cancel":
        return None
    other = decision.ledger.name(name_id)
    return None if other is None else other.run_id


def make(decision: Decision, wish: Wish) -> list[Command | Effect]:
    """Make the run; or a skipped one, where another has its name. Where that other one is to give way, it is cancelled."""
    if (other_id := blocked(decision, wish)) is not None:
        return skip(decision, wish, f"{SINGLETON}{other_id}")
    if wish.gates.name is not None:
        other = decision.ledger.name(wish.gates.name)
        run = None if other is None else decision.view.run(other.run_id)
        if run is not None and run.ended_ms is None:
            advance_of(decision, run).ends(RunStatus.CANCELLED, None, f"{SINGLETON}{wish.run_id}")
        decision.ledger.take_name(Name(id=wish.gates.name, run_id=wish.run_id, ref=""))
    members = [Put(Member(event_id=event_id, run_id=wish.run_id)) for event_id in wish.event_ids[1:]]
    return [
        *members,
        *begin_run(
            decision,
            wish.function,
            run_id=wish.run_id,
            event_ids=wish.event_ids,
            keys=wish.gates.keys,
            cause=wish.cause,
            origin=wish.origin,
            due_ms=wish.due_ms,
            body=wish.body,
            ahead_ms=wish.gates.ahead_ms,
            named=wish.gates.name is not None,
            carried=wish.carried,
            request_version=wish.request_version,
        ),
    ]


def skip(decision: Decision, wish: Wish, reason: str) -> list[Command | Effect]:
    """A run that is born ended: it tells why the event started none. No lifecycle event follows (§11.3)."""
    now_ms, function = decision.now_ms, wish.function
    run = Run(
        id=wish.run_id,
        function_id=function.id,
        function_version=function.row.version,
        app_name=function.row.app_name,
        event_ids=wish.event_ids,
        status=RunStatus.SKIPPED,
        cause=wish.cause,
        origin=wish.origin,
        lane_id=function.id,
        keys=(),
        order_ms=now_ms,
        created_ms=now_ms,
        ended_ms=now_ms,
        reason=reason,
    )
    return [Put(run), RunEnded(run.id)]


def remembered(function_id: str, event: EventRow, run_id: str, now_ms: int) -> list[Command | Effect]:
    """That the event's own id has started the function."""
    if event.key == event.id:
        return []  # no other event can have it
    return [SetRow(Dedup(function_id=function_id, event_key=event.key, run_id=run_id, expires_ms=now_ms + DEDUP_MS))]


# Open batches and debounces


def batch_run_id(hold: Hold) -> str:
    """The run that a batch will be: known from its first event on."""
    return derived_ulid(hold.first_ms, hold.function_id, hold.events[0])


def unbatched(gates: Gates) -> Gates:
    """The gates of a run that waits with no others."""
    return msgspec.structs.replace(gates, batch=None, debounce=None)


def of_batch(function: Function, hold: Hold, cause: Cause, body: Callable[[], dict[str, Any]]) -> Wish:
    """The run of a batch that waits for no more events."""
    return Wish(
        function=function,
        run_id=batch_run_id(hold),
        event_ids=hold.events,
        cause=cause,
        origin=None,
        due_ms=0,
        body=body,
        gates=Gates(keys=hold.keys),
    )


def on_hold_due(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """An open batch or debounce has waited long enough: its run is made, unless its app has taken the function away."""
    hold: Hold | None = view.get("holds", timer.ref)
    assert hold is not None, f"timer {timer.id} has lost what it is for"
    decision = Decision(registry, view, now_ms)
    decision.ledger.close_hold(hold.id)
    function = registry.named(hold.function_id)
    if function is None:
        return settle(decision)
    event = view.event(hold.events[0])
    assert event is not None, f"{hold.id} has lost its event"
    cause: Cause = "event" if event.run_id is None else "lifecycle"
    if hold.id.startswith("batch/"):
        view.require(select_made(function, Gates(keys=hold.keys)))
        return [*make(decision, of_batch(function, hold, cause, lambda: body_of(view, event))), *settle(decision)]
    body = body_of(view, event)
    gates = msgspec.structs.replace(function.rules.gates(body, now_ms), batch=None, debounce=None, rate=None)
    wish = Wish(
        function=function,
        run_id=derived_ulid(now_ms, function.id, event.id),
        event_ids=hold.events,
        cause=cause,
        origin=event.run_id,
        due_ms=0,
        body=lambda: body,
        gates=gates,
    )
    view.require([*select_made(function, gates), *([Select("dedups", (function.id, event.key))] if event.key != event.id else [])])
    return [*remembered(function.id, event, wish.run_id, now_ms), *make(decision, wish), *settle(decision)]
