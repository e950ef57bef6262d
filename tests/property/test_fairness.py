"""Fairness between the values of a key and between functions: who waits is served, whatever others have queued, by the weights given."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.engine.commands import Call
from stepwell.engine.inputs import AppSynced, Ask, CallAnswered, Claim, Claimed, EventsReceived, FunctionOverridden, NodeStarted, TimerDue
from stepwell.engine.model import TimerKind
from stepwell.engine.selection import CLAIM_OF_MANY
from stepwell.protocol.calls import Returned
from stepwell.protocol.events import Event
from stepwell.protocol.functions import Concurrency, FunctionConfig, Override, Registration, Trigger
from stepwell.protocol.ids import ulid
from stepwell.runtime.heart import Heart
from stepwell.runtime.shares import Shares
from stepwell.store.memory import MemoryStore
from tests.simulation.clock import VirtualClock, at_once

HOLDER = "n/1"
WEIGHTS = (1, 1, 2, 3)
"""One tenant each."""


class Shop:
    """One function with a limit of calls in all, whose key's values are tenants with weights and a limit for `each`."""

    def __init__(self, limit: int, each: int = 100) -> None:
        self.store = MemoryStore()
        self.clock = VirtualClock(random.Random(1))
        self.heart = Heart(self.store, self.clock)
        self.queued: Counter[int] = Counter()
        self.calls: list[Call] = []
        limits = (Concurrency(limit=limit), Concurrency(limit=each, key="event.data.tenant", weight="event.data.weight"))
        config = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), concurrency=limits)
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(config,), checksum="1")
        for input in (NodeStarted("n", HOLDER), AppSynced(told, "local")):
            at_once(self.heart.handle([input]))
        at_once(self.heart.reload())
        self._tenants: dict[str, int] = {}

    def send(self, tenant: int, count: int) -> None:
        """Queue runs of a tenant."""
        data = b'{"tenant":%d,"weight":%d}' % (tenant, WEIGHTS[tenant])
        events = []
        for _ in range(count):
            event_id = ulid(self.clock.ms, self.clock.entropy(10))
            self._tenants[event_id] = tenant
            events.append(Event(internal_id=event_id, id=event_id, name="x", data=data, user=b"{}", ts=1, v=None, meta=None, received_ms=1))
        for start in range(0, count, 100):
            at_once(self.heart.handle([EventsReceived(tuple(events[start : start + 100]), fresh=True)]))
        self.queued[tenant] += count

    def claim(self, room: int) -> list[int]:
        """Whose runs are begun now, in their order. What a claim has left to do opens lanes for another one."""
        served: list[int] = []
        while True:
            (decided,) = at_once(self.heart.handle([Claim(HOLDER, (Ask("a-f", room - len(served)),))])).decided
            assert decided.error is None, decided.error
            calls = [effect for effect in decided.effects if isinstance(effect, Call)]
            self.calls += calls
            served += [self._tenants[call.run.event_ids[0]] for call in calls]
            due = [timer.id for timer in self.store.tables.timers if timer.kind is TimerKind.OPEN]
            if not due or len(served) == room:
                self.queued.subtract(served)
                return served
            for timer_id in due:
                at_once(self.heart.handle([TimerDue(timer_id)]))

    def answer(self, count: int, tenant: int | None = None) -> None:
        """End the calls that are out the longest; of one tenant, if it is named."""
        ending = [call for call in self.calls if tenant is None or self._tenants[call.run.event_ids[0]] == tenant][:count]
        for call in ending:
            self.calls.remove(call)
            at_once(self.heart.handle([CallAnswered(call.run.id, call.item.id, call.item.fence, Returned(data=b"1"))]))

    def allow(self, each: int) -> None:
        """Give each tenant another limit."""
        at_once(self.heart.handle([FunctionOverridden("a-f", Override(limits={"1": each}))]))
        at_once(self.heart.reload())
        at_once(self.heart.handle([TimerDue("reopen/a-f")]))


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, len(WEIGHTS) - 1), st.integers(1, 12)),
        st.tuples(st.just("claim"), st.integers(1, 4), st.integers(1, 4)),
    ),
    min_size=5,
    max_size=50,
)


@given(st.integers(1, 3), ACTS)
@settings(max_examples=60, deadline=None)
def test_nobody_is_passed_by_more_often_than_the_weights_say(limit: int, acts: list[tuple[str, int, int]]) -> None:
    """While one waits, another is served at most as often as its weight is larger, and once more; and in the end all have been."""
    shop = Shop(limit)
    passed: dict[int, Counter[int]] = {}

    def serve(room: int) -> int:
        served = shop.claim(room)
        left = shop.queued + Counter(served)
        for tenant in served:
            for waiting, others in passed.items():
                if waiting != tenant and left[waiting] > 0:
                    others[tenant] += 1
                    assert others[tenant] <= WEIGHTS[tenant] / WEIGHTS[waiting] + 1, f"{tenant} passes {waiting} by: {others}"
            left[tenant] -= 1
            passed[tenant] = Counter()
        return len(served)

    for kind, first, second in acts:
        if kind == "send":
            if shop.queued[first] == 0:
                passed[first] = Counter()
            shop.send(first, second)
        else:
            serve(first)
            shop.answer(second)
    while shop.queued.total() or shop.calls:
        free = limit - len(shop.calls)
        began = serve(10)
        assert began == min(free, shop.queued.total() + began), "there is room, and somebody waits"
        shop.answer(1)
    assert shop.claim(10) == [] and all(lane.state == "empty" for lane in shop.store.tables.lanes)


def test_a_tenant_with_one_waits_for_one_slot_of_a_tenant_with_thousands() -> None:
    """Whoever comes is next, but for who has been served as little."""
    shop = Shop(limit=1)
    shop.send(0, 3_000)
    for _ in range(20):
        assert shop.claim(10) == [0]
        shop.answer(1)
    assert shop.claim(10) == [0]
    shop.send(1, 1)
    served = []
    for _ in range(2):
        shop.answer(1)
        served += shop.claim(10)
    assert 1 in served


def test_a_tenant_that_its_own_limit_kept_back_takes_turns_with_one_that_went_on() -> None:
    """Whatever was served while it might not be is not made up for: nobody waits until it has caught up."""
    shop = Shop(limit=2, each=1)
    for tenant in (0, 1):
        shop.send(tenant, 100)
    assert sorted(shop.claim(2)) == [0, 1]
    for _ in range(20):
        shop.answer(1, tenant=0)
        assert shop.claim(2) == [0], "the other's call is out yet"
    shop.allow(each=2)
    served: Counter[int] = Counter()
    for _ in range(10):
        shop.answer(1)
        served.update(shop.claim(1))
    assert abs(served[0] - served[1]) <= 2, served


def test_weights_divide_what_is_served() -> None:
    """All have more than enough queued: the shares are the weights."""
    shop = Shop(limit=1)
    for tenant in range(len(WEIGHTS)):
        shop.send(tenant, 100)
    served: Counter[int] = Counter()
    for _ in range(20 * sum(WEIGHTS)):
        served.update(shop.claim(1))
        shop.answer(1)
    assert all(abs(served[tenant] - 20 * weight) <= 1 for tenant, weight in enumerate(WEIGHTS)), served


def test_a_large_claim_divides_by_the_weights_too() -> None:
    """Room for many calls at once goes to lanes as many claims of one call would give it, however few items of each were read first."""
    shop = Shop(limit=1_000)
    for tenant in range(len(WEIGHTS)):
        shop.send(tenant, 100)
    assert 7 * max(WEIGHTS) > CLAIM_OF_MANY
    served = Counter(shop.claim(7 * sum(WEIGHTS)))
    assert all(abs(served[tenant] - 7 * weight) <= 1 for tenant, weight in enumerate(WEIGHTS)), served


ROUNDS = st.lists(st.tuples(st.integers(1, 5), st.lists(st.integers(0, 3), max_size=6)), min_size=5, max_size=60)


@given(ROUNDS)
@settings(max_examples=200, deadline=None)
def test_functions_take_turns_by_their_weights(rounds: list[tuple[int, list[int]]]) -> None:
    """Functions that wait together are never further apart than a turn of each, whatever room the claims have."""
    shares, queued = Shares(), Counter[str]()
    weights = {f"f{n}": weight for n, weight in enumerate(WEIGHTS)}
    leads: dict[tuple[str, str], float] = {}
    for room, coming in rounds:
        queued.update(f"f{n}" for n in coming for _ in range(4))
        waiting = sorted(name for name in queued if queued[name] > 0)
        if not waiting:
            continue
        asks = shares.ask(waiting, room, weights.__getitem__)
        assert sum(ask.room for ask in asks) == room
        calls = {ask.function_id: min(ask.room, queued[ask.function_id]) for ask in asks}
        queued.subtract(calls)
        shares.note(asks, Claimed(calls, tuple(name for name in calls if queued[name] > 0)), weights.__getitem__)
        kept = {}
        for a, b in itertools.combinations([name for name in waiting if queued[name] > 0], 2):
            lead = leads.get((a, b), 0.0) + calls.get(a, 0) / weights[a] - calls.get(b, 0) / weights[b]
            assert abs(lead) <= 1 / weights[a] + 1 / weights[b] + 1e-6, f"{a} is {lead} turns ahead of {b}"
            kept[a, b] = lead
        leads = kept


def test_a_function_that_was_idle_takes_turns_with_one_that_was_not() -> None:
    """Whatever was served while it had nothing to do is not made up for."""
    shares = Shares()
    for _ in range(100):
        shares.note(shares.ask(["busy"], 1, lambda name: 1), Claimed({"busy": 1}, ("busy",)), lambda name: 1)
    served = []
    for _ in range(10):
        asks = shares.ask(["busy", "idle"], 1, lambda name: 1)
        served += [ask.function_id for ask in asks]
        shares.note(asks, Claimed({served[-1]: 1}, (served[-1],)), lambda name: 1)
    assert abs(served.count("idle") - served.count("busy")) <= 2, served
