"""Queues do what a queue in plain Python does, whatever is asked of them in whatever groups: found cases shrink to a few lines."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import strategies as st

from stepwell.engine.commands import RegistryChanged, Reply
from stepwell.engine.inputs import AnyInput, AppSynced, NodeStarted, TimerDue
from stepwell.engine.inputs_primitives import (
    BatchAnswered,
    DeliveriesReturned,
    LeasesSettled,
    MessagesMoved,
    MessagesPulled,
    MessagesSent,
    NewMessage,
    QueueClaimed,
    QueuePurged,
    QueueSet,
)
from stepwell.engine.invariants import violations
from stepwell.engine.registry import Settings
from stepwell.primitives.queue_claims import Deliver
from stepwell.protocol.answers import Lost
from stepwell.protocol.functions import FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import ulid
from stepwell.protocol.queues import Consumer, Outcome
from stepwell.store.memory import MemoryStore
from tests.simulation.checkers import FOR_EVER
from tests.simulation.clock import VirtualClock, at_once
from tests.simulation.queue_model import Model, Plan
from tests.simulation.queues import QueueHeart

HOLDER = "n/1"
PUSHED, PULLED, DEAD = "pushed", "pulled", "dead"
DELAYS = st.sampled_from((None, 0, 700))

consumers = st.builds(
    Consumer,
    max_batch_size=st.integers(1, 4),
    max_batch_timeout_ms=st.sampled_from((0, 1_000)),
    max_retries=st.integers(0, 2),
    retry_delay_ms=st.sampled_from((0, 500)),
    max_concurrency=st.integers(1, 3),
    dead_letter=st.sampled_from(("", DEAD)),
)
ways = st.sampled_from(("each", "ack all", "retry all"))
settings = st.sampled_from(({"paused": True}, {"paused": False}, {"retention_ms": 60_000}))
words = st.sampled_from(("nothing", "ack", "retry", "retry later"))
sends = st.tuples(st.just("send"), st.sampled_from((PUSHED, PULLED)), st.lists(st.sampled_from((0, 0, 700)), min_size=1, max_size=6))
claims = st.tuples(st.just("claim"), st.integers(1, 5))
answers = st.tuples(st.just("answer"), st.integers(0, 9), ways, DELAYS, st.booleans(), st.lists(words))
times = st.tuples(st.just("time"), st.sampled_from((1, 500, 1_000, 1_000, 70_000)))
ops = st.one_of(
    *(sends, claims, claims, answers, answers, answers, times, times),
    st.tuples(st.just("lose"), st.integers(0, 9)),
    st.tuples(st.just("return"), st.integers(0, 9)),
    st.tuples(st.just("late"), st.integers(0, 9)),
    st.tuples(st.just("pull"), st.integers(1, 4), st.sampled_from((None, 0, 500))),
    st.tuples(st.just("settle"), st.lists(st.tuples(st.integers(0, 9), DELAYS), max_size=3)),
    st.tuples(st.just("set"), st.sampled_from((PUSHED, PULLED)), settings),
    st.tuples(st.just("purge"), st.sampled_from((PUSHED, PULLED))),
    st.tuples(st.just("move"), st.integers(0, 9), st.sampled_from((None, PULLED))),
)
"""What may be asked for."""

together = st.sampled_from((False, False, False, True))
"""Whether it shares the group of what was asked before."""


class Course:
    """A queue and its model, given the same."""

    def __init__(self, consumer: Consumer) -> None:
        store = MemoryStore()
        self.tables = store.tables
        self.clock = VirtualClock(random.Random(0))
        self.heart = QueueHeart(store, self.clock, Settings())
        self.model = Model()
        self.consumer = consumer
        self.out: list[Deliver] = []
        self.leases: list[str] = []
        self.reports: list[BatchAnswered] = []
        self.sent = 0
        self.group: list[AnyInput] = []
        config = FunctionConfig(id="a-p", name="p", triggers=(Trigger(queue=PUSHED),), consumer=consumer)
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(config,), checksum="1")
        for input in (NodeStarted("n", HOLDER), AppSynced(told, "local"), QueueSet(queue=PULLED, max_retries=1, dead_letter=DEAD)):
            self.group = [input]
            self.flush()
        at_once(self.heart.reload())
        self.model.queue(PUSHED).consumer = consumer

    def flush(self) -> None:
        """Decide the group, and judge."""
        while self.group:
            beat = at_once(self.heart.handle(self.group))
            for input, commands, now_ms in self.heart.committed:
                self.model.decided(input, commands, now_ms)
            self.heart.committed.clear()
            self.model.judge(self.tables)
            assert violations(self.tables) == []
            for input, decided in zip(self.group, beat.decided, strict=False):
                assert decided.error is None, (input, decided.error)
                for effect in decided.effects:
                    if isinstance(effect, Deliver):
                        self.out.append(effect)
                    elif isinstance(effect, Reply) and isinstance(input, MessagesPulled):
                        self.leases += [self.model.lease(one.id) for one in effect.value.messages if one.id in self.model.messages]
                    elif isinstance(effect, RegistryChanged):
                        at_once(self.heart.reload())
            self.group = self.group[len(beat.decided) :]

    def taken(self, nth: int) -> Deliver | None:
        """A delivery that is out; it comes back but once."""
        return self.out.pop(nth % len(self.out)) if self.out else None

    # What is asked for.

    def send(self, queue: str, delays: list[int]) -> None:
        first, self.sent = self.sent, self.sent + len(delays)
        new = tuple(NewMessage(f"{first + n:032x}", b"%d" % (first + n), "json", delay_ms) for n, delay_ms in enumerate(delays))
        self.group.append(MessagesSent(queue, new, fresh=True))

    def claim(self, room: int) -> None:
        self.group.append(QueueClaimed(ulid(self.clock.ms, self.clock.entropy(10)), HOLDER, PUSHED, room))

    def answer(self, nth: int, way: str, all_ms: int | None, threw: bool, said: list[str]) -> None:
        deliver = self.taken(nth)
        if deliver is None:
            return
        keys = [message.id for message in deliver.messages]
        of = dict(zip(keys, [*said, *["nothing"] * len(keys)], strict=False))
        acks = tuple(key for key in keys if of[key] == "ack")
        retries = {key: 900 if of[key] == "retry later" else None for key in keys if of[key].startswith("retry")}
        all_ms = all_ms if way == "retry all" else None
        fallback = self.consumer.retry_delay_ms if all_ms is None else all_ms
        plan: Plan = {}
        for key in keys:
            again = way == "retry all" or (way == "each" and threw)
            own = retries.get(key)
            plan[key] = (fallback if own is None else own) if key in retries else fallback if again and key not in acks else None
        self.model.plans[deliver.delivery.id] = plan
        outcome = Outcome(
            acks=acks, retries=retries, ack_all=way == "ack all", retry_all=way == "retry all", retry_all_delay_ms=all_ms,
            error=b'"no"' if threw else None,
        )  # fmt: skip
        self.reports.append(BatchAnswered(deliver.delivery.id, outcome))
        self.group.append(self.reports[-1])

    def late(self, nth: int) -> None:
        if self.reports:
            self.group.append(self.reports[nth % len(self.reports)])

    def lose(self, nth: int) -> None:
        if (deliver := self.taken(nth)) is not None:
            self.group.append(BatchAnswered(deliver.delivery.id, Lost(reason="x")))

    def give_back(self, nth: int) -> None:
        if (deliver := self.taken(nth)) is not None:
            self.group.append(DeliveriesReturned((deliver.delivery.id,), "x"))

    def pull(self, limit: int, visibility_ms: int | None) -> None:
        self.group.append(MessagesPulled(PULLED, limit, visibility_ms))

    def settle(self, wishes: list[tuple[int, int | None]]) -> None:
        if not self.leases:
            return
        told = [(self.leases[nth % len(self.leases)], delay_ms) for nth, delay_ms in wishes]
        acks = tuple(lease for lease, delay_ms in told if delay_ms is None)
        self.group.append(LeasesSettled(PULLED, acks, tuple((lease, delay_ms) for lease, delay_ms in told if delay_ms is not None)))

    def time(self, ms: int) -> None:
        self.flush()
        self.clock.ms += ms
        due = [timer for timer in self.tables.timers if timer.due_ms <= self.clock.ms and timer.kind not in FOR_EVER]
        self.group += [TimerDue(timer.id) for timer in sorted(due, key=lambda timer: timer.id)]

    def set(self, queue: str, settings: dict[str, Any]) -> None:
        self.group.append(QueueSet(queue=queue, **settings))

    def purge(self, queue: str) -> None:
        self.group.append(QueuePurged(queue, self.clock.ms))

    def move(self, nth: int, to: str | None) -> None:
        dead = [key for key, one in self.model.messages.items() if one.queue == DEAD]
        if dead:
            self.group.append(MessagesMoved(DEAD, (dead[nth % len(dead)],), to))


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(consumers, st.lists(st.tuples(together, ops), min_size=10, max_size=60))
def test_a_queue_does_what_its_model_does(consumer: Consumer, asked: list[tuple[bool, tuple[Any, ...]]]) -> None:
    """Deliveries, attempts, order, dead letters, answers to each request, counts and places: all are as the model has them.

    In the end, time alone brings every message of the pushed queue to somebody who acks it.
    """
    course = Course(consumer)
    named: dict[str, Callable[..., None]] = {"return": course.give_back}
    course.send(PUSHED, [0] * 6)
    course.send(PULLED, [0] * 3)
    for joins, (name, *values) in asked:
        if not joins:
            course.flush()
        named.get(name, getattr(course, name, None))(*values)  # type: ignore[misc]
    course.flush()
    course.set(PUSHED, {"paused": False, "retention_ms": 4 * 86_400_000})
    for _ in range(400):
        course.claim(64)
        course.flush()
        while course.out:
            course.answer(0, "each", None, False, [])
            course.flush()
        if not any(one.queue == PUSHED for one in course.model.messages.values()) and not course.model.out:
            break
        course.time(1_000)
    assert not any(one.queue == PUSHED for one in course.model.messages.values())
    assert not course.model.out and "queue/pushed" not in course.tables.counters.rows
