"""What a run wants to have run after its end: kept, bounded, taken back, and asked for once (inngest-protocol §5.10)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.engine.defers import DEFERS_MAX, INPUT_BYTES_MAX, META_BYTES_MAX, REJECTED_MAX
from stepwell.engine.inputs import RunCancelled
from stepwell.engine.model import DeferStatus, EventRow, RunStatus
from stepwell.protocol.calls import Failed, Returned
from stepwell.protocol.functions import FunctionConfig, Trigger
from stepwell.protocol.ids import step_hash
from stepwell.protocol.lifecycle import DEFERRED
from stepwell.protocol.ops import Op
from tests.unit.engine.bench import Bench, ran, slept, went_wrong

F = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), retries=0)
TIDY = FunctionConfig(
    id="a-tidy", name="tidy", triggers=(Trigger(event=DEFERRED, expression="event.data._inngest.fn_slug == 'a-tidy'"),), retries=0
)


def add(defer_id: str, input: Any = None, fn_slug: Any = "a-tidy", **opts: Any) -> Op:
    """A `DeferAdd`."""
    body = {"fn_slug": fn_slug, "input": {"n": 1} if input is None else input, **opts}
    return Op(op="DeferAdd", id=defer_id, name=defer_id, opts=json.dumps(body).encode())


def abort(defer_id: str) -> Op:
    """A `DeferAbort`."""
    return Op(op="DeferAbort", id=f"{defer_id}:abort", opts=json.dumps({"target_hashed_id": defer_id}).encode())


def status(bench: Bench) -> dict[str, DeferStatus]:
    """Where each stands."""
    return {one.id: one.status for one in bench.tables.defers}


def asked(bench: Bench) -> list[EventRow]:
    """The events that ask for deferred runs."""
    return [event for event in bench.tables.events if event.name == DEFERRED]


def test_they_ride_along_and_are_no_steps() -> None:
    """Beside one step there is no parallel group, and no plan; nor are they counted."""
    bench = Bench(F)
    item = bench.start()
    bench.answer(item, ran("s"), add("d"))
    assert not bench.run.force_plan and bench.run.steps == 1 and bench.jobs() == ["s"]
    assert status(bench) == {"d": DeferStatus.AFTER_RUN} and bench.run.defers == 1


@pytest.mark.parametrize("how", ["completed", "returned", "failed", "own error", "cancelled"])
def test_each_is_asked_for_once_when_the_run_ends_however_it_ends(how: str) -> None:
    """By an event with the parent's ids, which starts the function that it names and no other."""
    bench = Bench(F, TIDY)
    item = bench.start()
    bench.checkpoint(item, add("d", {"n": 7}), add("e", fn_slug="a-other"), add("gone"), abort("gone"))
    match how:
        case "completed":
            bench.answer(item, Op(op="RunComplete", data=b"1"))
        case "returned":
            bench.answer(item, answer=Returned(data=b"1"))
        case "failed":
            bench.answer(item, answer=Failed(error=b"{}", retriable=False))
        case "own error":
            bench.answer(item, add("f"), went_wrong(step_hash("complete"), "StepFailed", name=""))
        case _:
            bench.give(RunCancelled(item.run_id, "somebody"))
    parent = bench.tables.runs.rows[item.run_id]
    assert parent.ended_ms is not None and (how in ("completed", "returned")) == (parent.status is RunStatus.COMPLETED)
    wanted = {"d", "e", "f"} if how == "own error" else {"d", "e"}
    assert {key for key, one in status(bench).items() if one is DeferStatus.SCHEDULED} == wanted
    assert status(bench)["gone"] is DeferStatus.ABORTED
    events = {json.loads(event.data).get("n"): event for event in asked(bench)}
    assert len(asked(bench)) == len(wanted)
    data = json.loads(events[7].data)
    assert data["_inngest"]["parent_run_id"] == parent.id and data["_inngest"]["parent_fn_slug"] == "a-f"
    assert data["_inngest"]["fn_slug"] == "a-tidy" and data["_inngest"]["parent_fn_id"] == bench.heart.registry.functions["a-f"].row.uuid
    while bench.timers:
        bench.fire()
    begun = sorted(run.function_id for run in bench.tables.runs)
    assert begun.count("a-tidy") == len(wanted) - 1 and all(run.cause == "event" for run in bench.tables.runs)


def test_the_event_has_the_same_key_whenever_the_run_ends() -> None:
    """It is made of the run and the op, so that what it starts is started once."""
    keys = []
    for wait_ms in (0, 90_000):
        bench = Bench(F)
        item = bench.start()
        bench.checkpoint(item, add("d"))
        bench.clock.ms += wait_ms
        bench.answer(item, answer=Returned(data=b"1"))
        keys += [event.key for event in asked(bench)]
    assert len(set(keys)) == 1


def test_an_id_that_is_there_stays_as_it_is() -> None:
    """Told again it changes nothing, also where it was taken back; what is not there cannot be taken back."""
    bench = Bench(F)
    item = bench.start()
    bench.checkpoint(item, add("d", {"n": 1}), abort("nobody"))
    bench.checkpoint(item, add("d", {"n": 2}), abort("d"))
    bench.checkpoint(item, add("d", {"n": 3}))
    (row,) = bench.tables.defers
    assert (row.input, row.status) == (b'{"n":1}', DeferStatus.ABORTED)
    bench.answer(item, abort("d"), answer=None)
    assert bench.jobs() == ["d:abort-deferred"]  # an answer without anything else to do: called again, not failed


def test_what_may_not_be_is_refused_and_the_run_goes_on() -> None:
    """With the reason, and without its input."""
    bench = Bench(F)
    item = bench.start()
    bench.checkpoint(
        item,
        add("name", fn_slug=""),
        add("text", "a text"),
        add("large", {"x": "y" * INPUT_BYTES_MAX}),
        add("meta", meta={"sessions": {"a": 1}}),
        add("fat", meta={"sessions": {}, "x": "y" * META_BYTES_MAX}),
        add("half", {"x": "y" * (INPUT_BYTES_MAX // 2)}),
        add("other half", {"x": "y" * (INPUT_BYTES_MAX // 2)}),
        ran("s"),
    )
    reasons = {one.id: one.reason for one in bench.tables.defers}
    assert reasons.pop("half") is None and all(reasons.values())
    assert "together" in (reasons["other half"] or "") and "fn_slug" in (reasons["name"] or "") and "object" in (reasons["text"] or "")
    assert all((one.input is None) == (one.status is DeferStatus.REJECTED) for one in bench.tables.defers)
    bench.answer(item, answer=Returned(data=b"1"))
    assert bench.run.status is RunStatus.COMPLETED and len(asked(bench)) == 1


def test_a_run_defers_so_many_at_most() -> None:
    """Those that were taken back count; of those refused, a bounded number is kept to be shown."""
    bench = Bench(F)
    item = bench.start()
    bench.checkpoint(item, *(add(f"d{n}") for n in range(DEFERS_MAX)), abort("d0"))
    bench.checkpoint(item, *(add(f"e{n}") for n in range(REJECTED_MAX + 5)))
    counted = list(status(bench).values())
    assert counted.count(DeferStatus.AFTER_RUN) == DEFERS_MAX - 1
    assert counted.count(DeferStatus.REJECTED) == REJECTED_MAX and bench.run.defers == DEFERS_MAX + REJECTED_MAX


def test_sessions_are_merged_like_an_events() -> None:
    """Inherited ones under those of its own; a null removes one (§2.1)."""
    bench = Bench(F)
    item = bench.start()
    meta = {"sessions": {"a": "own", "b": None}, "propagated_sessions": {"a": "old", "b": "old", "c": "old"}}
    bench.checkpoint(item, add("d", meta=meta))
    bench.answer(item, answer=Returned(data=b"1"))
    assert asked(bench)[0].meta == b'{"sessions":{"a":"own","c":"old"}}'


def test_a_run_that_sleeps_keeps_them() -> None:
    """They are rows like others, and the run's end finds them."""
    bench = Bench(F)
    item = bench.start()
    bench.answer(item, slept("z"), add("d"))
    assert bench.run.status is RunStatus.WAITING and not bench.run.force_plan
    bench.fire()
    (item,) = bench.claim()
    bench.answer(item, abort("d"), add("e"), Op(op="RunComplete", data=b"1"))
    assert status(bench) == {"d": DeferStatus.ABORTED, "e": DeferStatus.SCHEDULED}


def test_an_own_error_with_attempts_left_is_tried_again() -> None:
    """A function that has something to defer tells of its failure by an op; the whole job is made again (§4.7)."""
    bench = Bench(FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), retries=1))
    item = bench.start()
    bench.answer(item, add("d"), went_wrong(step_hash("complete"), name=""))
    assert bench.run.steps == 0 and bench.run.ended_ms is None and [one.step_id for one in bench.tables.attempts] == [""]
    bench.fire()
    (item,) = bench.claim()
    assert item.attempt == 1
    bench.answer(item, went_wrong(step_hash("complete"), name=""))
    assert bench.run.status is RunStatus.FAILED and len(asked(bench)) == 1
