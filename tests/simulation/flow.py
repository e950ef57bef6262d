"""What is judged of flow control: each setting against what its users were promised, counted from the rows by other means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from stepwell.engine.events import body_of
from stepwell.engine.expression import compile_expression
from stepwell.engine.model import Run, RunStatus
from stepwell.engine.registry import Function, Registry
from stepwell.engine.tables import Tables
from stepwell.engine.view import View
from stepwell.protocol.events import Event
from tests.simulation.broken import Broken

DAY_MS = 24 * 3600 * 1000


class Flow:
    """Judges after each commit, and at the end."""

    def __init__(self) -> None:
        self._order: dict[str, int] = {}

    def judge(self, tables: Tables, registry: Registry) -> None:
        """No throttle, rate limit, singleton or batch is exceeded by one."""
        for event in tables.events:
            self._order.setdefault(event.id, len(self._order))
        view = view_of(tables)
        for function in registry.functions.values():
            if function.gated or function.config.idempotency is not None:
                runs = [run for run in tables.runs if run.function_id == function.id]
                wrong = [
                    *throttled(function, runs),
                    *singles(function, runs, view),
                    *batches(function, runs),
                    *rated(function, runs, view),
                    *repeated(function, runs, view),
                ]
                if wrong:
                    raise Broken("; ".join(wrong))

    def judge_end(self, tables: Tables, registry: Registry, accepted: Mapping[str, Event]) -> None:
        """Every event of a debounced function has a run, or one that came behind it has; nothing waits any more."""
        if len(tables.holds):
            raise Broken(f"left over in holds: {list(tables.holds)}")
        view = view_of(tables)
        for function in registry.functions.values():
            rule = function.rules.debounce
            if rule is None:
                continue
            ran = defaultdict(list)
            keys = set()
            for run in tables.runs:
                if run.function_id == function.id:
                    event = tables.events.rows[run.event_ids[0]]
                    ran[rule.hold_id(body_of(view, event), 0)].append(event)
                    keys.add(event.key)
            for event_id, sent in accepted.items():
                if function in registry.listening(sent.name):
                    row = tables.events.rows[event_id]
                    others = ran[rule.hold_id(body_of(view, row), 0)]
                    later = [one for one in others if self._order[one.id] >= self._order[event_id] or one.ts >= row.ts]
                    if not later and row.key not in keys:
                        raise Broken(f"the debounced event {event_id} has no run, nor has one behind it")


def view_of(tables: Tables) -> View:
    """The tables as decisions see them."""
    view = View()
    view.by_name.update(tables.by_name)
    view.events, view.runs = tables.events, tables.runs
    return view


def throttled(function: Function, runs: list[Run]) -> list[str]:
    """Between any two starts of a key there are no more than the burst and the time between them allow."""
    rule = function.rules.throttle
    starts: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        for key in run.keys:
            if rule is not None and run.started_ms is not None and key.startswith(rule.prefix):
                starts[key].append(run.started_ms)
    wrong = []
    for key, times in starts.items():
        times.sort()
        for i, first in enumerate(times):
            for j in range(i, len(times)):
                assert rule is not None
                if j - i + 1 > rule.capacity + (times[j] - first) * 1000 // rule.interval_us:
                    wrong.append(f"{key}: {j - i + 1} starts from {first} to {times[j]}")
    return wrong


def rated(function: Function, runs: list[Run], view: View) -> list[str]:
    """A window that begins with an admitted run has no more of them than the limit."""
    rule = function.rules.rate_limit
    if rule is None:
        return []
    admitted: dict[str | None, list[int]] = defaultdict(list)
    for run in runs:
        dropped = run.status is RunStatus.SKIPPED and run.reason == rule.name
        if not dropped and run.cause != "rerun":
            admitted[rule.counter(first_body(run, view), 0)].append(run.created_ms)
    wrong = []
    for key, times in admitted.items():
        end, used, latest = -1, 0, 0
        for made_ms in times:  # in the order of their commits: a clock that was set back does not open a window anew
            time_ms = latest = max(latest, made_ms)
            if time_ms >= end:
                end, used = time_ms + rule.period_ms, 0
            used += 1
            if key is not None and used > rule.limit:
                wrong.append(f"{key}: {used} runs within a window that ends at {end}")
    return wrong


def repeated(function: Function, runs: list[Run], view: View) -> list[str]:
    """A value of an idempotency key has one run a day, and drops none before it has one."""
    expression = function.config.idempotency
    if expression is None:
        return []
    key = compile_expression(expression)
    admitted_ms: dict[object, int] = {}
    wrong = []
    for run in runs:
        if run.cause == "rerun":
            continue
        value = key.evaluate({"event": first_body(run, view)}, now_ms=0)
        before_ms = admitted_ms.get(value)
        if run.status is RunStatus.SKIPPED and run.reason == "idempotency":
            if before_ms is None:
                wrong.append(f"run {run.id} was dropped, and {expression} {value!r} had none before")
        elif before_ms is not None and run.created_ms < before_ms + DAY_MS:
            wrong.append(f"run {run.id} is of {expression} {value!r}, which had one at {before_ms}")
        else:
            admitted_ms[value] = run.created_ms
    return wrong


def singles(function: Function, runs: list[Run], view: View) -> list[str]:
    """Of a singleton there is one live run."""
    rule = function.rules.singleton
    if rule is None:
        return []
    live: dict[str | None, list[str]] = defaultdict(list)
    for run in runs:
        if run.ended_ms is None:
            live[rule.name(first_body(run, view), 0)].append(run.id)
    return [f"{name} has the live runs {ids}" for name, ids in live.items() if name is not None and len(ids) > 1]


def batches(function: Function, runs: list[Run]) -> list[str]:
    """No batch is larger than it may be, and no event is in two."""
    rule = function.rules.batch
    if rule is None:
        return []
    events = [event_id for run in runs if run.cause != "rerun" for event_id in run.event_ids]
    wrong = [f"run {run.id} has {len(run.event_ids)} events" for run in runs if len(run.event_ids) > rule.size]
    return wrong + ([f"events are in two batches: {events}"] if len(events) != len(set(events)) else [])


def first_body(run: Run, view: View) -> dict[str, Any]:
    """The run's first event as expressions see it."""
    event = view.event(run.event_ids[0])
    assert event is not None
    return body_of(view, event)
