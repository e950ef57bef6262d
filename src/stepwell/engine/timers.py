"""Due timers: each kind does one thing. A timer that is gone when its turn comes was taken back, and does nothing."""

from __future__ import annotations

from typing import assert_never

from stepwell.engine.commands import Command, Delete, Effect, TimerSet
from stepwell.engine.holders import on_return
from stepwell.engine.inputs import TimerDue
from stepwell.engine.lanes import Lanes
from stepwell.engine.model import Timer, TimerKind
from stepwell.engine.registry import Registry
from stepwell.engine.routing import on_route
from stepwell.engine.selection import OPEN_BY_CURSOR
from stepwell.engine.steps.sleep import on_sleep_ended
from stepwell.engine.view import Select, Selection, View


def select_timer(due: TimerDue) -> list[Selection]:
    """The timer and what its kind is about."""
    return [Select("timers", due.timer_id, ("subject",))]


def on_timer_due(registry: Registry, view: View, due: TimerDue, now_ms: int) -> list[Command | Effect]:
    """Do what the timer is for, if it is still there and its time has come."""
    timer = view.timer(due.timer_id)
    if timer is None:
        return []
    if timer.due_ms > now_ms:
        # The clock went back since the timekeeper looked.
        return [TimerSet(timer.id, timer.due_ms)]
    match timer.kind:
        case TimerKind.SLEEP:
            return on_sleep_ended(registry, view, timer, now_ms)
        case TimerKind.ITEM:
            return on_item_due(registry, view, timer)
        case TimerKind.ROUTE:
            return on_route(registry, view, timer, now_ms)
        case TimerKind.RETURN:
            return on_return(registry, view, timer, now_ms)
        case TimerKind.OPEN:
            return on_open(registry, view, timer, now_ms)
        case _:
            assert_never(timer.kind)


def on_item_due(registry: Registry, view: View, timer: Timer) -> list[Command | Effect]:
    """A backoff or a delayed start is over: the item is ready."""
    assert timer.item is not None
    lanes = Lanes(registry, view)
    lanes.put(timer.item)
    return [Delete("timers", timer.id), *lanes.commands()]


def on_open(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of an opening cursor."""
    before = view.scan("shut_lanes", timer.ref, OPEN_BY_CURSOR)
    lanes = Lanes(registry, view)
    opened = lanes.open(timer.ref, OPEN_BY_CURSOR)
    if opened and opened == len(before) and view.more("shut_lanes", timer.ref, OPEN_BY_CURSOR):
        # All that were seen are open and the key has room yet: there may be more. A full key's next release opens the others.
        return [*lanes.commands(), TimerSet(timer.id, now_ms)]
    return [Delete("timers", timer.id), *lanes.commands()]
