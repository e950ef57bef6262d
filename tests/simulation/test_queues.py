"""Seeds of the simulated queues; and the guards of queues, taken away one by one: some seed notices each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stepwell.engine.commands import Delete, TimerSet
from stepwell.primitives import queue, queue_care, queue_claims, queue_pulls
from stepwell.primitives.queue import Ledger
from tests.simulation.planting import Plant, assert_noticed
from tests.simulation.queues import QueueWorld, simulate

SEEDS = int(os.environ.get("STEPWELL_SEEDS", "200"))
FIRST = int(os.environ.get("STEPWELL_SEED", "1"))
CHUNK = 50


def judged(seed: int) -> QueueWorld:
    """One seed; a failure says how to see it again."""
    try:
        return simulate(seed)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {error!r}. Replay with tests.simulation.queues.simulate({seed})") from error


@pytest.mark.parametrize("start", range(FIRST, FIRST + SEEDS, CHUNK))
def test_seeds(start: int) -> None:
    """Whatever the interleaving and the faults: nothing is lost, nothing acked comes again, everything ends as somebody wanted it."""
    for seed in range(start, min(start + CHUNK, FIRST + SEEDS)):
        judged(seed)


def test_a_seed_is_the_same_course_each_time() -> None:
    """The same seed gives the same rows in the same order, or no failure could be seen again."""
    first, second = judged(7), judged(7)
    for name, table in first.tables.by_name.items():
        assert list(table) == list(second.tables.by_name[name])


def test_everything_happens() -> None:
    """The seeds come to every end of a message, and to what is answered too late."""
    seen: Counter[str] = Counter()
    for seed in range(1, 31):
        seen.update(judged(seed).model.seen)
    wanted = {"acked", "dropped", "dead", "expired", "purged", "deleted", "edited", "ran", "pulled", "lost", "late", "stale"}
    assert {how for how in wanted if seen[how] < 5} == set()


# Planted bugs.


def with_waits(patch: pytest.MonkeyPatch, change: Callable[[Any, str, int, int], None]) -> None:
    """Messages that come to wait are noted so."""
    patch.setattr(Ledger, "waits", change)


def waiting_messages_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A message that comes back is not in its queue's count."""
    with_waits(patch, lambda self, name, size, ready_ms: (self.queue(name), self.waits_from(name, ready_ms))[0])


def waiting_messages_stir_nobody(patch: pytest.MonkeyPatch) -> None:
    """A message that comes to wait is not told of."""
    original = Ledger.commands
    patch.setattr(Ledger, "commands", lambda self: [one for one in original(self) if not isinstance(one, queue.QueueStirred)])


def ends_stir_nobody(patch: pytest.MonkeyPatch) -> None:
    """A place that is free again is not told of."""
    original = queue.Ending._closed
    patch.setattr(queue.Ending, "_closed", lambda self: original(self)[:2])


def late_reports_count(patch: pytest.MonkeyPatch) -> None:
    """A report of a delivery that has gone acks whatever it names."""
    original = queue.on_batch_answered

    def answered(registry: Any, view: Any, input: Any, now_ms: int) -> Any:
        commands = original(registry, view, input, now_ms)
        acks = getattr(input.outcome, "acks", ())
        if view.get("deliveries", input.delivery_id) is None and acks:
            there = [key for key in acks if view.get("messages", key) is not None]
            return [*commands, *(Delete("messages", key) for key in there)]
        return commands

    patch.setattr(queue, "on_batch_answered", answered)


def places_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    """The end of a delivery leaves its place taken."""
    original = queue.Ending._closed
    patch.setattr(queue.Ending, "_closed", lambda self: [original(self)[0], original(self)[2]])


def places_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """Batches go out however many are out already."""
    original = queue_claims.on_queue_claimed

    def claimed(registry: Any, view: Any, claim: Any, now_ms: int) -> Any:
        with pytest.MonkeyPatch.context() as for_this:
            for_this.setattr(view, "running", lambda key: 0)
            return original(registry, view, claim, now_ms)

    patch.setattr(queue_claims, "on_queue_claimed", claimed)


def parts_of_batches_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    """What is ready goes out, however few they are."""
    original = queue_claims.batched

    def batched(messages: Any, consumer: Any, now_ms: int, *, whole: bool) -> Any:
        return original(messages, msgspec.structs.replace(consumer, max_batch_timeout_ms=0), now_ms, whole=whole)

    patch.setattr(queue_claims, "batched", batched)


def delayed_messages_go_out(patch: pytest.MonkeyPatch) -> None:
    """A delay is not looked at."""
    original = queue_claims.batched
    patch.setattr(
        queue_claims, "batched", lambda messages, consumer, now_ms, *, whole: original(messages, consumer, now_ms + 10_000, whole=whole)
    )


def parts_go_out_before_the_rest(patch: pytest.MonkeyPatch) -> None:
    """A part of a batch goes out though more is ready behind it."""
    original = queue_claims.batched
    patch.setattr(queue_claims, "batched", lambda messages, consumer, now_ms, *, whole: original(messages, consumer, now_ms, whole=True))


def nobody_wakes_a_part_of_a_batch(patch: pytest.MonkeyPatch) -> None:
    """What is no batch yet waits until something else happens."""
    patch.setattr(queue_claims, "wake_later", lambda *args, **named: [])


def claims_do_not_say_that_there_is_more(patch: pytest.MonkeyPatch) -> None:
    """What a claim did not look at waits until something else happens."""
    original = queue_claims.Delivered
    patch.setattr(queue_claims, "Delivered", lambda deliveries, more: original(deliveries, False))


def paused_queues_deliver(patch: pytest.MonkeyPatch) -> None:
    """A pause is not looked at."""
    original = queue_claims.on_queue_claimed

    def claimed(registry: Any, view: Any, claim: Any, now_ms: int) -> Any:
        def get(table: str, key: Any) -> Any:
            row = type(view).get(view, table, key)
            return msgspec.structs.replace(row, paused=False) if table == "queues" and row is not None else row

        with pytest.MonkeyPatch.context() as for_this:
            for_this.setattr(view, "get", get)
            return original(registry, view, claim, now_ms)

    patch.setattr(queue_claims, "on_queue_claimed", claimed)


def repeated_claims_deliver_again(patch: pytest.MonkeyPatch) -> None:
    """A claim whose answer was lost is decided anew: its ids are taken."""
    original = queue_claims.on_queue_claimed

    def claimed(registry: Any, view: Any, claim: Any, now_ms: int) -> Any:
        with pytest.MonkeyPatch.context() as for_this:
            for_this.setattr(view, "get", lambda table, key: None if table == "deliveries" else type(view).get(view, table, key))
            return original(registry, view, claim, now_ms)

    patch.setattr(queue_claims, "on_queue_claimed", claimed)


def losses_are_attempts(patch: pytest.MonkeyPatch) -> None:
    """A batch that was lost with its process has been tried."""
    original = queue.ReturnMessage

    def returned(message_id: str, ready_ms: int, attempts: int, losses: int = 0, **named: Any) -> Any:
        return original(message_id, ready_ms, attempts + bool(losses), losses, **named)

    patch.setattr(queue, "ReturnMessage", returned)


def losses_do_not_count(patch: pytest.MonkeyPatch) -> None:
    """A message may kill its consumer for ever."""
    patch.setattr(queue, "LOSSES_MAX", 1 << 30)


def one_retry_too_many(patch: pytest.MonkeyPatch) -> None:
    """A message is tried once more than it may be."""
    original = queue.Ending._again

    def again(self: Any, message: Any, retry: Any, error: Any) -> Any:
        if message.attempts == self._consumer.max_retries + 1:
            message = msgspec.structs.replace(message, attempts=message.attempts - 1)
        return original(self, message, retry, error)

    patch.setattr(queue.Ending, "_again", again)


def dead_letters_keep_their_attempts(patch: pytest.MonkeyPatch) -> None:
    """A dead letter has had all its tries in its new queue as well."""
    original = queue.BuryMessage
    patch.setattr(queue, "BuryMessage", lambda *args, **named: original(*args, **{**named, "attempts": 5}))


def dead_letters_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """Nothing comes to a dead-letter queue."""

    def bury(view: Any, ledger: Any, message: Any, *rest: Any) -> Any:
        return [Delete("messages", message.id)]

    patch.setattr(queue, "bury", bury)


def throwing_handlers_ack(patch: pytest.MonkeyPatch) -> None:
    """An error is not looked at."""
    original = queue.settled
    patch.setattr(queue, "settled", lambda outcome, ids, delay_ms: original(msgspec.structs.replace(outcome, error=None), ids, delay_ms))


def throwing_handlers_retry_what_they_acked(patch: pytest.MonkeyPatch) -> None:
    """An explicit ack does not hold."""
    original = queue.settled

    def settled(outcome: Any, ids: Any, delay_ms: int) -> Any:
        return original(outcome if outcome.error is None else msgspec.structs.replace(outcome, acks=()), ids, delay_ms)

    patch.setattr(queue, "settled", settled)


def old_leases_settle(patch: pytest.MonkeyPatch) -> None:
    """Whoever had a message last settles it, whoever has it now."""
    original = queue_pulls.leased

    def leased(view: Any, name: str, lease: str) -> Any:
        message = view.get("messages", lease.partition(".")[0])
        at_rest = message is None or not message.pulled or message.queue != name
        return original(view, name, lease) if at_rest else message

    patch.setattr(queue_pulls, "leased", leased)


def leases_settle_twice(patch: pytest.MonkeyPatch) -> None:
    """A message that a lease has given back is still its."""
    original = queue.ReturnMessage
    patch.setattr(queue_pulls, "ReturnMessage", lambda *args, **named: original(*args, **{**named, "pulled": True}))


def pulls_hide_nothing(patch: pytest.MonkeyPatch) -> None:
    """What was pulled is there for the next one."""
    original = queue.ReturnMessage

    def returned(message_id: str, ready_ms: int, attempts: int, **named: Any) -> Any:
        return original(message_id, ready_ms - 2_000 if named else ready_ms, attempts, **named)

    patch.setattr(queue_pulls, "ReturnMessage", returned)


def purges_take_what_comes_later(patch: pytest.MonkeyPatch) -> None:
    """The mark is not looked at."""
    original = queue_care.on_purge

    def purge(view: Any, timer: Any, now_ms: int) -> Any:
        _, _, place = timer.after.partition(" ")
        return original(view, msgspec.structs.replace(timer, after=f"{1 << 60} {place}"), now_ms)

    patch.setattr("stepwell.primitives.timers.on_purge", purge)


def cursors_trust_their_own_group(patch: pytest.MonkeyPatch) -> None:
    """A cursor goes by what its group has put behind what was read."""

    def first(view: Any, value: str, limit: int) -> Any:
        return view.scan("queue_messages", value, limit)

    for module in (queue_claims, queue_care, queue_pulls):
        patch.setattr(module, "first_messages", first)


def expiries_take_the_young(patch: pytest.MonkeyPatch) -> None:
    """What is looked at is old."""
    original = queue_care.on_expiry
    patch.setattr("stepwell.primitives.timers.on_expiry", lambda view, timer, now_ms: original(view, timer, now_ms + (1 << 40)))


def nothing_grows_old(patch: pytest.MonkeyPatch) -> None:
    """No timer is set for the oldest."""
    original = Ledger.commands
    patch.setattr(
        Ledger,
        "commands",
        lambda self: [
            one for one in original(self) if not (isinstance(one, TimerSet) or getattr(getattr(one, "row", None), "kind", "") == "expiry")
        ],
    )


def the_first_message_says_when_all_grow_old(patch: pytest.MonkeyPatch) -> None:
    """A timer that is there stays, though a message came whose time is sooner."""
    original = Ledger.commands

    def commands(self: Any) -> Any:
        there = {name for name in self._first_ms if self._view.timer(f"expiry/{name}") is not None}
        return [
            one
            for one in original(self)
            if not (getattr(getattr(one, "row", None), "kind", "") == "expiry" and one.row.ref in there)  # type: ignore[union-attr]
        ]

    patch.setattr(Ledger, "commands", commands)


def epochs_keep_their_deliveries(patch: pytest.MonkeyPatch) -> None:
    """What a dead node had is not given back."""
    patch.setattr(queue, "redeliver_later", lambda holder, now_ms: [])


def messages_start_runs_and_stay(patch: pytest.MonkeyPatch) -> None:
    """A message that has started its run is still there."""
    original = queue_claims.start_runs

    def start(*args: Any) -> Any:
        commands, many = original(*args)
        return [one for one in commands if not (isinstance(one, Delete) and one.table == "messages")], many

    patch.setattr(queue_claims, "start_runs", start)


def moved_messages_are_copied(patch: pytest.MonkeyPatch) -> None:
    """The queue that a message leaves goes on counting it."""
    patch.setattr(Ledger, "goes", lambda self, message: None)


def what_is_out_is_at_rest(patch: pytest.MonkeyPatch) -> None:
    """Messages that are out are moved, deleted and edited all the same."""

    def at_rest(view: Any, name: str, ids: Any) -> Any:
        found = [view.get("messages", message_id) for message_id in dict.fromkeys(ids)]
        return [message for message in found if message is not None and message.queue == name]

    patch.setattr(queue_care, "at_rest", at_rest)


PLANTS: list[Plant] = [
    waiting_messages_are_not_counted,
    waiting_messages_stir_nobody,
    ends_stir_nobody,
    late_reports_count,
    places_are_not_given_back,
    places_are_not_looked_at,
    parts_of_batches_do_not_wait,
    delayed_messages_go_out,
    parts_go_out_before_the_rest,
    nobody_wakes_a_part_of_a_batch,
    claims_do_not_say_that_there_is_more,
    paused_queues_deliver,
    repeated_claims_deliver_again,
    losses_are_attempts,
    losses_do_not_count,
    one_retry_too_many,
    dead_letters_keep_their_attempts,
    dead_letters_are_dropped,
    throwing_handlers_ack,
    throwing_handlers_retry_what_they_acked,
    old_leases_settle,
    leases_settle_twice,
    pulls_hide_nothing,
    purges_take_what_comes_later,
    cursors_trust_their_own_group,
    expiries_take_the_young,
    nothing_grows_old,
    the_first_message_says_when_all_grow_old,
    epochs_keep_their_deliveries,
    messages_start_runs_and_stay,
    moved_messages_are_copied,
    what_is_out_is_at_rest,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed of two hundred fails with the guard taken away."""
    assert_noticed(plant, monkeypatch, range(1, 200), simulate)
