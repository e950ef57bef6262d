"""Claims beside other inputs of their group, whose lanes are claimed too, in one more reading; what claims leave of lanes that run dry."""

from __future__ import annotations

import asyncio
import random

import pytest

from stepwell.engine import lanes, selection, timers
from stepwell.engine.commands import Call
from stepwell.engine.inputs import AppSynced, Ask, CallAnswered, Claim, EventsReceived, NodeStarted, RunCancelled, TimerDue
from stepwell.engine.invariants import violations
from stepwell.protocol.calls import Returned
from stepwell.protocol.events import Event
from stepwell.protocol.functions import Concurrency, FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import numbered_ulids
from stepwell.runtime.heart import Heart
from stepwell.store.memory import MemoryStore
from tests.simulation.clock import VirtualClock, at_once
from tests.unit.engine.bench import HOLDER, Bench


def events(count: int, entropy: bytes) -> EventsReceived:
    """Events of as many tenants."""
    ids = numbered_ulids(1, entropy)
    return EventsReceived(
        tuple(
            Event(internal_id=ids(n), id=ids(n), name="x", data=b'{"t":%d}' % n, user=b"{}", ts=1, v=None, meta=None, received_ms=1)
            for n in range(count)
        ),
        fresh=True,
    )


def test_lanes_that_the_group_has_made_and_opened_are_claimed_at_once() -> None:
    """A hundred tenants with a limit of one each: their lanes come into being, and later open, in the very group of the claim."""

    async def main() -> None:
        heart = Heart(MemoryStore(), VirtualClock(random.Random(1)))
        limit = Concurrency(limit=1, key="event.data.t")
        config = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), concurrency=(limit,))
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(config,), checksum="1")
        await heart.handle([NodeStarted("n", "n/1")])
        await heart.handle([AppSynced(told, "local")])
        await heart.reload()
        claim = Claim("n/1", (Ask("a-f", 256),))
        beat = await heart.handle([events(100, b"0" * 10), events(100, b"1" * 10), claim])
        assert [one.error for one in beat.decided] == [None] * 3
        calls = [effect for effect in beat.decided[2].effects if isinstance(effect, Call)]
        assert len(calls) == 100 and len({call.item.lane_id for call in calls}) == 100
        answers = [CallAnswered(call.run.id, call.item.id, call.item.fence, Returned(data=b"1")) for call in calls]
        beat = await heart.handle([*answers, claim])
        assert [one.error for one in beat.decided] == [None] * 101
        assert sum(isinstance(effect, Call) for effect in beat.decided[-1].effects) == 100

    asyncio.run(main())


def limited(limit: int) -> Bench:
    """A function that makes so many calls of a tenant at a time."""
    concurrency = (Concurrency(limit=limit, key="event.data.t"),)
    return Bench(FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), concurrency=concurrency))


def test_a_lane_is_shut_only_where_something_waits_in_it() -> None:
    """The claim that takes a lane's last item knows that it is the last: nothing has to open the lane again."""
    bench = limited(1)
    bench.send(data=b'{"t":1}')
    for _ in range(2):
        bench.send(data=b'{"t":2}')
    items = bench.claim()
    assert sorted(lane.state for lane in bench.tables.lanes) == ["empty", "shut"]
    for item in items:
        bench.answer(item, answer=Returned(data=b"1"))
    assert sorted(lane.state for lane in bench.tables.lanes) == ["empty", "ready"]
    assert len(bench.claim()) == 1


def shared(limit: int, tenants: int) -> Bench:
    """A function that makes so many calls in all, of tenants with one run each; those that find no room are shut."""
    concurrency = (Concurrency(limit=limit), Concurrency(limit=9, key="event.data.t"))
    bench = Bench(FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), concurrency=concurrency))
    for tenant in range(tenants):
        bench.send(data=b'{"t":%d}' % tenant)
    claim = Claim("n/1", (Ask("a-f", tenants),))
    assert len([effect for effect in bench.give(claim).effects if isinstance(effect, Call)]) == limit
    bench.give(claim)
    assert [lane.state for lane in bench.tables.lanes if lane.state != "empty"] == ["shut"] * (tenants - limit)
    return bench


def end_all(bench: Bench, *others: Claim) -> None:
    """All calls that are out end in one group, before the other inputs of it."""
    out = [item for item in bench.tables.items if item.holder is not None]
    group = [*(CallAnswered(item.run_id, item.id, item.fence, Returned(data=b"1")) for item in out), *others]
    assert [one.error for one in at_once(bench.heart.handle(group)).decided] == [None] * len(group)
    assert violations(bench.tables) == []


def test_all_slots_that_one_group_frees_are_used_again() -> None:
    """A release reads a few shut lanes: those that others of its group have opened are opened once, and a cursor finds those behind."""
    bench = shared(limit=3 * selection.OPEN_AT_ONCE, tenants=6 * selection.OPEN_AT_ONCE)
    for _ in range(2):
        end_all(bench)
        while bench.timers:
            bench.fire()
        bench.claim(room=1_000)
        left = sum(item.holder is not None for item in bench.tables.items)
        assert left == min(3 * selection.OPEN_AT_ONCE, len(bench.tables.items))
    assert len(bench.tables.items) == 0


def test_lanes_behind_empty_ones_open_in_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane that a release has opened is found empty in the same group: who is behind it was not read, and is opened all the same."""
    for module in (selection, lanes):
        monkeypatch.setattr(module, "OPEN_AT_ONCE", 1)
    bench = shared(limit=1, tenants=3)
    first = min(lane.id for lane in bench.tables.lanes if lane.state == "shut")
    (run_id,) = [item.run_id for item in bench.tables.items if item.lane_id == first]
    bench.give(RunCancelled(run_id, "test"))
    end_all(bench, Claim("n/1", (Ask("a-f", 9),)))
    while bench.timers:
        bench.fire()
    assert len(bench.claim()) == 1


def test_empty_lanes_are_swept() -> None:
    """What is left of tenants that have nothing to do goes in time; a lane that waits stays, and so does what the key counts."""
    bench = limited(1)
    for tenant in (1, 1, 2, 3):
        bench.send(data=b'{"t":%d}' % tenant)
    bench.claim()
    assert len(bench.tables.lanes) == 3
    bench.give(TimerDue("sweep"))
    assert [lane.state for lane in bench.tables.lanes] == ["shut"]
    bench.send(data=b'{"t":2}')
    assert len(bench.claim()) == 3, "the call of this tenant is out: the next one waits for it"


def test_more_empty_lanes_than_go_at_once_go_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep comes back for the others within a second, and not at once: lanes that are in use come and go meanwhile."""
    for module in (selection, timers):
        monkeypatch.setattr(module, "SWEEP_AT_ONCE", 2)
    bench = limited(1)
    for tenant in range(5):
        bench.send(data=b'{"t":%d}' % tenant)
    bench.claim()
    left = []
    for _ in range(3):
        before_ms = bench.clock.ms
        bench.give(TimerDue("sweep"))
        left.append(len(bench.tables.lanes))
        bench.clock.ms = bench.tables.timers.rows["sweep"].due_ms
        assert bench.clock.ms - before_ms == (timers.SWEEP_LANES_MS if len(left) < 3 else timers.SWEEP_MS)
    assert left == [3, 1, 0]


def test_an_opening_is_passed_on_though_the_group_has_opened_all_that_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call's end opens the first lane of a key, whose run was cancelled, and a claim of the same group finds it empty: the next opens."""
    for module in (selection, lanes):
        monkeypatch.setattr(module, "OPEN_AT_ONCE", 1)
    limits = {"a": 1, "b": 1, "c": 2}
    bench = Bench(
        *(
            FunctionConfig(id=f"a-{n}", name=n, triggers=(Trigger(event=n),), concurrency=(Concurrency(limit=limit, scope="env"),))
            for n, limit in limits.items()
        )
    )
    bench.send("b")
    bench.answer(*bench.claim(), answer=Returned(data=b"1"))  # b has been served, so that a's lane is opened first
    bench.send("c")
    (out,) = bench.claim()
    bench.send("a")
    bench.send("b")
    assert [item.function_id for item in bench.claim()] == ["a-c"]
    (run_id,) = [run.id for run in bench.tables.runs if run.function_id == "a-a"]
    bench.give(RunCancelled(run_id, "somebody"))
    answered = CallAnswered(out.run_id, out.id, out.fence, Returned(data=b"1"))
    at_once(bench.heart.handle([answered, Claim(HOLDER, (Ask("a-a", 1),))]))
    assert violations(bench.tables) == []
    bench.fire()
    assert [item.function_id for item in bench.claim()] == ["a-b"]
