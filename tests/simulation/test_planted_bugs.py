"""The tests are tested: each guard of the core, taken away, is noticed by some seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stepwell.engine import advance, calls, control, holders, lanes, routing, run, timers, view
from stepwell.engine.steps import sleep
from stepwell.runtime import heart
from tests.simulation.world import simulate

SEEDS = range(1, 400)

Plant = Callable[[pytest.MonkeyPatch], None]


def fence_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A late answer counts although another call holds the item."""

    def held(self: view.View, item_id: str, fence: int) -> Any:
        item = self.item(item_id)
        return item if item is not None and item.holder is not None else None

    patch.setattr(view.View, "held_item", held)


def waiting_item_may_be_answered(patch: pytest.MonkeyPatch) -> None:
    """An answer counts although nobody holds the item."""
    patch.setattr(view.View, "held_item", lambda self, item_id, fence: self.item(item_id))


def slots_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    """A call's end releases no key."""
    patch.setattr(lanes.Lanes, "give_back", lambda self, item: None)


def nothing_is_charged(patch: pytest.MonkeyPatch) -> None:
    """A claim takes items without counting them."""
    patch.setattr(lanes.Charge, "apply", lambda self, view: None)


def limits_admit_one_more(patch: pytest.MonkeyPatch) -> None:
    """A key is full one too late."""
    original = lanes._Take._refusing

    def refusing(self: Any, item: Any) -> Any:
        self._charges.update({key: self._charges.get(key, 0) - 1 for key in item.keys})
        try:
            return original(self, item)
        finally:
            self._charges.update({key: self._charges[key] + 1 for key in item.keys})

    patch.setattr(lanes._Take, "_refusing", refusing)


def shut_lanes_stay_shut(patch: pytest.MonkeyPatch) -> None:
    """A key that gets room opens nothing."""
    patch.setattr(lanes.Lanes, "_open", lambda self, counter_id, running, limit: False)


def empty_lanes_are_not_readied(patch: pytest.MonkeyPatch) -> None:
    """An item comes into a lane, and the lane is not told."""
    patch.setattr(lanes.Lanes, "ready", lambda self, item: None)


def ended_runs_leave_their_timers(patch: pytest.MonkeyPatch) -> None:
    """The end of a run takes nothing away."""
    patch.setattr(run.DeleteOfRun, "apply", lambda self, view: None)


def cancelled_runs_may_end_again(patch: pytest.MonkeyPatch) -> None:
    """An answer that comes after the run's end is taken."""
    source = calls.on_call_answered

    def answered(registry: Any, view: Any, input: Any, now_ms: int) -> Any:
        row = view.run(input.run_id)
        item = view.held_item(input.item_id, input.fence)
        if row is not None and item is not None and row.ended_ms is not None:
            alive = msgspec.structs.replace(row, ended_ms=None, status=run.RunStatus.RUNNING, calls=1)
            view.runs.put(row.id, alive)
        return source(registry, view, input, now_ms)

    patch.setattr(calls, "on_call_answered", answered)


def finished_steps_are_written_again(patch: pytest.MonkeyPatch) -> None:
    """A step's second result takes the place of its first."""
    original = advance.Advance.knows_step

    def knows(self: Any, step_id: str) -> Any:
        step = original(self, step_id)
        return None if step is None else msgspec.structs.replace(step, ended_ms=None)

    patch.setattr(advance.Advance, "knows_step", knows)


def planned_steps_are_planned_again(patch: pytest.MonkeyPatch) -> None:
    """A step that is there already gets a second item."""
    patch.setattr(advance.Advance, "_is_new", lambda self, step_id: True)


def groups_forget_what_they_wait_for(patch: pytest.MonkeyPatch) -> None:
    """A parallel group is never joined."""
    original = advance.Advance.rediscover

    def rediscover(self: Any, op: Any, suffix: str = "") -> None:
        if not self._pending_key:
            original(self, op, suffix)

    patch.setattr(advance.Advance, "rediscover", rediscover)


def places_in_the_stack_are_lost(patch: pytest.MonkeyPatch) -> None:
    """Finished steps are not counted."""
    original = advance.Advance.finish

    def finish(self: Any, *args: Any, **kwargs: Any) -> bool:
        done = original(self, *args, **kwargs)
        self._finished = self.run.finished
        return done

    patch.setattr(advance.Advance, "finish", finish)


def events_may_start_twice(patch: pytest.MonkeyPatch) -> None:
    """An event's own id is no idempotency key."""
    patch.setattr(view.View, "dedup", lambda self, function_id, event_key: None)


def repeated_sends_are_stored_again(patch: pytest.MonkeyPatch) -> None:
    """A send that is tried twice is not recognised."""
    patch.setattr(routing, "derived_ulid", lambda ms, *parts: heart_ids.pop())
    heart_ids = [f"01K{n:023d}" for n in range(9999, 0, -1)]


def leases_of_dead_nodes_stay(patch: pytest.MonkeyPatch) -> None:
    """A holder's end brings nothing back."""
    patch.setattr(holders, "return_later", lambda holder, now_ms: [])


def lost_calls_keep_their_slots(patch: pytest.MonkeyPatch) -> None:
    """A call that is lost is made again without giving its keys back."""
    original = calls.lose

    def lose(lanes_: Any, item: Any, *rest: Any) -> Any:
        commands = original(lanes_, item, *rest)
        lanes_._released.clear()
        return commands

    patch.setattr(calls, "lose", lose)
    patch.setattr(holders, "lose", lose)


def retries_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A failed job is not made again."""
    patch.setattr(advance.Advance, "retry", lambda self, item, due_ms: self.consume(item))


def due_items_are_not_put_in(patch: pytest.MonkeyPatch) -> None:
    """A backoff ends, and nothing follows."""
    patch.setattr(timers, "on_item_due", lambda registry, view, timer: [timers.Delete("timers", timer.id)])


def sleeps_end_without_a_call(patch: pytest.MonkeyPatch) -> None:
    """A sleep's end wakes nobody."""
    patch.setattr(sleep.Advance, "rediscover", lambda self, op, suffix="": None)


def reruns_are_made_twice(patch: pytest.MonkeyPatch) -> None:
    """A cancelled run is cancelled again."""
    patch.setattr(control, "moved", lambda run_, status: status, raising=False)
    original = control.on_run_cancelled

    def cancelled(registry: Any, view_: Any, input: Any, now_ms: int) -> Any:
        row = view_.run(input.run_id)
        if row is not None and row.ended_ms is not None:
            return control.end_run(
                registry, msgspec.structs.replace(row, status=run.RunStatus.RUNNING), run.RunStatus.CANCELLED, output=None, now_ms=now_ms
            )
        return original(registry, view_, input, now_ms)

    patch.setattr(control, "on_run_cancelled", cancelled)


def unknown_outcomes_count_as_done(patch: pytest.MonkeyPatch) -> None:
    """When the store does not answer, the group is taken for committed."""
    original = heart.Heart.handle

    async def handle(self: Any, inputs: Any) -> Any:
        try:
            return await original(self, inputs)
        except heart.StoreUnavailable:
            return heart.Beat([heart.Decided([]) for _ in inputs], None)

    patch.setattr(heart.Heart, "handle", handle)


PLANTS: list[Plant] = [
    fence_is_not_checked,
    waiting_item_may_be_answered,
    slots_are_not_given_back,
    nothing_is_charged,
    limits_admit_one_more,
    shut_lanes_stay_shut,
    empty_lanes_are_not_readied,
    ended_runs_leave_their_timers,
    cancelled_runs_may_end_again,
    finished_steps_are_written_again,
    planned_steps_are_planned_again,
    groups_forget_what_they_wait_for,
    places_in_the_stack_are_lost,
    events_may_start_twice,
    repeated_sends_are_stored_again,
    leases_of_dead_nodes_stay,
    lost_calls_keep_their_slots,
    retries_are_forgotten,
    due_items_are_not_put_in,
    sleeps_end_without_a_call,
    reruns_are_made_twice,
    unknown_outcomes_count_as_done,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed of a few hundred fails with the guard taken away."""
    plant(monkeypatch)
    for seed in SEEDS:
        try:
            simulate(seed)
        except Exception:  # whatever it raises: the bug was noticed
            return
    raise AssertionError(f"no seed of {len(SEEDS)} noticed that {plant.__name__}: {plant.__doc__}")
