"""Lanes: which ready item is claimed next, and what a full key keeps back.

Items of a function that share every gating key share a lane. A lane is ready, shut by the key that refused its first item, or
empty; a key that gets room opens the lanes it shut. Items without keys need no gate: their lane is the function itself, has no
row and is always ready.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from typing import Literal

import msgspec

from stepwell.engine.commands import (
    Call,
    Charge,
    Command,
    Effect,
    HoldItem,
    MoveItem,
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
from stepwell.engine.digests import digest
from stepwell.engine.flow.gates import Rules
from stepwell.engine.flow.keys import DRAIN, THROTTLE, gates_starts_only, gating, held_lane, of_calls, of_runs, of_throttles, weight_of
from stepwell.engine.inputs import Ask, Claim, Claimed
from stepwell.engine.model import Item, Lane, LaneState, Rate, Run, RunStatus, Timer, TimerKind
from stepwell.engine.registry import Function, Registry
from stepwell.engine.selection import CLAIM_OF_LANE, CLAIM_OF_MANY, CLAIM_OF_ONE, OPEN_AT_ONCE, RELATIONS
from stepwell.engine.view import Scan, Select, Selection, View

STRIDE = 1 << 20
"""Virtual time that one claimed item costs its lane."""


@lru_cache(maxsize=65536)
def lane_id(function_id: str, keys: tuple[str, ...]) -> str:
    """The lane of items with these keys."""
    return function_id if not keys else digest("\n".join((function_id, *keys)))


def level(tag: int, virtual: int) -> int:
    """The tag of a lane that takes its turns from now on: what others were served while it was empty or shut is not made up for."""
    return max(tag, virtual)


class Lanes:
    """What one transition does to lanes, collected so that each lane is written once."""

    def __init__(self, registry: Registry, view: View, now_ms: int) -> None:
        self._registry, self._view, self._now_ms = registry, view, now_ms
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
            tag = level(0 if lane is None else lane.tag, self._view.virtual_time(item.function_id))
            self._lanes[item.lane_id] = Lane(id=item.lane_id, function_id=item.function_id, keys=item.keys, state=LaneState.READY, tag=tag)
        elif lane.shut_by is not None and not item.starts and gates_starts_only(lane.shut_by):
            # Shut for runs that have not begun: one that has goes on.
            self._lanes[item.lane_id] = msgspec.structs.replace(lane, state=LaneState.READY, shut_by=None, shut_at=0)

    def unpark(self, item: Item, lane_id: str) -> None:
        """An item of a run that was paused is in its lane again, at the place that it had."""
        self._commands.append(MoveItem(item.id, lane_id))
        self.ready(msgspec.structs.replace(item, lane_id=lane_id))

    def give_back(self, item: Item) -> None:
        """A lease is over: its slots are free, and lanes that waited for them open."""
        for counter_id in of_calls(item.keys):
            self.release(counter_id)

    def release(self, counter_id: str) -> None:
        """A slot of a key is free."""
        self._released[counter_id] = self._released.get(counter_id, 0) + 1

    def commands(self) -> list[Command | Effect]:
        """All of it, each lane and counter once."""
        for counter_id, slots in self._released.items():
            self._commands.append(Release(counter_id, slots))
            self.open_shut_by(counter_id, OPEN_AT_ONCE)
            if self._view.more("shut_lanes", counter_id, OPEN_AT_ONCE):
                self._go_on_behind(counter_id)
        for lane in self._lanes.values():
            before = self._view.lane(lane.id)
            if before is None:
                self._commands.append(Put(lane))
            elif before != lane:
                self._commands.append(SetLane(lane.id, lane.state, lane.shut_by, lane.tag, lane.shut_at))
        return self._commands

    def open_shut_by(self, counter_id: str, limit: int) -> int:
        """Open lanes that a key shut, as many as it has room for. Says how many."""
        shut: list[Lane] = self._view.scan("shut_lanes", counter_id, limit)
        opened = 0
        for lane in shut:
            if lane.id in self._lanes:
                lane = self._lanes[lane.id]
            if lane.state is not LaneState.SHUT:
                continue
            rules = self._registry.functions[lane.function_id].rules
            room = room_of(rules, self._view, counter_id, -self._released.get(counter_id, 0), self._now_ms)
            if room is not None and opened >= room:
                return opened
            self.open(lane)
            opened += 1
        return opened

    def _go_on_behind(self, counter_id: str) -> None:
        """Where all shut lanes that were read are open, by this release and others of its group, a cursor opens those behind them."""
        seen: list[Lane] = self._view.scan("shut_lanes", counter_id, OPEN_AT_ONCE)
        if any(self._lanes.get(lane.id, lane).state is LaneState.SHUT for lane in seen):
            return
        timer = open_timer(counter_id, self._now_ms)
        if self._view.timer(timer.id) is None:
            self._commands += [SetRow(timer), TimerSet(timer.id, timer.due_ms)]

    def open(self, lane: Lane) -> None:
        """A shut lane is ready: the next claim judges it anew."""
        self._lanes[lane.id] = msgspec.structs.replace(lane, state=LaneState.READY, shut_by=None, shut_at=0)
        self._wake(lane.function_id)

    def _lane(self, lane_id: str) -> Lane | None:
        lane = self._lanes.get(lane_id)
        return lane if lane is not None else self._view.lane(lane_id)

    def _wake(self, function_id: str) -> None:
        if function_id not in self._awake:
            self._awake.add(function_id)
            self._commands.append(Wake(function_id))


def room_of(rules: Rules, view: View, key: str, taken: int, now_ms: int) -> int | None:
    """How many more a key admits, with so many `taken` that the view does not know of; `None` where it gates no more."""
    if key.startswith(THROTTLE):
        throttle = rules.throttle_of(key)
        return None if throttle is None else throttle.room(view.get("rates", key), now_ms)
    allowed = rules.limit_of(key)
    return None if allowed is None else allowed - view.running(key) - taken


def read_of(function: Function) -> tuple[str, ...]:
    """What a claim reads of each lane, by its relations."""
    items, _ = depth_of(function.rules)
    return ("counters", items, "others") if function.shares_keys else ("counters", items)


def depth_of(rules: Rules) -> tuple[str, int]:
    """How far a claim looks into each lane: the relation that reads so many items, and how many they are."""
    if rules.calls_max == 1:
        return "one_item", CLAIM_OF_ONE
    return ("few_items", CLAIM_OF_MANY) if rules.has_many_lanes else ("items", CLAIM_OF_LANE)


def select_claim(registry: Registry, claim: Claim) -> list[Selection]:
    """The first items of each function's lanes, with their runs, and the counters that gate them."""
    selections: list[Selection] = []
    for ask in claim.asks:
        selections.append(Scan("lane_items", ask.function_id, ask.room, ("claim",)))
        if is_keyed(registry, ask.function_id):
            selections.append(Select("clocks", ask.function_id))
            selections.append(Scan("ready_lanes", ask.function_id, ask.room, read_of(registry.functions[ask.function_id])))
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
    taking = _Taking(view, claim.holder, now_ms)
    for ask in claim.asks:
        function = registry.functions.get(ask.function_id)
        if function is None or function.row.paused:
            continue
        took = _Take(taking, function)
        took.free_lane(ask)
        if function.row.keyed:
            took.keyed_lanes(ask)
        commands += took.commands
        counts[ask.function_id] = took.taken
        if took.more:
            more.append(ask.function_id)
    return [*commands, *taking.commands(), Reply(Claimed(counts, tuple(more)))]


class _Taking:
    """What one claim takes of keys that several functions and lanes share, collected so that each row is written once."""

    def __init__(self, view: View, holder: str, now_ms: int) -> None:
        self.view, self.holder, self.now_ms = view, holder, now_ms
        self.charges: dict[str, int] = {}
        self.rates: dict[str, Rate] = {}
        self.timers: dict[str, Timer] = {}

    def rate(self, counter_id: str) -> Rate | None:
        """A throttle's state, with what this claim has taken."""
        return self.rates[counter_id] if counter_id in self.rates else self.view.get("rates", counter_id)

    def charge(self, counter_id: str) -> None:
        """A slot of a key is taken."""
        self.charges[counter_id] = self.charges.get(counter_id, 0) + 1

    def set_timer(self, timer: Timer) -> None:
        """A cursor or an admission to come, where none is there that comes as soon."""
        before = self.view.timer(timer.id)
        if before is None or before.due_ms > timer.due_ms:
            self.timers[timer.id] = timer

    def commands(self) -> list[Command | Effect]:
        """All of it."""
        commands: list[Command | Effect] = [Charge(counter_id, slots) for counter_id, slots in self.charges.items()]
        commands += [SetRow(rate) for rate in self.rates.values()]
        for timer in self.timers.values():
            commands += [SetRow(timer), TimerSet(timer.id, timer.due_ms)]
        return commands


class _Take:
    """One function's part of a claim."""

    def __init__(self, taking: _Taking, function: Function) -> None:
        self._view, self._function, self._taking, self._now_ms = taking.view, function, taking, taking.now_ms
        self.commands: list[Command | Effect] = []
        self.taken = 0
        self.more = False

    def free_lane(self, ask: Ask) -> None:
        """Items without keys: nothing refuses them, but that no run is to begin."""
        items: list[Item] = self._view.scan("lane_items", ask.function_id, ask.room)
        for item in items:
            if item.starts and self._function.row.draining:
                return  # what continues stands before what starts
            run = self._run_of(item)
            if is_held(run):
                self._park(item)
            else:
                self._lease(item, run)
        self.more = self._view.more("lane_items", ask.function_id, ask.room)

    def keyed_lanes(self, ask: Ask) -> None:
        """Lanes in the order of their tags; each item claimed moves its lane's tag on."""
        lanes: list[Lane] = self._view.scan("ready_lanes", ask.function_id, ask.room)
        _, each = depth_of(self._function.rules)
        # Lanes that other inputs of the group have made or opened were not there when the claim said what it needs.
        unknown = [lane for lane in lanes if not self._view.knows_scan("lane_items", lane.id, each)]
        self._view.require(
            wanted for lane in unknown for relation in read_of(self._function) for wanted in RELATIONS["lanes", relation](lane)
        )
        depths = {lane.id: CLAIM_OF_LANE if self._view.knows_scan("lane_items", lane.id, CLAIM_OF_LANE) else each for lane in lanes}
        pages = {lane.id: self._view.page("lane_items", lane.id, depths[lane.id]) for lane in lanes}
        queues = {lane_id: iter(items) for lane_id, (items, _) in pages.items()}
        virtual = before = self._view.virtual_time(ask.function_id)
        tags = {lane.id: level(lane.tag, virtual) for lane in lanes}
        heap = [(tags[lane.id], lane.id, lane) for lane in lanes]
        heapq.heapify(heap)
        ahead: dict[str, Item | None] = {lane_id: next(queue, None) for lane_id, queue in queues.items()}
        parked: set[str] = set()
        self.more = self.more or self._view.more("ready_lanes", ask.function_id, ask.room)
        unread: list[Selection] = []
        passed = 0
        while heap:
            tag, lane_id, lane = heapq.heappop(heap)
            item = ahead[lane_id]
            if item is None:
                if pages[lane_id][1]:
                    full = next((key for key in of_calls(lane.keys) if not self._admits(key)), None)
                    if full is not None:
                        self._shut(lane, full, tags[lane_id])
                        if lane_id in parked:
                            self._pass_on(lane, full)  # it may have taken nothing
                    else:
                        self.more = True
                        self._moved(lane, tags[lane_id])
                        if depths[lane_id] < CLAIM_OF_LANE:
                            unread.append(Scan("lane_items", lane_id, CLAIM_OF_LANE, ("claim",)))
                else:
                    self._empty(lane, tags[lane_id])
                continue
            if self.taken >= ask.room:
                self.more = True
                self._moved(lane, tags[lane_id])
                continue
            run = self._run_of(item)
            if is_held(run):
                self._park(item)
                parked.add(lane_id)
                ahead[lane_id] = next(queues[lane_id], None)
                heapq.heappush(heap, (tag, lane_id, lane))
                continue
            refusing = self._refusing(item)
            if refusing is not None:
                self._shut(lane, refusing, tags[lane_id])
                if (throttle := self._function.rules.throttle_of(refusing)) is not None:
                    due_ms = throttle.next_ms(self._taking.rate(refusing), self._now_ms)
                    self._taking.set_timer(admit_timer(refusing, due_ms))
                self._pass_on(lane, refusing)
                continue
            passed = len(unread)
            self._lease(item, run)
            virtual = max(virtual, tag)
            tags[lane_id] = tag + STRIDE // weight_of(lane.keys)
            ahead[lane_id] = next(queues[lane_id], None)
            heapq.heappush(heap, (tags[lane_id], lane_id, lane))
        # Others were served in the place of lanes whose next items were not read: those are read, and the claim is decided anew.
        self._view.require(unread[:passed])
        if virtual != before:
            self.commands.append(SetClock(ask.function_id, virtual))

    def _refusing(self, item: Item) -> str | None:
        """The first key without room, where there is one. Nothing is charged before all admit."""
        if item.starts and self._function.row.draining:
            return DRAIN + self._function.id
        for key in gating(item.keys):
            if (item.starts or not gates_starts_only(key)) and not self._admits(key):
                return key
        return None

    def _admits(self, key: str) -> bool:
        rules, taking = self._function.rules, self._taking
        if not key.startswith(THROTTLE):
            room = room_of(rules, self._view, key, taking.charges.get(key, 0), self._now_ms)
            return room is None or room > 0
        throttle = rules.throttle_of(key)
        return throttle is None or throttle.room(taking.rate(key), self._now_ms) > 0

    def _run_of(self, item: Item) -> Run:
        run = self._view.run(item.run_id)
        assert run is not None and run.ended_ms is None, f"item {item.id} waits in a lane, but its run has ended"
        return run

    def _park(self, item: Item) -> None:
        """An item of a paused run gets out of the way of others. It is found here, since nobody looks for it at the pause."""
        self.commands.append(MoveItem(item.id, held_lane(item.run_id)))

    def _lease(self, item: Item, run: Run) -> None:
        for key in of_calls(item.keys):
            self._taking.charge(key)
        if item.starts:
            for key in of_runs(item.keys):
                self._taking.charge(key)
            for key in of_throttles(item.keys):
                if (throttle := self._function.rules.throttle_of(key)) is not None:
                    self._taking.rates[key] = throttle.taken(self._taking.rate(key), key, self._now_ms)
        self.taken += 1
        fence = item.fence + 1
        self.commands.append(HoldItem(item.id, self._taking.holder, fence, self._now_ms))
        if run.started_ms is None:
            self.commands.append(StartRun(run.id, RunStatus.RUNNING, self._now_ms))
            timeouts = self._function.config.timeouts
            if timeouts is not None and timeouts.finish_ms is not None:
                self.commands += limit_timer(run.id, "finish", self._now_ms + timeouts.finish_ms)
        held = msgspec.structs.replace(item, holder=self._taking.holder, fence=fence, leased_ms=self._now_ms, starts=0)
        self.commands.append(Call(held, run))

    def _shut(self, lane: Lane, refusing: str, tag: int) -> None:
        shut_at = self._function.rules.limit_of(refusing) or 0
        self.commands.append(SetLane(lane.id, LaneState.SHUT, refusing, tag, shut_at))

    def _moved(self, lane: Lane, tag: int) -> None:
        if tag != lane.tag:
            self.commands.append(SetLane(lane.id, LaneState.READY, None, tag))

    def _empty(self, lane: Lane, tag: int) -> None:
        """A lane ran dry. Its row stays for a while, so that coming and going earns nothing; the sweep takes it away."""
        self.commands.append(SetLane(lane.id, LaneState.EMPTY, None, tag))
        self._pass_on(lane, None)

    def _pass_on(self, lane: Lane, refusing: str | None) -> None:
        """A lane that was opened and takes nothing hands the opening on: its keys may have room that other lanes wait for."""
        if not self._function.shares_keys:
            return
        for key in gating(lane.keys):
            if key != refusing and self._admits(key) and self._may_have_shut(key):
                self._taking.set_timer(open_timer(key, self._now_ms))

    def _may_have_shut(self, key: str) -> bool:
        """Whether the key may have shut a lane: those that were read may be open by now, and the store may have more."""
        return bool(self._view.scan("shut_lanes", key, 1)) or self._view.more("shut_lanes", key, 1)


def is_held(run: Run) -> bool:
    """Whether the run is paused."""
    return run.held is not None


def limit_timer(run_id: str, limit: Literal["start", "finish"], due_ms: int) -> list[Command | Effect]:
    """The timer that ends a run which has not started, or not finished, by then (§11.3)."""
    timer = Timer(id=f"limit/{run_id}/{limit}", due_ms=due_ms, kind=TimerKind.LIMIT, run_id=run_id, ref=limit)
    return [Put(timer), TimerSet(timer.id, due_ms)]


def open_timer(counter_id: str, now_ms: int) -> Timer:
    """The cursor that opens a key's lanes in bounded steps."""
    return Timer(id=f"open/{counter_id}", due_ms=now_ms, kind=TimerKind.OPEN, ref=counter_id)


def admit_timer(counter_id: str, due_ms: int) -> Timer:
    """A throttle's next admission: one timer of the key, not of its lanes."""
    return Timer(id=f"admit/{counter_id}", due_ms=due_ms, kind=TimerKind.ADMIT, ref=counter_id)


def reopen(function_id: str, now_ms: int) -> list[Command | Effect]:
    """The cursor that opens all shut lanes of a function, whose settings have changed: the next claims judge them anew."""
    timer = Timer(id=f"reopen/{function_id}", due_ms=now_ms, kind=TimerKind.REOPEN, ref=function_id)
    return [SetRow(timer), TimerSet(timer.id, now_ms), Wake(function_id)]
