"""What is more than may be fails the run at once, with the protocol's names, and nothing else."""

from __future__ import annotations

import random

import pytest

from stepwell.engine.inputs import AppSynced, Ask, CallAnswered, Claim, EventsReceived, NodeStarted, StepsCheckpointed
from stepwell.engine.invariants import violations
from stepwell.engine.model import Item, RunStatus, TimerKind
from stepwell.engine.registry import Settings
from stepwell.protocol.calls import Answer, Checkpoint, Failed, Lost, Ops
from stepwell.protocol.events import Event
from stepwell.protocol.functions import FunctionConfig, Registration, Trigger
from stepwell.protocol.ops import Op
from stepwell.runtime.heart import Decided, Heart
from stepwell.store.memory import MemoryStore
from tests.simulation.clock import VirtualClock, at_once


class Bench:
    """One function, one event, one leased item."""

    def __init__(self, settings: Settings, retries: int = 2) -> None:
        self.store = MemoryStore()
        self.clock = VirtualClock(random.Random(1))
        self.heart = Heart(self.store, self.clock, settings)
        function = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), retries=retries)
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(function,), checksum="1")
        self.give(AppSynced(told, "local"))
        at_once(self.heart.reload())
        self.give(NodeStarted("n", "n/1"))
        fields = {"name": "x", "data": b"{}", "user": b"{}", "ts": 1, "v": None, "meta": None, "received_ms": 1}
        self.give(EventsReceived((Event(internal_id="01J0000000000000000000000E", id="01J0000000000000000000000E", **fields),), fresh=True))

    def give(self, input) -> Decided:  # type: ignore[no-untyped-def]
        """Decide one input; whatever it does, the invariants hold."""
        (decided,) = at_once(self.heart.handle([input])).decided
        assert violations(self.store.tables) == []
        return decided

    def claim(self) -> Item:
        """Lease the run's item."""
        self.give(Claim("n/1", (Ask("a-f", 1),)))
        (item,) = self.store.tables.items
        assert item.holder == "n/1"
        return item

    def answer(self, item: Item, answer: Answer) -> None:
        """End the item's call."""
        assert self.give(CallAnswered(item.run_id, item.id, item.fence, answer)).error is None

    def run(self):  # type: ignore[no-untyped-def]
        """The run as it stands."""
        (run,) = [run for run in self.store.tables.runs if run.cause == "event"]
        return run


def steps(*sizes: int) -> tuple[Op, ...]:
    """Finished steps with outputs of these sizes."""
    return tuple(Op(op="StepRun", id=f"s{n}", name=f"s{n}", data=b'"' + b"x" * size + b'"') for n, size in enumerate(sizes))


def test_too_many_steps_end_the_run() -> None:
    """In an answer as in a checkpoint."""
    bench = Bench(Settings(steps_max=2))
    bench.answer(bench.claim(), Ops(ops=steps(1, 1, 1), request_version=2))
    assert bench.run().status is RunStatus.FAILED and b"InngestErrFunctionOverflowed" in bench.run().output

    bench = Bench(Settings(steps_max=2))
    item = bench.claim()
    decided = bench.give(StepsCheckpointed(Checkpoint(run_id=item.run_id, item_id=item.id, fence=item.fence, ops=steps(1, 1, 1))))
    assert getattr(decided.error, "status", None) == 413 and "step limit of 2" in str(decided.error)
    assert bench.run().status is RunStatus.FAILED


def test_too_much_state_ends_the_run() -> None:
    """The sum of the outputs counts."""
    bench = Bench(Settings(state_bytes_max=100))
    bench.answer(bench.claim(), Ops(ops=steps(60, 60), request_version=2))
    assert b"InngestErrStateOverflowed" in bench.run().output


def test_a_call_lost_too_often_fails_and_uses_no_attempt_before() -> None:
    """Twice it is made again at once; the third time it fails with `WorkerDied`."""
    bench = Bench(Settings())
    for n in range(2):
        item = bench.claim()
        assert (item.attempt, item.losses) == (0, n)
        bench.answer(item, Lost(reason="the child died with signal 11"))
    bench.answer(bench.claim(), Lost(reason="the child died with signal 11"))
    assert bench.run().status is RunStatus.FAILED
    assert b"WorkerDied" in bench.run().output and b"signal 11" in bench.run().output
    assert [attempt.kind for attempt in bench.store.tables.attempts] == ["lost", "lost", "failed"]


def test_an_op_that_is_not_performed_fails_the_run_by_name() -> None:
    """The sentence says which, and no retry follows."""
    bench = Bench(Settings())
    bench.answer(bench.claim(), Ops(ops=(Op(op="StepNotFound", id="w", name="x", display_name="wait"),), request_version=2))
    assert bench.run().status is RunStatus.FAILED and b"StepNotFound" in bench.run().output


TOO_LONG = [
    Op(op="Sleep", id="z", name="367d"),
    Op(op="Sleep", id="z", name="z", opts=b'{"duration":"8785h"}'),
    Op(op="WaitForEvent", id="z", name="x/y", opts=b'{"timeout":"367d"}'),
    Op(op="WaitForSignal", id="z", name="s", opts=b'{"signal":"s","timeout":"367d"}'),
    Op(op="InvokeFunction", id="z", name="i", opts=b'{"function_id":"a-f","timeout":"367d"}'),
]


@pytest.mark.parametrize("op", TOO_LONG, ids=lambda op: op.op)
def test_what_would_last_too_long_fails_the_run(op: Op) -> None:
    """More than 366 days: at once, and nothing of it is left; 366 days are taken."""
    bench = Bench(Settings())
    bench.answer(bench.claim(), Ops(ops=(op,), request_version=2))
    assert bench.run().status is RunStatus.FAILED and b"InngestErrTimeoutTooLong" in bench.run().output

    longest = Op(
        op=op.op,
        id="z",
        name=op.name.replace("367d", "366d"),
        opts=op.opts and op.opts.replace(b"367d", b"366d").replace(b"8785h", b"8784h"),
    )
    bench = Bench(Settings())
    bench.answer(bench.claim(), Ops(ops=(longest,), request_version=2))
    assert bench.run().status is RunStatus.WAITING


def test_an_answer_of_too_many_ops_ends_the_run() -> None:
    """Also where they would be no steps of their own (§11.1)."""
    bench = Bench(Settings(steps_max=2))
    bench.answer(bench.claim(), Ops(ops=steps(1) * 3, request_version=2))
    assert b"exceeded the step limit of 2 steps." in bench.run().output and not list(bench.store.tables.steps)


def test_an_answer_with_nothing_to_do_is_tried_again_then_fails() -> None:
    """A run is never left standing without an item or a timer."""
    bench = Bench(Settings(retry_interval_ms=0), retries=0)
    bench.answer(bench.claim(), Ops(ops=(), request_version=2))
    assert b"NothingToDo" in bench.run().output


def test_steps_that_a_checkpoint_saved_may_be_told_again() -> None:
    """An app that did not hear its checkpoint's reply answers with the same steps: no attempt fails, and the run is called again.

    Called for this very reason, it has to get on.
    """
    bench = Bench(Settings(retry_interval_ms=0), retries=0)
    item = bench.claim()
    checkpoint = Checkpoint(run_id=item.run_id, item_id=item.id, fence=item.fence, ops=steps(1))
    assert bench.give(StepsCheckpointed(checkpoint)).error is None
    bench.answer(item, Ops(ops=steps(1), request_version=2))
    assert bench.run().status is RunStatus.RUNNING and not list(bench.store.tables.attempts)
    bench.answer(bench.claim(), Ops(ops=steps(1), request_version=2))
    assert b"NothingToDo" in bench.run().output


def test_retry_after_is_kept_and_the_backoff_is_the_same_for_the_same_attempt() -> None:
    """An app says when; otherwise a table with a jitter that is a hash."""
    due = []
    for after in (90_000, None, None):
        bench = Bench(Settings())
        bench.answer(bench.claim(), Failed(error=b'{"message":"m","name":"n"}', retriable=True, retry_after_ms=after))
        (timer,) = (timer for timer in bench.store.tables.timers if timer.kind is TimerKind.ITEM)
        due.append(timer.due_ms - bench.clock.ms)
    assert due[0] == 90_000 and due[1] == due[2] and 15_000 <= due[1] < 45_000
