"""A function's keys change while its runs wait: lanes of the old keys and of the new ones keep no opening from each other."""

from __future__ import annotations

import random

import pytest

from stepwell.engine.commands import Call
from stepwell.engine.inputs import AnyInput, AppSynced, Ask, CallAnswered, Claim, EventsReceived, NodeStarted, RunCancelled, TimerDue
from stepwell.engine.invariants import violations
from stepwell.engine.model import TimerKind
from stepwell.protocol.calls import Returned
from stepwell.protocol.events import Event
from stepwell.protocol.functions import Concurrency, FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import ulid
from stepwell.runtime.heart import Decided, Heart
from stepwell.store.memory import MemoryStore
from tests.simulation.clock import VirtualClock, at_once

HOLDER = "n/1"
SPACE, USER = Concurrency(limit=1, key="event.data.space"), Concurrency(limit=5, key="event.data.user")
WEIGHTED = Concurrency(limit=1, key="event.data.space", weight="event.data.weight")
SPACES = 8


class Bench:
    """One function, whose limits are told anew."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = VirtualClock(random.Random(1))
        self.heart = Heart(self.store, self.clock)
        self.calls: dict[str, Call] = {}
        self.give(NodeStarted("n", HOLDER))

    def give(self, input: AnyInput) -> Decided:
        """Decide one input; whatever it does, the invariants hold."""
        (decided,) = at_once(self.heart.handle([input])).decided
        assert decided.error is None, decided.error
        assert violations(self.store.tables) == []
        return decided

    def told(self, *limits: Concurrency) -> None:
        """The app says these limits, and the lanes that others shut are opened."""
        config = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), concurrency=limits)
        checksum = ",".join(str(limit.key) for limit in limits)
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(config,), checksum=checksum)
        self.give(AppSynced(told, "local"))
        at_once(self.heart.reload())
        self.timers(TimerKind.REOPEN)

    def timers(self, kind: TimerKind) -> int:
        """Let all timers of a kind go off; how many there were."""
        due = [timer.id for timer in self.store.tables.timers if timer.kind is kind]
        for timer_id in due:
            self.give(TimerDue(timer_id))
        return len(due)

    def send(self, space: int, weight: int) -> str:
        """Queue a run of a user of their own; its id."""
        event_id = ulid(self.clock.ms, self.clock.entropy(10))
        data = b'{"space":%d,"user":"%s","weight":%d}' % (space, event_id.encode(), weight)
        event = Event(internal_id=event_id, id=event_id, name="x", data=data, user=b"{}", ts=1, v=None, meta=None, received_ms=1)
        self.give(EventsReceived((event,), fresh=True))
        (run,) = [run for run in self.store.tables.runs if run.event_ids == (event_id,)]
        return run.id

    def claim(self) -> set[str]:
        """Begin all that may begin, now and by the cursors that claims leave; the runs."""
        began = set()
        while True:
            calls = [one for one in self.give(Claim(HOLDER, (Ask("a-f", 64),))).effects if isinstance(one, Call)]
            self.calls.update((call.run.id, call) for call in calls)
            began |= {call.run.id for call in calls}
            if not self.timers(TimerKind.OPEN) and not calls:
                return began

    def end(self, run_id: str) -> None:
        """Answer the run's call."""
        call = self.calls.pop(run_id)
        self.give(CallAnswered(run_id, call.item.id, call.item.fence, Returned(data=b"1")))


CHANGES = {
    "one of two keys goes": ((SPACE, USER), (SPACE,)),
    "a second key comes": ((SPACE,), (SPACE, USER)),
    "weights come": ((SPACE,), (WEIGHTED,)),
    "weights go": ((WEIGHTED,), (SPACE,)),
    "weights differ": ((WEIGHTED,), (WEIGHTED,)),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("cancelled", ["older", "newer"])
@pytest.mark.parametrize("opened_first", ["older", "newer"])
def test_a_lane_that_has_nothing_left_passes_its_opening_on(
    before: tuple[Concurrency, ...], after: tuple[Concurrency, ...], cancelled: str, opened_first: str
) -> None:
    """Two lanes wait for one key, of the keys of before and of those of today; what waited in one of them is cancelled."""
    bench = Bench()
    bench.told(*before)
    running = [bench.send(space, weight=3) for space in range(SPACES)]
    assert bench.claim() == set(running)
    older = [bench.send(space, weight=3) for space in range(SPACES)]
    assert bench.claim() == set()
    bench.told(*after)
    for _ in range(4 if opened_first == "older" else 0):
        # Lanes that come later stand behind those that have been served less than these.
        other = bench.send(SPACES, weight=1)
        assert bench.claim() == {other}
        bench.end(other)
    newer = [bench.send(space, weight=1) for space in range(SPACES)]
    assert bench.claim() == set()
    going, staying = (older, newer) if cancelled == "older" else (newer, older)
    for run_id in going:
        bench.give(RunCancelled(run_id, "cancelled"))
    for run_id in running:
        bench.end(run_id)
    assert bench.claim() == set(staying)
