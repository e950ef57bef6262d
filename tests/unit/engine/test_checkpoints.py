"""Async checkpoints: given a call that goes on, what its reports of steps do (inngest-protocol §5.12)."""

from __future__ import annotations

import msgspec

from stepwell.engine.calls import CheckpointReply
from stepwell.engine.commands import Reply
from stepwell.engine.inputs import CallsReturned, RunCancelled
from stepwell.engine.model import RunStatus
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op
from stepwell.runtime.heart import Decided
from tests.unit.engine.bench import Bench, planned, ran, slept

TAKEN = CheckpointReply(accepted=True)
SUPERSEDED = CheckpointReply(accepted=False)
ENDED = CheckpointReply(accepted=False, ended=True)


def reply(decided: Decided) -> CheckpointReply:
    """What the report is answered with."""
    assert decided.error is None, decided.error
    (value,) = [effect.value for effect in decided.effects if isinstance(effect, Reply)]
    assert isinstance(value, CheckpointReply)
    return value


def test_steps_are_saved_and_no_call_follows() -> None:
    """The call goes on by itself: its lease stays, nothing else becomes ready."""
    bench = Bench()
    item = bench.start()
    assert reply(bench.checkpoint(item, ran("s", b"5"))) == TAKEN
    assert bench.step("s").memo == b'{"data":5}' and bench.jobs() == []
    assert bench.tables.items.rows[item.id].holder is not None


def test_a_step_told_twice_is_saved_once() -> None:
    """The first result counts, in one report as in several."""
    bench = Bench()
    item = bench.start()
    assert reply(bench.checkpoint(item, ran("s"), ran("s", b"2"))) == TAKEN
    assert reply(bench.checkpoint(item, ran("s", b"3"), ran("t"))) == TAKEN
    assert (bench.step("s").memo, bench.step("t").position) == (b'{"data":1}', 1)


def test_a_planned_step_in_a_checkpoint_is_for_the_trace_only() -> None:
    """It gets no item, and no row that would keep it from being planned later."""
    bench = Bench()
    item = bench.start()
    assert reply(bench.checkpoint(item, planned("p"))) == TAKEN
    assert bench.jobs() == [] and bench.run.steps == 0
    bench.answer(item, planned("p"))
    assert bench.jobs() == ["p-plan"]


def test_what_else_a_checkpoint_tells_is_refused_whole() -> None:
    """400, and none of its steps is saved."""
    bench = Bench()
    item = bench.start()
    for op in (slept("z"), Op(op="RunComplete"), Op(op="DiscoveryRequest", id="d"), Op(op="StepFailed", id="x", error=b"{}")):
        decided = bench.checkpoint(item, ran("s"), op)
        assert getattr(decided.error, "status", None) == 400 and op.op in str(decided.error)
    assert bench.run.steps == 0


def test_an_accepted_checkpoint_gives_the_call_its_attempts_again() -> None:
    """One job covers many steps; each that is saved begins the count anew."""
    bench = Bench(retries=1)
    item = bench.start()
    bench.answer(item, answer=Failed(error=b'{"message":"no","name":"Error"}', retriable=True))
    bench.fire()
    (item,) = bench.claim()
    assert item.attempt == 1
    assert reply(bench.checkpoint(item, ran("s"))) == TAKEN
    assert bench.tables.items.rows[item.id].attempt == 0
    bench.answer(item, answer=Failed(error=b'{"message":"no","name":"Error"}', retriable=True))
    assert bench.run.ended_ms is None


def test_the_generation_is_judged_first() -> None:
    """A call that was superseded has to stop, also where its run has ended meanwhile."""
    bench = Bench()
    old = bench.start()
    bench.give(CallsReturned(((old.id, old.fence),), "not in hand"))
    assert reply(bench.checkpoint(old, ran("s"))) == SUPERSEDED  # nobody holds it
    (new,) = bench.claim()
    assert reply(bench.checkpoint(old, ran("s"))) == SUPERSEDED
    assert reply(bench.checkpoint(new, slept("z"), fence=new.fence + 1)) == SUPERSEDED
    bench.give(RunCancelled(new.run_id, "somebody"))
    assert reply(bench.checkpoint(old, ran("s"))) == SUPERSEDED
    assert reply(bench.checkpoint(new, ran("s"))) == ENDED
    assert bench.run.steps == 0 and bench.run.status is RunStatus.CANCELLED


def test_a_call_that_was_answered_is_superseded_and_an_ended_run_is_over() -> None:
    """Its item is gone: 409 while the run lives, 400 after."""
    bench = Bench()
    item = bench.start()
    bench.answer(item, ran("s"))
    assert reply(bench.checkpoint(item, ran("t"))) == SUPERSEDED
    (next_item,) = bench.claim()
    bench.answer(next_item, Op(op="RunComplete", data=b"1"))
    assert reply(bench.checkpoint(item, ran("t"))) == ENDED
    assert reply(bench.checkpoint(next_item, ran("t"))) == ENDED


def test_a_checkpoint_is_of_its_own_run() -> None:
    """A reference to another run's item saves nothing."""
    bench = Bench()
    item = bench.start()
    bench.send()
    other = next(run for run in bench.tables.runs if run.id != item.run_id)
    forged = bench.tables.items.rows[item.id]
    decided = bench.checkpoint(msgspec.structs.replace(forged, run_id=other.id), ran("s"))
    assert reply(decided) == SUPERSEDED and not list(bench.tables.steps)


def test_five_steps_by_checkpoints_cost_seven_inputs() -> None:
    """A claim, five checkpoints, and the answer with the result: nothing else is decided between."""
    bench = Bench()
    bench.send()
    before = bench.given
    (item,) = bench.claim()
    for n in range(5):
        assert reply(bench.checkpoint(item, ran(f"s{n}"))) == TAKEN
    bench.answer(item, Op(op="RunComplete", data=b"15"))
    assert bench.run.status is RunStatus.COMPLETED and bench.given - before == 7
