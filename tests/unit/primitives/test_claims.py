"""What a claim takes: whole batches, parts that have waited long enough, runs; and when the queue is looked at again."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.engine.inputs import AppRemoved, FunctionHeld
from stepwell.engine.inputs_primitives import MessagesSent, NewMessage, QueueClaimed
from stepwell.engine.model import RunStatus, TimerKind
from stepwell.primitives import queue_claims
from stepwell.primitives.queue import Backlog, Sent
from stepwell.primitives.queue_claims import Deliver, Delivered
from stepwell.protocol.functions import Batch, Concurrency, Debounce, RateLimit, Singleton
from stepwell.protocol.ids import ulid
from tests.simulation.clock import at_once
from tests.unit.engine.bench import HOLDER
from tests.unit.primitives.bench import QueueBench, bodies, consumes, starts


def test_a_full_batch_goes_out_at_once_and_the_rest_after_the_timeout() -> None:
    """Observed: of 7 messages, size 3, there come 3 and 3 at once, then 1 when the timeout has passed since it was sent."""
    bench = QueueBench(consumes(max_batch_size=3, max_batch_timeout_ms=5_000))
    bench.put(7)
    assert [bodies(one) for one in bench.take()] == [[1, 2, 3], [4, 5, 6]]
    assert bench.wake_ms() == 5_000 and bench.reply == Delivered(2, more=False)
    bench.clock.ms += 4_999
    assert bench.take() == []
    bench.clock.ms += 1
    assert bench.due(TimerKind.QUEUE) and bench.stirred
    assert bodies(bench.one()) == [7]


def test_the_timeout_runs_from_the_first_message() -> None:
    """Observed: timeout 2 s, a second message after 1 s: one batch, 2 s after the first."""
    bench = QueueBench(consumes(max_batch_size=10, max_batch_timeout_ms=2_000))
    bench.put()
    assert bench.take() == [] and bench.wake_ms() == 2_000
    bench.clock.ms += 1_000
    bench.put()
    assert bench.take() == [] and bench.wake_ms() == 1_000
    bench.clock.ms += 1_000
    assert bodies(bench.one()) == [1, 2]


def test_timeout_0_delivers_what_is_there() -> None:
    """Messages of one send stay together."""
    bench = QueueBench(consumes(max_batch_size=10, max_batch_timeout_ms=0))
    bench.put(2)
    assert bodies(bench.one()) == [1, 2]
    assert bench.take() == [] and bench.wake_ms() is None


def test_delayed_messages_become_a_batch_when_enough_are_ready() -> None:
    """By their size: the wake-up is for the message that makes the batch full, not for the timeout of the first."""
    bench = QueueBench(consumes(max_batch_size=2, max_batch_timeout_ms=60_000))
    bench.put(delay_ms=1_000)
    bench.put(delay_ms=3_000)
    assert bench.take() == [] and bench.wake_ms() == 3_000
    bench.clock.ms += 3_000
    assert bodies(bench.one()) == [1, 2]


def test_a_delayed_message_alone_waits_its_delay_and_the_timeout() -> None:
    """It begins to wait for others when it is ready."""
    bench = QueueBench(consumes(max_batch_size=2, max_batch_timeout_ms=5_000))
    bench.put(delay_ms=1_000)
    assert bench.take() == [] and bench.wake_ms() == 6_000


def test_a_timer_that_comes_sooner_does_as_well() -> None:
    """And one that comes later gives way."""
    bench = QueueBench(consumes(max_batch_size=2, max_batch_timeout_ms=5_000))
    bench.put(delay_ms=10_000)
    bench.take()
    assert bench.wake_ms() == 15_000
    bench.put(delay_ms=1_000)
    bench.take()
    assert bench.wake_ms() == 6_000
    bench.put(delay_ms=3_000)
    bench.take()
    assert bench.wake_ms() == 3_000, "two are ready then"


def test_behind_many_delayed_messages_nothing_is_claimed_in_vain() -> None:
    """What is looked at is not ready, so that what is behind is neither: no further claim is asked for, only the timer."""
    bench = QueueBench(consumes(max_batch_size=2, max_batch_timeout_ms=1_000))
    bench.put(20, delay_ms=9_000)
    assert bench.take(room=1) == [] and bench.reply == Delivered(0, more=False)
    assert bench.wake_ms() == 9_000


def test_what_was_not_looked_at_may_fill_the_batch_that_is_left() -> None:
    """Fewer than a batch are left of those that were read: once the last of them is ready, those behind may be too."""
    bench = QueueBench(consumes(max_batch_size=2, max_batch_timeout_ms=1_000))
    bench.put()
    bench.put(9, delay_ms=3_000)
    bench.clock.ms += 1_000
    assert [bodies(one) for one in bench.take(room=1)] == [[1]]
    assert bench.wake_ms() == 2_000 and bench.reply == Delivered(1, more=False)


def test_a_claim_takes_so_many_and_says_that_there_are_more() -> None:
    """`DELIVERIES_AT_ONCE`, or the node's room."""
    bench = QueueBench(consumes())
    bench.put(9)
    assert [bodies(one) for one in bench.take()] == [[1], [2], [3], [4]]
    assert bench.reply == Delivered(4, more=True)
    assert [bodies(one) for one in bench.take(room=1)] == [[5]] and bench.reply.more
    assert len(bench.take()) == 4 and not bench.reply.more


def test_a_part_of_a_batch_stays_while_more_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that had grown old make what was looked at no whole number of batches: what is left over is filled by the next claim."""
    monkeypatch.setattr(queue_claims, "DELIVERIES_AT_ONCE", 2)
    bench = QueueBench(consumes(max_batch_size=2, retention_ms=60_000))
    bench.put()
    bench.clock.ms += 60_000
    bench.put(7)
    assert [bodies(one) for one in bench.take()] == [[2, 3]] and bench.reply == Delivered(1, more=True)
    assert [bodies(one) for one in bench.take()] == [[4, 5], [6, 7]] and bench.reply.more
    assert [bodies(one) for one in bench.take()] == [[8]]


def test_no_more_batches_are_out_than_may_be() -> None:
    """`max_concurrency`; the end of one stirs the queue."""
    bench = QueueBench(consumes(max_concurrency=2))
    bench.put(3)
    first, _ = bench.take()
    assert bench.reply == Delivered(2, more=False)
    assert bench.take() == []
    bench.settle(first)
    assert bench.stirred
    assert bodies(bench.one()) == [3]


def test_a_batch_tells_what_waits_behind_it() -> None:
    """Counted when the claim has taken all it takes; nothing waits behind the last."""
    bench = QueueBench(consumes(max_batch_size=2))
    started_ms = bench.clock.ms
    bench.put(2)
    bench.clock.ms += 5
    bench.put(2)
    (first,) = bench.take(room=1)
    assert first.backlog == Backlog(2, 2, started_ms), "not all that waits was looked at: as old as the last of the batch"
    assert bench.one().backlog == Backlog(0, 0, None)
    bench.put(3, delay_ms=1)
    bench.clock.ms += 1
    first, second = bench.take(room=2)
    assert first.backlog == second.backlog == Backlog(0, 0, None)
    bench.put(3, delay_ms=1)
    bench.put()
    assert bench.one().backlog == Backlog(3, 4, bench.clock.ms), bench.waiting()


def test_a_paused_queue_or_function_delivers_nothing() -> None:
    """And goes on when it may."""
    bench = QueueBench(consumes())
    bench.set(paused=True)
    bench.put()
    assert bench.take() == []
    assert bench.set(paused=False).paused is False and bench.stirred
    bench.give(FunctionHeld("a-q", "paused"))
    at_once(bench.heart.reload())
    assert bench.take() == []
    bench.give(FunctionHeld("a-q", "running"))
    at_once(bench.heart.reload())
    assert bodies(bench.one()) == [1]


def test_a_queue_without_a_consumer_or_never_used_delivers_nothing() -> None:
    """There is no function, or no message was ever sent and no app has told of it."""
    bench = QueueBench(consumes())
    bench.put(queue="other")
    assert bench.take("other") == []
    assert bench.take() == []
    bench.give(AppRemoved("a"))
    at_once(bench.heart.reload())
    bench.put()
    assert bench.take() == [] and bench.waiting() == [2]


def test_the_same_claim_once_more_takes_nothing() -> None:
    """Its first commit's answer was lost: what it took has no call in hand, and comes back by the node's comparison."""
    bench = QueueBench(consumes())
    bench.put(2)
    claim = QueueClaimed(ulid(bench.clock.ms, b"\0" * 10), HOLDER, "q", 1)
    assert bench.replied(claim) == Delivered(1, more=True)
    assert bench.replied(claim) == Delivered(0, more=False)
    assert bench.waiting() == [2]


def test_what_is_too_old_is_not_delivered() -> None:
    """A claim takes it away, also before the expiry's own timer does."""
    bench = QueueBench(consumes(max_batch_size=2, max_batch_timeout_ms=60_000, retention_ms=60_000))
    bench.put()
    bench.clock.ms += 60_000
    bench.put()
    assert bench.take() == [] and bench.waiting() == [2]


def test_two_claims_of_one_group_keep_the_order() -> None:
    """What was sent in the group itself does not pass those that wait behind what was read."""
    bench = QueueBench(consumes())
    bench.put(20)
    claims = [QueueClaimed(ulid(bench.clock.ms, bench.clock.entropy(10)), HOLDER, "q", 2) for _ in range(2)]
    sent = MessagesSent("q", (NewMessage(f"{21:032x}", b"21", "json"),), fresh=True)
    beat = at_once(bench.heart.handle([sent, *claims]))
    taken = [body for one in beat.decided for effect in one.effects if isinstance(effect, Deliver) for body in bodies(effect)]
    assert taken == [1, 2]
    assert bench.waiting() == list(range(3, 22))


# Runs in place of batches.


def events_of(bench: QueueBench) -> list[bytes]:
    """The data of the events that began runs, in the order of the messages."""
    return [bench.tables.events.rows[run.event_ids[0]].data for run in sorted(bench.tables.runs, key=lambda run: run.event_ids)]


def test_a_message_starts_a_run() -> None:
    """Its event has the body as its data, put under `body` where that is no object; the message is gone."""
    bench = QueueBench(starts())
    new = (
        NewMessage(f"{1:032x}", b'{"a":1}', "json"),
        NewMessage(f"{2:032x}", b"[1]", "json"),
        NewMessage(f"{3:032x}", "text é".encode(), "text"),
        NewMessage(f"{4:032x}", b"\xff", "bytes"),
    )
    assert bench.replied(MessagesSent("q", new)) == Sent(tuple(one.id for one in new), Backlog(0, 0))
    assert bench.take() == [] and bench.reply == Delivered(0, more=False)
    assert events_of(bench) == [b'{"a":1}', b'{"body":[1]}', '{"body":"text é"}'.encode(), b'{"body":"/w=="}']
    assert {event.name for event in bench.tables.events if event.run_id is None} == {"stepwell/queue.q"}
    assert bench.waiting() == [] and {run.status for run in bench.tables.runs} == {RunStatus.QUEUED}


def test_a_message_that_is_sent_again_starts_no_second_run() -> None:
    """Its request was repeated when the run was there: the message goes, and the queue does not stand still."""
    bench = QueueBench(starts())
    sent = MessagesSent("q", (NewMessage(f"{1:032x}", b"1", "json"),))
    for _ in range(2):
        bench.replied(sent)
        bench.take()
    bench.put()
    assert bench.waiting() == [1]
    bench.take()
    assert bench.waiting() == [] and len(bench.tables.runs) == 1


def test_delayed_messages_start_runs_later() -> None:
    """The wake-up is for the first of them."""
    bench = QueueBench(starts())
    bench.put(delay_ms=1_000)
    bench.put()
    bench.take()
    assert len(bench.tables.runs) == 1 and bench.wake_ms() == 1_000 and not bench.reply.more
    bench.clock.ms += 1_000
    bench.take()
    assert len(bench.tables.runs) == 2 and bench.waiting() == []


def test_many_messages_start_runs_claim_by_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many at a time, whatever each of them looks at."""
    bench = QueueBench(starts(concurrency=(Concurrency(limit=1, key="event.data.body"),)))
    bench.put(120)
    bench.take()
    assert len(bench.tables.runs) == 50 and bench.reply == Delivered(0, more=True)
    bench.take()
    bench.take()
    assert len(bench.tables.runs) == 120 and not bench.reply.more
    assert len(bench.claim(200)) == 120


@pytest.mark.parametrize(
    "settings, made, skipped, held",
    [
        ({"rate_limit": RateLimit(limit=1, period_ms=60_000)}, 1, 2, 0),
        ({"singleton": Singleton(mode="skip")}, 1, 2, 0),
        ({"batch": Batch(max_size=2, timeout_ms=1_000)}, 1, 0, 1),
        ({"debounce": Debounce(period_ms=1_000)}, 0, 0, 1),
    ],
)
def test_flow_control_holds_for_messages(settings: dict[str, Any], made: int, skipped: int, held: int) -> None:
    """As for events: what is dropped or joined is gone from the queue too."""
    bench = QueueBench(starts(**settings))
    bench.put(3)
    while bench.waiting():
        bench.take()
    statuses = [run.status for run in bench.tables.runs]
    assert (statuses.count(RunStatus.QUEUED), statuses.count(RunStatus.SKIPPED), len(bench.tables.holds)) == (made, skipped, held)


def test_a_singleton_that_cancels_keeps_the_last() -> None:
    """One run of a claim cannot end another of the same: the next claim does."""
    bench = QueueBench(starts(singleton=Singleton(mode="cancel")))
    bench.put(3)
    for left in ([2, 3], [3], []):
        bench.take()
        assert bench.waiting() == left and bench.reply.more is bool(left)
    statuses = [run.status for run in bench.tables.runs]
    assert (statuses.count(RunStatus.CANCELLED), statuses.count(RunStatus.QUEUED)) == (2, 1)
