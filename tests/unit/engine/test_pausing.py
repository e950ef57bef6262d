"""A single run's pause: it is not called, all else goes on, and its resumption loses nothing."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.engine import pausing, selection
from stepwell.engine.calls import CheckpointReply
from stepwell.engine.commands import Refuse, Reply
from stepwell.engine.flow.keys import held_lane
from stepwell.engine.inputs import FunctionHeld, RunCancelled, RunHeld
from stepwell.engine.model import LaneState, RunStatus, TimerKind
from stepwell.errors import NotFound, RunHasEnded
from stepwell.protocol.calls import Lost, Returned
from stepwell.protocol.functions import Concurrency, FunctionConfig, Trigger
from stepwell.protocol.ops import Op
from stepwell.runtime import questions
from stepwell.runtime.heart import Decided
from tests.simulation.clock import at_once
from tests.unit.engine.bench import Bench, planned, ran, slept


def hold(bench: Bench, run_id: str, held: bool = True) -> Decided:
    """Pause a run, or resume it."""
    return bench.give(RunHeld(run_id, held, "somebody"))


def replied(decided: Decided) -> Any:
    """The reply."""
    (reply,) = [effect.value for effect in decided.effects if isinstance(effect, Reply)]
    return reply


def why(bench: Bench, run_id: str) -> tuple[str, str]:
    """The gate of a run, and the sentence that explains it."""
    told = at_once(questions.why(bench.store.reader, bench.heart, bench.clock, run_id))
    return told.gate, told.sentence


def keyed(limit: int) -> FunctionConfig:
    """A function with a limit of calls for each tenant."""
    limits = (Concurrency(limit=limit, key="event.data.tenant"),)
    return FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), retries=2, concurrency=limits)


def runs_of(bench: Bench) -> list[str]:
    """The runs, the oldest first."""
    return sorted(str(run_id) for run_id in bench.tables.runs.rows)


def test_a_paused_run_is_not_called_until_it_is_resumed() -> None:
    """The call that is out ends and is recorded; what follows goes out after the resumption, which is told once."""
    bench = Bench()
    item = bench.start()
    assert replied(hold(bench, item.run_id)) is True
    assert "ends first" in why(bench, item.run_id)[1]
    bench.answer(item, ran("s"))
    assert bench.run.steps == 1 and bench.run.status is RunStatus.RUNNING
    assert bench.claim() == [] and bench.claim() == []
    assert why(bench, item.run_id) == ("paused", "The run is paused by somebody.")
    assert at_once(bench.store.reader.functions_with_work()) == () and at_once(bench.store.reader.queue_depths(9)) == ()
    assert replied(hold(bench, item.run_id, False)) is True
    assert replied(hold(bench, item.run_id, False)) is False
    (again,) = bench.claim()
    bench.answer(again, answer=Returned(data=b"1"))
    assert bench.run.status is RunStatus.COMPLETED


def test_a_second_pause_changes_nothing() -> None:
    """It stays paused by whom it was first."""
    bench = Bench()
    item = bench.start()
    hold(bench, item.run_id)
    assert replied(bench.give(RunHeld(item.run_id, True, "another"))) is False
    assert bench.run.held == "somebody"


def test_a_sleep_ends_during_a_pause_and_the_run_goes_on_after_it() -> None:
    """The step is recorded when it is due; its run is called when it is resumed."""
    bench = Bench()
    item = bench.start()
    bench.answer(item, slept("z"))
    hold(bench, item.run_id)
    gate, sentence = why(bench, item.run_id)
    assert gate == "paused" and "paused by somebody" in sentence and "sleeps until" in sentence
    bench.fire()
    assert bench.step("z").memo == b"null"
    assert bench.claim() == []
    hold(bench, item.run_id, False)
    assert [item.id for item in bench.claim()] == [f"{item.run_id}-z"]


def test_a_sleep_that_outlasts_its_pause_is_not_touched() -> None:
    """Pausing and resuming in between leaves nothing behind."""
    bench = Bench()
    item = bench.start()
    bench.answer(item, slept("z"))
    hold(bench, item.run_id)
    hold(bench, item.run_id, False)
    assert [timer.kind for timer in bench.timers] == [TimerKind.SLEEP]
    bench.fire()
    assert len(bench.claim()) == 1


def test_a_lost_call_of_a_paused_run_is_made_again_after_it() -> None:
    """It comes back to the lane, and waits there like the others."""
    bench = Bench()
    item = bench.start()
    hold(bench, item.run_id)
    bench.answer(item, answer=Lost(reason="gone"))
    assert bench.claim() == []
    hold(bench, item.run_id, False)
    (again,) = bench.claim()
    assert again.id == item.id and again.fence > item.fence


def test_a_run_that_has_not_begun_may_be_paused() -> None:
    """Others begin before it; it begins when it is resumed."""
    bench = Bench()
    bench.send()
    (first,) = runs_of(bench)
    hold(bench, first)
    bench.clock.ms += 1
    bench.send()
    (item,) = bench.claim(room=1) or bench.claim(room=1)
    assert item.run_id != first
    hold(bench, first, False)
    assert first in [item.run_id for item in bench.claim()]


@pytest.mark.parametrize("limit", [1, 2])
def test_a_paused_run_takes_no_slot_of_its_lane(limit: int) -> None:
    """The runs behind it in a lane with a key are called; resumed, it has its place before them."""
    bench = Bench(keyed(limit))
    for _ in range(4):
        bench.send(data=b'{"tenant":1}')
        bench.clock.ms += 1
    first, second, third, fourth = runs_of(bench)
    for run_id in (first, second):
        hold(bench, run_id)
    out = []
    while len(out) < limit:
        out = bench.claim(room=limit)
    assert sorted(item.run_id for item in out) == [third, fourth][:limit]
    assert {bench.tables.items.rows[f"{run_id}-start"].lane_id for run_id in (first, second)} <= {held_lane(first), held_lane(second)}
    for run_id in (second, first):
        hold(bench, run_id, False)
    bench.answer(out[0], answer=Returned(data=b"1"))
    assert first in [item.run_id for item in bench.claim(room=1)]


def test_a_lane_with_paused_runs_only_is_empty() -> None:
    """Its row goes, or is kept as an empty one's; the resumption makes it ready again."""
    bench = Bench(keyed(2))
    bench.send(data=b'{"tenant":1}')
    (run_id,) = runs_of(bench)
    hold(bench, run_id)
    assert bench.claim() == []
    assert not [lane for lane in bench.tables.lanes if lane.state is not LaneState.EMPTY]
    hold(bench, run_id, False)
    assert [item.run_id for item in bench.claim()] == [run_id]


def test_a_lane_of_paused_runs_hands_its_opening_on() -> None:
    """A key that two functions share has room: the lane that it opens has a paused run first and is full by itself, so the other opens."""
    shared = Concurrency(limit=2, scope="env")
    functions = (
        FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), concurrency=(shared, Concurrency(limit=1))),
        FunctionConfig(id="a-b", name="b", triggers=(Trigger(event="y"),), concurrency=(shared,)),
    )
    bench = Bench(*functions)
    bench.send("y")
    bench.answer(*bench.claim(), answer=Returned(data=b"1"))  # b has been served once more, so that f's lane is opened first
    bench.send("x")
    bench.send("y")
    out = {item.function_id: item for item in bench.claim()}
    for name in ("x", "x", "y"):
        bench.clock.ms += 1
        bench.send(name)
    _, second, _ = (run.id for run in sorted(bench.tables.runs, key=lambda run: run.id) if run.function_id == "a-f")
    assert len(bench.claim()) == 2
    hold(bench, second)
    bench.answer(out["a-b"], answer=Returned(data=b"1"))
    for _ in range(3):
        bench.claim()
        while bench.timers:
            bench.fire()
    assert sorted(item.function_id for item in bench.claim()) == ["a-b", "a-f"]


def test_many_items_come_back_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at once as are allowed, the others by a cursor; a run that is paused again meanwhile keeps what is left."""
    for module in (pausing, selection):
        monkeypatch.setattr(module, "RESUME_AT_ONCE", 2)
    bench = Bench()
    item = bench.start()
    hold(bench, item.run_id)
    bench.answer(item, *(planned(name) for name in "pqrst"))
    assert bench.claim() == []
    hold(bench, item.run_id, False)
    assert [timer.kind for timer in bench.timers] == [TimerKind.RESUME]
    assert len(bench.claim()) == 2
    hold(bench, item.run_id)
    bench.fire()
    assert bench.timers == [] and len(bench.claim()) == 2
    hold(bench, item.run_id, False)
    bench.fire()
    assert bench.timers == []
    assert [item.step_id for item in bench.claim()] == list("pqrst")


def test_a_cursor_that_finds_its_run_ended_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling takes what waits; the cursor finds nothing to do."""
    for module in (pausing, selection):
        monkeypatch.setattr(module, "RESUME_AT_ONCE", 1)
    bench = Bench()
    item = bench.start()
    hold(bench, item.run_id)
    bench.answer(item, planned("p"), planned("q"), planned("r"))
    bench.claim()
    hold(bench, item.run_id, False)
    bench.give(RunCancelled(item.run_id, "somebody"))
    bench.fire()
    assert bench.timers == [] and list(bench.tables.items) == []


def test_a_paused_run_can_be_cancelled() -> None:
    """It ends, is paused no longer, and leaves nothing waiting."""
    bench = Bench()
    item = bench.start()
    hold(bench, item.run_id)
    bench.answer(item, ran("s"))
    bench.claim()
    assert replied(bench.give(RunCancelled(item.run_id, "somebody"))) is RunStatus.CANCELLED
    assert bench.run.held is None and list(bench.tables.items) == []


@pytest.mark.parametrize(("held", "verb"), [(True, "paused"), (False, "resumed")])
def test_an_ended_run_is_not_touched(held: bool, verb: str) -> None:
    """The answer says that it has ended; so it does of one that was never there."""
    bench = Bench()
    item = bench.start()
    bench.answer(item, answer=Returned(data=b"1"))
    before = bench.run
    error = hold(bench, item.run_id, held).error or next(e.error for e in hold(bench, item.run_id, held).effects if isinstance(e, Refuse))
    assert isinstance(error, RunHasEnded) and verb in str(error) and item.run_id in str(error)
    assert bench.run == before
    assert isinstance(hold(bench, "nobody", held).error, NotFound)


def test_a_checkpoint_of_a_paused_run_is_saved_and_ends_its_call() -> None:
    """The reply says so. The answer, which tells the step once more, leads to one call after the resumption."""
    bench = Bench()
    item = bench.start()
    assert replied(bench.checkpoint(item, ran("s"))) == CheckpointReply(accepted=True)
    hold(bench, item.run_id)
    assert replied(bench.checkpoint(item, ran("t"))) == CheckpointReply(accepted=True, held=True)
    assert bench.run.finished == 2
    bench.answer(item, ran("t"))
    assert bench.run.finished == 2 and bench.claim() == []
    hold(bench, item.run_id, False)
    (again,) = bench.claim()
    bench.answer(again, Op(op="RunComplete", id="end", data=b"1"))
    assert bench.run.status is RunStatus.COMPLETED


def test_the_pause_of_a_function_outlasts_that_of_a_run() -> None:
    """Each is taken back by itself."""
    bench = Bench()
    bench.send()
    (run_id,) = runs_of(bench)
    hold(bench, run_id)
    bench.claim()
    bench.give(FunctionHeld("a-f", "paused"))
    at_once(bench.heart.reload())
    hold(bench, run_id, False)
    assert bench.claim() == []
    assert "function a-f is paused" in why(bench, run_id)[1]
    bench.give(FunctionHeld("a-f", "running"))
    at_once(bench.heart.reload())
    assert len(bench.claim()) == 1
