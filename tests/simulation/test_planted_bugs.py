"""The tests are tested: each guard of the core, taken away, is noticed by some seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stepwell.engine import advance, calls, control, ending, holders, lanes, meeting, resume, routing, run, schedules, timers, topics, view
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
    patch.setattr(ending.DeleteOfRun, "apply", lambda self, view: None)


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
    patch.setattr(advance.Advance, "is_new", lambda self, step_id: True)


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
    patch.setattr(advance.Advance, "rediscover", lambda self, op, suffix="": None)


def reruns_are_made_twice(patch: pytest.MonkeyPatch) -> None:
    """A cancelled run is cancelled again."""
    patch.setattr(control, "moved", lambda run_, status: status, raising=False)
    original = control.on_run_cancelled

    def cancelled(registry: Any, view_: Any, input: Any, now_ms: int) -> Any:
        row = view_.run(input.run_id)
        if row is not None and row.ended_ms is not None:
            decision = control.Decision(registry, view_, now_ms)
            again = msgspec.structs.replace(row, status=run.RunStatus.RUNNING)
            control.advance_of(decision, again).ends(run.RunStatus.CANCELLED, None)
            return control.settle(decision)
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


def events_meet_nobody(patch: pytest.MonkeyPatch) -> None:
    """An event passes those by who wait for it."""
    patch.setattr(meeting.Meeting, "meet", lambda self, waits: None)


def meetings_end_with_the_first(patch: pytest.MonkeyPatch) -> None:
    """Where more wait than are met at once, no cursor meets the others."""
    patch.setattr(meeting.Meeting, "_cursor", lambda self, place: [])


def cursors_meet_who_came_later(patch: pytest.MonkeyPatch) -> None:
    """A meeting cursor takes waits that were made after its event."""
    original = meeting.place_of
    patch.setattr(meeting, "place_of", lambda timer: msgspec.structs.replace(original(timer), upto=1 << 60))


def waits_outlive_their_end(patch: pytest.MonkeyPatch) -> None:
    """A step that has its answer goes on being found by events and signals."""
    patch.setattr(resume, "take_back", lambda advance_, step: None)


def conditions_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    """Waits that no lookup key tells apart are forgotten."""
    original = topics.lookups
    patch.setattr(meeting, "lookups", lambda topic, body: original(topic, body)[:1])
    patch.setattr(routing, "first_waits", lambda topic, body: meeting.first_waits(topic, body))


def invokers_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """An invoked run ends, and who waits for it hears nothing."""
    patch.setattr(ending, "answer_invoker", lambda decision, run_, status, output: None)


def waits_never_time_out(patch: pytest.MonkeyPatch) -> None:
    """A wait's time is over, and nothing follows."""
    patch.setattr(timers, "on_timeout", lambda registry, view_, timer, now_ms: [timers.Delete("timers", timer.id)])


def ticks_are_not_remembered(patch: pytest.MonkeyPatch) -> None:
    """A tick that was fired may fire again when the clock goes back."""
    original = schedules.set_timer
    patch.setattr(
        schedules, "set_timer", lambda function_id, trigger, after_ms, before: original(function_id, trigger, 1_750_000_000_000, before)
    )


def limits_are_not_set(patch: pytest.MonkeyPatch) -> None:
    """A run's start and end have no limit."""
    patch.setattr(run, "limit_timer", lambda run_id, limit, due_ms: [])
    patch.setattr(lanes, "limit_timer", lambda run_id, limit, due_ms: [])


def cancel_rules_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    """A run's cancel rules are found by no event."""
    original = topics.Topics.wait

    def wait(self: Any, run_id: str, wait_id: str, *rest: Any) -> None:
        if not wait_id.startswith(run.CANCEL_PREFIX):
            original(self, run_id, wait_id, *rest)

    patch.setattr(topics.Topics, "wait", wait)


def runs_end_with_their_invoker(patch: pytest.MonkeyPatch) -> None:
    """Several runs that one transition ends or moves on are not told apart."""
    original = advance.advance_of
    patch.setattr(ending, "advance_of", lambda decision, row: advance.Advance(decision, row))
    patch.setattr(advance, "advance_of", original)


PLANTS: list[Plant] = [
    events_meet_nobody,
    meetings_end_with_the_first,
    cursors_meet_who_came_later,
    waits_outlive_their_end,
    conditions_are_not_asked,
    invokers_are_not_told,
    waits_never_time_out,
    ticks_are_not_remembered,
    limits_are_not_set,
    cancel_rules_are_not_kept,
    runs_end_with_their_invoker,
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
