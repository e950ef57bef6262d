"""The life of a run: its legal moves, and its beginning. Its one end is in `ending.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stepwell.engine.commands import Command, Effect, Put, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.lanes import lane_id, limit_timer
from stepwell.engine.model import Cause, Item, Run, RunStatus, Step, Timer, TimerKind
from stepwell.engine.registry import Function
from stepwell.protocol.durations import parse_due_ms

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

CANCEL_PREFIX = "cancel/"
"""What the ids of cancel rules among a run's waits begin with; a waiting step has the step's own id."""

CANCEL_MS = 365 * 24 * 3600 * 1000
"""How long a cancel rule holds that does not say it (§11.3)."""


class IllegalMove(Exception):
    """A run was to make a move that `MOVES` does not have: a bug, and nothing is changed."""


def moved(run: Run, status: RunStatus) -> RunStatus:
    """The status, if the run may go there. Raises `IllegalMove` otherwise."""
    if status is not run.status and status not in MOVES[run.status]:
        raise IllegalMove(f"run {run.id} cannot go from {run.status} to {status}")
    return status


def begin_run(
    decision: Decision,
    function: Function,
    *,
    run_id: str,
    event_ids: tuple[str, ...],
    keys: tuple[str, ...],
    cause: Cause,
    origin: str | None,
    due_ms: int,
    body: Callable[[], dict[str, Any]],
    ahead_ms: int = 0,
    named: bool = False,
    carried: Sequence[Step] = (),
    request_version: int = -1,
) -> list[Command | Effect]:
    """A queued run and its first item: ready at once, or by a timer where it is due later. With its limits and cancel rules.

    `body` gives the first event as expressions see it; `ahead_ms` is its priority; `named`: it has a singleton's name; `carried` are
    finished steps that the run begins with.
    """
    now_ms = decision.now_ms
    config = function.config
    run = Run(
        id=run_id,
        function_id=function.id,
        function_version=function.row.version,
        app_name=function.row.app_name,
        event_ids=event_ids,
        status=S.QUEUED,
        cause=cause,
        origin=origin,
        lane_id=lane_id(function.id, keys),
        keys=keys,
        order_ms=now_ms - ahead_ms,
        created_ms=now_ms,
        calls=1,
        guarded=named or bool(config.cancel) or config.timeouts is not None,
        request_version=request_version,
        steps=len(carried),
        finished=len(carried),
        state_bytes=sum(len(step.memo or b"") for step in carried),
    )
    commands: list[Command | Effect] = [Put(run), *map(Put, carried)]
    for i, rule in enumerate(config.cancel):
        until_ms = now_ms + CANCEL_MS if rule.timeout is None else parse_due_ms(rule.timeout, now_ms)
        decision.topics.wait(run_id, f"{CANCEL_PREFIX}{i}", rule.event, rule.where, body(), until_ms, now_ms)
    if config.timeouts is not None and config.timeouts.start_ms is not None:
        commands += limit_timer(run.id, "start", now_ms + config.timeouts.start_ms)
    item = new_item(run, "start", "step", starts=1)
    if due_ms <= now_ms:
        commands.append(Put(item))
        decision.lanes.ready(item)
        return commands
    timer = item_timer(item, due_ms)
    return [*commands, Put(timer), TimerSet(timer.id, due_ms)]


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
