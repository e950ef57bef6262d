"""The end of a run, one for every reason: its status and output, what it leaves waiting, its lifecycle events, and who waits for it."""

from __future__ import annotations

from stepwell.engine.advance import Advance, advance_of, error_json
from stepwell.engine.commands import Command, DeleteOfRun, Effect, EndRun, Put, RunEnded, SetDefer, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.flow.keys import of_runs
from stepwell.engine.model import DeferStatus, EventRow, Json, Run, RunStatus, Timer, TimerKind
from stepwell.engine.resume import resume
from stepwell.engine.run import moved
from stepwell.protocol.ids import app_uuid, derived_ulid
from stepwell.protocol.lifecycle import CANCELLED, DEFERRED, FAILED, FINISHED, deferred_data, split_correlation

LIFECYCLE_NAMES = {RunStatus.FAILED: FAILED, RunStatus.CANCELLED: CANCELLED}


def settle(decision: Decision) -> list[Command | Effect]:
    """All that a transition does: to the runs that end, whose ends may move others on, to those that go on, and to what they share."""
    commands: list[Command | Effect] = []
    ended: set[str] = set()
    while ending := [advance for run_id, advance in decision.advances.items() if run_id not in ended and advance.close()]:
        for advance in ending:
            ended.add(advance.run.id)
            commands += advance.commands()
            commands += end_run(advance)
    for run_id, advance in decision.advances.items():
        if run_id not in ended:
            commands += advance.commands()
    return [*commands, *decision.topics.commands(), *decision.ledger.commands(), *decision.lanes.commands()]


def end_run(advance: Advance) -> list[Command | Effect]:
    """End the run as it was told to.

    An item that is out stays leased until its call ends (`calls.py`): a holding belongs to the item, not to the run.
    """
    decision, run, end = advance.decision, advance.run, advance.end
    assert end is not None, f"run {run.id} was not told to end"
    status, output, reason = end
    commands: list[Command | Effect] = [EndRun(run.id, moved(run, status), output, reason, decision.now_ms)]
    if advance.outstanding > 0 or run.guarded:
        commands.append(DeleteOfRun(run.id))
        decision.topics.forget(run.id)
    if run.cause != "lifecycle":
        # A run that a lifecycle event started tells of no end itself, or two handlers could wake each other for ever (§3.5).
        names = [FINISHED] if status is RunStatus.COMPLETED else [LIFECYCLE_NAMES[status], FINISHED]
        for name in names:
            commands += lifecycle_event(decision, run, name)
    if advance.has_defers:
        commands += schedule_deferred(advance)
    commands.append(RunEnded(run.id))
    if run.started_ms is not None:
        for key in of_runs(run.keys):
            decision.lanes.release(key)
    if run.cause == "invoke" and run.origin is not None:
        answer_invoker(decision, run, status, output)
    return commands


def schedule_deferred(advance: Advance) -> list[Command | Effect]:
    """An event for each thing that was to run after the run, whatever its end (§6.6). Its key makes a second one start nothing."""
    decision, run = advance.decision, advance.run
    now_ms = decision.now_ms
    parent = decision.registry.functions[run.function_id].row
    listened = decision.registry.listening(DEFERRED) or decision.view.topic(DEFERRED) is not None
    commands: list[Command | Effect] = []
    for one in advance.defers.due():
        assert one.input is not None
        event = EventRow(
            id=derived_ulid(now_ms, run.id, DEFERRED, one.id),
            key=derived_ulid(run.created_ms, run.id, DEFERRED, one.id),
            name=DEFERRED,
            data=deferred_data(
                one.input,
                fn_slug=one.function_id,
                parent_app_id=app_uuid(parent.app_name),
                parent_fn_id=parent.uuid,
                parent_fn_slug=parent.id,
                parent_run_id=run.id,
            ),
            user=b"{}",
            ts=now_ms,
            v=None,
            meta=one.meta,
            received_ms=now_ms,
        )
        commands += [SetDefer(run.id, one.id, DeferStatus.SCHEDULED), Put(event)]
        if listened:
            commands += routed(event, now_ms)
    return commands


def routed(event: EventRow, now_ms: int) -> list[Command | Effect]:
    """The cursor by which an event of the engine's own starts functions, and meets who waits for it."""
    timer = Timer(id=f"route/{event.id}", due_ms=now_ms, kind=TimerKind.ROUTE, ref=event.id)
    return [Put(timer), TimerSet(timer.id, now_ms)]


def lifecycle_event(decision: Decision, run: Run, name: str) -> list[Command | Effect]:
    """The stored event, a reference to its run; and a cursor that routes it, where a function, wait or cancel rule names it."""
    now_ms = decision.now_ms
    event_id = derived_ulid(now_ms, run.id, name)
    event = EventRow(
        id=event_id,
        key=event_id if name == FINISHED else run.id,
        name=name,
        data=b"{}",
        user=b"{}",
        ts=now_ms,
        v=None,
        meta=None,
        received_ms=now_ms,
        run_id=run.id,
    )
    if not decision.registry.listening(name) and decision.view.topic(name) is None:
        return [Put(event)]
    return [Put(event), *routed(event, now_ms)]


def answer_invoker(decision: Decision, run: Run, status: RunStatus, output: Json | None) -> None:
    """The step that invoked this run ends with it, unless it has given up or its own run ends too (§5.4)."""
    assert run.origin is not None
    invoker_id, step_id = split_correlation(run.origin)
    invoker = decision.view.run(invoker_id)
    if invoker is None or invoker.ended_ms is not None:
        return
    match status:
        case RunStatus.COMPLETED:
            memo, failed = b'{"data":' + (output or b"null") + b"}", False
        case RunStatus.FAILED:
            memo, failed = b'{"error":' + (output or error_json("Error", "The invoked function failed.")) + b"}", True
        case _:
            error = error_json("InngestInvokeCancelledError", f"The invoked function was {status}: run {run.id}.")
            memo, failed = b'{"error":' + error + b"}", True
    advance = advance_of(decision, invoker)
    if not advance.ended:
        resume(advance, step_id, memo, failed=failed)
