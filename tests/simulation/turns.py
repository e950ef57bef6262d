"""Whose turn it was: judged by what settings and events say, by none of the tags and orders that the engine keeps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Set
from itertools import combinations
from typing import Any

from stepwell.engine.events import body_of
from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.keys import gates_starts_only, gating
from stepwell.engine.inputs import Ask, Claimed
from stepwell.engine.model import Item, LaneState, Run
from stepwell.engine.registry import Function, Registry
from stepwell.engine.tables import Tables
from stepwell.engine.view import View
from tests.simulation.broken import Broken
from tests.simulation.flow import view_of

AHEAD_MAX_S = 600
"""What a priority counts at most."""
SLACK = 0.01
"""For weights that do not divide the engine's whole numbers."""

Waiting = dict[str, Item]
"""By id: the items that nobody holds, but those of paused runs."""


class Leads:
    """How far each of two that wait has been ahead of the other since they wait together, in turns by weight.

    Who is served next is who has been served least: then neither is ahead by more than a turn of each, over any span of time.
    """

    def __init__(self) -> None:
        self._spans: dict[tuple[str, str], tuple[float, float, float]] = {}

    def forget(self, ids: Set[str]) -> None:
        """These ran dry: with what came to them since, they wait anew."""
        self._spans = {pair: span for pair, span in self._spans.items() if ids.isdisjoint(pair)}

    def note(self, weights: Mapping[str, float], served: Mapping[str, int]) -> list[str]:
        """Those that waited before and after have been `served` so often meanwhile. Says who is too far ahead of whom."""
        wrong = []
        spans = {}
        for pair in combinations(sorted(weights), 2):
            first, second = pair
            if pair in self._spans:
                lead, least, most = self._spans[pair]
                lead += served.get(first, 0) / weights[first] - served.get(second, 0) / weights[second]
                least, most = min(least, lead), max(most, lead)
                if most - least > 1 / weights[first] + 1 / weights[second] + SLACK:
                    wrong.append(f"{first} and {second} wait together, and one is {most - least:.2f} turns ahead")
                spans[pair] = (lead, least, most)
            else:
                spans[pair] = (0.0, 0.0, 0.0)
        self._spans = spans
        return wrong


class Turns:
    """Judges after each commit which items were taken, and after each claim of a node with little room, of which functions."""

    def __init__(self) -> None:
        self._waiting: Waiting = {}
        self._held: set[tuple[str, int]] = set()
        self._lanes: dict[str, Leads] = defaultdict(Leads)
        self._functions = Leads()

    def judge(self, tables: Tables, registry: Registry, paused: Container[str]) -> None:
        """In a lane, what continues goes before what starts, and the older before the younger; lanes take turns by their weights.

        `paused`: runs that this commit has paused or resumed, maybe both, so that they may have missed their turn.
        """
        waiting = {item.id: item for item in tables.items if item.holder is None and waits(item, tables, paused)}
        held = {(item.id, item.fence): item for item in tables.items if item.holder is not None}
        taken = [item for key, item in held.items() if key not in self._held]
        wrong = []
        if taken:
            wrong += passed(taken, self._waiting, waiting, registry, view_of(tables))
        served = Counter(item.lane_id for item in taken)
        dry = {item.lane_id for item in self._waiting.values()} - {item.lane_id for item in waiting.values() if item.id in self._waiting}
        lanes = lanes_of(tables, registry, waiting.values())
        for function_id in lanes.keys() | self._lanes.keys():
            self._lanes[function_id].forget(dry)
            wrong += self._lanes[function_id].note(lanes.get(function_id, {}), served)
        self._waiting, self._held = waiting, set(held)
        if wrong:
            raise Broken("; ".join(wrong))

    def claimed(self, registry: Registry, wished: Iterable[str], asks: Iterable[Ask], claimed: Claimed) -> None:
        """A node with room for one call asked one of the functions that have work; those that have more wait on."""
        idle = {ask.function_id for ask in asks} - set(claimed.more)
        weights = {function_id: registry.functions[function_id].override.weight or 1 for function_id in wished if function_id not in idle}
        wrong = self._functions.note(weights, claimed.calls)
        if wrong:
            raise Broken("; ".join(wrong))

    def new_node(self) -> None:
        """Who has been served is known to the node only that served."""
        self._functions = Leads()


def waits(item: Item, tables: Tables, paused: Container[str]) -> bool:
    """Whether the item's turn may come: its run is not paused, and its resumption, if there was one, has brought it back."""
    return tables.runs.rows[item.run_id].held is None and item.run_id not in paused and not item.lane_id.startswith("held/")


def passed(taken: list[Item], before: Waiting, after: Waiting, registry: Registry, view: View) -> list[str]:
    """Items that waited in the lanes of those taken, wait yet, and should have gone before."""
    wrong = []
    for item in taken:
        waited = before.get(item.id)
        if waited is None:
            continue  # it came with this very commit: others of it may have come behind
        place = place_of(waited, registry, view)
        for other in after.values():
            if other.lane_id == item.lane_id and before.get(other.id) == other and place_of(other, registry, view) < place:
                wrong.append(f"item {item.id} was taken before {other.id}, which waited in the same lane")
    return wrong


def place_of(item: Item, registry: Registry, view: View) -> tuple[int, float]:
    """Where an item stands in its lane: behind what continues, and by the age of its run, to which priority adds."""
    run = view.run(item.run_id)
    assert run is not None
    return item.starts, run.created_ms - 1000 * ahead_s(registry.functions[run.function_id], run, view)


def ahead_s(function: Function, run: Run, view: View) -> float:
    """The seconds that the run's priority gives it. A batch has none."""
    if function.config.priority is None or function.config.batch is not None:
        return 0
    return min(max(number(compile_expression(function.config.priority), run, view), -AHEAD_MAX_S), AHEAD_MAX_S)


def number(expression: Expression, run: Run, view: View) -> float:
    """What an expression says of the run's first event."""
    event = view.event(run.event_ids[0])
    assert event is not None
    value: Any = expression.evaluate({"event": body_of(view, event)}, now_ms=0)
    return float(value)


def lanes_of(tables: Tables, registry: Registry, waiting: Iterable[Item]) -> dict[str, dict[str, float]]:
    """The lanes with waiting items that nothing keeps back but what they have in common, by function, with their weights."""
    found: dict[str, dict[str, float]] = {}
    common: dict[str, set[str]] = {}
    view = view_of(tables)
    firsts = {item.lane_id: item for item in sorted(waiting, key=lambda item: -item.starts) if item.keys}
    for item in firsts.values():
        common[item.function_id] = common.get(item.function_id, set(gating(item.keys))) & set(gating(item.keys))
    for lane_id, item in firsts.items():
        function = registry.functions[item.function_id]
        if function.rules.throttle is not None or function.row.draining or f"reopen/{function.id}" in tables.timers.rows:
            continue
        weighed = next((limit.weight for limit in function.config.concurrency if limit.weight is not None), None)
        shut_by = tables.lanes.rows[lane_id].shut_by
        own = [key for key in gating(item.keys) if key not in common[function.id] or gates_starts_only(key)]
        full = any(not has_room(tables, function, key) for key in own if item.starts or not gates_starts_only(key))
        opening = shut_by is not None and (shut_by not in common[function.id] or is_opening(tables, function, shut_by))
        if not full and not opening:
            run = view.run(item.run_id)
            assert run is not None
            found.setdefault(function.id, {})[lane_id] = 1.0 if weighed is None else number(compile_expression(weighed), run, view)
    return found


def is_opening(tables: Tables, function: Function, key: str) -> bool:
    """Whether a key that shut lanes has room for more of them than are open."""
    limit = function.rules.limit_of(key)
    counter = tables.counters.rows.get(key)
    ready = sum(lane.state is LaneState.READY and key in lane.keys for lane in tables.lanes)
    return f"open/{key}" in tables.timers.rows or limit is None or limit - (0 if counter is None else counter.running) > ready


def has_room(tables: Tables, function: Function, key: str) -> bool:
    """Whether a key admits one more."""
    limit = function.rules.limit_of(key)
    counter = tables.counters.rows.get(key)
    return limit is None or counter is None or counter.running < limit
