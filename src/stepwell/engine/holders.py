"""Nodes' epochs: who holds leases, and how those of an epoch that is over come back."""

from __future__ import annotations

from stepwell.engine.advance import advance_of
from stepwell.engine.calls import fail_worn_out, is_worn_out, lose
from stepwell.engine.commands import Command, Delete, Effect, Put, RenewHolder, Reply, SetRow, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.inputs import CallsReturned, HolderRenewed, NodeStarted
from stepwell.engine.model import Holder, Item, Timer, TimerKind
from stepwell.engine.registry import Registry
from stepwell.engine.selection import RETURN_AT_ONCE
from stepwell.engine.view import Select, Selection, View

RESTARTED = "the server was restarted"

SWEEP = "sweep"
"""The one timer that takes away what has expired; it is there from the first node's start on."""


def select_node_started(started: NodeStarted) -> list[Selection]:
    """The holders that the node takes to be over."""
    return [*(Select("holders", holder) for holder in (started.holder, *started.others)), Select("timers", SWEEP)]


def on_node_started(registry: Registry, view: View, started: NodeStarted, now_ms: int) -> list[Command | Effect]:
    """Begin the node's epoch; each other epoch that is over has its items returned by a cursor."""
    if view.holder(started.holder) is not None:
        return [Reply(None)]  # the same input once more: its first commit's answer was lost
    commands: list[Command | Effect] = [Put(Holder(id=started.holder, node_id=started.node_id, renewed_ms=now_ms))]
    if view.timer(SWEEP) is None:
        sweep = Timer(id=SWEEP, due_ms=now_ms, kind=TimerKind.SWEEP)
        commands += [Put(sweep), TimerSet(SWEEP, now_ms)]
    for other in started.others:
        if view.holder(other) is not None:
            commands += return_later(other, now_ms)
    return [*commands, Reply(None)]


def on_holder_renewed(view: View, renewed: HolderRenewed, now_ms: int) -> list[Command | Effect]:
    """Note that the node lives. False as the answer: its epoch was ended by another, and its leases are gone."""
    if view.holder(renewed.holder) is None:
        return [Reply(False)]
    return [RenewHolder(renewed.holder, now_ms), Reply(True)]


def return_later(holder: str, now_ms: int) -> list[Command | Effect]:
    """The cursor that brings a holder's items back."""
    timer = Timer(id=f"return/{holder}", due_ms=now_ms, kind=TimerKind.RETURN, ref=holder)
    return [SetRow(timer), TimerSet(timer.id, now_ms)]


def on_return(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of the cursor: at most `RETURN_AT_ONCE` items, then the holder itself."""
    items: list[Item] = view.scan("holder_items", timer.ref, RETURN_AT_ONCE)
    commands, returned = come_back(registry, view, items, RESTARTED, now_ms)
    if returned < len(items) or view.more("holder_items", timer.ref, RETURN_AT_ONCE):
        return [*commands, TimerSet(timer.id, now_ms)]
    commands.append(Delete("timers", timer.id))
    if view.holder(timer.ref) is not None:
        commands.append(Delete("holders", timer.ref))
    return commands


def select_calls_returned(returned: CallsReturned) -> list[Selection]:
    """The items with their slots, runs and lanes."""
    return [Select("items", item_id, ("release", "run")) for item_id, _ in returned.items]


def on_calls_returned(registry: Registry, view: View, returned: CallsReturned, now_ms: int) -> list[Command | Effect]:
    """Items whose calls the node has not in hand: ready again, if the lease is still the one it looked at."""
    items = [item for item_id, fence in returned.items if (item := view.held_item(item_id, fence)) is not None]
    commands, count = come_back(registry, view, items, returned.reason, now_ms)
    return [*commands, Reply(count)]


def may_have_died_of(registry: Registry, item: Item) -> bool:
    """Whether the call may be what ended its node: only where user code runs in the node's own process."""
    return registry.functions[item.function_id].driver == "local"


def come_back(registry: Registry, view: View, items: list[Item], reason: str, now_ms: int) -> tuple[list[Command | Effect], int]:
    """Leased items without a call, and how many of them are settled: those of live runs are lost calls, those of ended runs only
    give their slots back. One that was lost too often ends its run, which is a transition's work by itself.
    """
    commands: list[Command | Effect] = []
    decision = Decision(registry, view, now_ms)
    for item in items:
        run = view.run(item.run_id)
        if run is None or run.ended_ms is not None:
            commands.append(Delete("items", item.id))
            decision.lanes.give_back(item)
        elif (counts := may_have_died_of(registry, item)) and is_worn_out(registry, item):
            alone = Decision(registry, view, now_ms)
            fail_worn_out(advance_of(alone, run), item, reason, "")
            return settle(alone), 1
        else:
            commands += lose(decision.lanes, item, reason, "", now_ms, counts=counts)
    return [*commands, *settle(decision)], len(items)
