"""Bulk cancellation: a function's live runs made in a span of time, worked off by a cursor (§7.1)."""

from __future__ import annotations

import msgspec

from stepwell.engine.advance import advance_of
from stepwell.engine.commands import Command, Delete, Effect, Put, Refuse, Reply, SetRow, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import body_of
from stepwell.engine.expression import compile_expression
from stepwell.engine.inputs import CancellationEnded, RunsCancelled
from stepwell.engine.model import Cancellation, Run, RunStatus, Timer, TimerKind
from stepwell.engine.registry import Registry
from stepwell.engine.selection import CANCEL_BY_CURSOR
from stepwell.engine.tables import behind
from stepwell.engine.view import Scan, Select, Selection, View
from stepwell.errors import NotFound


def on_runs_cancelled(registry: Registry, view: View, asked: RunsCancelled, now_ms: int) -> list[Command | Effect]:
    """Keep the cancellation, and begin its cursor."""
    cancellation = asked.cancellation
    if registry.named(cancellation.function_id) is None:
        return [Refuse(NotFound(f"there is no function {cancellation.function_id!r}"))]
    if view.get("cancellations", cancellation.id) is not None:
        return [Reply(cancellation)]  # the same request once more
    timer = Timer(id=f"cancel/{cancellation.id}", due_ms=now_ms, kind=TimerKind.CANCEL, ref=cancellation.id)
    return [Put(cancellation), Put(timer), TimerSet(timer.id, now_ms), Reply(cancellation)]


def select_cancellation_ended(ended: CancellationEnded) -> list[Selection]:
    """The cancellation and its cursor."""
    return [Select("cancellations", ended.cancellation_id), Select("timers", f"cancel/{ended.cancellation_id}")]


def on_cancellation_ended(view: View, ended: CancellationEnded) -> list[Command | Effect]:
    """Forget the cancellation; runs that it has ended stay ended."""
    if view.get("cancellations", ended.cancellation_id) is None:
        return [Refuse(NotFound(f"there is no cancellation {ended.cancellation_id!r}"))]
    commands: list[Command | Effect] = [Delete("cancellations", ended.cancellation_id)]
    if view.timer(f"cancel/{ended.cancellation_id}") is not None:
        commands.append(Delete("timers", f"cancel/{ended.cancellation_id}"))
    return [*commands, Reply(True)]


def on_cancel(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of the cursor: so many live runs, the oldest first."""
    cancellation: Cancellation | None = view.get("cancellations", timer.ref)
    assert cancellation is not None, f"cursor {timer.id} has lost its cancellation"
    scan = behind(cancellation.function_id, timer.after)
    view.require([Scan("live_runs", scan, CANCEL_BY_CURSOR, ("events", "invoker"))])
    runs: list[Run] = view.scan("live_runs", scan, CANCEL_BY_CURSOR)
    decision = Decision(registry, view, now_ms)
    for run in runs:
        if concerns(view, cancellation, run, now_ms):
            advance_of(decision, run).ends(RunStatus.CANCELLED, None, f"cancellation {cancellation.id}")
    commands = settle(decision)
    past = bool(runs) and runs[-1].created_ms > cancellation.before_ms
    if runs and not past and view.more("live_runs", scan, CANCEL_BY_CURSOR):
        return [*commands, SetRow(msgspec.structs.replace(timer, after=runs[-1].id)), TimerSet(timer.id, now_ms)]
    if cancellation.before_ms > now_ms:
        # Runs that are made until then are meant too (§7.1 allows for clocks that differ).
        again = msgspec.structs.replace(timer, after="", due_ms=cancellation.before_ms + 1)
        return [*commands, SetRow(again), TimerSet(again.id, again.due_ms)]
    return [*commands, Delete("timers", timer.id)]


def concerns(view: View, cancellation: Cancellation, run: Run, now_ms: int) -> bool:
    """Whether the run is one of those to end."""
    if run.created_ms > cancellation.before_ms or (cancellation.after_ms is not None and run.created_ms < cancellation.after_ms):
        return False
    if cancellation.where is None:
        return True
    row = view.event(run.event_ids[0])
    return row is not None and compile_expression(cancellation.where).is_true({"event": body_of(view, row)}, now_ms=now_ms)
