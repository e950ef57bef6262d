"""Lanes: which ready item is claimed next, and what a full key keeps back.

Items of a function that share every gating key share a lane. A lane is ready, shut by the key that refused its first item, or
empty; a key that gets room opens the lanes it shut. Items without keys need no gate: their lane is the function itself, has no
row and is always ready.
"""

from __future__ import annotations

import heapq
from typing import Literal

import msgspec

from stepwell.engine.commands import (
    Call,
    Charge,
    Command,
    Delete,
    Effect,
    HoldItem,
    Put,
    Release,
    Reply,
    SetClock,
    SetLane,
    SetRow,
    StartRun,
    TimerSet,
    Wake,
)
from stepwell.engine.inputs import Ask, Claim, Claimed
from stepwell.engine.model import Item, Lane, LaneState, RunStatus, Timer, TimerKind
from stepwell.engine.registry import Function, Registry, digest
from stepwell.engine.selection import CLAIM_OF_LANE, CLAIM_OF_MANY, OPEN_AT_ONCE, may_be_shared
from stepwell.engine.view import Scan, Select, Selection, View

STRIDE = 1 << 20
"""Virtual time that one claimed item costs its lane."""


def lane_id(function_id: str, keys: tuple[str, ...]) -> str:
    """The lane of items with these keys."""
    return function_id if not keys else digest("\n".join((function_id, *keys)))


class Lanes:
    """What one transition does to lanes, collected so that each lane is written once."""

    def __init__(self, registry: Registry, view: View) -> None:
        self._registry, self._view = registry, view
        self._lanes: dict[str, Lane] = {}
        self._released: dict[str, int] = {}
        self._commands: list[Command | Effect] = []
        self._awake: set[str] = set()

    def put(self, item: Item) -> None:
        """A ready item that was not there."""
        self._commands.append(Put(item))
        self.ready(item)

    def ready(self, item: Item) -> None:
        """The item's lane has something to claim."""
        self._wake(item.function_id)
        if not item.keys:
            return
        lane = self._lane(item.lane_id)
        if lane is None or lane.state is LaneState.EMPTY:
            virtual = self._view.virtual_time(item.function_id)
            tag = virtual if lane is None else max(lane.tag, virtual)
            self._lanes[item.lane_id] = Lane(id=item.lane_id, function_id=item.function_id, keys=item.keys, state=LaneState.READY, tag=tag)

    def give_back(self, item: Item) -> None:
        """A lease is over: its slots are free, and lanes that waited for them open."""
        for counter_id in item.keys:
            self._released[counter_id] = self._released.get(counter_id, 0) + 1

    def commands(self) -> list[Command | Effect]:
        """All of it, each lane and counter once."""
        for counter_id, slots in self._released.items():
            self._commands.append(Release(counter_id, slots))
            self._open(counter_id, self._view.running(counter_id) - slots, OPEN_AT_ONCE)
        for lane in self._lanes.values():
            before = self._view.lane(lane.id)
            if before is None:
                self._commands.append(Put(lane))
            elif before != lane:
                self._commands.append(SetLane(lane.id, lane.state, lane.shut_by, lane.tag))
        return self._commands

    def open(self, counter_id: str, limit: int) -> int:
        """Open lanes that a key shut, as many as it has room for. Says how many."""
        return self._open(counter_id, self._view.running(counter_id), limit)

    def _open(self, counter_id: str, running: int, limit: int) -> int:
        shut: list[Lane] = self._view.scan("shut_lanes", counter_id, limit)
        opened = 0
        for lane in shut:
            if lane.id in self._lanes:
                lane = self._lanes[lane.id]
            if lane.state is not LaneState.SHUT:
                continue
            allowed = self._registry.functions[lane.function_id].limit_of(counter_id)
            if allowed is not None and opened >= allowed - running:
                return opened
            self._lanes[lane.id] = msgspec.structs.replace(lane, state=LaneState.READY, shut_by=None)
            self._wake(lane.function_id)
            opened += 1
        return opened

    def _lane(self, lane_id: str) -> Lane | None:
        lane = self._lanes.get(lane_id)
        return lane if lane is not None else self._view.lane(lane_id)

    def _wake(self, function_id: str) -> None:
        if function_id not in self._awake:
            self._awake.add(function_id)
            self._commands.append(Wake(function_id))


def select_claim(registry: Registry, claim: Claim) -> list[Selection]:
    """The first items of each function's lanes, with their runs, and the counters that gate them."""
    selections: list[Selection] = []
    for ask in claim.asks:
        selections.append(Scan("lane_items", ask.function_id, ask.room, ("run", "counters")))
        if is_keyed(registry, ask.function_id):
            selections.append(Select("clocks", ask.function_id))
            items = "few_items" if registry.functions[ask.function_id].has_many_lanes else "items"
            selections.append(Scan("ready_lanes", ask.function_id, ask.room, ("counters", items)))
    return selections


def is_keyed(registry: Registry, function_id: str) -> bool:
    """Whether the function has lanes with keys, today or from an earlier configuration."""
    function = registry.functions.get(function_id)
    return function is not None and function.row.keyed


def on_claim(registry: Registry, view: View, claim: Claim, now_ms: int) -> list[Command | Effect]:
    """Lease as many ready items as there is room for, function by function in the order asked, fairly between lanes."""
    commands: list[Command | Effect] = []
    counts: dict[str, int] = {}
    more: list[str] = []
    charges: dict[str, int] = {}
    for ask in claim.asks:
        function = registry.functions.get(ask.function_id)
        if function is None:
            continue
        took = _Take(view, function, claim.holder, charges, now_ms)
        took.free_lane(ask)
        if function.row.keyed:
            took.keyed_lanes(ask)
        commands += took.commands
        counts[ask.function_id] = took.taken
        if took.more:
            more.append(ask.function_id)
    commands += [Charge(counter_id, slots) for counter_id, slots in charges.items()]
    commands.append(Reply(Claimed(counts, tuple(more))))
    return commands


class _Take:
    """One function's part of a claim."""

    def __init__(self, view: View, function: Function, holder: str, charges: dict[str, int], now_ms: int) -> None:
        self._view, self._function, self._holder, self._charges, self._now_ms = view, function, holder, charges, now_ms
        self.commands: list[Command | Effect] = []
        self.taken = 0
        self.more = False

    def free_lane(self, ask: Ask) -> None:
        """Items without keys: nothing refuses them."""
        items: list[Item] = self._view.scan("lane_items", ask.function_id, ask.room)
        for item in items:
            self._lease(item)
        self.more = self._view.more("lane_items", ask.function_id, ask.room)

    def keyed_lanes(self, ask: Ask) -> None:
        """Lanes in the order of their tags; each item claimed moves its lane's tag on."""
        lanes: list[Lane] = self._view.scan("ready_lanes", ask.function_id, ask.room)
        each = CLAIM_OF_MANY if self._function.has_many_lanes else CLAIM_OF_LANE
        queues = {lane.id: iter(self._view.scan("lane_items", lane.id, each)) for lane in lanes}
        heap = [(lane.tag, lane.id, lane) for lane in lanes]
        heapq.heapify(heap)
        ahead: dict[str, Item | None] = {lane_id: next(queue, None) for lane_id, queue in queues.items()}
        tags = {lane.id: lane.tag for lane in lanes}
        virtual = before = self._view.virtual_time(ask.function_id)
        self.more = self.more or self._view.more("ready_lanes", ask.function_id, ask.room)
        while heap:
            tag, lane_id, lane = heapq.heappop(heap)
            item = ahead[lane_id]
            if item is None:
                if self._view.more("lane_items", lane_id, each):
                    self.more = True
                    self._moved(lane, tags[lane_id])
                else:
                    self._empty(lane, tags[lane_id], virtual)
                continue
            if self.taken >= ask.room:
                self.more = True
                self._moved(lane, tags[lane_id])
                continue
            refusing = self._refusing(item)
            if refusing is not None:
                self.commands.append(SetLane(lane.id, LaneState.SHUT, refusing, tags[lane_id]))
                self._pass_on(lane, refusing)
                continue
            self._lease(item)
            virtual = max(virtual, tag)
            tags[lane_id] = tag + STRIDE
            ahead[lane_id] = next(queues[lane_id], None)
            heapq.heappush(heap, (tag + STRIDE, lane_id, lane))
        if virtual != before:
            self.commands.append(SetClock(ask.function_id, virtual))

    def _refusing(self, item: Item) -> str | None:
        """The first key without room, where there is one. Nothing is charged before all admit."""
        for counter_id in item.keys:
            allowed = self._function.limit_of(counter_id)
            if allowed is not None and self._view.running(counter_id) + self._charges.get(counter_id, 0) >= allowed:
                return counter_id
        return None

    def _lease(self, item: Item) -> None:
        run = self._view.run(item.run_id)
        assert run is not None and run.ended_ms is None, f"item {item.id} waits in a lane, but its run has ended"
        for counter_id in item.keys:
            self._charges[counter_id] = self._charges.get(counter_id, 0) + 1
        self.taken += 1
        fence = item.fence + 1
        self.commands.append(HoldItem(item.id, self._holder, fence, self._now_ms))
        if run.started_ms is None:
            self.commands.append(StartRun(run.id, RunStatus.RUNNING, self._now_ms))
            timeouts = self._function.config.timeouts
            if timeouts is not None and timeouts.finish_ms is not None:
                self.commands += limit_timer(run.id, "finish", self._now_ms + timeouts.finish_ms)
        held = msgspec.structs.replace(item, holder=self._holder, fence=fence, leased_ms=self._now_ms)
        self.commands.append(Call(held, run))

    def _moved(self, lane: Lane, tag: int) -> None:
        if tag != lane.tag:
            self.commands.append(SetLane(lane.id, LaneState.READY, None, tag))

    def _empty(self, lane: Lane, tag: int, virtual: int) -> None:
        """A lane ran dry. Its row stays until virtual time has passed its tag, so that coming and going earns nothing."""
        if tag <= virtual:
            self.commands.append(Delete("lanes", lane.id))
        else:
            self.commands.append(SetLane(lane.id, LaneState.EMPTY, None, tag))
        self._pass_on(lane, None)

    def _pass_on(self, lane: Lane, refusing: str | None) -> None:
        """A lane that was opened and takes nothing hands the opening on: its other keys may have room that others wait for."""
        for counter_id in lane.keys:
            if counter_id == refusing or not may_be_shared(lane.keys, counter_id):
                continue
            allowed = self._function.limit_of(counter_id)
            used = self._view.running(counter_id) + self._charges.get(counter_id, 0)
            if (allowed is None or used < allowed) and self._view.scan("shut_lanes", counter_id, 1):
                timer = open_timer(counter_id, self._now_ms)
                if self._view.get("timers", timer.id) is None:
                    self.commands += [SetRow(timer), TimerSet(timer.id, timer.due_ms)]


def limit_timer(run_id: str, limit: Literal["start", "finish"], due_ms: int) -> list[Command | Effect]:
    """The timer that ends a run which has not started, or not finished, by then (§11.3)."""
    timer = Timer(id=f"limit/{run_id}/{limit}", due_ms=due_ms, kind=TimerKind.LIMIT, run_id=run_id, ref=limit)
    return [Put(timer), TimerSet(timer.id, due_ms)]


def open_timer(counter_id: str, now_ms: int) -> Timer:
    """The cursor that opens a key's lanes in bounded steps."""
    return Timer(id=f"open/{counter_id}", due_ms=now_ms, kind=TimerKind.OPEN, ref=counter_id)
