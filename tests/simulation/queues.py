"""Queues in one thread: a seeded scheduler interleaves sends, claims, batches, pulls, purges, timers, crashes and jumps of the clock.

Consumers are correct, and tell what they want of a batch in all the ways there are. Each commit is judged by a model of queues
(`queue_model`) and by the invariants; in the end everything that was sent is acked, dropped, dead, has started its run, or was taken away
by somebody who wanted that.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from stepwell.engine.commands import Command, Effect, RegistryChanged, Reply
from stepwell.engine.inputs import CHANGES_REGISTRY, AnyInput, AppSynced, NodeStarted, TimerDue
from stepwell.engine.inputs_primitives import (
    BatchAnswered,
    DeliveriesReturned,
    LeasesSettled,
    MessageEdited,
    MessagesDeleted,
    MessagesMoved,
    MessagesPulled,
    MessagesSent,
    NewMessage,
    QueueClaimed,
    QueuePurged,
    QueueSet,
)
from stepwell.engine.invariants import Moves, violations
from stepwell.engine.registry import Settings
from stepwell.engine.view import View
from stepwell.errors import StoreUnavailable
from stepwell.primitives import queue, queue_care, queue_claims
from stepwell.primitives.queue import QueueStirred
from stepwell.primitives.queue_claims import Deliver
from stepwell.protocol.answers import Lost
from stepwell.protocol.functions import FunctionConfig, Registration, Singleton, Trigger
from stepwell.protocol.ids import ulid
from stepwell.protocol.queues import Consumer, Outcome
from stepwell.runtime.heart import Beat, Decided, Heart, known
from stepwell.store.base import Store, Transaction
from stepwell.store.memory import MemoryStore
from tests.simulation.bounds import bounded
from tests.simulation.broken import Broken
from tests.simulation.checkers import FOR_EVER, WatchedHeart
from tests.simulation.clock import VirtualClock, at_once
from tests.simulation.faults import FaultyStore, Luck
from tests.simulation.queue_model import Model, Plan

SENDS = 25
MOVES_MAX = 260
SETTLE_MAX = 400
THROWN = b'{"message":"no","name":"Error"}'

CONSUMERS = {
    "work": Consumer(
        max_batch_size=3, max_batch_timeout_ms=1_000, max_retries=2, retry_delay_ms=500, max_concurrency=2, dead_letter="dead"
    ),
    "solo": Consumer(max_batch_size=1, max_batch_timeout_ms=0, max_retries=1, max_concurrency=1),
    "dead": Consumer(max_batch_size=2, max_batch_timeout_ms=0, max_retries=0, dead_letter="grave"),
}
STARTING = {"runs": None, "single": Singleton(mode="cancel")}
PULLED = "pulled"
GRAVE = "grave"
"""Where what dies in the end stays: nobody consumes it."""

Committed = tuple[AnyInput, list[Any], int]
MakeHeart = Callable[[Store, VirtualClock, Settings], "QueueHeart"]


def registration(*, without: str = "") -> Registration:
    """The app, or all of it but one consumer."""
    consumers = [
        FunctionConfig(id=f"sim-{name}", name=name, triggers=(Trigger(queue=name),), consumer=consumer)
        for name, consumer in CONSUMERS.items()
        if name != without
    ]
    starters = [
        FunctionConfig(id=f"sim-{name}", name=name, triggers=(Trigger(queue=name),), singleton=singleton)
        for name, singleton in STARTING.items()
    ]
    functions = (*consumers, *starters)
    return Registration(app_name="sim", url="", sdk="", framework="", app_version="", functions=functions, checksum=without or "all")


class QueueHeart(WatchedHeart):
    """A heart that keeps what each decision commanded, once it is committed, whoever hears of that."""

    def __init__(self, store: Store, clock: VirtualClock, settings: Settings) -> None:
        super().__init__(store, clock, settings)
        self.committed: list[Committed] = []
        self._tried: list[Committed] = []
        self._commands: list[Any] = []

    async def _beat(self, inputs: Sequence[AnyInput], *, careful: bool) -> Beat:
        self._tried = []
        try:
            beat = await super()._beat(inputs, careful=careful)
        except StoreUnavailable as error:
            if "answer was lost" in str(error):
                self.committed += self._tried
            raise
        self.committed += self._tried
        return beat

    async def _decide(self, tx: Transaction, view: View, input: AnyInput, now_ms: int) -> Decided:
        decided = await super()._decide(tx, view, input, now_ms)
        if decided.error is None:
            self._tried.append((input, self._commands, now_ms))
        return decided

    def _apply(self, view: View, commands: list[Command | Effect]) -> Decided:  # type: ignore[override]
        decided = Heart._apply(view, commands)
        self._commands = commands
        return decided


class QueueWorld:
    """One seed's course of events. `run` raises `Broken` where something is found."""

    def __init__(self, seed: int, make_heart: MakeHeart = QueueHeart) -> None:
        self.chance = random.Random(seed)
        self.clock = VirtualClock(self.chance)
        rate = self.chance.choice((0.0, 0.05, 0.2))
        self.luck = Luck(self.chance, 0.0)
        memory = MemoryStore()
        self.tables = memory.tables
        self.store = FaultyStore(memory, self.luck)
        self.heart = make_heart(self.store, self.clock, Settings())
        self.driver = self.chance.choice(("sim", "local"))
        self.model = Model(local=self.driver == "local")
        self.moves = Moves()
        self.inbox: list[AnyInput] = []
        self.out: list[Deliver] = []
        self.ghosts: list[Deliver] = []
        self.leases: list[str] = []
        self.stirred: dict[str, None] = {}
        self.missing: set[str] = set()
        self.accepted: Counter[str] = Counter()
        self.latest_ms = self.clock.ms
        self.epoch = self.sent = self.bodies = 0
        self._new_epoch()
        self.inbox += [
            AppSynced(registration(), self.driver),
            QueueSet(queue=PULLED, max_retries=2, visibility_ms=2_000, dead_letter=GRAVE),
        ]
        while self.inbox:
            self._beat()
        self.luck.rate = rate

    def run(self) -> None:
        """Interleave at random, then let everything come to its end without faults, and judge."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (5, self._send),
            (9, self._beat),
            (6, self._claim_any),
            (6, self._answer),
            (4, self._pull),
            (4, self._settle_leases),
            (4, self._tick),
            (1, self._crash),
            (1, self._compare),
            (1, self._care),
            (1, self._look_after),
            (1, self._jump),
            (1, self._sync),
        ]
        weights = [weight for weight, _ in actions]
        for _ in range(MOVES_MAX):
            self.chance.choices(actions, weights)[0][1]()
        self._settle()

    def _settle(self) -> None:
        """No more faults, and nothing is claimed but what was stirred: whatever waits must be told of."""
        self.luck.rate = 0.0
        self._crash()
        self.inbox.append(AppSynced(registration(), self.driver))
        self.inbox += [QueueSet(queue=name, paused=False) for name in (*CONSUMERS, *STARTING, PULLED)]
        self.stirred = dict.fromkeys((*CONSUMERS, *STARTING))
        for _ in range(SETTLE_MAX):
            self._drain()
            while self.out:
                self._answer(settling=True)
                self._drain()
            self.inbox.append(MessagesPulled(PULLED, 5))
            self._beat()
            if self.leases:
                self.inbox.append(LeasesSettled(PULLED, tuple(self.leases), ()))
                self.leases = []
                self._drain()
            if all(one.queue == GRAVE for one in self.model.messages.values()) and not self._cursors():
                break
            if not self.inbox and not self.stirred:
                self._go_on()
        self._judge_end()

    def _drain(self) -> None:
        while self.inbox or self.stirred:
            for name in self.stirred:
                self._claim(name, 64)
            self.stirred = {}
            while self.inbox:
                self._beat()

    def _go_on(self) -> None:
        """Turn the clock to what will happen next. Growing old is no end that a message may wait for."""
        timers = sorted((one.due_ms, one.id) for one in self.tables.timers if one.kind not in FOR_EVER and not one.id.startswith("expiry/"))
        stuck = {key: one for key, one in self.model.messages.items() if one.queue not in (GRAVE, PULLED)}
        if stuck and not timers:
            raise Broken(f"nothing will deliver these any more: {stuck}")
        self.clock.ms = max(self.clock.ms, timers[0][0]) if timers else self.clock.ms + 1_000
        self.inbox += [TimerDue(timer.id) for timer in self.tables.timers if timer.due_ms <= self.clock.ms and timer.kind not in FOR_EVER]

    def _cursors(self) -> bool:
        return any(timer.kind not in FOR_EVER and not timer.id.startswith("expiry/") for timer in self.tables.timers)

    def _judge_end(self) -> None:
        left = {key: one for key, one in self.model.messages.items() if one.queue != GRAVE}
        if left or self.model.out:
            raise Broken(f"these messages come to no end: {left}, {self.model.out}")
        for key in self.accepted:
            if key not in self.model.over and key not in self.model.messages:
                raise Broken(f"the acknowledged message {key} is nowhere")
        for name in ("counters", "set_aside"):
            if len(self.tables.by_name[name]):
                raise Broken(f"left over in {name}: {list(self.tables.by_name[name])}")
        runs = Counter(run.event_ids for run in self.tables.runs)
        ran = sum(how == "ran" for how in self.model.over.values())
        if len(runs) != self.model.seen["runs"] or any(count != 1 for count in runs.values()) or len(runs) < ran:
            raise Broken(f"{ran} messages started runs, {self.model.seen['runs']} did it first; there are {len(runs)}")

    # The course.

    def _beat(self) -> None:
        if not self.inbox:
            return
        size = self.chance.randint(1, min(8, len(self.inbox)))
        last = next((i for i, input in enumerate(self.inbox[:size]) if isinstance(input, CHANGES_REGISTRY)), size - 1)
        group, self.inbox = self.inbox[: last + 1], self.inbox[last + 1 :]
        try:
            beat = at_once(self.heart.handle(group))
        except StoreUnavailable:
            self.inbox = [known(input) for input in group] + self.inbox
            self._judge()
            return
        self._judge()
        self.inbox = group[len(beat.decided) :] + self.inbox
        for input, decided in zip(group, beat.decided, strict=False):
            if decided.error is not None:
                raise Broken(f"{input} raised") from decided.error
            self._publish(input, decided)

    def _judge(self) -> None:
        self.latest_ms = max(self.latest_ms, self.clock.ms)
        for input, commands, now_ms in self.heart.committed:
            if isinstance(input, AppSynced):
                told = {config.name for config in input.registration.functions}
                for name, consumer in CONSUMERS.items():
                    self.model.queue(name).consumer = consumer if name in told else None
                for name in STARTING:
                    self.model.queue(name).runs = True
            self.model.decided(input, commands, now_ms)
        self.heart.committed.clear()
        self.model.judge(self.tables)
        wrong = violations(self.tables) + self.moves.judge(self.tables)
        for one in self.tables.messages:
            until_ms = one.ready_ms + self.tables.queues.rows[one.queue].retention_ms
            timer = self.tables.timers.rows.get(f"expiry/{one.queue}")
            if one.delivery is None and (timer is None or timer.due_ms > max(until_ms, self.latest_ms)):
                wrong.append(f"message {one.id} of {one.queue} is kept until {until_ms}; the timer is {timer}")
        if wrong:
            raise Broken("; ".join(wrong))

    def _publish(self, input: AnyInput, decided: Decided) -> None:
        for effect in decided.effects:
            match effect:
                case Deliver():
                    self.out.append(effect)
                case QueueStirred():
                    if self.heart.registry.consumers.get(effect.queue) is not None:
                        self.stirred[effect.queue] = None
                case RegistryChanged():
                    at_once(self.heart.reload())
                    self.stirred.update(dict.fromkeys(self.heart.registry.consumers))
                case Reply():
                    if isinstance(input, MessagesSent):
                        self.accepted.update(effect.value.ids)
                    elif isinstance(input, MessagesPulled):
                        self.leases += [self.model.lease(one.id) for one in effect.value.messages if one.id in self.model.messages]
                    elif isinstance(input, QueueClaimed) and effect.value.more:
                        self.stirred[input.queue] = None

    # What may happen.

    def _send(self) -> None:
        if self.sent >= SENDS:
            return
        self.sent += 1
        name = self.chance.choice(("work", "work", "work", "solo", PULLED, PULLED, "runs", "single"))
        new = []
        for _ in range(self.chance.choice((1, 1, 2, 5))):
            self.bodies += 1
            delay_ms = self.chance.choice((0, 0, 0, 700, 3_000))
            new.append(NewMessage(self.chance.randbytes(16).hex(), b"%d" % self.bodies, "json", delay_ms))
        self.inbox.append(MessagesSent(name, tuple(new), fresh=True))
        if self.chance.random() < 0.1:
            self.inbox.append(MessagesSent(name, tuple(new), fresh=self.chance.random() < 0.5))  # the request was made twice

    def _claim_any(self) -> None:
        self._claim(self.chance.choice((*CONSUMERS, *STARTING)), self.chance.randint(1, 5))

    def _claim(self, name: str, room: int) -> None:
        self.inbox.append(QueueClaimed(ulid(self.clock.ms, self.chance.randbytes(10)), self.holder, name, room))

    def _answer(self, *, settling: bool = False) -> None:
        """A batch comes back: with a report, twice, lost, or not at all. A ghost's report comes too late."""
        if self.ghosts and not settling and self.chance.random() < 0.3:
            self.out.append(self.ghosts.pop(self.chance.randrange(len(self.ghosts))))
        if not self.out:
            return
        deliver = self.out.pop(self.chance.randrange(len(self.out)))
        outcome, plan = self._report(deliver)
        self.model.plans[deliver.delivery.id] = plan
        luck = 1.0 if settling else self.chance.random()
        report = BatchAnswered(deliver.delivery.id, outcome)
        lost = 0.5 if deliver.delivery.queue == "solo" else 0.15
        if luck < lost:
            self.inbox.append(BatchAnswered(deliver.delivery.id, Lost(reason="the child died")))
            self.ghosts.append(deliver)  # taken for dead, and it answers yet
        elif luck < lost + 0.07:
            self.ghosts.append(deliver)  # a comparison or the next epoch finds it
        else:
            self.inbox.append(report)
            if luck < lost + 0.25:
                self.inbox.insert(self.chance.randint(0, len(self.inbox)), report)

    def _report(self, deliver: Deliver) -> tuple[Outcome, Plan]:
        """What the consumer says of a batch, and what it wants by that."""
        keys = [message.id for message in deliver.messages]
        own = CONSUMERS[deliver.delivery.queue].retry_delay_ms
        acks = {key for key in keys if self.chance.random() < 0.3}
        retries = {key: self.chance.choice((None, 0, 900)) for key in keys if key not in acks and self.chance.random() < 0.3}
        error = self.chance.choice((None, THROWN))
        way = self.chance.choice(("each", "each", "ack_all", "retry_all"))
        all_ms = self.chance.choice((None, 0, 400)) if way == "retry_all" else None
        fallback = own if all_ms is None else all_ms
        plan: Plan = {}
        for key in keys:
            if key in retries:
                delay_ms = retries[key]
                plan[key] = fallback if delay_ms is None else delay_ms
            elif key in acks or way == "ack_all" or (way == "each" and error is None):
                plan[key] = None
            else:
                plan[key] = fallback
        told = Outcome(
            acks=tuple(sorted(acks)), retries=retries, ack_all=way == "ack_all", retry_all=way == "retry_all",
            retry_all_delay_ms=all_ms, error=error,
        )  # fmt: skip
        return told, plan

    def _pull(self) -> None:
        self.inbox.append(MessagesPulled(PULLED, self.chance.randint(1, 4), self.chance.choice((None, 0, 500))))

    def _settle_leases(self) -> None:
        """A pull consumer settles what it has, now and then twice or late."""
        self.chance.shuffle(self.leases)
        some, self.leases = self.leases[:3], self.leases[3:]
        if not some:
            return
        acks = tuple(lease for lease in some if self.chance.random() < 0.5)
        retries = tuple((lease, self.chance.choice((0, 600))) for lease in some if lease not in acks or self.chance.random() < 0.1)
        self.inbox.append(LeasesSettled(PULLED, acks, retries))
        if self.chance.random() < 0.2:
            self.leases += some

    def _compare(self) -> None:
        """The node returns what it holds without a call in hand, seen so twice."""
        in_hand = {deliver.delivery.id for deliver in self.out}
        in_hand |= {input.delivery_id for input in self.inbox if isinstance(input, BatchAnswered)}
        missing = set(at_once(self.store.reader.held_deliveries(self.holder))) - in_hand
        lost = tuple(sorted(missing & self.missing)) or tuple(sorted(missing))
        self.missing = missing
        if lost:
            self.inbox += [DeliveriesReturned(lost, "no call in hand")] * self.chance.randint(1, 2)

    def _care(self) -> None:
        """Somebody pauses, resumes, keeps for another time, or purges."""
        name = self.chance.choice((*CONSUMERS, *STARTING, PULLED))
        luck = self.chance.random()
        if luck < 0.5:
            self.inbox.append(QueueSet(queue=name, paused=self.chance.random() < 0.4))
        elif luck < 0.75:
            self.inbox.append(QueueSet(queue=name, retention_ms=self.chance.choice((60_000, 600_000, 4 * 86_400_000))))
        else:
            self.inbox += [QueuePurged(name, self.clock.ms - self.chance.choice((0, 2_000)))] * self.chance.randint(1, 2)

    def _look_after(self) -> None:
        """Somebody moves, deletes or edits messages."""
        name = self.chance.choice((GRAVE, GRAVE, "dead", "work", PULLED))
        there = [key for key, one in self.model.messages.items() if one.queue == name]
        if not there:
            return
        some = tuple(self.chance.sample(there, self.chance.randint(1, min(3, len(there)))))
        luck = self.chance.random()
        if luck < 0.5:
            self.inbox.append(MessagesMoved(name, some, self.chance.choice((None, None, "solo", PULLED))))
        elif luck < 0.7:
            self.inbox.append(MessagesDeleted(name, some))
        else:
            self.bodies += 1
            edit = MessageEdited(name, some[0], self.chance.randbytes(16).hex(), b"%d" % self.bodies, "json")
            self.inbox.append(edit)

    def _sync(self) -> None:
        """The app is told anew, now and then without one of its consumers."""
        self.inbox.append(AppSynced(registration(without=self.chance.choice(("", "", "solo", "work"))), self.driver))

    def _tick(self) -> None:
        timers = sorted((one for one in self.tables.timers if one.kind not in FOR_EVER), key=lambda timer: (timer.due_ms, timer.id))
        if timers and self.chance.random() < 0.4:
            self.clock.ms = max(self.clock.ms, timers[0].due_ms)
        else:
            self.clock.ms += self.chance.randint(1, 1_500)
        due = [TimerDue(timer.id) for timer in timers if timer.due_ms <= self.clock.ms]
        self.inbox += due[:20]
        if due and self.chance.random() < 0.2:
            self.inbox.append(due[0])

    def _crash(self) -> None:
        """The node dies: senders try again, late reports still arrive, and a new epoch begins."""
        again = [known(input) for input in self.inbox if isinstance(input, MessagesSent | QueueSet | QueuePurged)]
        late = [input for input in self.inbox if isinstance(input, BatchAnswered | LeasesSettled) and self.chance.random() < 0.5]
        self.inbox = []
        at_once(self.heart.reload())
        self._new_epoch()
        self.inbox += [*again, *late]
        self.ghosts += self.out
        self.out = []
        self.missing = set()
        self.stirred = dict.fromkeys(self.heart.registry.consumers)

    def _new_epoch(self) -> None:
        others = tuple(holder.id for holder in self.tables.holders)
        self.epoch += 1
        self.holder = f"node/{self.epoch}"
        self.inbox.append(NodeStarted("node", self.holder, others))
        while any(isinstance(input, NodeStarted) for input in self.inbox):
            self._beat()

    def _jump(self) -> None:
        self.clock.ms += self.chance.choice((-60_000, 90_000, 10_000))


SMALL = (
    (queue, "REDELIVER_AT_ONCE", 1),
    (queue_care, "SWEEP_QUEUE_AT_ONCE", 2),
    (queue_claims, "DELIVERIES_AT_ONCE", 2),
    (queue_claims, "STARTS_AT_ONCE", 2),
)
"""Bounds so small that every cursor and claim takes several steps."""


def small_bounds(seed: int) -> AbstractContextManager[None]:
    """The bounds that a seed runs under: small ones for every other."""
    return bounded(SMALL if seed % 2 else ())


def simulate(seed: int, make_heart: MakeHeart = QueueHeart) -> QueueWorld:
    """One seed, from the start to the judged end. Raises `Broken`."""
    with small_bounds(seed):
        world = QueueWorld(seed, make_heart)
        world.run()
    return world
