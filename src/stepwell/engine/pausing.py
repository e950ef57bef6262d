"""A single run's pause: it is not called any more until somebody resumes it. What is out ends first, and all else goes on.

A pause marks the run, and moves nothing: an item of a paused run goes to a lane of the run's own when a claim meets it (`lanes.py`).
Sleeps, waits and timeouts end as ever, and what they make ready waits there too. A resumption brings all of it back to the run's lane,
so many items at once, the others by a cursor; an item keeps its place among those of other runs.
"""

from __future__ import annotations

from stepwell.engine.commands import Command, Delete, Effect, Refuse, Reply, SetHeld, SetRow, TimerSet
from stepwell.engine.flow.keys import held_lane
from stepwell.engine.inputs import RunHeld
from stepwell.engine.lanes import Lanes
from stepwell.engine.model import Run, Timer, TimerKind
from stepwell.engine.registry import Registry
from stepwell.engine.selection import RESUME_AT_ONCE
from stepwell.engine.view import Scan, Select, Selection, View
from stepwell.errors import NotFound, RunHasEnded


def select_held(held: RunHeld) -> list[Selection]:
    """The run; for its resumption also its lane, what waits, and the cursor that may be on its way."""
    if held.held:
        return [Select("runs", held.run_id)]
    return [
        Select("runs", held.run_id, ("lane",)),
        Select("timers", cursor_id(held.run_id)),
        Scan("lane_items", held_lane(held.run_id), RESUME_AT_ONCE),
    ]


def on_run_held(registry: Registry, view: View, held: RunHeld, now_ms: int) -> list[Command | Effect]:
    """Pause the run, or let it go on. Replies whether that changed anything: a paused run stays paused by whom it was first."""
    run = view.run(held.run_id)
    verb = "paused" if held.held else "resumed"
    if run is None:
        return [Refuse(NotFound(f"there is no run {held.run_id!r}"))]
    if run.ended_ms is not None:
        return [Refuse(RunHasEnded(f"run {run.id} has ended ({run.status}): it cannot be {verb} any more; rerun it to run it again"))]
    if held.held == (run.held is not None):
        return [Reply(False)]
    if held.held:
        return [SetHeld(run.id, held.by), Reply(True)]
    commands, more = go_back(registry, view, run, now_ms)
    return [SetHeld(run.id, None), *commands, *(cursor(run.id, now_ms) if more else []), Reply(True)]


def on_resume(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """One step of the cursor. A run that was paused again, or has ended, needs it no more."""
    run = view.run(timer.ref)
    if run is None or run.ended_ms is not None or run.held is not None:
        return [Delete("timers", timer.id)]
    commands, more = go_back(registry, view, run, now_ms)
    return [*commands, TimerSet(timer.id, now_ms) if more else Delete("timers", timer.id)]


def go_back(registry: Registry, view: View, run: Run, now_ms: int) -> tuple[list[Command | Effect], bool]:
    """Bring back items that wait, as many as may be at once. Says whether there may be more."""
    lanes = Lanes(registry, view, now_ms)
    for item in view.scan("lane_items", held_lane(run.id), RESUME_AT_ONCE):
        lanes.unpark(item, run.lane_id)
    return lanes.commands(), view.more("lane_items", held_lane(run.id), RESUME_AT_ONCE)


def cursor(run_id: str, now_ms: int) -> list[Command | Effect]:
    """The cursor that brings back the others."""
    timer = Timer(id=cursor_id(run_id), due_ms=now_ms, kind=TimerKind.RESUME, ref=run_id)
    return [SetRow(timer), TimerSet(timer.id, now_ms)]


def cursor_id(run_id: str) -> str:
    """The timer of a run's resumption."""
    return f"resume/{run_id}"
