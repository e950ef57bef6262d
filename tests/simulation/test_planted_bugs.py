"""The tests are tested: each guard of the core, taken away, is noticed by some seed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stepwell.engine import (
    advance,
    apps,
    calls,
    control,
    ending,
    holders,
    lanes,
    meeting,
    metadata,
    pausing,
    registry,
    rerun,
    resume,
    routing,
    run,
    schedules,
    spans,
    tables,
    timers,
    topics,
    view,
)
from stepwell.engine.flow import batch, changes, gates, ledger, rate_limit, scheduling, throttle
from stepwell.runtime import heart, shares
from tests.simulation.planting import Plant, assert_noticed
from tests.simulation.world import simulate

SEEDS = range(1, 400)


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
    original = lanes.room_of

    def room_of(rules: Any, view_: Any, key: str, taken: int, now_ms: int) -> int | None:
        room = original(rules, view_, key, taken, now_ms)
        return room if room is None or key.startswith("throttle/") else room + 1

    patch.setattr(lanes, "room_of", room_of)


def shut_lanes_stay_shut(patch: pytest.MonkeyPatch) -> None:
    """A key that gets room opens nothing."""
    patch.setattr(lanes.Lanes, "open_shut_by", lambda self, counter_id, limit: 0)


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
    patch.setattr(routing, "run_ulid", lambda ms, *parts: heart_ids.pop())
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
    patch.setattr(timers, "on_item_due", lambda registry, view, timer, now_ms: [timers.Delete("timers", timer.id)])


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


def kept_steps_keep_their_places(patch: pytest.MonkeyPatch) -> None:
    """A run begun from a step counts its steps wrongly."""
    patch.setattr(rerun, "carried", lambda step, n, run_id, new_id: msgspec.structs.replace(step, run_id=new_id, position=n + 1))


def spans_may_come_twice(patch: pytest.MonkeyPatch) -> None:
    """An exporter's second try counts again."""
    original = spans.on_spans_told

    def told(view_: Any, input: Any) -> Any:
        commands = original(view_, input)
        totals = view_.get("trace_totals", input.run_id)
        if totals is not None and view_.run(input.run_id) is not None:
            again = msgspec.structs.replace(totals, spans=totals.spans + len(input.spans))
            return [*(one for one in commands if not isinstance(one, spans.SetRow)), spans.SetRow(again)]
        return commands

    patch.setattr(spans, "on_spans_told", told)


def notes_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """What is noted weighs nothing."""
    patch.setattr(metadata, "size_of", lambda row: 0)


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


def throttles_admit_one_more(patch: pytest.MonkeyPatch) -> None:
    """A throttle's burst is one too large."""
    original = throttle.ThrottleRule.room
    patch.setattr(throttle.ThrottleRule, "room", lambda self, rate, now_ms: original(self, rate, now_ms) + 1)


def admissions_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A throttle that refuses sets no timer for its next admission."""
    patch.setattr(lanes, "admit_timer", lambda counter_id, due_ms: lanes.Timer(id="admit/", due_ms=due_ms, kind=lanes.TimerKind.ADMIT))


def admissions_open_one_lane(patch: pytest.MonkeyPatch) -> None:
    """A throttle's admission opens one lane, and does not come back for the others."""
    patch.setattr(timers, "on_admit", lambda registry, view_, timer, now_ms: one_lane(registry, view_, timer, now_ms))

    def one_lane(registry: Any, view_: Any, timer: Any, now_ms: int) -> Any:
        opening = lanes.Lanes(registry, view_, now_ms)
        opening.open_shut_by(timer.ref, 1)
        return [timers.Delete("timers", timer.id), *opening.commands()]


def rate_limits_admit_one_more(patch: pytest.MonkeyPatch) -> None:
    """A rate limit's window is full one too late."""
    original = rate_limit.RateRule.taken

    def taken(self: Any, rate: Any, counter_id: str, now_ms: int) -> Any:
        return original(msgspec.structs.replace(self, limit=self.limit + 1), rate, counter_id, now_ms)

    patch.setattr(rate_limit.RateRule, "taken", taken)


def debounced_events_are_lost(patch: pytest.MonkeyPatch) -> None:
    """A debounce that is due makes no run."""
    original = scheduling.make
    patch.setattr(scheduling, "make", lambda decision, wish: [] if "debounced" in wish.function.id else original(decision, wish))


def debounces_are_never_due(patch: pytest.MonkeyPatch) -> None:
    """A debounce that takes an event in keeps its old timer."""
    original = ledger.Ledger.commands

    def commands(self: Any) -> Any:
        return [one for one in original(self) if not isinstance(getattr(one, "row", None), ledger.Timer)]

    patch.setattr(ledger.Ledger, "commands", commands)


def batches_take_one_more(patch: pytest.MonkeyPatch) -> None:
    """A batch is full one too late."""
    patch.setattr(batch.BatchRule, "is_full", lambda self, hold: len(hold.events) > self.size)


def batches_forget_their_first(patch: pytest.MonkeyPatch) -> None:
    """An event that joins a batch takes the place of those in it."""
    original = batch.BatchRule.joined
    patch.setattr(
        batch.BatchRule, "joined", lambda self, hold, *rest: msgspec.structs.replace(original(self, hold, *rest), events=(rest[1].id,))
    )


def singletons_are_not_alone(patch: pytest.MonkeyPatch) -> None:
    """A singleton's name is taken from the run that has it, which goes on."""
    patch.setattr(scheduling, "blocked", lambda decision, wish: None)
    patch.setattr(scheduling, "advance_of", lambda decision, row: Nobody())

    class Nobody:
        def ends(self, *how: Any) -> None: ...


def singletons_keep_their_name(patch: pytest.MonkeyPatch) -> None:
    """A singleton's name outlives its run."""
    original = scheduling.begin_run
    patch.setattr(scheduling, "begin_run", lambda *args, named, **how: original(*args, **how))


def runs_keep_their_slot(patch: pytest.MonkeyPatch) -> None:
    """A limit of whole runs is never given back."""
    patch.setattr(ending, "of_runs", lambda keys: ())


def starts_are_counted_again(patch: pytest.MonkeyPatch) -> None:
    """A call that is made again counts as a run's start once more."""
    original = lanes.HoldItem
    patch.setattr(lanes, "HoldItem", lambda item_id, holder, fence, leased_ms: original(item_id, holder, fence, leased_ms, 1))


def paused_functions_go_on(patch: pytest.MonkeyPatch) -> None:
    """A function that was paused stays so for its lanes: nothing opens them again."""
    patch.setattr(changes, "reopen", lambda function_id, now_ms: [])
    patch.setattr(apps, "reopen", lambda function_id, now_ms: [])


def held_runs_are_called(patch: pytest.MonkeyPatch) -> None:
    """A claim does not ask whether the run is paused."""
    patch.setattr(lanes, "is_held", lambda run_: False)


def resumed_runs_wait_on(patch: pytest.MonkeyPatch) -> None:
    """What was kept of a paused run stays where it is when the run is resumed."""
    patch.setattr(pausing, "go_back", lambda registry, view_, run_, now_ms: ([], False))


def resumptions_take_one_step(patch: pytest.MonkeyPatch) -> None:
    """Where more items wait than go back at once, no cursor brings the others."""
    patch.setattr(pausing, "cursor", lambda run_id, now_ms: [])


def resumed_items_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """Items of a resumed run go back to a lane that is not opened for them."""
    original = lanes.Lanes.unpark

    def unpark(self: Any, item: Any, lane_id: str) -> None:
        patch.setattr(lanes.Lanes, "ready", lambda *_: None)
        original(self, item, lane_id)
        patch.setattr(lanes.Lanes, "ready", ready)

    ready = lanes.Lanes.ready
    patch.setattr(lanes.Lanes, "unpark", unpark)


def ended_runs_stay_paused(patch: pytest.MonkeyPatch) -> None:
    """A paused run that is cancelled is paused for ever."""
    original = ending.EndRun
    patch.setattr(ending, "EndRun", lambda *how: original(*how, held=msgspec.UNSET))


def shared_keys_open_the_small_first(patch: pytest.MonkeyPatch) -> None:
    """Of lanes that a shared key shut, those open first that have no room yet."""
    patch.setattr(
        tables.Tables, "shut_lanes", lambda self, key: sorted(self.lanes.find("shut_by", key), key=lambda lane: (lane.shut_at, lane.id))
    )
    patch.setitem(tables.SCANS, "shut_lanes", tables.Tables.shut_lanes)


def priorities_are_not_heard(patch: pytest.MonkeyPatch) -> None:
    """Every run stands in its lane by its age alone."""
    patch.setattr(gates, "priority_ms", lambda priority, event, now_ms: 0)


def priorities_put_back(patch: pytest.MonkeyPatch) -> None:
    """What is to go ahead falls behind."""
    original = gates.priority_ms
    patch.setattr(gates, "priority_ms", lambda priority, event, now_ms: -original(priority, event, now_ms))


def what_begins_goes_first(patch: pytest.MonkeyPatch) -> None:
    """In a lane, runs that have not begun go before those that have."""
    patch.setattr(tables, "item_order", lambda item: (-item.starts, item.order_ms, item.id))


def weights_are_not_heard(patch: pytest.MonkeyPatch) -> None:
    """Every lane of a function has the same share."""
    patch.setattr(lanes, "weight_of", lambda keys: 1)


def served_lanes_stay_first(patch: pytest.MonkeyPatch) -> None:
    """A lane that was served is no further behind than before."""
    patch.setattr(lanes, "STRIDE", 0)


def lanes_catch_up(patch: pytest.MonkeyPatch) -> None:
    """What others were served while a lane was empty or shut is made up for."""
    patch.setattr(lanes, "level", lambda tag, virtual: tag)


def functions_weigh_the_same(patch: pytest.MonkeyPatch) -> None:
    """A function's weight beside others does not count."""
    patch.setattr(registry.Function, "weight", 1)


def served_functions_stay_first(patch: pytest.MonkeyPatch) -> None:
    """A function that was served is no further behind than before."""
    patch.setattr(shares.Shares, "note", lambda self, asks, claimed, weight_of: None)


def idempotency_keys_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    """A function's idempotency key keeps nothing back."""
    original = gates.compile_rate_limit
    patch.setattr(gates, "compile_rate_limit", lambda function_id, setting, idempotency: original(function_id, setting, None))


def idempotency_keys_last_a_minute(patch: pytest.MonkeyPatch) -> None:
    """A day is over too soon."""
    patch.setattr(rate_limit, "DAY_MS", 60_000)


def idempotency_keys_are_all_alike(patch: pytest.MonkeyPatch) -> None:
    """One value's run keeps back those of another."""
    original = rate_limit.RateRule.counter

    def counter(self: Any, event: Any, now_ms: int) -> Any:
        return self.prefix if self.name == "idempotency" else original(self, event, now_ms)

    patch.setattr(rate_limit.RateRule, "counter", counter)


def changed_keys_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """That runs of earlier have other keys than today's is not known."""
    original = changes.with_keys

    def with_keys(row: Any, rules: Any, earlier: Any) -> Any:
        return msgspec.structs.replace(original(row, rules, earlier), rekeyed=False)

    for module in (apps, changes):
        patch.setattr(module, "with_keys", with_keys)


PLANTS: list[Plant] = [
    changed_keys_are_forgotten,
    priorities_are_not_heard,
    priorities_put_back,
    what_begins_goes_first,
    weights_are_not_heard,
    served_lanes_stay_first,
    lanes_catch_up,
    functions_weigh_the_same,
    served_functions_stay_first,
    idempotency_keys_are_not_kept,
    idempotency_keys_last_a_minute,
    idempotency_keys_are_all_alike,
    throttles_admit_one_more,
    admissions_are_forgotten,
    admissions_open_one_lane,
    rate_limits_admit_one_more,
    debounced_events_are_lost,
    debounces_are_never_due,
    batches_take_one_more,
    batches_forget_their_first,
    singletons_are_not_alone,
    singletons_keep_their_name,
    runs_keep_their_slot,
    starts_are_counted_again,
    paused_functions_go_on,
    held_runs_are_called,
    resumed_runs_wait_on,
    resumptions_take_one_step,
    resumed_items_are_not_told,
    ended_runs_stay_paused,
    shared_keys_open_the_small_first,
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
    kept_steps_keep_their_places,
    spans_may_come_twice,
    notes_are_not_counted,
    unknown_outcomes_count_as_done,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed of a few hundred fails with the guard taken away."""
    assert_noticed(plant, monkeypatch, SEEDS, simulate)
