"""An engine on a table: inputs are given one by one, the invariants hold after each, and the rows lie open."""

from __future__ import annotations

import random
from typing import Any

from stepwell.engine.inputs import AnyInput, AppSynced, Ask, CallAnswered, Claim, EventsReceived, NodeStarted, StepsCheckpointed, TimerDue
from stepwell.engine.invariants import Moves, violations
from stepwell.engine.model import Item, Run, Step, Timer
from stepwell.engine.registry import Settings
from stepwell.protocol.calls import Answer, Checkpoint, Ops
from stepwell.protocol.events import Event
from stepwell.protocol.functions import FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import ulid
from stepwell.protocol.ops import Op
from stepwell.runtime.heart import Decided, Heart
from stepwell.store.memory import MemoryStore
from tests.simulation.checkers import FOR_EVER
from tests.simulation.clock import VirtualClock, at_once

HOLDER = "n/1"


class Bench:
    """Functions of one app, `f` (on event `x`) if none are named. `given` counts the inputs."""

    def __init__(self, *functions: FunctionConfig, settings: Settings | None = None, retries: int = 2) -> None:
        self.store = MemoryStore()
        self.tables = self.store.tables
        self.clock = VirtualClock(random.Random(1))
        self.heart = Heart(self.store, self.clock, settings or Settings(retry_interval_ms=1_000))
        self.moves = Moves()
        self.given = 0
        functions = functions or (FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), retries=retries),)
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=functions, checksum="1")
        self.give(AppSynced(told, "local"))
        at_once(self.heart.reload())
        self.give(NodeStarted("n", HOLDER))

    def give(self, input: AnyInput) -> Decided:
        """Decide one input."""
        self.given += 1
        (decided,) = at_once(self.heart.handle([input])).decided
        assert violations(self.tables) == []
        assert self.moves.judge(self.tables) == []
        return decided

    def send(self, name: str = "x", data: bytes = b"{}") -> str:
        """Store an event."""
        event_id = ulid(self.clock.ms, self.clock.entropy(10))
        fields: dict[str, Any] = {"name": name, "data": data, "user": b"{}", "ts": 1, "v": None, "meta": None, "received_ms": self.clock.ms}
        self.give(EventsReceived((Event(internal_id=event_id, id=event_id, **fields),), fresh=True))
        return event_id

    def claim(self, room: int = 10) -> list[Item]:
        """Lease what is ready, in the order of the items' ids."""
        self.give(Claim(HOLDER, tuple(Ask(function_id, room) for function_id in sorted(self.heart.registry.functions))))
        return sorted(self.tables.holder_items(HOLDER), key=lambda item: item.id)

    def start(self) -> Item:
        """A run of `f` with its first call out."""
        self.send()
        (item,) = self.claim()
        return item

    def answer(self, item: Item, *ops: Op, version: int = 2, answer: Answer | None = None) -> None:
        """End an item's call."""
        decided = self.give(CallAnswered(item.run_id, item.id, item.fence, answer or Ops(ops=ops, request_version=version)))
        assert decided.error is None, decided.error

    def checkpoint(self, item: Item, *ops: Op, fence: int | None = None) -> Decided:
        """Report steps of a call that goes on."""
        fence = item.fence if fence is None else fence
        return self.give(StepsCheckpointed(Checkpoint(run_id=item.run_id, item_id=item.id, fence=fence, ops=ops)))

    def fire(self) -> None:
        """Turn the clock to the next timer, and have it fire."""
        timer = min(self.timers, key=lambda timer: (timer.due_ms, timer.id))
        self.clock.ms = max(self.clock.ms, timer.due_ms)
        decided = self.give(TimerDue(timer.id))
        assert decided.error is None, decided.error

    @property
    def timers(self) -> list[Timer]:
        """Those that are about runs and events."""
        return [timer for timer in self.tables.timers if timer.kind not in FOR_EVER]

    @property
    def run(self) -> Run:
        """The one run that an event started."""
        (run,) = [run for run in self.tables.runs if run.cause == "event"]
        return run

    def step(self, step_id: str) -> Step:
        """A step of the run."""
        return self.tables.steps.rows[self.run.id, step_id]

    def jobs(self) -> list[str]:
        """What the run's items that nobody holds are for, by the names of their jobs."""
        return sorted(item.id.removeprefix(f"{item.run_id}-") for item in self.tables.items if item.holder is None)


def ran(step_id: str, data: bytes = b"1", **fields: Any) -> Op:
    """A step with its result."""
    return Op(op="StepRun", id=step_id, name=step_id, data=data, **fields)


def planned(step_id: str, *, race: bool = False) -> Op:
    """A step that is to be called by itself."""
    return Op(op="StepPlanned", id=step_id, name=step_id, opts=b'{"parallelMode":"race"}' if race else None)


def slept(step_id: str, duration: str = "20s") -> Op:
    """A sleep."""
    return Op(op="Sleep", id=step_id, name=duration)


def went_wrong(step_id: str, op: str = "StepError", name: str | None = None) -> Op:
    """A step's error."""
    return Op(op=op, id=step_id, name=step_id if name is None else name, error=b'{"message":"no","name":"Error"}')
