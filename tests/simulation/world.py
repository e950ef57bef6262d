"""The whole engine in one thread: a seeded scheduler interleaves events, claims, answers, timers, crashes and jumps of the clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from stepwell.engine import cancelling, holders, lanes, meeting, pausing, routing, selection, timers
from stepwell.engine.calls import CheckpointReply
from stepwell.engine.commands import Call, RegistryChanged, Reply
from stepwell.engine.inputs import (
    CHANGES_REGISTRY,
    AnyInput,
    AppSynced,
    Ask,
    CallAnswered,
    CallsReturned,
    Claim,
    EventsReceived,
    FunctionHeld,
    FunctionInvoked,
    FunctionOverridden,
    HolderRenewed,
    MetadataTold,
    NodeStarted,
    RunCancelled,
    RunHeld,
    RunRerun,
    RunsCancelled,
    SignalSent,
    SpansTold,
    StepsCheckpointed,
    SyncRunBegun,
    SyncStepsTold,
    TimerDue,
)
from stepwell.engine.invariants import Moves
from stepwell.engine.model import Cancellation, Item, LaneState, UserSpan
from stepwell.engine.registry import Settings
from stepwell.errors import StoreUnavailable
from stepwell.protocol.calls import Checkpoint, Lost, Ops
from stepwell.protocol.events import Event
from stepwell.protocol.functions import Override
from stepwell.protocol.ids import ulid
from stepwell.protocol.metadata import CHANGES, Note
from stepwell.protocol.ops import Op
from stepwell.runtime.heart import Decided, Heart, known
from stepwell.runtime.shares import Shares
from stepwell.server.edits import from_step
from stepwell.store.base import Store
from stepwell.store.memory import MemoryStore
from tests.simulation.bounds import bounded
from tests.simulation.broken import Broken
from tests.simulation.checkers import FOR_EVER, Meetings, WatchedHeart, judge_commit, judge_end
from tests.simulation.clock import VirtualClock, at_once
from tests.simulation.endpoints import Endpoints, saves
from tests.simulation.faults import FaultyStore, Luck
from tests.simulation.flow import Flow
from tests.simulation.turns import Turns
from tests.simulation.workload import FLOWING, HEAVY, HEAVY_WEIGHT, PROGRAMS, RUSH, App, registration

EVENTS = 16
MOVES_MAX = 220
SETTLE_MAX = 600
VERSIONS = {"fan": (1, 2), "flaky": (1, 2)}

MakeHeart = Callable[[Store, VirtualClock, Settings], Heart]


class Flight(msgspec.Struct):
    """A call that is out: it knows what it was sent, and what was acknowledged to it since."""

    item: Item
    program: str
    plan: bool
    memo: dict[str, bytes]
    asking: bool = False  # it waits for the answer to its checkpoint
    unheard: tuple[Op, ...] = ()  # what it has told by a checkpoint and not seen acknowledged: its answer will tell it


class World:
    """One seed's course of events. `run` raises `Broken` where a checker finds something."""

    def __init__(self, seed: int, make_heart: MakeHeart = WatchedHeart) -> None:
        self.chance = random.Random(seed)
        self.clock = VirtualClock(self.chance)
        rate = self.chance.choice((0.0, 0.05, 0.2))
        self.luck = Luck(self.chance, 0.0)
        memory = MemoryStore()
        self.tables = memory.tables
        self.store = FaultyStore(memory, self.luck)
        self.heart = make_heart(self.store, self.clock, Settings(retry_interval_ms=5_000))
        self.app = App(self.chance)
        self.moves, self.meetings, self.flow, self.turns = Moves(), Meetings(), Flow(), Turns()
        self.counted: dict[str, int] = {}
        self.inbox: list[AnyInput] = []
        self.out: list[Flight] = []
        self.ghosts: list[Flight] = []
        self.accepted: dict[str, Event] = {}
        self.acknowledged: dict[tuple[str, str], bytes] = {}
        self.versions: dict[str, int] = {}
        self.endpoints = Endpoints(self.chance, self.clock, self.app, self.versions)
        self.epoch = 0
        self.sent = 0
        # A node with room for one call chooses whom it asks, while much comes for few functions; the others ask everybody.
        self.narrow = seed % 5 == 0
        self.shares, self.wished = Shares(), list[str]()
        self._new_epoch()
        # In the server's own process, calls that are lost with a node count as those that may have killed it.
        self.driver = self.chance.choice(("sim", "local"))
        self.inbox.append(AppSynced(registration(), self.driver))
        self.inbox += Endpoints.known()
        while self.inbox:
            self._beat()
        at_once(self.heart.reload())
        if self.narrow:
            self.inbox += [FunctionOverridden(function_id, Override(weight=HEAVY_WEIGHT, pinned=True)) for function_id in HEAVY]
        self.luck.rate = rate

    # The course.

    def run(self) -> None:
        """Interleave at random, then let everything come to its end without faults, and judge."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (4, self._send),
            (24 if self.narrow else 8, self._beat),
            (16 if self.narrow else 5, self._claim),
            (14 if self.narrow else 7, self._answer),
            (4, self._tick),
            (1, self._crash),
            (1, self._cancel),
            (2, self._hold),
            (1, self._rerun),
            (1, self._poison),
            (1, self._jump),
            (1, self._compare),
            (1, self._renew),
            (1, self._signal),
            (1, self._invoke),
            (1, self._cancel_many),
            (1, self._change),
            (1, self._note),
            (2, lambda: self.endpoints.visit(self.inbox)),
            (6, lambda: self.endpoints.move(self.inbox)),
        ]
        weights = [weight for weight, _ in actions]
        for _ in range(EVENTS * 3 // 4 if self.narrow else 0):
            self._send()
        for _ in range(MOVES_MAX):
            self.chance.choices(actions, weights)[0][1]()
        self._settle()

    def _settle(self) -> None:
        self.luck.rate = 0.0
        self.narrow = False
        self._crash()
        self.inbox += [FunctionHeld(function_id, "running") for function_id in self.heart.registry.functions]
        self.inbox += [RunHeld(run.id, False) for run in self.tables.runs if run.ended_ms is None]
        self.endpoints.settle()
        for _ in range(SETTLE_MAX):
            while self.inbox:
                self._beat()
            self._claim()
            self._beat()
            while self.out:
                self._answer(settling=True)
                self._beat()
            if all(run.ended_ms is not None for run in self.tables.runs) and not self._timers_left() and not self._lanes_to_visit():
                break
            self._tick(far=True)
        judge_end(self.tables, self.heart.registry, self.accepted.values(), self.acknowledged)
        self.flow.judge_end(self.tables, self.heart.registry, self.accepted)
        self.endpoints.judge_end(self.tables)

    def _timers_left(self) -> bool:
        """Whether a timer is left but those that always have a next time."""
        return any(timer.kind not in FOR_EVER for timer in self.tables.timers)

    def _lanes_to_visit(self) -> bool:
        """Whether a claim has still to find lanes empty whose runs were cancelled."""
        return any(lane.state is not LaneState.EMPTY for lane in self.tables.lanes)

    # What may happen.

    def _send(self) -> None:
        if self.sent >= EVENTS:
            return
        self.sent += 1
        name = self.chance.choice(
            RUSH
            if self.narrow
            else (*PROGRAMS, "all", "all", "stop", "stop", *["flow"] * 4, *["batched"] * 4, *["throttled"] * 2, *["weighed"] * 4)
        )
        internal_id = ulid(self.clock.ms, self.chance.randbytes(10))
        key = f"key-{self.chance.randint(1, 2)}" if self.chance.random() < 0.3 else internal_id
        ts = self.clock.ms + (10_000 if self.chance.random() < 0.1 else 0)
        data = b'{"tenant":%d,"rush":%d}' % (self.chance.randint(1, 2), self.sent % 3)
        event = Event(
            internal_id=internal_id, id=key, name=f"sim/{name}", data=data, user=b"{}", ts=ts, v=None, meta=None, received_ms=self.clock.ms
        )
        events = (event,)
        if self.chance.random() < 0.4:
            twin = ulid(self.clock.ms, self.chance.randbytes(10))
            events = (event, msgspec.structs.replace(event, internal_id=twin, id=key if key != internal_id else twin))
        self.inbox.append(EventsReceived(events, fresh=True))
        if self.chance.random() < 0.2:
            self.inbox.append(EventsReceived(events, seeded=self.chance.random() < 0.5))  # the sender tried twice

    def _beat(self) -> None:
        """One group of what has arrived, in any order of its parts."""
        if not self.inbox:
            return
        size = self.chance.randint(1, min(8, len(self.inbox)))
        last = next((i for i, input in enumerate(self.inbox[:size]) if isinstance(input, CHANGES_REGISTRY)), size - 1)
        group, self.inbox = self.inbox[: last + 1], self.inbox[last + 1 :]
        try:
            beat = at_once(self.heart.handle(group))
        except StoreUnavailable:
            self.inbox = [known(input) for input in group] + self.inbox
            self._judge(group)
            return
        self._judge(group)
        self.inbox = group[len(beat.decided) :] + self.inbox
        for input, decided in zip(group, beat.decided, strict=False):
            self._publish(input, decided)

    def _judge(self, group: list[AnyInput]) -> None:
        judge_commit(self.tables, self.moves, self.meetings, self.counted, self.heart.registry, self.clock.ms)
        self.flow.judge(self.tables, self.heart.registry)
        self.turns.judge(self.tables, self.heart.registry, {input.run_id for input in group if isinstance(input, RunHeld)})

    def _publish(self, input: AnyInput, decided: Decided) -> None:
        """What the node does with a committed decision."""
        poisoned = isinstance(input, CallAnswered) and input.answer is None
        if (
            decided.error is not None
            and not poisoned
            and not isinstance(input, RunCancelled | RunHeld | RunRerun | SyncRunBegun | SyncStepsTold)
        ):
            raise Broken(f"{input} raised") from decided.error
        self.endpoints.heard(input, decided, self.tables)
        if isinstance(input, Claim) and self.narrow:
            (claimed,) = [effect.value for effect in decided.effects if isinstance(effect, Reply)]
            self.turns.claimed(self.heart.registry, self.wished, input.asks, claimed)
            self.shares.note(input.asks, claimed, self._weight_of)
        if isinstance(input, EventsReceived):
            self.accepted.update((event.internal_id, event) for event in input.events)
        for effect in decided.effects:
            if isinstance(effect, Call):
                if effect.run.held is not None:
                    raise Broken(f"run {effect.run.id} is paused, and is called by {effect.item}")
                memo = {step.id: step.memo for step in self.tables.steps.find("run", effect.run.id) if step.memo is not None}
                asked_again = [key for key in self.acknowledged if key[0] == effect.run.id and key[1] not in memo]
                if asked_again:
                    raise Broken(f"the acknowledged steps {asked_again} are asked for again")
                self.out.append(Flight(effect.item, effect.run.function_id.removeprefix("sim-"), effect.run.force_plan, memo))
            elif isinstance(effect, RegistryChanged):
                at_once(self.heart.reload())
            elif isinstance(effect, Reply) and isinstance(input, StepsCheckpointed):
                self._acknowledge(input.checkpoint, effect.value)

    def _acknowledge(self, checkpoint: Checkpoint, reply: CheckpointReply) -> None:
        """The call goes on with its steps saved, ends with them, since its run is paused, or ends unheard, since it was superseded."""
        memos, accepted = saves(checkpoint.ops), reply.accepted
        if accepted:
            memos = self.endpoints.first_saved(checkpoint.run_id, memos, self.tables)
        if accepted:
            self.acknowledged.update(((checkpoint.run_id, step_id), memo) for step_id, memo in memos.items())
        for flight in [flight for flight in self.out if (flight.item.id, flight.item.fence) == (checkpoint.item_id, checkpoint.fence)]:
            flight.asking, flight.unheard = False, checkpoint.ops if reply.held else ()
            if accepted:
                flight.memo.update(memos)
            else:
                self.out.remove(flight)

    def _claim(self) -> None:
        if self.narrow:
            self._claim_one()
            return
        functions = list(self.heart.registry.functions)
        self.chance.shuffle(functions)
        self.inbox.append(Claim(self.holder, tuple(Ask(function_id, self.chance.randint(1, 4)) for function_id in functions)))

    def _claim_one(self) -> None:
        """As a dispatcher does: one claim at a time, of who has work, and no more than there is room for."""
        if any(isinstance(input, Claim) for input in self.inbox):
            return
        registry = self.heart.registry
        lanes = {item.function_id for item in self.tables.items if item.holder is None and not item.keys}
        lanes |= {lane.function_id for lane in self.tables.lanes if lane.state is LaneState.READY}
        self.wished = sorted(function_id for function_id in lanes if not registry.functions[function_id].row.paused)
        if self.wished:
            self.inbox.append(Claim(self.holder, tuple(self.shares.ask(self.wished, 1, self._weight_of))))

    def _weight_of(self, function_id: str) -> int:
        return self.heart.registry.functions[function_id].weight

    def _answer(self, *, settling: bool = False) -> None:
        """A call that is out comes back: with an answer, twice, lost, or first with a checkpoint. A ghost's answer comes too late."""
        if self.ghosts and not settling and self.chance.random() < 0.3:
            self.out.append(self.ghosts.pop(self.chance.randrange(len(self.ghosts))))
        ready = [flight for flight in self.out if not flight.asking]
        if not ready:
            return
        flight = self.chance.choice(ready)
        item = flight.item
        version = self.versions.setdefault(item.run_id, self.chance.choice(VERSIONS.get(flight.program, (1, 2))))
        answer = self.app.answer(flight.program, item.run_id, flight.memo, item.step_id, item.attempt, flight.plan, version)
        single = isinstance(answer, Ops) and len(answer.ops) == 1 and answer.ops[0].op == "StepRun" and item.step_id == "step"
        answer = self.endpoints.with_defers(answer)
        if flight.unheard:
            answer = Ops(ops=flight.unheard, request_version=version)
        luck = 1.0 if settling else self.chance.random()
        if single and not flight.plan and not flight.unheard and (luck < 0.3 or (settling and self.chance.random() < 0.5)):
            assert isinstance(answer, Ops)
            checkpoint = Checkpoint(run_id=item.run_id, item_id=item.id, fence=item.fence, ops=answer.ops)
            self.inbox += [StepsCheckpointed(checkpoint)] * (1 if luck > 0.1 else 2)
            flight.unheard = answer.ops
            flight.asking = luck > 0.03  # else its connection breaks, and what it was answered is not heard
            return
        self.out.remove(flight)
        if 0.78 < luck < 0.85:
            answer = Lost(reason="the child died")
            self.ghosts.append(flight)  # taken for dead, and it answers yet
        elif 0.85 < luck < 0.9:
            if luck < 0.88:
                self.ghosts.append(flight)
            return  # does not come back: a comparison or the next epoch will find it
        report = CallAnswered(item.run_id, item.id, item.fence, answer)
        self.inbox.append(report)
        if luck < 0.4:
            self.inbox.insert(self.chance.randint(0, len(self.inbox)), report)

    def _compare(self) -> None:
        """The node returns what it holds without a call in hand."""
        in_hand = {(flight.item.id, flight.item.fence) for flight in self.out}
        in_hand |= {(input.item_id, input.fence) for input in self.inbox if isinstance(input, CallAnswered)}
        held = at_once(self.store.reader.held_items(self.holder))
        lost = tuple(one for one in held if one not in in_hand)
        if lost:
            self.inbox += [CallsReturned(lost, "no call in hand")] * self.chance.randint(1, 2)

    def _renew(self) -> None:
        """This node says that it lives; one whose epoch is over may think so too."""
        self.inbox.append(HolderRenewed(f"node/{self.chance.randint(1, self.epoch)}"))

    def _tick(self, *, far: bool = False) -> None:
        """Time goes on, and what is due is told."""
        timers = sorted(self.tables.timers, key=lambda timer: (timer.due_ms, timer.id))
        ends = [timer for timer in timers if timer.kind not in FOR_EVER] or timers
        if timers and (far or self.chance.random() < 0.5):
            self.clock.ms = max(self.clock.ms, ends[0].due_ms)
        else:
            self.clock.ms += self.chance.randint(1, 3_000)
        due = [TimerDue(timer.id) for timer in timers if timer.due_ms <= self.clock.ms]
        self.inbox += due[:20]
        if due and self.chance.random() < 0.2:
            self.inbox.append(due[0])

    def _crash(self) -> None:
        """The node dies: what it had not committed is gone, its calls go on somewhere, and a new epoch begins."""
        events = [known(input) for input in self.inbox if isinstance(input, EventsReceived)]
        late = [input for input in self.inbox if self._is_report(input) and self.chance.random() < 0.5]
        self.inbox = []
        self._new_epoch()
        self.inbox += [*events, *late]  # senders try again; a late answer still arrives
        for flight in self.out:
            flight.asking = False
        self.ghosts += self.out  # they are called again, and go on meanwhile: their answers come too late
        self.out = []

    @staticmethod
    def _is_report(input: AnyInput) -> bool:
        return isinstance(input, StepsCheckpointed) or (isinstance(input, CallAnswered) and input.answer is not None)

    def _new_epoch(self) -> None:
        others = tuple(holder.id for holder in self.tables.holders)
        self.epoch += 1
        self.shares = Shares()
        self.turns.new_node()
        self.holder = f"node/{self.epoch}"
        self.inbox.append(NodeStarted("node", self.holder, others))
        while any(isinstance(input, NodeStarted) for input in self.inbox):
            self._beat()

    def _cancel(self) -> None:
        runs = sorted(self.tables.runs.rows)
        if runs:
            self.inbox.append(RunCancelled(str(self.chance.choice(runs)), "chance"))

    def _hold(self) -> None:
        """Somebody pauses a run, ended or not, or resumes it; by a request that is tried twice now and then."""
        live = sorted(run.id for run in self.tables.runs if run.ended_ms is None) or sorted(map(str, self.tables.runs.rows))
        if live:
            run_id = self.chance.choice(live)
            held = RunHeld(run_id, self.chance.random() < 0.5, "chance")
            self.inbox += [held] * self.chance.randint(1, 2)

    def _rerun(self) -> None:
        runs = sorted(self.tables.runs.rows)
        if runs and len(runs) < 20:
            run_id = str(self.chance.choice(runs))
            steps = sorted(step.id for step in self.tables.steps.find("run", run_id))
            begin = None
            if steps and self.chance.random() < 0.6:
                given = self.chance.choice((None, '["another"]'))
                begin = at_once(from_step(self.store.reader, run_id, self.chance.choice(steps), given))
            rerun = RunRerun(run_id, ulid(self.clock.ms, self.chance.randbytes(10)), begin)
            if begin is not None:
                self.app.begun_midway.add(rerun.new_run_id)
            self.inbox += [rerun] * self.chance.randint(1, 2)

    def _change(self) -> None:
        """Somebody pauses, drains or resumes a function, or gives it other limits; the app tells it anew, changed or not."""
        what = self.chance.random()
        function_id = f"sim-{self.chance.choice(FLOWING)}"
        if what < 0.5:
            self.inbox.append(FunctionHeld(function_id, self.chance.choice(("running", "paused", "draining"))))
        elif what < 0.8:
            limits = self.chance.choice(({}, {"0": 1}, {"0": 3}, {"0": 2, "1": 2}))
            override = Override(limits=limits, pinned=self.chance.random() < 0.5)
            self.inbox.append(FunctionOverridden(function_id, self.chance.choice((None, override))))
        else:
            self.inbox.append(AppSynced(registration(self.chance.randint(1, 2)), self.driver))

    def _note(self) -> None:
        """Somebody notes something about a run, or exports spans of it; ended or not."""
        runs = sorted(self.tables.runs.rows)
        if not runs:
            return
        run_id = str(self.chance.choice(runs))
        if self.chance.random() < 0.5:
            change = self.chance.choice(CHANGES)
            values = b'{"n":"%s"}' % (b"x" * self.chance.randint(0, 9))
            scope, span = self.chance.choice((("run", ""), ("step", "a"), ("step_attempt", "a/0")))
            note = Note(scope=scope, span=span, kind=self.chance.choice(("userland.n", "userland.m")), change=change, values=values)
            self.inbox.append(MetadataTold(run_id, (note, note)))
        else:
            ids = [str(self.chance.randint(1, 9)) for _ in range(3)]
            told = [
                UserSpan(
                    run_id=run_id, id=span_id, parent_id="", step_id="", name="n", kind="internal", status="ok", message="",
                    attributes=b"{}", started_ms=self.clock.ms, ended_ms=self.clock.ms,
                )
                for span_id in ids
            ]  # fmt: skip
            self.inbox += [SpansTold(run_id, tuple(told))] * self.chance.randint(1, 2)

    def _signal(self) -> None:
        keep_until_ms = self.clock.ms + 60_000 if self.chance.random() < 0.3 else None
        self.inbox.append(SignalSent("go", b"1", keep_until_ms))

    def _invoke(self) -> None:
        """Somebody starts one function by name; the request is tried twice now and then."""
        if self.chance.random() < 0.3:
            internal_id = ulid(self.clock.ms, self.chance.randbytes(10))
            event = Event(
                internal_id=internal_id,
                id=internal_id,
                name="inngest/function.invoked",
                data=b'{"tenant":2}',
                user=b"{}",
                ts=self.clock.ms,
                v=None,
                meta=None,
                received_ms=self.clock.ms,
            )
            self.inbox += [FunctionInvoked("sim-waits", event)] * self.chance.randint(1, 2)

    def _cancel_many(self) -> None:
        """Somebody ends the runs of a function that were made until now."""
        if self.chance.random() < 0.2:
            where = self.chance.choice((None, "event.data.tenant == 1"))
            cancellation = Cancellation(
                id=ulid(self.clock.ms, self.chance.randbytes(10)),
                app_name="sim",
                function_id=f"sim-{self.chance.choice(list(PROGRAMS))}",
                after_ms=self.chance.choice((None, self.clock.ms - 60_000)),
                before_ms=self.clock.ms,
                where=where,
                created_ms=self.clock.ms,
            )
            self.inbox.append(RunsCancelled(cancellation))

    def _poison(self) -> None:
        """An input that no decision can be made on, in the middle of the others."""
        if self.out:
            item = self.out[0].item
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
    (selection, "CLAIM_OF_ONE", 1),
    (lanes, "CLAIM_OF_ONE", 1),
    (routing, "FANOUT_MAX", 1),
    (selection, "MEET_AT_ONCE", 1),
    (meeting, "MEET_AT_ONCE", 1),
    (selection, "MEET_BY_CURSOR", 1),
    (meeting, "MEET_BY_CURSOR", 1),
    (cancelling, "CANCEL_BY_CURSOR", 2),
    (selection, "RESUME_AT_ONCE", 1),
    (pausing, "RESUME_AT_ONCE", 1),
    (selection, "SWEEP_AT_ONCE", 1),
    (timers, "SWEEP_AT_ONCE", 1),
)
"""Bounds so small that every cursor takes several steps."""


def small_bounds(seed: int) -> AbstractContextManager[None]:
    """The bounds that a seed runs under: small ones for every other."""
    return bounded(SMALL if seed % 2 else ())


def simulate(seed: int, make_heart: MakeHeart = WatchedHeart) -> World:
    """One seed, from the start to the judged end. Raises `Broken`."""
    with small_bounds(seed):
        world = World(seed, make_heart)
        world.run()
    return world
