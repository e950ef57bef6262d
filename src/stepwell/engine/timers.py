"""Due timers: each kind does one thing. A timer that is gone when its turn comes was taken back, and does nothing."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from stepwell.engine.advance import advance_of, error_json
from stepwell.engine.cancelling import on_cancel
from stepwell.engine.commands import Command, Delete, Effect, SetRow, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.flow.scheduling import on_hold_due
from stepwell.engine.holders import on_return
from stepwell.engine.inputs import TimerDue
from stepwell.engine.lanes import Lanes
from stepwell.engine.meeting import on_meet
from stepwell.engine.model import Lane, RunStatus, Timer, TimerKind
from stepwell.engine.pausing import on_resume
from stepwell.engine.registry import Registry
from stepwell.engine.resume import op_of, resume
from stepwell.engine.routing import on_route
from stepwell.engine.schedules import on_tick
from stepwell.engine.selection import OPEN_BY_CURSOR, SWEEP_AT_ONCE
from stepwell.engine.tables import SPECS, behind
from stepwell.engine.view import Scan, Select, Selection, View


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
        case TimerKind.TIMEOUT:
            return on_timeout(registry, view, timer, now_ms)
        case TimerKind.LIMIT:
            return on_limit(registry, view, timer, now_ms)
        case TimerKind.ITEM:
            return on_item_due(registry, view, timer, now_ms)
        case TimerKind.CRON:
            return on_tick(registry, view, timer, now_ms)
        case TimerKind.ROUTE:
            return on_route(registry, view, timer, now_ms)
        case TimerKind.MEET:
            return on_meet(registry, view, timer, now_ms)
        case TimerKind.CANCEL:
            return on_cancel(registry, view, timer, now_ms)
        case TimerKind.RETURN:
            return on_return(registry, view, timer, now_ms)
        case TimerKind.OPEN:
            return on_open(registry, view, timer, now_ms)
        case TimerKind.ADMIT:
            return on_admit(registry, view, timer, now_ms)
        case TimerKind.REOPEN:
            return on_reopen(registry, view, timer, now_ms)
        case TimerKind.RESUME:
            return on_resume(registry, view, timer, now_ms)
        case TimerKind.HOLD:
            return on_hold_due(registry, view, timer, now_ms)
        case TimerKind.SWEEP:
            return on_sweep(view, timer, now_ms)
        case (
            TimerKind.QUEUE
            | TimerKind.EXPIRY
            | TimerKind.PURGE
            | TimerKind.REDELIVER
            | TimerKind.ALARM
            | TimerKind.CLEAR
            | TimerKind.REFIRE
        ):
            raise AssertionError(f"timer {timer.id} belongs to a primitive")
        case _:
            assert_never(timer.kind)


INVOKE_TIMEOUT = error_json("InngestInvokeTimeoutError", "Timed out waiting for invoked function to complete")


def on_sleep_ended(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """The step is done, its result null, and the run is called again, where its group has no more to wait for."""
    decision, run_id = Decision(registry, view, now_ms), timer.run_id or ""
    run, step = view.run(run_id), view.step(run_id, timer.ref)
    assert run is not None and run.ended_ms is None, f"timer {timer.id} has outlived its run"
    assert step is not None, f"timer {timer.id} has lost its step"
    advance = advance_of(decision, run)
    advance.woke(timer.id)
    op = op_of(step)
    if advance.finish(op, b"null", None):
        advance.rediscover(op)
    return settle(decision)


def on_timeout(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """A step has waited long enough: its result is null, or, where it waits for another run, an error (§4.3)."""
    decision, run_id = Decision(registry, view, now_ms), timer.run_id or ""
    run, step = view.run(run_id), view.step(run_id, timer.ref)
    assert run is not None and run.ended_ms is None, f"timer {timer.id} has outlived its run"
    assert step is not None, f"timer {timer.id} has lost its step"
    invokes = step.op == "InvokeFunction"
    memo = b'{"error":' + INVOKE_TIMEOUT + b"}" if invokes else b"null"
    waited = resume(advance_of(decision, run), step.id, memo, failed=invokes, job="-timeout")
    assert waited, f"timer {timer.id} has outlived the wait of its step"
    return settle(decision)


def on_limit(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """A run has waited too long for its start, or taken too long since: it is cancelled (§11.3)."""
    run = view.run(timer.run_id or "")
    assert run is not None and run.ended_ms is None, f"timer {timer.id} has outlived its run"
    if timer.ref == "start" and run.started_ms is not None:
        return [Delete("timers", timer.id)]
    decision = Decision(registry, view, now_ms)
    advance_of(decision, run).ends(RunStatus.CANCELLED, None, f"timeouts.{timer.ref}")
    return [Delete("timers", timer.id), *settle(decision)]


def on_item_due(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """A backoff or a delayed start is over: the item is ready."""
    assert timer.item is not None
    lanes = Lanes(registry, view, now_ms)
    lanes.put(timer.item)
    return [Delete("timers", timer.id), *lanes.commands()]


def on_open(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of an opening cursor."""
    before = view.scan("shut_lanes", timer.ref, OPEN_BY_CURSOR)
    lanes = Lanes(registry, view, now_ms)
    opened = lanes.open_shut_by(timer.ref, OPEN_BY_CURSOR)
    if opened and opened == len(before) and view.more("shut_lanes", timer.ref, OPEN_BY_CURSOR):
        # All that were seen are open and the key has room yet: there may be more. A full key's next release opens the others.
        return [*lanes.commands(), TimerSet(timer.id, now_ms)]
    return [Delete("timers", timer.id), *lanes.commands()]


def on_admit(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """A throttle admits starts again: as many lanes open as it has room for, and the timer comes back for the others."""
    shut: list[Lane] = view.scan("shut_lanes", timer.ref, OPEN_BY_CURSOR)
    lanes = Lanes(registry, view, now_ms)
    opened = lanes.open_shut_by(timer.ref, OPEN_BY_CURSOR)
    if opened == len(shut) and not view.more("shut_lanes", timer.ref, OPEN_BY_CURSOR):
        return [Delete("timers", timer.id), *lanes.commands()]
    throttle = registry.functions[shut[0].function_id].rules.throttle_of(timer.ref) if shut else None
    due_ms = now_ms if throttle is None else throttle.next_ms(view.get("rates", timer.ref), now_ms, opened)
    return [SetRow(msgspec.structs.replace(timer, due_ms=due_ms)), TimerSet(timer.id, due_ms), *lanes.commands()]


def on_reopen(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of the cursor over a function's shut lanes."""
    scan = behind(timer.ref, timer.after)
    shut: list[Lane] = view.scan("function_lanes", scan, OPEN_BY_CURSOR)
    lanes = Lanes(registry, view, now_ms)
    for lane in shut:
        lanes.open(lane)
    if shut and view.more("function_lanes", scan, OPEN_BY_CURSOR):
        return [SetRow(msgspec.structs.replace(timer, after=shut[-1].id)), TimerSet(timer.id, now_ms), *lanes.commands()]
    return [Delete("timers", timer.id), *lanes.commands()]


SWEEP_MS = 60_000
"""How often what has expired is taken away."""

SWEEP_KEEPS_MS = 15 * 60_000
"""How long it is kept beyond its end, for a clock that is set back."""


SWEPT = (("dedups", "old_dedups"), ("rates", "old_rates"), ("kv", "old_entries"))
"""Tables whose rows expire, and the scans that find them."""

SWEEP_LANES_MS = 1_000
"""How soon it comes back where it found more empty lanes than it takes away at a time. Among them are some that are in use."""


def on_sweep(view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """Take away event keys that are remembered no longer, rates at rest, values that have expired and empty lanes, so many at a time.

    A lane that comes back after its row has gone is ahead by the one turn that it was behind; that is all it can earn.
    """
    old: list[tuple[str, Any]] = []
    more = False
    until = str(now_ms - SWEEP_KEEPS_MS)
    empty = Scan("empty_lanes", "", SWEEP_AT_ONCE)
    view.require([*(Scan(scan, until, SWEEP_AT_ONCE) for _, scan in SWEPT), empty])
    for table, scan in SWEPT:
        rows = view.scan(scan, until, SWEEP_AT_ONCE)
        more = more or len(rows) == SWEEP_AT_ONCE
        old += [(table, SPECS[table].key_of(row)) for row in rows]
    lanes: list[Lane] = view.scan(empty.name, empty.value, empty.limit)
    old += [("lanes", lane.id) for lane in lanes]
    due_ms = now_ms + (0 if more else SWEEP_LANES_MS if len(lanes) == SWEEP_AT_ONCE else SWEEP_MS)
    return [
        *(Delete(table, key) for table, key in old),
        SetRow(msgspec.structs.replace(timer, due_ms=due_ms)),
        TimerSet(timer.id, due_ms),
    ]
