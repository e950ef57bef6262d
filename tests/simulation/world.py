"""The whole engine in one thread: a seeded scheduler interleaves events, claims, answers, timers, crashes and jumps of the clock."""

from __future__ import annotations

import random
from collections.abc import Callable

from stepwell.engine import holders, lanes, routing, selection, timers
from stepwell.engine.commands import Call, Reply
from stepwell.engine.inputs import (
    AnyInput,
    AppSynced,
    Ask,
    CallAnswered,
    Claim,
    EventsReceived,
    NodeStarted,
    RunCancelled,
    RunRerun,
    StepsCheckpointed,
    TimerDue,
)
from stepwell.engine.invariants import Moves, violations
from stepwell.engine.model import Item
from stepwell.engine.registry import Settings
from stepwell.errors import StoreUnavailable
from stepwell.protocol.calls import Checkpoint, Lost, Ops
from stepwell.protocol.events import Event
from stepwell.protocol.ids import ulid
from stepwell.runtime.heart import Heart, known
from tests.simulation.clock import VirtualClock, at_once
from tests.simulation.faults import FaultyStore
from tests.simulation.workload import PROGRAMS, App, registration

EVENTS = 8
MOVES_MAX = 220
SETTLE_MAX = 4000
VERSIONS = {"fan": (1, 2), "flaky": (2,)}


class Broken(AssertionError):
    """Something that must hold does not."""


class World:
    """One seed's course of events. `run` raises `Broken` where a checker finds something."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = VirtualClock(self.chance)
        self.store = FaultyStore(self.chance, rate=self.chance.choice((0.0, 0.05, 0.2)))
        self.heart = Heart(self.store, self.clock, Settings(retry_interval_ms=5_000))
        self.app = App(self.chance)
        self.moves = Moves()
        self.inbox: list[AnyInput] = []
        self.out: list[Item] = []
        self.ghosts: list[Item] = []
        self.accepted: dict[str, Event] = {}
        self.versions: dict[str, int] = {}
        self.epoch = 0
        self.poisons = 0
        self.sent = 0
        self.store.rate, rate = 0.0, self.store.rate
        self._new_epoch()
        self.inbox.append(AppSynced(registration(), "sim"))
        self._beat()
        at_once(self.heart.reload())
        self.store.rate = rate

    # The course.

    def run(self) -> None:
        """Interleave at random, then let everything come to its end without faults, and judge."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (3, self._send),
            (8, self._beat),
            (5, self._claim),
            (7, self._answer),
            (4, self._tick),
            (1, self._crash),
            (1, self._cancel),
            (1, self._rerun),
            (1, self._poison),
            (1, self._jump),
        ]
        weights = [weight for weight, _ in actions]
        for _ in range(MOVES_MAX):
            self.chance.choices(actions, weights)[0][1]()
        self._settle()

    def _settle(self) -> None:
        self.store.rate = 0.0
        self._crash()
        for _ in range(SETTLE_MAX):
            while self.inbox:
                self._beat()
            self._claim()
            self._beat()
            while self.out:
                self._answer(settling=True)
                self._beat()
            if all(run.ended_ms is not None for run in self.store.tables.runs) and not self.store.tables.timers.rows:
                break
            self._tick(far=True)
        self._judge_end()

    def _judge_end(self) -> None:
        tables = self.store.tables
        for run in tables.runs:
            if run.ended_ms is None:
                raise Broken(f"run {run.id} of {run.function_id} never ends: {run}")
        if tables.items.rows or tables.counters.rows:
            raise Broken(f"left over: {list(tables.items)} {list(tables.counters)}")
        if tables.set_aside.rows:
            raise Broken(f"set aside: {list(tables.set_aside)}")
        keys: set[tuple[str, str]] = set()
        for event in self.accepted.values():
            if event.internal_id not in tables.events.rows:
                raise Broken(f"the acknowledged event {event.internal_id} is gone")
            for function in self.heart.registry.listening(event.name):
                runs = [
                    run
                    for run in tables.runs
                    if run.function_id == function.id and event.internal_id in run.event_ids and run.cause != "rerun"
                ]
                first = event.id == event.internal_id or (function.id, event.id) not in keys
                keys.add((function.id, event.id))
                if event.id == event.internal_id and len(runs) != 1:
                    raise Broken(f"event {event.internal_id} has {len(runs)} runs of {function.id}")
                if len(runs) > 1 or (not first and len(runs) > 1):
                    raise Broken(f"event key {event.id} has {len(runs)} runs of {function.id}")
        for key in {event.id for event in self.accepted.values()}:
            for function in self.heart.registry.functions.values():
                ids = {event.internal_id for event in self.accepted.values() if event.id == key}
                started = [
                    run for run in tables.runs if run.function_id == function.id and run.cause == "event" and ids & set(run.event_ids)
                ]
                if len(started) > 1:
                    raise Broken(f"event key {key} started {len(started)} runs of {function.id}")

    # What may happen.

    def _send(self) -> None:
        if self.sent >= EVENTS:
            return
        self.sent += 1
        name = self.chance.choice((*PROGRAMS, "all"))
        internal_id = ulid(self.clock.ms, self.chance.randbytes(10))
        key = f"key-{self.chance.randint(1, 2)}" if self.chance.random() < 0.3 else internal_id
        ts = self.clock.ms + (10_000 if self.chance.random() < 0.1 else 0)
        data = b'{"tenant":%d}' % self.chance.randint(1, 2)
        event = Event(
            internal_id=internal_id, id=key, name=f"sim/{name}", data=data, user=b"{}", ts=ts, v=None, meta=None, received_ms=self.clock.ms
        )
        self.inbox.append(EventsReceived((event,), fresh=True))
        if self.chance.random() < 0.2:
            self.inbox.append(EventsReceived((event,)))  # the sender tried twice

    def _beat(self) -> None:
        """One group of what has arrived, in any order of its parts."""
        if not self.inbox:
            return
        size = self.chance.randint(1, min(8, len(self.inbox)))
        group, self.inbox = self.inbox[:size], self.inbox[size:]
        stale = len(group) == 1 and self._is_stale(group[0])
        try:
            beat = at_once(self.heart.handle(group))
        except StoreUnavailable:
            self.inbox = [known(input) for input in group] + self.inbox
            self._judge()
            return
        self._judge()
        if stale and beat.changes:
            raise Broken(f"{group[0]} is no report of a lease, and changed {beat.changes}")
        self.inbox = group[len(beat.decided) :] + self.inbox
        for input, decided in zip(group, beat.decided, strict=False):
            if isinstance(input, EventsReceived) and decided.error is None:
                self.accepted.update((event.internal_id, event) for event in input.events)
            poisoned = isinstance(input, CallAnswered) and input.answer is None
            if decided.error is not None and not poisoned and not isinstance(input, RunCancelled | RunRerun | StepsCheckpointed):
                raise Broken(f"{input} raised") from decided.error
            for effect in decided.effects:
                if isinstance(effect, Call):
                    self.out.append(effect.item)
                elif isinstance(effect, Reply) and isinstance(input, StepsCheckpointed) and not effect.value.accepted:
                    self.out = [item for item in self.out if item.id != input.checkpoint.item_id or item.fence != input.checkpoint.fence]

    def _is_stale(self, input: AnyInput) -> bool:
        """Whether the input reports of a call that holds no lease any more: then it may change nothing."""
        match input:
            case CallAnswered():
                item_id, fence = input.item_id, input.fence
            case StepsCheckpointed():
                item_id, fence = input.checkpoint.item_id, input.checkpoint.fence
            case _:
                return False
        item = self.store.tables.items.rows.get(item_id)
        return item is None or item.holder is None or item.fence != fence

    def _judge(self) -> None:
        tables = self.store.tables
        wrong = violations(tables) + self.moves.judge(tables)
        for counter in tables.counters:
            for function in self.heart.registry.functions.values():
                limit = function.limit_of(counter.id)
                if limit is not None and counter.running > limit:
                    wrong.append(f"{counter.id} runs {counter.running}, at most {limit} may")
        if wrong:
            raise Broken("; ".join(wrong))

    def _claim(self) -> None:
        functions = list(self.heart.registry.functions)
        self.chance.shuffle(functions)
        self.inbox.append(Claim(self.holder, tuple(Ask(function_id, self.chance.randint(1, 4)) for function_id in functions)))

    def _answer(self, *, settling: bool = False) -> None:
        """A call that is out comes back: with an answer, twice, lost, or first with a checkpoint."""
        if self.ghosts and not settling and self.chance.random() < 0.3:
            self.out.append(self.ghosts.pop(self.chance.randrange(len(self.ghosts))))
        if not self.out:
            return
        item = self.chance.choice(self.out)
        run = self.store.tables.runs.rows.get(item.run_id)
        assert run is not None
        program = run.function_id.removeprefix("sim-")
        memo = {step.id: step.memo for step in self.store.tables.steps.find("run", run.id) if step.memo is not None}
        version = self.versions.setdefault(run.id, self.chance.choice(VERSIONS.get(program, (1, 2))))
        answer = self.app.answer(program, run.id, memo, item.step_id, item.attempt, run.force_plan, version)
        luck = 1.0 if settling else self.chance.random()
        single = isinstance(answer, Ops) and len(answer.ops) == 1 and answer.ops[0].op == "StepRun" and item.step_id == "step"
        if single and not run.force_plan and (luck < 0.3 or (settling and self.chance.random() < 0.5)):
            assert isinstance(answer, Ops)
            checkpoint = Checkpoint(run_id=run.id, item_id=item.id, fence=item.fence, ops=answer.ops)
            self.inbox += [StepsCheckpointed(checkpoint)] * (1 if luck > 0.1 else 2)
            return
        if luck < 0.85 and luck > 0.78:
            answer = Lost(reason="the child died")
        self.out.remove(item)
        if 0.85 < luck < 0.9:
            return  # never comes back: the next epoch will find it
        report = CallAnswered(run.id, item.id, item.fence, answer)
        self.inbox.append(report)
        if luck < 0.4:
            self.inbox.insert(self.chance.randint(0, len(self.inbox)), report)

    def _tick(self, *, far: bool = False) -> None:
        """Time goes on, and what is due is told."""
        timers = sorted(self.store.tables.timers, key=lambda timer: (timer.due_ms, timer.id))
        if timers and (far or self.chance.random() < 0.5):
            self.clock.ms = max(self.clock.ms, timers[0].due_ms)
        else:
            self.clock.ms += self.chance.randint(1, 3_000)
        due = [TimerDue(timer.id) for timer in timers if timer.due_ms <= self.clock.ms]
        self.inbox += due[:20]
        if due and self.chance.random() < 0.2:
            self.inbox.append(due[0])

    def _crash(self) -> None:
        """The node dies: what it had not committed is gone, its calls go on somewhere, and a new epoch begins."""
        events = [known(input) for input in self.inbox if isinstance(input, EventsReceived)]
        late = [
            input for input in self.inbox if isinstance(input, CallAnswered) and input.answer is not None and self.chance.random() < 0.5
        ]
        self.inbox = []
        self._new_epoch()
        self.inbox += [*events, *late]  # senders try again; a late answer still arrives
        self.ghosts += self.out  # they are called again, and go on meanwhile: their answers come too late
        self.out = []

    def _new_epoch(self) -> None:
        others = tuple(holder.id for holder in self.store.tables.holders)
        self.epoch += 1
        self.holder = f"node/{self.epoch}"
        self.inbox.append(NodeStarted("node", self.holder, others))
        while any(isinstance(input, NodeStarted) for input in self.inbox):
            self._beat()

    def _cancel(self) -> None:
        runs = sorted(self.store.tables.runs.rows)
        if runs:
            self.inbox.append(RunCancelled(str(self.chance.choice(runs)), "chance"))

    def _rerun(self) -> None:
        runs = sorted(self.store.tables.runs.rows)
        if runs and len(runs) < 20:
            rerun = RunRerun(str(self.chance.choice(runs)), ulid(self.clock.ms, self.chance.randbytes(10)))
            self.inbox += [rerun] * self.chance.randint(1, 2)

    def _poison(self) -> None:
        """An input that no decision can be made on, in the middle of the others."""
        if self.out:
            item = self.out[0]
            bad = CallAnswered(item.run_id, item.id, item.fence, None)  # type: ignore[arg-type]
            self.inbox.insert(self.chance.randint(0, len(self.inbox)), bad)

    def _jump(self) -> None:
        self.clock.ms += self.chance.choice((-60_000, 3_600_000, 10_000))


SMALL = (
    (selection, "RETURN_AT_ONCE", 2),
    (holders, "RETURN_AT_ONCE", 2),
    (selection, "OPEN_AT_ONCE", 1),
    (lanes, "OPEN_AT_ONCE", 1),
    (selection, "OPEN_BY_CURSOR", 1),
    (timers, "OPEN_BY_CURSOR", 1),
    (selection, "CLAIM_OF_MANY", 1),
    (lanes, "CLAIM_OF_MANY", 1),
    (routing, "FANOUT_MAX", 1),
)
"""Bounds so small that every cursor takes several steps."""


def simulate(seed: int) -> None:
    """One seed, from the start to the judged end, every other one with small bounds. Raises `Broken`."""
    kept = [(module, name, getattr(module, name)) for module, name, _ in SMALL]
    if seed % 2:
        for module, name, value in SMALL:
            setattr(module, name, value)
    try:
        World(seed).run()
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
