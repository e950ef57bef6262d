"""Discovery, planning and parallel groups: given an answer, what becomes ready (inngest-protocol §4.5, §4.6, §4.12, §4.13)."""

from __future__ import annotations

import pytest

from stepwell.engine.model import RunStatus
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op
from tests.unit.engine.bench import Bench, planned, ran, slept, went_wrong


def test_a_serial_step_is_followed_by_one_call_without_planning() -> None:
    """Sequence A of the protocol: the version is the first answer's, for good."""
    bench = Bench()
    bench.answer(bench.start(), ran("a"))
    assert bench.jobs() == ["a"] and not bench.run.force_plan and bench.run.request_version == 2
    (item,) = bench.claim()
    bench.answer(item, ran("b"), version=1)
    assert bench.run.request_version == 2


def test_version_2_joins_a_group_by_one_call() -> None:
    """Sequence C: nothing between, then one discovery, and planning is over."""
    bench = Bench()
    bench.answer(bench.start(), planned("x"), planned("y"), slept("z"))
    assert bench.run.force_plan and set(bench.run.pending) == {"x", "y", "z"} and bench.jobs() == ["x-plan", "y-plan"]
    x, y = bench.claim()
    bench.answer(x, ran("x"))
    bench.answer(y, ran("y"))
    assert bench.jobs() == [] and bench.run.force_plan
    bench.fire()
    (job,) = bench.jobs()
    assert job.endswith("-discover") and not bench.run.force_plan
    assert [step.position for step in sorted(bench.tables.steps, key=lambda step: step.id)] == [0, 1, 2]


def test_version_1_calls_after_every_step_and_plans_for_ever() -> None:
    """Sequence D: npm v3's way."""
    bench = Bench()
    bench.answer(bench.start(), planned("x"), planned("y"), version=1)
    assert bench.run.pending == ()
    x, y = bench.claim()
    bench.answer(x, ran("x"), version=1)
    assert bench.jobs() == ["x"]
    bench.answer(y, ran("y"), version=1)
    assert bench.jobs() == ["x", "y"] and bench.run.force_plan


@pytest.mark.parametrize("version", [1, 2])
def test_the_same_plan_by_two_calls_is_one_job(version: int) -> None:
    """Concurrent discoveries tell it twice; the step's row is the reservation, also after the step is done."""
    bench = Bench()
    bench.answer(bench.start(), planned("x", race=True), planned("y", race=True), version=version)
    x, y = bench.claim()
    bench.answer(x, ran("x"), version=version)
    bench.answer(y, ran("y"), version=version)
    first, second = bench.claim()
    bench.answer(first, planned("w"), planned("v"), version=version)
    bench.answer(second, planned("w"), planned("v"), planned("x"), version=version)
    assert bench.jobs() == ["v-plan", "w-plan"]


def test_a_race_calls_after_each_step() -> None:
    """`parallelMode: "race"`, told with the plan or with the result: the first one goes on, whoever else is out."""
    bench = Bench()
    bench.answer(bench.start(), planned("x", race=True), planned("y", race=True))
    x, y = bench.claim()
    bench.answer(x, ran("x"))
    assert bench.jobs() == ["x"] and bench.run.pending == ("y",)
    (found, _) = bench.claim()
    bench.answer(found, Op(op="RunComplete", data=b'"first"'))
    assert bench.run.status is RunStatus.COMPLETED
    bench.answer(y, ran("y"))
    assert (bench.run.output, bench.run.finished) == (b'"first"', 1)


def test_a_race_of_timers_calls_at_the_first() -> None:
    """Sleeps and waits have no plan: they say so themselves."""
    bench = Bench()
    race = b'{"parallelMode":"race"}'
    sleeps = [Op(op="Sleep", id=name, name=length, opts=race) for name, length in (("s", "10s"), ("t", "1h"))]
    bench.answer(bench.start(), *sleeps, planned("x", race=True))
    bench.fire()
    assert bench.jobs() == ["s", "x-plan"]


def test_the_last_of_a_race_closes_its_group() -> None:
    """Planning is over with it."""
    bench = Bench()
    bench.answer(bench.start(), planned("x", race=True), planned("y", race=True))
    for item in bench.claim():
        bench.answer(item, ran(item.step_id))
    assert bench.jobs() == ["x", "y"] and not bench.run.force_plan and bench.run.pending_key == ""


def test_a_group_without_plans_calls_after_each() -> None:
    """Only sleeps and waits: nobody is waited for (§4.6, 7)."""
    bench = Bench()
    wait = Op(op="WaitForEvent", id="w", name="y", opts=b'{"timeout":"1h"}')
    bench.answer(bench.start(), slept("s", "10s"), slept("t", "20s"), wait)
    assert bench.run.pending == () and bench.run.force_plan
    bench.fire()
    assert bench.jobs() == ["s"]
    bench.send("y")
    assert bench.jobs() == ["s", "w-event"]
    bench.fire()
    assert bench.jobs() == ["s", "t", "w-event"]


@pytest.mark.parametrize("version", [1, 2])
def test_steps_that_were_done_one_after_the_other_are_no_group(version: int) -> None:
    """An app whose checkpoints were not heard tells them all in its answer: one call follows, and no plan."""
    bench = Bench()
    bench.answer(bench.start(), ran("a"), ran("b"), ran("c"), version=version)
    assert bench.jobs() == ["c"] and not bench.run.force_plan and bench.run.finished == 3


def test_steps_before_the_end_are_saved_with_it() -> None:
    """`[…StepRun, RunComplete]`: no call follows."""
    bench = Bench()
    bench.answer(bench.start(), ran("a"), ran("b"), Op(op="RunComplete", data=b"3"))
    assert (bench.run.status, bench.run.finished, bench.run.force_plan) == (RunStatus.COMPLETED, 2, False)


def test_a_failed_step_of_a_group_counts_as_done() -> None:
    """Its error is memoised with the same pending logic, and may be retried before alone."""
    bench = Bench(retries=1)
    bench.answer(bench.start(), planned("x"), planned("y"))
    x, y = bench.claim()
    bench.answer(x, went_wrong("x"))
    bench.answer(y, ran("y"))
    assert bench.jobs() == [] and bench.run.pending == ("x",)
    bench.fire()
    (x,) = bench.claim()
    assert x.attempt == 1
    bench.answer(x, went_wrong("x"))
    assert bench.step("x").memo == b'{"error":{"message":"no","name":"Error"}}' and len(bench.jobs()) == 1


def test_several_steps_that_fail_in_one_answer_are_each_shown() -> None:
    """An attempt for each, and a call for each."""
    bench = Bench()
    bench.answer(bench.start(), went_wrong("x", "StepFailed"), went_wrong("y", "StepFailed"), version=1)
    assert sorted(one.step_id for one in bench.tables.attempts) == ["x", "y"] and bench.jobs() == ["x-failure", "y-failure"]


def test_a_retry_beside_another_op_that_cannot_be_taken() -> None:
    """The attempt fails as a whole, once, and both errors are kept."""
    bench = Bench()
    bench.answer(bench.start(), went_wrong("x"), slept("z", "soon"))
    (timer,) = bench.timers
    assert timer.item is not None and timer.item.attempt == 1 and len(list(bench.tables.attempts)) == 2


def test_the_step_of_old_sdks_is_saved_as_it_came() -> None:
    """Its data is wrapped by the SDK."""
    bench = Bench()
    bench.answer(bench.start(), Op(op="Step", id="s", name="s", data=b'{"data":1}'), version=1)
    assert bench.step("s").memo == b'{"data":1}' and bench.jobs() == ["s"]


def test_a_discovery_request_is_a_call_of_its_own_id() -> None:
    """With attempts of its own, beside steps that are saved."""
    bench = Bench()
    bench.answer(bench.start(), Op(op="DiscoveryRequest", id="d1"))
    assert bench.jobs() == ["d1"] and bench.run.steps == 0
    (item,) = bench.claim()
    bench.answer(item, Op(op="DiscoveryRequest", id="d2"))
    assert bench.jobs() == ["d2"]


@pytest.mark.parametrize("ops", [(), (Op(op="None"),), (Op(op="None"), Op(op="None"))])
def test_nothing_ends_its_branch(ops: tuple[Op, ...]) -> None:
    """Others are under way: the call is over, and nothing follows it."""
    bench = Bench()
    bench.answer(bench.start(), planned("x"), planned("y"), version=1)
    x, y = bench.claim()
    bench.answer(x, ran("x"), version=1)
    found, _ = bench.claim()
    bench.answer(found, *ops, version=1)
    assert bench.jobs() == [] and bench.run.ended_ms is None
    bench.answer(y, ran("y"), version=1)
    assert bench.jobs() == ["y"]


def test_nothing_where_nothing_else_is_under_way_is_a_failed_attempt() -> None:
    """A run never stands still unseen."""
    bench = Bench(retries=0)
    bench.answer(bench.start(), Op(op="None"))
    assert bench.run.status is RunStatus.FAILED and b"NothingToDo" in (bench.run.output or b"")


def test_several_results_end_a_run_once() -> None:
    """The first finalisation counts, in one answer as in several."""
    bench = Bench()
    bench.answer(bench.start(), Op(op="RunComplete", data=b"1"), Op(op="RunComplete", data=b"2"))
    assert bench.run.output == b"1"
    bench = Bench()
    bench.answer(bench.start(), planned("x"), planned("y"), version=1)
    x, y = bench.claim()
    bench.answer(x, Op(op="RunComplete", data=b"1"))
    bench.answer(y, answer=Failed(error=b"{}", retriable=False))
    assert (bench.run.status, bench.run.output) == (RunStatus.COMPLETED, b"1")


def test_a_targeted_call_that_answers_with_its_step_again_goes_on() -> None:
    """A result that is saved already still leads to a call, or a lost one would leave the run standing."""
    bench = Bench()
    item = bench.start()
    bench.checkpoint(item, ran("s"))
    bench.answer(item, ran("s", b"2"))
    assert bench.step("s").memo == b'{"data":1}' and bench.jobs() == ["s-saved"]


def test_a_saved_step_told_again_leads_to_a_call_whatever_else_is_under_way() -> None:
    """A sleep beside it must not be waited for; a call that is on its way already is enough."""
    bench = Bench()
    bench.answer(bench.start(), slept("z", "1h"), planned("x", race=True))
    (x,) = bench.claim()
    bench.checkpoint(x, ran("x"))
    bench.answer(x, ran("x"))
    assert bench.jobs() == ["x-saved"]
    (saved,) = bench.claim()
    bench.answer(saved, ran("x"))
    assert bench.jobs() == [] and bench.run.status is RunStatus.WAITING


def test_a_checkpoint_may_save_the_last_of_a_group() -> None:
    """The group is over, and the answer to the step's own call leads on."""
    bench = Bench()
    bench.answer(bench.start(), planned("x"), planned("y"))
    x, y = bench.claim()
    bench.answer(x, ran("x"))
    bench.checkpoint(y, ran("y"))
    assert bench.run.pending_key == "" and not bench.run.force_plan and bench.jobs() == []
    bench.answer(y, ran("y"))
    assert bench.jobs() == ["y-saved"]


def test_a_race_is_what_the_opts_say_and_not_what_a_steps_input_holds() -> None:
    """The words in a user's data mean nothing."""
    bench = Bench()
    told = Op(op="StepPlanned", id="x", name="x", opts=b'{"input":[{"parallelMode":"race"}]}')
    bench.answer(bench.start(), told, planned("y"))
    x, _ = bench.claim()
    bench.answer(x, ran("x"))
    assert bench.jobs() == []


@pytest.mark.parametrize("op", ["StepRun", "StepFailed"])
def test_a_single_step_that_was_planned_is_joined_at_once(op: str) -> None:
    """A plan of one is no group."""
    bench = Bench()
    bench.answer(bench.start(), planned("x"))
    assert not bench.run.force_plan and bench.run.pending_key == ""
    (x,) = bench.claim()
    bench.answer(x, ran("x") if op == "StepRun" else went_wrong("x", op))
    assert bench.jobs() == ["x" if op == "StepRun" else "x-failure"]
