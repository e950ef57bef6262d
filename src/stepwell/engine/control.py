"""What people ask of runs: that they end, that one be made anew, that a signal reach one (again: `rerun.py`).

And what the node asks: that a raising input be set aside.
"""

from __future__ import annotations

from stepwell.engine.advance import advance_of, error_json
from stepwell.engine.commands import Command, Delete, Effect, Put, Refuse, Reply
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import event_body, stored
from stepwell.engine.flow.scheduling import Wish, ask_at_once, remembered, unbatched
from stepwell.engine.inputs import FunctionInvoked, InputSetAside, RunCancelled, SignalSent
from stepwell.engine.mail import keep, select_kept
from stepwell.engine.model import RunStatus, SetAside
from stepwell.engine.registry import Registry
from stepwell.engine.resume import resume, signal_memo
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import NotFound, ProtocolError, RunHasEnded
from stepwell.protocol.ids import run_ulid


def select_cancel(cancelled: RunCancelled) -> list[Selection]:
    """The run, and who invoked it."""
    return [Select("runs", cancelled.run_id, ("invoker",))]


def on_run_cancelled(registry: Registry, view: View, cancelled: RunCancelled, now_ms: int) -> list[Command | Effect]:
    """End the run. A call that is out goes on, and its answer is discarded. Cancelling a cancelled run is no error."""
    run = view.run(cancelled.run_id)
    if run is None:
        return [Refuse(NotFound(f"there is no run {cancelled.run_id!r}"))]
    if run.status is RunStatus.CANCELLED:
        return [Reply(run.status)]
    if run.ended_ms is not None:
        return [Refuse(RunHasEnded(f"run {run.id} has ended ({run.status}): it cannot be cancelled any more; rerun it to run it again"))]
    decision = Decision(registry, view, now_ms)
    advance_of(decision, run).ends(RunStatus.CANCELLED, None, cancelled.reason)
    return [*settle(decision), Reply(RunStatus.CANCELLED)]


def select_invoked(registry: Registry, invoked: FunctionInvoked) -> list[Selection]:
    """The event, should this be a repeated request; and the run that an event of its id has started before."""
    event, function = invoked.event, registry.named(invoked.function_id)
    selections: list[Selection] = [Select("events", event.internal_id)]
    if function is not None and event.id != event.internal_id:
        selections.append(Select("dedups", (function.id, event.id)))
    return selections


def on_function_invoked(registry: Registry, view: View, invoked: FunctionInvoked, now_ms: int) -> list[Command | Effect]:
    """A run of one function, under an event of its own, whatever its triggers say. Replies with the run's id.

    An event with an id of its user's starts the function once in 24 hours, as a sent one does: the reply is the earlier run's id then.
    """
    function = registry.named(invoked.function_id)
    if function is None:
        return [Refuse(NotFound(f"there is no function {invoked.function_id!r}"))]
    row = stored(invoked.event)
    run_id = run_ulid(row.received_ms, function.id, row.id)
    if view.event(row.id) is not None:
        return [Reply(run_id)]
    if row.key != row.id:
        earlier = view.dedup(function.id, row.key)
        if earlier is not None and earlier.expires_ms > now_ms:
            return [Reply(earlier.run_id)]
    decision = Decision(registry, view, now_ms)
    body = event_body(row)
    wish = Wish(
        function=function,
        run_id=run_id,
        event_ids=(row.id,),
        cause="event",
        origin=None,
        due_ms=row.ts,
        body=lambda: body,
        gates=unbatched(function.rules.gates(body, now_ms)),
    )
    asked, _ = ask_at_once(decision, wish)
    return [Put(row), *remembered(function.id, row, run_id, now_ms), *asked, *settle(decision), Reply(run_id)]


def select_signal(sent: SignalSent) -> list[Selection]:
    """Who has the signal's name, with the step that waits; what is kept of it, where this one may be."""
    selections: list[Selection] = [Select("names", f"signal/{sent.signal}", ("owner",))]
    return selections if sent.keep_until_ms is None else [*selections, select_kept(sent.signal)]


def on_signal_sent(registry: Registry, view: View, sent: SignalSent, now_ms: int) -> list[Command | Effect]:
    """The step that waits for the signal ends with it. Replies with the run's id, or `None` where nobody waits (§5.5): it may be kept."""
    name = view.name(f"signal/{sent.signal}")
    if name is None:
        if sent.keep_until_ms is None:
            return [Reply(None)]
        try:
            return [*keep(view, sent, now_ms), Reply(None)]
        except ProtocolError as error:
            return [Refuse(error)]
    run = view.run(name.run_id)
    assert run is not None and run.ended_ms is None, f"{name.id} has outlived its run"
    decision = Decision(registry, view, now_ms)
    resume(advance_of(decision, run), name.ref, signal_memo(sent.signal, sent.data), job="-signal")
    return [*settle(decision), Reply(run.id)]


def select_set_aside(aside: InputSetAside) -> list[Selection]:
    """The timer whose input raised, and its run."""
    if aside.timer is None:
        return []
    selections: list[Selection] = [Select("timers", aside.timer.id)]
    if aside.timer.run_id is not None:
        selections.append(Select("runs", aside.timer.run_id, ("invoker",)))
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
            decision = Decision(registry, view, now_ms)
            advance_of(decision, run).ends(RunStatus.FAILED, error, "set aside")
            commands += settle(decision)
    return [*commands, Reply(None)]
