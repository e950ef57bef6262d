"""What is judged: each transition, each commit, and the end of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from stepwell.engine.events import body_of
from stepwell.engine.flow.keys import DRAIN, THROTTLE
from stepwell.engine.inputs import AnyInput, CallAnswered, StepsCheckpointed
from stepwell.engine.inputs_primitives import BatchAnswered
from stepwell.engine.invariants import Moves, violations
from stepwell.engine.model import LaneState, RunStatus, Timer, TimerKind, Wait
from stepwell.engine.registry import Registry
from stepwell.engine.tables import Tables
from stepwell.engine.topics import holds
from stepwell.engine.view import View
from stepwell.protocol.events import Event
from stepwell.runtime.heart import Decided, Heart
from stepwell.store.base import Transaction
from tests.simulation.broken import Broken


class WatchedHeart(Heart):
    """A heart that is watched deciding: a report without the lease writes nothing, wherever in its group it stands."""

    async def _decide(self, tx: Transaction, view: View, input: AnyInput, now_ms: int) -> Decided:
        stale = is_stale(view, input)
        decided = await super()._decide(tx, view, input, now_ms)
        if stale and decided.error is None and view._undo:
            raise Broken(f"{input} is no report of a lease, and changed {[(table, key) for table, key, _ in view._undo]}")
        return decided


def is_stale(tables: Tables, input: AnyInput) -> bool:
    """Whether the input reports of a call that holds no lease any more."""
    match input:
        case CallAnswered():
            item_id, fence = input.item_id, input.fence
        case StepsCheckpointed():
            item_id, fence = input.checkpoint.item_id, input.checkpoint.fence
        case BatchAnswered():
            return input.delivery_id not in tables.deliveries.rows
        case _:
            return False
    item = tables.items.rows.get(item_id)
    return item is None or item.holder is None or item.fence != fence


def judge_commit(tables: Tables, moves: Moves, meetings: Meetings, counted: dict[str, int], registry: Registry, now_ms: int) -> None:
    """After every commit: the invariants, the move from the commit before, who met whom, and no key over its limit or shut with room."""
    wrong = violations(tables) + moves.judge(tables) + meetings.judge(tables, now_ms)
    passing = {key for run in tables.runs for key in run.keys if registry.functions[run.function_id].rules.limit_of(key) is None}
    for counter in tables.counters:
        limits = [limit for function in registry.functions.values() if (limit := function.rules.limit_of(counter.id)) is not None]
        # A limit that was lowered leaves alone what runs already, and one that a function has no more lets its runs pass.
        if limits and counter.id not in passing and counter.running > max(*limits, counted.get(counter.id, 0), 0):
            wrong.append(f"{counter.id} runs {counter.running}, at most {max(limits)} may")
    counted.clear()
    counted.update((counter.id, counter.running) for counter in tables.counters)
    for lane in tables.lanes:
        key = lane.shut_by
        if key is None or key.startswith((DRAIN, THROTTLE)) or f"reopen/{lane.function_id}" in tables.timers.rows:
            continue
        limit = registry.functions[lane.function_id].rules.limit_of(key)
        running = tables.counters.rows[key].running if key in tables.counters.rows else 0
        if (limit is not None and running >= limit) or f"open/{key}" in tables.timers.rows:
            continue
        if not any(other.state is LaneState.READY and key in other.keys for other in tables.lanes):
            wrong.append(f"lane {lane.id} is shut by {key}, which has room, and nothing will open it")
    wrong += unguarded(tables, registry)
    if wrong:
        raise Broken("; ".join(wrong))


def unguarded(tables: Tables, registry: Registry) -> list[str]:
    """Live runs whose function has limits or cancel rules, and which are not watched for them."""
    wrong = []
    for run in tables.runs:
        config = registry.functions[run.function_id].config
        if run.ended_ms is not None:
            continue
        limit = "start" if run.started_ms is None else "finish"
        if config.timeouts is not None and f"limit/{run.id}/{limit}" not in tables.timers.rows:
            wrong.append(f"nothing limits the {limit} of run {run.id}")
        wrong += [
            f"run {run.id} has lost cancel rule {i}" for i in range(len(config.cancel)) if (run.id, f"cancel/{i}") not in tables.waits.rows
        ]
    return wrong


class Meetings:
    """Judges who met whom: an event resumes or ends each run that waited for it when it was committed, and none that came to wait later."""

    def __init__(self) -> None:
        self._commits = 0
        self._events: dict[str, int] = {}
        self._waits: dict[tuple[str, str], int] = {}
        self._waiting: dict[tuple[str, str], Wait] = {}

    def judge(self, tables: Tables, now_ms: int) -> list[str]:
        """What is wrong with the commit that led to this state."""
        self._commits += 1
        wrong = []
        view = View()
        view.by_name.update(tables.by_name)
        view.events, view.runs = tables.events, tables.runs
        for event in tables.events:
            if event.id in self._events:
                continue
            self._events[event.id] = self._commits
            body = body_of(view, event)
            for key, wait in self._waiting.items():
                if wait.name != event.name or key not in tables.waits.rows or not holds(wait, body, now_ms):
                    continue
                cursor = f"meet/{event.id}/{wait.lookup}" in tables.timers.rows or f"route/{event.id}" in tables.timers.rows
                if not cursor:
                    wrong.append(f"event {event.id} ({event.name}) passed the wait {key} by")
        for wait in tables.waits:
            self._waits.setdefault((wait.run_id, wait.id), self._commits)
        self._waiting = dict(tables.waits.rows)  # type: ignore[arg-type]
        for step in tables.steps:
            if step.op == "WaitForEvent" and step.ref is not None and self._events[step.ref] < self._waits.get((step.run_id, step.id), 0):
                wrong.append(f"step {step.id} of run {step.run_id} was resumed by event {step.ref}, which was there before it waited")
        return wrong


FOR_EVER = (TimerKind.CRON, TimerKind.SWEEP)
"""Timers that always have a next time."""


def judge_end(tables: Tables, registry: Registry, accepted: Iterable[Event], acknowledged: dict[tuple[str, str], bytes]) -> None:
    """When faults have stopped and time has run on: all has ended, nothing is left over, and nothing acknowledged is lost."""
    for run in tables.runs:
        if run.ended_ms is None:
            raise Broken(f"run {run.id} of {run.function_id} never ends: {run}")
    for name in ("items", "counters", "timers", "set_aside", "waits", "names"):
        left = [row for row in tables.by_name[name] if not (isinstance(row, Timer) and row.kind in FOR_EVER)]
        if left:
            raise Broken(f"left over in {name}: {left}")
    if any(lane.state is not LaneState.EMPTY for lane in tables.lanes):
        raise Broken(f"left over in lanes: {list(tables.lanes)}")
    _judge_events(tables, registry, list(accepted))
    told = Counter(run.origin for run in tables.runs if run.cause == "lifecycle")
    for run in tables.runs:
        wanted = run.status is RunStatus.FAILED and run.cause != "lifecycle"
        if told[run.id] != wanted:
            raise Broken(f"run {run.id} ({run.status}) is told to {told[run.id]} runs")
    for attempt in tables.attempts:
        if attempt.step_id == "" and attempt.kind == "failed" and b"WorkerDied" not in attempt.error and b"not caught" not in attempt.error:
            raise Broken(f"the apps answer as they should, and a call of run {attempt.run_id} failed: {attempt.error!r}")
    for key, memo in acknowledged.items():
        step = tables.steps.rows.get(key)
        if step is None or step.memo != memo:
            raise Broken(f"the acknowledged step {key} has {step}")


def _judge_events(tables: Tables, registry: Registry, accepted: list[Event]) -> None:
    """Each acknowledged event is stored and has started each function that listens once; so has each key."""
    started = Counter((run.function_id, event_id) for run in tables.runs if run.cause == "event" for event_id in run.event_ids)
    by_key: Counter[tuple[str, str]] = Counter()
    for event in accepted:
        if event.internal_id not in tables.events.rows:
            raise Broken(f"the acknowledged event {event.internal_id} is gone")
        for function in registry.listening(event.name):
            runs = started[function.id, event.internal_id]
            by_key[function.id, event.id] += runs
            if function.rules.debounce is not None:
                continue  # a later event takes its place: `Flow` judges that
            if event.id == event.internal_id and runs != 1:
                raise Broken(f"event {event.internal_id} has {runs} runs of {function.id}")
    for (function_id, key), runs in by_key.items():
        if runs != 1 and registry.functions[function_id].rules.debounce is None:
            raise Broken(f"event key {key} has {runs} runs of {function_id}")
