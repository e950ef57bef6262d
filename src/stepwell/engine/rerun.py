"""A run made again: with the same events, from its beginning, or from a step, with what finished before it kept (§11.3)."""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, Effect, Put, Refuse, Reply
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import body_of
from stepwell.engine.flow.scheduling import Wish, ask_at_once, unbatched
from stepwell.engine.inputs import RunRerun
from stepwell.engine.model import Step, StepInput
from stepwell.engine.registry import Registry
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import NotFound


def select_rerun(rerun: RunRerun) -> list[Selection]:
    """The run to repeat, with its events, and the new run, should this be a repeated request."""
    return [Select("runs", rerun.run_id, ("events",)), Select("runs", rerun.new_run_id)]


def on_run_rerun(registry: Registry, view: View, rerun: RunRerun, now_ms: int) -> list[Command | Effect]:
    """A new run of the same function with the same events, that names its origin. No idempotency and no rate limit apply."""
    run = view.run(rerun.run_id)
    if run is None:
        return [Refuse(NotFound(f"there is no run {rerun.run_id!r}"))]
    function = registry.functions.get(run.function_id)
    if function is None or function.row.archived:
        return [Refuse(NotFound(f"run {run.id} cannot be made again: its app no longer has the function {run.function_id!r}"))]
    if view.run(rerun.new_run_id) is not None:
        return [Reply(rerun.new_run_id)]
    begin = rerun.from_step
    kept = [] if begin is None else [carried(step, n, run.id, rerun.new_run_id) for n, step in enumerate(begin.kept)]
    decision = Decision(registry, view, now_ms)
    first = view.event(run.event_ids[0])
    body = {} if first is None else body_of(view, first)
    wish = Wish(
        function=function,
        run_id=rerun.new_run_id,
        event_ids=run.event_ids,
        cause="rerun",
        origin=run.id,
        due_ms=now_ms,
        body=lambda: body,
        gates=msgspec.structs.replace(unbatched(function.rules.gates(body, now_ms)), rate=None),
        carried=tuple(kept),
        request_version=run.request_version if kept else -1,
    )
    commands, skipped = ask_at_once(decision, wish)
    if begin is not None and begin.input is not None and skipped is None:
        commands.append(Put(StepInput(run_id=rerun.new_run_id, step_id=begin.step_id, input=begin.input)))
    return [*commands, *settle(decision), Reply(rerun.new_run_id)]


def carried(step: Step, position: int, run_id: str, new_run_id: str) -> Step:
    """The finished step as the new run begins with it. A failure is kept as one."""
    assert step.run_id == run_id and step.memo is not None, f"step {step.id} of run {step.run_id} cannot be kept for a rerun of {run_id}"
    return msgspec.structs.replace(step, run_id=new_run_id, position=position)
