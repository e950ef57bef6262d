"""The actor machine, input by input: what the simulation cannot say as plainly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell.engine.inputs import AnyInput, NodeStarted, TimerDue
from stepwell.engine.inputs_actors import Activated, ActorActivated, ActorWrote, AlarmAnswered
from stepwell.engine.model_actors import Actor
from stepwell.engine.selection import WHOLE_BYTES, WHOLE_KEYS
from stepwell.primitives.actor import RETRY_S, ActorElsewhere, AlarmFired, retry_ms
from stepwell.protocol.actors import RETRIES_MAX
from stepwell.runtime.heart import Decided, Heart
from stepwell.store.memory import MemoryStore


class Clock:
    """A clock that a test turns."""

    ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def elapsed_ms(self) -> float:
        return 0.0

    def entropy(self, size: int) -> bytes:
        return bytes(size)


class Rig:
    """A heart over memory."""

    def __init__(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.heart = Heart(self.store, self.clock)

    def tell(self, input: AnyInput) -> Decided:
        (decided,) = asyncio.run(self.heart.handle([input])).decided
        return decided

    def reply(self, input: AnyInput) -> Any:
        decided = self.tell(input)
        assert decided.error is None, decided.error
        (value,) = [effect.value for effect in decided.effects if hasattr(effect, "value")]
        return value

    def write(self, fence: int, number: int, **fields: Any) -> Decided:
        return self.tell(ActorWrote(kind="k", name="x", fence=fence, number=number, **fields))

    @property
    def row(self) -> Actor:
        return self.store.tables.actors.rows["k", "x"]


def test_the_waits_between_retries() -> None:
    """2, 4, 8, 16, 32, 64 s, each lengthened by less than a quarter; the same alarm always waits the same."""
    actor = Actor(kind="k", name="x", fence=1)
    assert len(RETRY_S) == RETRIES_MAX
    for retries, seconds in enumerate((2, 4, 8, 16, 32, 64)):
        waits = [retry_ms(Actor(kind="k", name=f"x{n}", fence=1), 5, retries) for n in range(200)]
        assert min(waits) >= seconds * 1000 and max(waits) < seconds * 1250
        assert len(set(waits)) > 50, "they are spread"
        assert retry_ms(actor, 5, retries) == retry_ms(actor, 5, retries)


def test_an_actor_that_lives_elsewhere_is_not_taken() -> None:
    """While its node's epoch lasts; when that is over, it is."""
    rig = Rig()
    rig.tell(NodeStarted("a", "a/1"))
    first: Activated = rig.reply(ActorActivated("k", "x", "a/1"))
    rig.tell(NodeStarted("b", "b/1"))
    assert isinstance(rig.tell(ActorActivated("k", "x", "b/1")).error, ActorElsewhere)
    rig.tell(NodeStarted("b", "b/2", ("a/1", "b/1")))
    second: Activated = rig.reply(ActorActivated("k", "x", "b/2"))
    assert second.fence > first.fence
    assert rig.write(first.fence, 1, puts=(("a", b"1"),)).error is not None
    assert rig.write(second.fence, 1, puts=(("a", b"1"),)).error is None


@pytest.mark.parametrize("entries, size, whole", [(WHOLE_KEYS, 10, True), (WHOLE_KEYS + 1, 10, False), (3, WHOLE_BYTES // 2, False)])
def test_few_entries_come_with_the_activation(entries: int, size: int, whole: bool) -> None:
    """Many, or large ones, are read when they are asked for."""
    rig = Rig()
    fence = rig.reply(ActorActivated("k", "x", "n")).fence
    rig.write(fence, 1, puts=tuple((f"{n:04}", b"v" * size) for n in range(entries)))
    assert (rig.row.entries, rig.row.bytes) == (entries, entries * (size + 4))
    told: Activated = rig.reply(ActorActivated("k", "x", "n"))
    assert told.whole is whole
    assert len(told.entries) == (entries if whole else 0)


def test_an_alarm_is_marked_as_running_until_it_is_answered() -> None:
    """Its effect names its time and its retries; a failed one keeps its time and its error; an answer counts once."""
    rig = Rig()
    fence = rig.reply(ActorActivated("k", "x", "n")).fence
    rig.write(fence, 1, alarm=rig.clock.ms + 10)
    rig.clock.ms += 10
    (fired,) = rig.tell(TimerDue("alarm/k/x", "n")).effects
    assert fired == AlarmFired("k", "x", 1, rig.clock.ms, 0)
    assert (rig.row.firing, rig.row.alarm_ms) == ("n", None)
    assert rig.tell(TimerDue("alarm/k/x", "n")).effects == []
    due_ms = rig.clock.ms
    for _ in range(2):
        rig.tell(AlarmAnswered("k", "x", 1, "failed", b'{"name":"E"}'))
        assert (rig.row.firing, rig.row.alarm_ms, rig.row.alarm_retry, rig.row.error) == (None, due_ms, 1, b'{"name":"E"}')
    timer = rig.store.tables.timers.rows["alarm/k/x"]
    assert 2000 <= timer.due_ms - rig.clock.ms < 2500


def test_a_timer_that_the_clock_has_left_behind_waits() -> None:
    """The clock was set back between the look and the decision."""
    rig = Rig()
    fence = rig.reply(ActorActivated("k", "x", "n")).fence
    rig.write(fence, 1, alarm=rig.clock.ms + 10)
    (again,) = rig.tell(TimerDue("alarm/k/x", "n")).effects
    assert again.due_ms == rig.clock.ms + 10  # type: ignore[attr-defined]
    assert rig.row.firing is None
