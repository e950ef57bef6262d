"""A run made again begins with what it is to keep, and with nothing else."""

from __future__ import annotations

import pytest

from stepwell.engine.inputs import Ask, CallAnswered, Claim, FromStep, RunRerun
from stepwell.engine.invariants import violations
from stepwell.engine.model import Item, Run, RunStatus, Step
from stepwell.engine.registry import Settings
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.calls import Ops, Returned
from stepwell.protocol.ids import step_hash, ulid
from stepwell.protocol.ops import Op
from stepwell.runtime.bodies import Bodies
from stepwell.server.edits import from_step
from tests.simulation.clock import at_once
from tests.unit.engine.test_limits import Bench

NEW = ulid(5, b"rerun-1234")


def worked(*names: str, last_fails: bool = False) -> Bench:
    """A run that has taken these steps one by one, under the hashes of their names, and returned."""
    bench = Bench(Settings(retry_interval_ms=0), retries=0)
    for n, name in enumerate(names):
        failing = last_fails and n == len(names) - 1
        op = Op(op="StepFailed", id=step_hash(name), name=name, error=b'{"message":"m","name":"E"}') if failing else None
        op = op or Op(op="StepRun", id=step_hash(name), name=name, data=b'"%s"' % name.encode())
        bench.answer(claimed(bench), Ops(ops=(op,), request_version=2))
    bench.answer(claimed(bench), Returned(data=b'"done"'))
    return bench


def claimed(bench: Bench) -> Item:
    """Lease the one item that nobody holds."""
    bench.give(Claim("n/1", (Ask("a-f", 1),)))
    (item,) = [item for item in bench.store.tables.items if item.holder is not None]
    return item


def begun(bench: Bench, step: str, given: str | None = None) -> tuple[Run, list[Step]]:
    """The run begun from a step, with what it has of steps."""
    run = bench.run()
    begin = at_once(from_step(bench.store.reader, run.id, step, given))
    assert bench.give(RunRerun(run.id, NEW, begin)).error is None
    steps = sorted(bench.store.tables.steps.find("run", NEW), key=lambda one: one.position)
    return bench.store.tables.runs.rows[NEW], steps


@pytest.mark.parametrize("name", ["b", step_hash("b")])
def test_what_finished_before_the_step_is_kept(name: str) -> None:
    """By the user's name of the step or by its id; counted as the run's own; nothing of the old run is touched."""
    bench = worked("a", "b", "c")
    before = bench.run()
    run, steps = begun(bench, name)
    assert [step.name for step in steps] == ["a"] and steps[0].memo == b'{"data":"a"}'
    assert (run.status, run.cause, run.origin, run.steps, run.finished) == (RunStatus.QUEUED, "rerun", before.id, 1, 1)
    assert run.state_bytes == len(b'{"data":"a"}') and run.request_version == 2
    assert bench.run() == before and len(bench.store.tables.steps.find("run", before.id)) == 3
    bench.answer(claimed(bench), Ops(ops=(Op(op="StepRun", id=step_hash("b"), name="b", data=b"1"),), request_version=2))
    bench.answer(claimed(bench), Returned(data=b'"again"'))
    ended = bench.store.tables.runs.rows[NEW]
    assert (ended.status, ended.output, ended.steps) == (RunStatus.COMPLETED, b'"again"', 2)


def test_a_failed_step_may_be_kept_and_begun_from() -> None:
    """What failed and was caught is part of what a later step knew; begun from itself, it is tried anew."""
    bench = worked("a", "b", last_fails=True)
    assert [step.name for step in begun(bench, "b")[1]] == ["a"]
    bench = worked("a", last_fails=True)
    run = bench.run()
    bench.give(RunRerun(run.id, NEW, FromStep("x", tuple(bench.store.tables.steps.find("run", run.id)))))
    (kept,) = bench.store.tables.steps.find("run", NEW)
    assert kept.memo == b'{"error":{"message":"m","name":"E"}}'


def test_the_step_is_sent_its_new_input_until_it_is_done() -> None:
    """Under `steps`, outside the stack (§4.3); the result takes its place."""
    bench = worked("a", "b")
    run, _ = begun(bench, "b", '{"qty": 2}')
    bodies = Bodies(bench.store.reader)
    sent = at_once(bodies.of(run))
    assert sent.sent() == {step_hash("a"): b'{"data":"a"}', step_hash("b"): b'{"input":[{"qty":2}]}'}
    assert sent.stack == [step_hash("a")]
    sent.add(step_hash("b"), b'{"data":1}')
    assert sent.sent()[step_hash("b")] == b'{"data":1}' and sent.stack == [step_hash("a"), step_hash("b")]


def test_a_plain_rerun_keeps_nothing() -> None:
    """Neither steps nor the request version, which the new run's first answer settles."""
    bench = worked("a")
    run = bench.run()
    bench.give(RunRerun(run.id, NEW))
    again = bench.store.tables.runs.rows[NEW]
    assert (again.steps, again.request_version) == (0, -1) and not bench.store.tables.steps.find("run", NEW)


def test_the_same_request_twice_makes_one_run() -> None:
    """The second one is answered with the same id, whatever has become of the run since."""
    bench = worked("a", "b")
    run = bench.run()
    begin = at_once(from_step(bench.store.reader, run.id, "b", None))
    for _ in range(2):
        (reply,) = [effect.value for effect in bench.give(RunRerun(run.id, NEW, begin)).effects if hasattr(effect, "value")]
        assert reply == NEW
    assert len(bench.store.tables.steps.find("run", NEW)) == 1


def test_a_step_that_is_not_there_cannot_be_begun_from() -> None:
    """The error names run and step; an input that is no JSON or too large is refused too."""
    bench = worked("a")
    run = bench.run()
    with pytest.raises(NotFound, match=f"run {run.id} has no step 'z'"):
        at_once(from_step(bench.store.reader, run.id, "z", None))
    with pytest.raises(ProtocolError):
        at_once(from_step(bench.store.reader, run.id, "a", "{"))
    with pytest.raises(ProtocolError, match="at most"):
        at_once(from_step(bench.store.reader, run.id, "a", '"' + "x" * (4 * 1024 * 1024) + '"'))


def test_steps_of_another_run_are_never_taken_over() -> None:
    """Such an input is a bug of its sender: it raises, and nothing is written."""
    bench = worked("a")
    (step,) = bench.store.tables.steps.find("run", bench.run().id)
    other = Step(**{name: getattr(step, name) for name in step.__struct_fields__ if name != "run_id"}, run_id="other")
    (decided,) = at_once(bench.heart.handle([RunRerun(bench.run().id, NEW, FromStep("x", (other,)))])).decided
    assert isinstance(decided.error, AssertionError) and NEW not in bench.store.tables.runs.rows
    assert violations(bench.store.tables) == []


def test_a_late_answer_of_the_first_run_changes_nothing_in_the_second() -> None:
    """They share steps' ids, not items."""
    bench = worked("a", "b")
    run, _ = begun(bench, "b")
    item = claimed(bench)
    stale = CallAnswered(bench.run().id, item.id.replace(NEW, bench.run().id), 1, Returned(data=b"0"))
    bench.give(stale)
    assert bench.store.tables.runs.rows[run.id].status is RunStatus.RUNNING
