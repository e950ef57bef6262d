"""What people ask of a run: that it end, or that it be made again. And what the node asks: that a raising input be set aside."""

from __future__ import annotations

from stepwell.engine.advance import error_json
from stepwell.engine.commands import Command, Delete, Effect, Put, Refuse, Reply
from stepwell.engine.inputs import InputSetAside, RunCancelled, RunRerun
from stepwell.engine.lanes import Lanes
from stepwell.engine.model import RunStatus, SetAside
from stepwell.engine.registry import Registry
from stepwell.engine.run import begin_run, end_run
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import NotFound, RunHasEnded


def select_cancel(cancelled: RunCancelled) -> list[Selection]:
    """The run."""
    return [Select("runs", cancelled.run_id)]


def on_run_cancelled(registry: Registry, view: View, cancelled: RunCancelled, now_ms: int) -> list[Command | Effect]:
    """End the run. A call that is out goes on, and its answer is discarded. Cancelling a cancelled run is no error."""
    run = view.run(cancelled.run_id)
    if run is None:
        return [Refuse(NotFound(f"there is no run {cancelled.run_id!r}"))]
    if run.status is RunStatus.CANCELLED:
        return [Reply(run.status)]
    if run.ended_ms is not None:
        return [Refuse(RunHasEnded(f"run {run.id} has ended ({run.status}): it cannot be cancelled any more; rerun it to run it again"))]
    return [
        *end_run(registry, run, RunStatus.CANCELLED, output=None, reason=cancelled.reason, now_ms=now_ms),
        Reply(RunStatus.CANCELLED),
    ]


def select_rerun(rerun: RunRerun) -> list[Selection]:
    """The run to repeat, with its events and lane, and the new run, should this be a repeated request."""
    return [Select("runs", rerun.run_id, ("lane",)), Select("runs", rerun.new_run_id)]


def on_run_rerun(registry: Registry, view: View, rerun: RunRerun, now_ms: int) -> list[Command | Effect]:
    """A new run of the same function with the same events and keys, that names its origin. No event idempotency applies."""
    run = view.run(rerun.run_id)
    if run is None:
        return [Refuse(NotFound(f"there is no run {rerun.run_id!r}"))]
    function = registry.functions.get(run.function_id)
    if function is None or function.row.archived:
        return [Refuse(NotFound(f"run {run.id} cannot be made again: its app no longer has the function {run.function_id!r}"))]
    if view.run(rerun.new_run_id) is not None:
        return [Reply(rerun.new_run_id)]
    lanes = Lanes(registry, view)
    commands = begin_run(
        function,
        lanes,
        run_id=rerun.new_run_id,
        event_ids=run.event_ids,
        keys=run.keys,
        cause="rerun",
        origin=run.id,
        due_ms=now_ms,
        now_ms=now_ms,
    )
    return [*commands, *lanes.commands(), Reply(rerun.new_run_id)]


def select_set_aside(aside: InputSetAside) -> list[Selection]:
    """The timer whose input raised, and its run."""
    if aside.timer is None:
        return []
    selections: list[Selection] = [Select("timers", aside.timer.id)]
    if aside.timer.run_id is not None:
        selections.append(Select("runs", aside.timer.run_id))
    return selections


def on_input_set_aside(registry: Registry, view: View, aside: InputSetAside, now_ms: int) -> list[Command | Effect]:
    """Keep the input with its error and take its timer away, so that it is not retried for ever; its run fails, visibly."""
    timer = aside.timer
    run_id = timer.run_id if timer is not None else None
    commands: list[Command | Effect] = [Put(SetAside(id=aside.id, input=aside.input, error=aside.error, run_id=run_id, created_ms=now_ms))]
    if timer is not None and view.timer(timer.id) is not None:
        commands.append(Delete("timers", timer.id))
        run = view.run(run_id) if run_id is not None else None
        if run is not None and run.ended_ms is None:
            error = error_json("EngineError", f"The engine could not go on with this run: {aside.error}")
            commands += end_run(registry, run, RunStatus.FAILED, output=error, reason="set aside", now_ms=now_ms)
    return [*commands, Reply(None)]
