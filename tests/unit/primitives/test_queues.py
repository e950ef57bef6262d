"""A queue's life on a table: what is sent, what becomes of a batch, what is lost with a process, what a sync says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stepwell.engine.inputs import AppRemoved, NodeStarted, TimerDue
from stepwell.engine.inputs_primitives import BatchAnswered, DeliveriesReturned, MessagesSent, NewMessage
from stepwell.engine.model import Timer, TimerKind
from stepwell.engine.registry import Registry
from stepwell.engine.view import View
from stepwell.errors import ProtocolError
from stepwell.primitives import queue
from stepwell.primitives.queue import Backlog, Sent, Settled
from stepwell.primitives.timers import on_primitive_due
from stepwell.protocol.answers import Lost
from stepwell.protocol.queues import RETENTION_MS_DEFAULT
from tests.simulation.clock import at_once
from tests.unit.engine.bench import HOLDER
from tests.unit.primitives.bench import THROWN, QueueBench, bodies, consumes, starts

MAX = 2
"""Retries of the consumers here: three deliveries."""

# Sending.


def test_messages_wait_in_the_order_of_their_places() -> None:
    """By when they are ready; the answer tells what waited before."""
    bench = QueueBench()
    assert bench.replied(MessagesSent("q", (NewMessage(f"{9:032x}", b"[9]", "json", 50),))) == Sent((f"{9:032x}",), Backlog(0, 0))
    bench.sent = 0
    bench.put(2)
    assert bench.tables.queues.rows["q"].waiting_bytes == 5
    assert [message.id for message in bench.tables.queue_messages("q")] == [f"{n:032x}" for n in (1, 2, 9)]


@pytest.mark.parametrize("fresh", [True, False])
def test_a_repeated_send_stores_nothing_twice(fresh: bool) -> None:
    """Whether its sender says that the ids are new or not; two with one id in a request are one as well."""
    bench = QueueBench()
    new = NewMessage(f"{1:032x}", b"1", "json")
    for body in (b"1", b"2"):
        again = msgspec.structs.replace(new, body=body)
        sent: Sent = bench.replied(MessagesSent("q", (again, again), fresh=fresh))
        assert sent.ids == (new.id, new.id)
    assert bench.waiting() == [1]


def test_a_message_that_was_kept_back_does_not_keep_others() -> None:
    """The first message that grows old is not always the one that was sent first."""
    bench = QueueBench()
    bench.set(retention_ms=60_000)
    bench.put(delay_ms=1_000_000)
    bench.put()
    bench.clock.ms += 60_000
    assert bench.due(TimerKind.EXPIRY) and bench.waiting() == [1]


# Outcomes.


def deliveries(bench: QueueBench, many: int, **told: Any) -> list[Settled]:
    """One message is delivered so often, and always settled so."""
    return [bench.settle(bench.one(), **told) for _ in range(many)]


def test_what_is_acked_is_gone() -> None:
    """With its delivery and its place."""
    bench = QueueBench(consumes(max_batch_size=3))
    bench.put(3)
    assert bench.settle(bench.one()) == Settled(acked=3)
    assert bench.stirred and not (len(bench.tables.messages) + len(bench.tables.deliveries) + len(bench.tables.counters))


def test_explicit_words_hold_where_the_handler_threw() -> None:
    """The platform's own way, not its simulator's: what was acked is acked; what was to come again comes when it said."""
    bench = QueueBench(consumes(max_batch_size=3, retry_delay_ms=1_000))
    ids = bench.put(3)
    assert bench.settle(bench.one(), acks=(ids[0],), retries={ids[1]: 5_000}, error=THROWN) == Settled(acked=1, retried=2)
    now_ms = bench.clock.ms
    assert [(bench.message(n).ready_ms - now_ms, bench.message(n).attempts) for n in (2, 3)] == [(5_000, 1), (1_000, 1)]
    bench.clock.ms += 5_000
    again = bench.one()
    assert bodies(again) == [3, 2] and [message.attempts for message in again.messages] == [2, 2]
    assert [message.sent_ms for message in again.messages] == [now_ms, now_ms], "a retry does not make a message younger"


def test_a_late_report_changes_nothing() -> None:
    """Its delivery has gone: to somebody else, or to its end."""
    bench = QueueBench(consumes())
    bench.put()
    first = bench.one()
    assert bench.replied(DeliveriesReturned((first.delivery.id,), "no call in hand")) == 1
    second = bench.one()
    assert bench.settle(first) == Settled() and bodies(second) == [1]
    assert bench.settle(second, retry_all=True) == Settled(retried=1)
    assert bench.settle(second) == Settled() and bench.waiting() == [1]
    assert bench.replied(DeliveriesReturned((second.delivery.id,), "no call in hand")) == 0


def test_beyond_its_retries_a_message_is_a_dead_letter_at_once() -> None:
    """Observed: 3 deliveries for 2 retries, no delay before the move; id, time and body stay, attempts begin anew."""
    bench = QueueBench(consumes(max_retries=MAX, dead_letter="dead", retry_delay_ms=1_000), consumes("dead"))
    (message_id,) = bench.put()
    sent_ms = bench.clock.ms
    for _ in range(MAX):
        bench.settle(bench.one(), error=THROWN)
        bench.clock.ms += 1_000
    assert bench.settle(bench.one(), error=THROWN) == Settled(dead=(message_id,), dead_letter="dead")
    (letter,) = bench.one("dead").messages
    assert (letter.id, letter.sent_ms, letter.body, letter.attempts) == (message_id, sent_ms, b"1", 1)
    assert (letter.dead_of, letter.error) == ("q", THROWN)


def test_without_a_dead_letter_queue_it_is_dropped() -> None:
    """Also where no retry is allowed: the first failure is the last, whatever delay it asks for."""
    bench = QueueBench(consumes(max_retries=0))
    (message_id,) = bench.put()
    assert bench.settle(bench.one(), retries={message_id: 5_000}) == Settled(dropped=(message_id,))
    assert len(bench.tables.messages) == 0


def test_dead_letters_may_die_again() -> None:
    """A dead-letter queue is a queue as any other, with a dead-letter queue of its own."""
    bench = QueueBench(consumes(max_retries=0, dead_letter="dead"), consumes("dead", max_retries=0, dead_letter="grave"))
    bench.put(2)
    for one in bench.take():
        bench.settle(one, error=THROWN)
    for one in bench.take("dead"):
        bench.settle(one, error=b'"again"')
    assert bench.waiting("grave") == [1, 2]
    assert (bench.message(1).dead_of, bench.message(1).error) == ("dead", b'"again"')


def test_dead_letters_stay_such_when_their_app_has_gone() -> None:
    """The function that has the batch says what becomes of it, though its app has taken it away meanwhile."""
    bench = QueueBench(consumes(max_retries=0, dead_letter="dead"))
    (message_id,) = bench.put()
    out = bench.one()
    bench.give(AppRemoved("a"))
    at_once(bench.heart.reload())
    assert bench.settle(out, error=THROWN).dead == (message_id,)


def test_a_consumer_that_starts_runs_instead_gives_its_batches_the_defaults() -> None:
    """A batch that is out when its function is no consumer any more is retried as any."""
    bench = QueueBench(consumes(max_retries=0))
    bench.put()
    out = bench.one()
    bench.sync(starts())
    assert bench.settle(out, error=THROWN) == Settled(retried=1)


# Losses.


def test_a_lost_batch_comes_again_as_it_was() -> None:
    """At its place, before what was sent later, with the same number of attempts."""
    bench = QueueBench(consumes())
    bench.put()
    out = bench.one()
    bench.clock.ms += 50
    bench.put()
    assert bench.settle(out, Lost(reason="the child died")) == Settled() and bench.stirred
    first, second = bench.take()
    assert (bodies(first), bodies(second)) == ([1], [2]) and first.messages[0].attempts == 1


def test_one_lost_too_often_has_had_a_failed_try() -> None:
    """A message that kills its consumer does not do so for ever."""
    bench = QueueBench(consumes(max_retries=1, dead_letter="dead", retry_delay_ms=1_000))
    bench.put()
    seen = []
    for _ in range(2 * queue.LOSSES_MAX):
        out = bench.one()
        seen.append(out.messages[0].attempts)
        bench.settle(out, Lost(reason="the child died"))
        bench.clock.ms += 1_000
    assert seen == [1, 1, 1, 2, 2, 2] and bench.waiting("dead") == [1]
    assert b"the child died" in (bench.message(1).error or b"")


def test_an_answer_ends_a_series_of_losses() -> None:
    """Only losses in a row count."""
    bench = QueueBench(consumes(max_retries=9))
    bench.put()
    for _ in range(queue.LOSSES_MAX):
        bench.settle(bench.one(), Lost(reason="x"))
        bench.settle(bench.one(), error=THROWN)
    assert bench.message(1).losses == 0 and bench.message(1).attempts == 3


@pytest.mark.parametrize("driver, losses", [("local", 1), ("process", 0)])
def test_the_deliveries_of_an_ended_epoch_come_back(driver: str, losses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step; where the consumer ran in the node's own process, that may have been its doing."""
    monkeypatch.setattr(queue, "REDELIVER_AT_ONCE", 2)
    bench = QueueBench(consumes())
    bench.heart.registry.apps["a"] = msgspec.structs.replace(bench.heart.registry.apps["a"], driver=driver)
    bench.heart.registry = Registry(bench.heart.registry.apps.values(), [f.row for f in bench.heart.registry.functions.values()])
    bench.put(3)
    assert len(bench.take()) == 3
    started = NodeStarted("n", "n/2", (HOLDER, "unknown"))
    bench.give(started)
    assert [timer.id for timer in bench.tables.timers if timer.kind is TimerKind.REDELIVER] == [f"redeliver/{HOLDER}"]
    bench.give(TimerDue(f"redeliver/{HOLDER}"))
    assert len(bench.waiting()) == 2
    assert bench.due(TimerKind.REDELIVER) and bench.waiting() == [1, 2, 3]
    assert {message.losses for message in bench.tables.messages} == {losses}
    bench.give(started)
    assert not bench.due(TimerKind.REDELIVER), "the same start once more"


def test_a_batch_of_a_function_that_is_gone_comes_back() -> None:
    """Nothing is known of it any more, so that nothing counts against its messages."""
    bench = QueueBench(consumes())
    bench.put()
    out = bench.one()
    bench.heart.registry = Registry()
    assert bench.replied(DeliveriesReturned((out.delivery.id,), "its consumer is not there")) == 1
    assert bench.waiting() == [1] and bench.message(1).losses == 0


# Syncs and timers.


def test_a_sync_makes_the_queue_and_says_how_long_it_keeps() -> None:
    """Also for messages that wait already: what a lower retention leaves no time goes."""
    bench = QueueBench(consumes())
    assert bench.tables.queues.rows["q"].retention_ms == RETENTION_MS_DEFAULT
    bench.put()
    bench.sync(consumes(retention_ms=60_000))
    bench.clock.ms += 60_000
    bench.due(TimerKind.EXPIRY)
    assert bench.waiting() == [] and bench.tables.queues.rows["q"].retention_ms == 60_000
    bench.sync(consumes(retention_ms=120_000), checksum="3")
    bench.sync(consumes(), starts("other"), checksum="4")
    assert bench.tables.queues.rows["q"].retention_ms == 120_000 and "other" in bench.tables.queues.rows


def test_a_queue_has_one_consumer() -> None:
    """A sync that tells two is refused whole, and makes no queue; a function may take its own queue again."""
    bench = QueueBench(consumes())
    twice = msgspec.structs.replace(consumes("new"), id="a-second")
    decided = bench.sync(consumes("new"), twice)
    assert isinstance(decided.error, ProtocolError)
    assert "queue 'new' goes to the functions 'a-new' and 'a-second'" in str(decided.error)
    assert "new" not in bench.tables.queues.rows
    assert bench.sync(consumes(max_retries=1)).error is None


def test_a_timer_that_is_not_due_waits_on() -> None:
    """The clock went back since the timekeeper looked."""
    bench = QueueBench(consumes(max_batch_size=2, max_batch_timeout_ms=5_000))
    bench.put()
    bench.take()
    bench.give(TimerDue("queue/q"))
    assert bench.wake_ms() == 5_000
    bench.clock.ms += 5_000
    assert bench.due(TimerKind.QUEUE)
    assert bench.give(TimerDue("queue/q")).error is None, "it is gone: fired twice"


def test_a_timer_of_somebody_else_is_a_bug() -> None:
    """Kinds are shared out between the engine and the primitives."""
    with pytest.raises(AssertionError, match="none of a primitive's"):
        on_primitive_due(Registry(), View(), Timer(id="x", due_ms=0, kind=TimerKind.SWEEP, ref=""), 1)


def test_a_delivery_that_has_lost_a_message_is_a_bug() -> None:
    """Nothing is decided on rows that contradict each other."""
    bench = QueueBench(consumes())
    bench.put()
    out = bench.one()
    bench.tables.messages.put(bench.message(1).id, msgspec.structs.replace(bench.message(1), delivery="other"))
    (decided,) = at_once(bench.heart.handle([BatchAnswered(out.delivery.id, Lost(reason=""))])).decided
    assert isinstance(decided.error, AssertionError)
