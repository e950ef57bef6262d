"""The life of a run: its legal moves, its beginning and its one end."""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, DeleteOfRun, Effect, EndRun, Put, RunEnded, TimerSet
from stepwell.engine.lanes import Lanes, lane_id
from stepwell.engine.model import EventRow, Item, Json, Run, RunStatus, Timer, TimerKind
from stepwell.engine.registry import Function, Registry
from stepwell.protocol.ids import derived_ulid

S = RunStatus

MOVES: dict[RunStatus, frozenset[RunStatus]] = {
    S.QUEUED: frozenset({S.RUNNING, S.CANCELLED, S.FAILED, S.COMPLETED}),
    S.RUNNING: frozenset({S.WAITING, S.COMPLETED, S.FAILED, S.CANCELLED}),
    S.WAITING: frozenset({S.RUNNING, S.COMPLETED, S.FAILED, S.CANCELLED}),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
    S.SKIPPED: frozenset(),
}
"""queued → running ⇄ waiting → completed | failed | cancelled; from queued also straight to an end; skipped is born ended."""

ENDED = frozenset(status for status, moves in MOVES.items() if not moves)

LIFECYCLE_NAMES = {S.FAILED: "inngest/function.failed", S.CANCELLED: "inngest/function.cancelled"}
FINISHED_NAME = "inngest/function.finished"


class IllegalMove(Exception):
    """A run was to make a move that `MOVES` does not have: a bug, and nothing is changed."""


def moved(run: Run, status: RunStatus) -> RunStatus:
    """The status, if the run may go there. Raises `IllegalMove` otherwise."""
    if status is not run.status and status not in MOVES[run.status]:
        raise IllegalMove(f"run {run.id} cannot go from {run.status} to {status}")
    return status


def begin_run(
    function: Function,
    lanes: Lanes,
    *,
    run_id: str,
    event_ids: tuple[str, ...],
    keys: tuple[str, ...],
    cause: str,
    origin: str | None,
    due_ms: int,
    now_ms: int,
) -> list[Command | Effect]:
    """A queued run and its first item: ready at once, or by a timer where it is due later."""
    run = Run(
        id=run_id,
        function_id=function.id,
        function_version=function.row.version,
        app_name=function.row.app_name,
        event_ids=event_ids,
        status=S.QUEUED,
        cause=cause,  # type: ignore[arg-type]
        origin=origin,
        lane_id=lane_id(function.id, keys),
        keys=keys,
        order_ms=now_ms,
        created_ms=now_ms,
        calls=1,
    )
    item = new_item(run, "start", "step", starts=1)
    if due_ms <= now_ms:
        lanes.put(item)
        return [Put(run)]
    timer = item_timer(item, due_ms)
    return [Put(run), Put(timer), TimerSet(timer.id, due_ms)]


def new_item(run: Run, job: str, step_id: str, *, starts: int = 0) -> Item:
    """An item of the run. `job` tells it from the run's others, as the protocol's job ids do (§4.13)."""
    return Item(
        id=f"{run.id}-{job}",
        run_id=run.id,
        function_id=run.function_id,
        lane_id=run.lane_id,
        keys=run.keys,
        starts=starts,
        order_ms=run.order_ms,
        step_id=step_id,
    )


def item_timer(item: Item, due_ms: int) -> Timer:
    """The timer that puts an item in when it is due."""
    waiting = msgspec.structs.replace(item, holder=None, leased_ms=None)
    return Timer(id=f"item/{item.id}", due_ms=due_ms, kind=TimerKind.ITEM, run_id=item.run_id, item=waiting)


def end_run(
    registry: Registry,
    run: Run,
    status: RunStatus,
    *,
    output: Json | None,
    now_ms: int,
    reason: str | None = None,
    leaves: bool = True,
) -> list[Command | Effect]:
    """End the run, for every reason there is: its status and output, what it leaves waiting, its lifecycle events.

    `leaves` is false where the caller knows that no item or timer of the run is left. An item that is out stays leased
    until its call ends (`calls.py`): a holding belongs to the item, not to the run.
    """
    commands: list[Command | Effect] = [EndRun(run.id, moved(run, status), output, reason, now_ms)]
    if leaves:
        commands.append(DeleteOfRun(run.id))
    if run.cause != "lifecycle":
        # A run that a lifecycle event started tells of no end itself, or two handlers could wake each other for ever (§3.5).
        names = [FINISHED_NAME] if status is S.COMPLETED else [LIFECYCLE_NAMES[status], FINISHED_NAME]
        for name in names:
            commands += lifecycle_event(registry, run, name, now_ms)
    commands.append(RunEnded(run.id))
    return commands


def lifecycle_event(registry: Registry, run: Run, name: str, now_ms: int) -> list[Command | Effect]:
    """The stored event, a reference to its run; and a cursor that routes it, where a function listens."""
    event_id = derived_ulid(now_ms, run.id, name)
    event = EventRow(
        id=event_id,
        key=event_id if name == FINISHED_NAME else run.id,
        name=name,
        data=b"{}",
        user=b"{}",
        ts=now_ms,
        v=None,
        meta=None,
        received_ms=now_ms,
        run_id=run.id,
    )
    if not registry.listening(name):
        return [Put(event)]
    timer = Timer(id=f"route/{event_id}", due_ms=now_ms, kind=TimerKind.ROUTE, ref=event_id)
    return [Put(event), Put(timer), TimerSet(timer.id, now_ms)]
