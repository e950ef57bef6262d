"""Durable endpoints: runs that an app begins by itself, and executes there until it hands them over (inngest-protocol §5.12, §5.13).

Such a run has no lease of ours. What keeps it alive is its session: a timer that carries an item, put off by each report of its app.
When the app dies, or is silent for too long, the timer fires and the engine calls the run like any other. When the app hands the run
over, since it has to wait, to retry or to be planned, the session goes and what it asked for follows.

A report that comes when the session is over saves results all the same, since what is done is done. What else it asks for is the
engine's to find out: it has the run now.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stepwell.engine.advance import Advance, advance_of
from stepwell.engine.apps import pinned
from stepwell.engine.calls import DONE, is_own_error, lazy_first, may_retry, retry_due_ms
from stepwell.engine.commands import Command, Effect, Put, Refuse, RegistryChanged, Reply, SetRow, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import event_body, stored
from stepwell.engine.flow.scheduling import Wish, refused, remembered
from stepwell.engine.inputs import EndpointFound, SyncRunBegun, SyncStepsTold
from stepwell.engine.lanes import lane_id
from stepwell.engine.mail import select_kept
from stepwell.engine.model import AppRow, FunctionRow, Item, Json, Run, RunStatus, Timer
from stepwell.engine.registry import Function, Registry
from stepwell.engine.resume import signal_name, signal_of
from stepwell.engine.run import item_timer, new_item
from stepwell.engine.steps import ADVANCES, memo_of, no_such_op
from stepwell.engine.steps.run_complete import result_of
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.functions import config_json
from stepwell.protocol.ids import app_uuid, function_uuid
from stepwell.protocol.ops import ENDS, Op, says_no_retry

DRIVER = "endpoint"
"""How calls reach the functions that are made here."""

GRACE_MS = 5 * 60 * 1000
"""How long an app that executes a run may say nothing before the engine takes the run over: longer than HTTP clients wait."""

ENDPOINTS_MAX = 1000
"""Endpoints of one domain. One that is named by its path has as many names as its path has values."""

SYNC_JOB = "sync"


def select_endpoint(found: EndpointFound) -> list[Selection]:
    """The app and the function, should they be there."""
    return [Select("apps", found.app_name), Select("functions", found.function.id)]


def on_endpoint_found(registry: Registry, view: View, found: EndpointFound, now_ms: int) -> list[Command | Effect]:
    """Write the app and the function, where they are new or changed. Other functions of the app stay as they are."""
    app: AppRow | None = view.get("apps", found.app_name)
    commands: list[Command | Effect] = []
    if app is not None and app.driver != DRIVER:
        return [Refuse(ProtocolError(f"the domain {found.app_name!r} is also the name of an app that is called by {app.driver}", 409))]
    if app is None or app.archived or app.sdk != found.sdk:
        commands.append(SetRow(app_row(found, now_ms)))
    row: FunctionRow | None = view.get("functions", found.function.id)
    if row is not None and row.app_name != found.app_name:
        return [
            Refuse(
                ProtocolError(
                    f"{found.function.id!r} is a function of the app {row.app_name!r} already: name the endpoint differently", 409
                )
            )
        ]
    if row is None or row.archived or row.config != config_json(found.function):
        if row is None and len(registry.of_app(found.app_name)) >= ENDPOINTS_MAX:
            message = f"{found.app_name} has {ENDPOINTS_MAX} endpoints already: give those with changing paths an id (functionId)"
            return [Refuse(ProtocolError(message))]
        commands.append(SetRow(function_row(found, row)))
    return [*commands, *([RegistryChanged()] if commands else []), Reply(None)]


def app_row(found: EndpointFound, now_ms: int) -> AppRow:
    """A domain as an app: there is nothing to sync, it tells of its endpoints one by one."""
    return AppRow(
        name=found.app_name,
        id=app_uuid(found.app_name),
        driver=DRIVER,
        url=found.app_name,
        sdk=found.sdk,
        framework="",
        checksum="",
        synced_ms=now_ms,
    )


def function_row(found: EndpointFound, row: FunctionRow | None) -> FunctionRow:
    """An endpoint as it is told; what a person has said of it stays, as at a sync."""
    name, config = found.function.name, config_json(found.function)
    if row is not None:
        return msgspec.structs.replace(row, name=name, config=config, version=row.version + 1, archived=False, override=pinned(row))
    uuid = function_uuid(found.function.id)
    return FunctionRow(id=found.function.id, uuid=uuid, app_name=found.app_name, name=name, config=config, version=1)


def session_id(run_id: str) -> str:
    """The timer that keeps a run alive which its app executes."""
    return f"item/{run_id}-{SYNC_JOB}"


def select_report(run_id: str, ops: Sequence[Op]) -> list[Selection]:
    """The run, its session, and the steps told of."""
    return [
        Select("runs", run_id, ("lane", "invoker")),
        Select("timers", session_id(run_id)),
        *(Select("steps", (run_id, op.id)) for op in ops if op.id),
        *(select for op in ops if op.op == "WaitForSignal" for select in (Select("names", signal_name(op)), select_kept(signal_of(op)))),
    ]


def select_begun(begun: SyncRunBegun) -> list[Selection]:
    """The run, should it be there, the event, and the run that its key is remembered for."""
    event = begun.event
    selections = [Select("events", event.internal_id), *select_report(begun.run_id, begun.ops)]
    if event.id != event.internal_id:
        selections.append(Select("dedups", (begun.function_id, event.id)))
    return selections


def on_sync_run_begun(registry: Registry, view: View, begun: SyncRunBegun, now_ms: int) -> list[Command | Effect]:
    """A run that its app has begun, with the steps it has done so far. Told again, with the same request, it is a report like any other."""
    function = registry.functions.get(begun.function_id)
    if function is None or function.row.archived:
        return [Refuse(NotFound(f"there is no endpoint {begun.function_id!r}"))]
    event, run = stored(begun.event), view.run(begun.run_id)
    if run is not None:
        if run.event_ids != (event.id,) or (known := view.event(event.id)) is None or known.data != event.data:
            return [Refuse(ProtocolError(f"run {run.id} exists already, of another request: make a new id for each run", 409))]
        return on_report(registry, view, run, begun.ops, now_ms)
    if event.key != event.id:
        earlier = view.dedup(function.id, event.key)
        if earlier is not None and earlier.expires_ms > now_ms:
            message = f"a request with the idempotency key {event.key!r} has begun run {earlier.run_id} within a day"
            return [Refuse(ProtocolError(message, 409))]
    decision = Decision(registry, view, now_ms)
    if (limit := limited(decision, function, begun)) is not None:
        return [Refuse(ProtocolError(f"{function.id} has begun as many runs as its {limit} allows for now: try again later", 429))]
    run = begun_run(function, begun, now_ms)
    session = session_of(run, now_ms)
    advance = advance_of(decision, run)
    commands: list[Command | Effect] = [Put(event), *remembered(function.id, event, run.id, now_ms)]
    if not take(advance, session, begun.ops):
        commands.append(TimerSet(session.id, session.due_ms))
    return [*commands, Put(run), Put(session), *close(decision, advance)]


def limited(decision: Decision, function: Function, begun: SyncRunBegun) -> str | None:
    """The rate limit that keeps the run from being taken, where the function has one and it is full."""
    body = event_body(begun.event)
    gates = function.rules.gates(body, decision.now_ms)
    if gates.rate is None:
        return None
    decision.view.require([Select("rates", gates.rate)])
    event_ids = (begun.event.internal_id,)
    wish = Wish(
        function=function, run_id=begun.run_id, event_ids=event_ids, cause="event", origin=None, due_ms=0, body=lambda: body, gates=gates
    )
    return refused(decision, wish)


def begun_run(function: Function, begun: SyncRunBegun, now_ms: int) -> Run:
    """The run's row. It is running already, and needs no start; nor does it have keys, for nobody could make its app wait."""
    return Run(
        id=begun.run_id,
        function_id=function.id,
        function_version=function.row.version,
        app_name=function.row.app_name,
        event_ids=(begun.event.internal_id,),
        status=RunStatus.RUNNING,
        cause="event",
        origin=None,
        lane_id=lane_id(function.id, ()),
        keys=(),
        order_ms=now_ms,
        created_ms=now_ms,
        started_ms=now_ms,
        request_version=begun.request_version,
        calls=1,
    )


def on_sync_steps(registry: Registry, view: View, told: SyncStepsTold, now_ms: int) -> list[Command | Effect]:
    """What an app has done, or wants done, of a run that it executes."""
    run = view.run(told.run_id)
    if run is None:
        return [Refuse(NotFound(f"there is no run {told.run_id!r}: begin it with POST /v1/checkpoint"))]
    return on_report(registry, view, run, told.ops, now_ms)


def on_report(registry: Registry, view: View, run: Run, ops: Sequence[Op], now_ms: int) -> list[Command | Effect]:
    """A report of a run that is there. One that tells the run's end again is answered as the first one was."""
    if run.ended_ms is not None:
        if tells_end(run, ops):
            return [Reply(None)]
        return [Refuse(ProtocolError(f"run {run.id} has ended ({run.status}): there is nothing to save its steps for", 400))]
    decision = Decision(registry, view, now_ms)
    advance, session = advance_of(decision, run), session_in(view, run.id)
    commands: list[Command | Effect] = []
    if not take(advance, session, ops) and session is not None and session.due_ms < now_ms + GRACE_MS // 2:
        # Not with each report: what is left of the time is enough, and a row less to write.
        later = session_of(run, now_ms)
        commands += [SetRow(later), TimerSet(later.id, later.due_ms)]
    return [*commands, *close(decision, advance)]


def tells_end(run: Run, ops: Sequence[Op]) -> bool:
    """Whether the ops tell how the run has ended."""
    if run.status is RunStatus.COMPLETED:
        return any(op.op in ENDS and result_of(op) == run.output for op in ops)
    return run.status is RunStatus.FAILED and any(is_own_error(op) for op in ops)


def close(decision: Decision, advance: Advance) -> list[Command | Effect]:
    """All of it, answered; 413 where the run has become more than may be, which ends it."""
    over = advance.over_limit()
    answer = Reply(None) if over is None else Refuse(ProtocolError(msgspec.json.decode(over)["message"], 413))
    return [*settle(decision), answer]


def session_in(view: View, run_id: str) -> Timer | None:
    """The run's session, if its app executes it still. Once the engine has called the run, the same timer is the item's backoff."""
    timer = view.timer(session_id(run_id))
    return timer if timer is not None and timer.item is not None and timer.item.fence == 0 else None


def session_of(run: Run, now_ms: int) -> Timer:
    """The run's session, from now on."""
    return item_timer(new_item(run, SYNC_JOB, "step"), now_ms + GRACE_MS)


def take(advance: Advance, session: Timer | None, told: Sequence[Op]) -> bool:
    """Perform what a report tells. Says whether the session is over by it: the run has ended, or is the engine's now."""
    item = new_item(advance.run, SYNC_JOB, "step")
    ops = lazy_first(advance, [op for op in told if op.op != "None"], item, "")
    for op in ops:
        if op.op in DONE:
            advance.finish(op, memo_of(op), item)
        elif op.op in ENDS:
            ADVANCES[op.op](advance, op, item, "")
    wanted = [op for op in ops if op.op not in DONE and op.op not in ENDS]
    if advance.ended or session is None or not wanted:
        return advance.ended
    if len(ops) > 1:
        planned = any(op.op == "StepPlanned" for op in wanted)
        advance.open_group([op.id for op in wanted], joined=planned and advance.version >= 2)
    hand_over(advance, session, item, wanted)
    return True


def hand_over(advance: Advance, session: Timer, item: Item, wanted: list[Op]) -> None:
    """The app waits for no more: what it asks for is done here, and the engine calls it when it has to go on."""
    failed: tuple[str, Json, bool] | None = None
    for op in wanted:
        if is_own_error(op):
            failed = (op.id, op.error or b"{}", op.op == "StepError" and not says_no_retry(op))
            advance.attempted(item, "", "failed", failed[1], "")
        elif op.op == "StepError" and may_retry(advance, item, not says_no_retry(op)):
            advance.tried(op, item)
            advance.attempted(item, op.id, "failed", op.error or b"{}", "")
            failed = (op.id, b"", True)
        else:
            refused = no_such_op(op) if op.op not in ADVANCES else ADVANCES[op.op](advance, op, item, "")
            if refused is not None:
                failed = (op.id, refused.error, refused.retriable)
                advance.attempted(item, "", "failed", refused.error, "")
    advance.leave(session)
    if advance.ended:
        return
    if failed is not None:
        step_id, error, retriable = failed
        if not may_retry(advance, item, retriable):
            advance.ends(RunStatus.FAILED, error)
            return
        again = new_item(advance.run, f"{step_id}-sync-retry", "step")
        advance.carry(item_timer(msgspec.structs.replace(again, attempt=1), retry_due_ms(advance, item, None)))
    elif advance.outstanding == 0:
        # All that it asks for is done: it may go on.
        advance.discover(f"{wanted[-1].id}-sync")
