"""Pull consumers on a table: leases, their lapse, what is settled late, and dead letters."""

from __future__ import annotations

from stepwell.engine.inputs_primitives import LeasesSettled, MessagesMoved, MessagesPulled
from stepwell.errors import ProtocolError
from stepwell.primitives.queue_pulls import LeasesAnswered, lease_of
from tests.unit.primitives.bench import QueueBench, consumes


def settled(bench: QueueBench, *acks: str, retries: tuple[tuple[str, int], ...] = (), queue: str = "q") -> LeasesAnswered:
    """Settle leases."""
    answer: LeasesAnswered = bench.replied(LeasesSettled(queue, acks, retries))
    return answer


def test_what_is_pulled_is_nobody_elses_for_a_time() -> None:
    """Until its visibility lapses; then it is there again, and that was an attempt."""
    bench = QueueBench()
    bench.put(3)
    first = bench.pull(2, 1_000)
    assert [(int(message.body), message.attempts) for message in first] == [(1, 1), (2, 1)]
    assert [int(message.body) for message in bench.pull(2)] == [3]
    assert bench.pull() == []
    bench.clock.ms += 1_000
    assert [(int(message.body), message.attempts) for message in bench.pull()] == [(1, 2), (2, 2)]


def test_the_queue_says_for_how_long_where_the_pull_does_not() -> None:
    """And 0 hides nothing."""
    bench = QueueBench()
    bench.set(visibility_ms=500)
    bench.put()
    assert bench.pull()[0].ready_ms == bench.clock.ms + 500
    bench.clock.ms += 500
    assert len(bench.pull(visibility_ms=0)) == len(bench.pull(visibility_ms=0)) == 1


def test_leases_settle_what_they_are_good_for() -> None:
    """Acked is gone, retried comes after its delay; the queue counts both while they are out."""
    bench = QueueBench()
    bench.put(3)
    one, two, three = map(lease_of, bench.pull())
    assert bench.tables.queues.rows["q"].waiting == 3
    assert settled(bench, one, retries=((two, 2_000), (three, 0))) == LeasesAnswered(1, 2, ())
    assert bench.stirred and bench.waiting() == [3, 2]
    assert [int(message.body) for message in bench.pull()] == [3]
    bench.clock.ms += 2_000
    assert [message.attempts for message in bench.pull()] == [2]


def test_a_stale_lease_changes_nothing() -> None:
    """Of an earlier delivery, of another queue, of none, and the second word on one lease."""
    bench = QueueBench()
    bench.put(2)
    old, other = map(lease_of, bench.pull(visibility_ms=10))
    assert settled(bench, other, queue="elsewhere").stale == (other,)
    bench.clock.ms += 10
    new = lease_of(bench.pull(1)[0])
    assert settled(bench, old, "x", "", f"{5:032x}.1.0").stale == (old, "x", "", f"{5:032x}.1.0")
    assert settled(bench, new, retries=((new, 0),)) == LeasesAnswered(1, 0, (new,))
    assert settled(bench, new).stale == (new,)
    assert bench.waiting() == [2]


def test_a_lease_that_has_lapsed_is_good_until_somebody_else_pulls() -> None:
    """Whoever was slow has done the work all the same."""
    bench = QueueBench()
    bench.put()
    lease = lease_of(bench.pull(visibility_ms=10)[0])
    bench.clock.ms += 1_000
    assert settled(bench, lease).acked == 1


def test_beyond_its_retries_a_message_is_a_dead_letter() -> None:
    """By a retry that is asked for, at once; by a lapse, when it is looked at again."""
    bench = QueueBench()
    bench.set(max_retries=1, dead_letter="dead")
    bench.put(2)
    for _ in range(2):
        pulled = bench.pull(visibility_ms=10)
        bench.clock.ms += 10
    assert settled(bench, retries=((lease_of(pulled[0]), 9_000),)) == LeasesAnswered(0, 1, ())
    assert (bench.waiting(), bench.waiting("dead")) == ([2], [1])
    assert bench.pull() == []
    assert (bench.waiting(), bench.waiting("dead")) == ([], [1, 2])
    assert {message.dead_of for message in bench.tables.messages} == {"q"}


def test_without_a_dead_letter_queue_it_is_gone() -> None:
    """As with push consumers."""
    bench = QueueBench()
    bench.set(max_retries=0)
    bench.put(2)
    lapses, fails = bench.pull(visibility_ms=10)
    settled(bench, retries=((lease_of(fails), 0),))
    bench.clock.ms += 10
    assert bench.pull() == [] and len(bench.tables.messages) == 0 and lapses.attempts == 1


def test_a_dead_letter_that_came_back_has_other_leases() -> None:
    """Its attempts begin anew, and who had it in its first life settles nothing of the second."""
    bench = QueueBench()
    bench.set(max_retries=0, dead_letter="dead")
    (message_id,) = bench.put()
    first = lease_of(bench.pull(visibility_ms=10)[0])
    bench.clock.ms += 10
    bench.pull()
    assert bench.replied(MessagesMoved("dead", (message_id,))) == (message_id,)
    (second,) = bench.pull()
    assert second.attempts == 1 and settled(bench, first).stale == (first,)


def test_a_paused_queue_gives_nothing() -> None:
    """And says how much waits."""
    bench = QueueBench()
    bench.put()
    bench.set(paused=True)
    assert bench.replied(MessagesPulled("q", 1)).backlog == 1 and bench.pull() == []


def test_messages_that_are_too_old_are_not_given() -> None:
    """They go as they are looked at."""
    bench = QueueBench()
    bench.set(retention_ms=60_000)
    bench.put()
    bench.clock.ms += 60_000
    assert bench.pull() == [] and len(bench.tables.messages) == 0


def test_a_queue_has_a_push_consumer_or_pull_consumers() -> None:
    """Who pulls from a consumed queue is told who consumes it."""
    bench = QueueBench(consumes())
    error = bench.give(MessagesPulled("q", 1)).error
    assert isinstance(error, ProtocolError) and error.status == 409 and "the function 'a-q'" in str(error)


def test_what_was_pulled_before_a_consumer_came_is_delivered_when_it_lapses() -> None:
    """Its lease is over with that; and back at its lost place, it is nobody's."""
    bench = QueueBench()
    bench.put()
    lease = lease_of(bench.pull(visibility_ms=10)[0])
    bench.sync(consumes())
    assert bench.take() == [] and bench.wake_ms() == 10
    bench.clock.ms += 10
    assert bench.one().messages[0].attempts == 2
    assert settled(bench, lease).stale == (lease,)
