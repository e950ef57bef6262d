"""What people do to queues, and what time does: pauses, purges, expiry, dead letters moved, deleted and edited."""

from __future__ import annotations

import pytest

from stepwell.engine.inputs import TimerDue
from stepwell.engine.inputs_primitives import (
    BatchAnswered,
    MessageEdited,
    MessagesDeleted,
    MessagesMoved,
    MessagesSent,
    NewMessage,
    QueueClaimed,
    QueuePurged,
)
from stepwell.engine.model import TimerKind
from stepwell.primitives import queue_care
from stepwell.protocol.ids import ulid
from stepwell.protocol.queues import Outcome
from tests.simulation.clock import at_once
from tests.unit.engine.bench import HOLDER
from tests.unit.primitives.bench import THROWN, QueueBench, consumes


def test_a_queue_is_set_part_by_part() -> None:
    """What is not told stays; an empty dead-letter queue means none."""
    bench = QueueBench()
    assert bench.set("new", paused=True).paused and "new" in bench.tables.queues.rows
    told = bench.set("new", max_retries=7, dead_letter="dead", visibility_ms=9)
    assert (told.paused, told.max_retries, told.dead_letter, told.visibility_ms) == (True, 7, "dead", 9)
    assert bench.set("new", dead_letter="", paused=False).dead_letter == ""
    assert bench.tables.queues.rows["new"] == told.__class__(id="new", max_retries=7, visibility_ms=9)


def test_another_retention_holds_for_what_waits() -> None:
    """A shorter one takes effect when it is set, a longer one as well."""
    bench = QueueBench()
    bench.put()
    bench.clock.ms += 70_000
    bench.set(retention_ms=60_000)
    assert bench.waiting() == [1]
    assert bench.due(TimerKind.EXPIRY) and bench.waiting() == []
    assert "expiry/q" not in bench.tables.timers.rows, "nothing waits: no timer"
    bench.put()
    bench.set(retention_ms=100_000)
    bench.due(TimerKind.EXPIRY)
    assert bench.tables.timers.rows["expiry/q"].due_ms == bench.clock.ms + 100_000


@pytest.fixture
def in_twos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cursors take two messages a step."""
    monkeypatch.setattr(queue_care, "SWEEP_QUEUE_AT_ONCE", 2)


@pytest.mark.usefixtures("in_twos")
def test_old_messages_go_step_by_step() -> None:
    """What is out is no matter of the expiry; what is not old keeps the timer."""
    bench = QueueBench(consumes(retention_ms=60_000))
    bench.put(6)
    out = bench.take(room=1)
    bench.clock.ms += 30_000
    bench.put()
    bench.clock.ms += 30_000
    assert bench.give(TimerDue("expiry/q")).error is None
    assert bench.waiting() == [4, 5, 6, 7]
    bench.due(TimerKind.EXPIRY)
    assert bench.waiting() == [7] and len(out) == 1
    assert bench.tables.timers.rows["expiry/q"].due_ms == bench.clock.ms + 30_000


def test_the_timer_of_a_queue_that_is_gone_goes() -> None:
    """There is nothing that it could take away."""
    bench = QueueBench()
    bench.put()
    bench.tables.messages.remove(bench.message(1).id)
    bench.tables.queues.remove("q")
    bench.clock.ms += 1 << 40
    assert bench.due(TimerKind.EXPIRY) and "expiry/q" not in bench.tables.timers.rows


@pytest.mark.usefixtures("in_twos")
def test_a_purge_takes_what_waited_when_it_was_asked_for() -> None:
    """Delayed and pulled ones too; not what is out, nor what was sent later."""
    bench = QueueBench(consumes())
    bench.put(5, delay_ms=500)
    bench.put(2)
    bench.take(room=1)
    mark_ms = bench.clock.ms
    bench.clock.ms += 1
    bench.put()
    purge = QueuePurged("q", mark_ms)
    assert bench.replied(purge) is None and bench.replied(purge) is None
    assert bench.due(TimerKind.PURGE) and bench.waiting() == [8]
    assert len(bench.tables.messages) == 2


@pytest.mark.usefixtures("in_twos")
def test_a_purge_goes_by_nothing_that_its_own_group_has_moved() -> None:
    """A message that comes back in the very group of a step stands behind others which nobody has read: the cursor stops before them."""
    bench = QueueBench(consumes())
    bench.put()
    out = bench.one()
    bench.put(8)
    bench.replied(QueuePurged("q", bench.clock.ms))
    bench.clock.ms += 1
    claim = QueueClaimed(ulid(bench.clock.ms, bench.clock.entropy(10)), HOLDER, "q", 2)
    (purge,) = [timer.id for timer in bench.tables.timers if timer.kind is TimerKind.PURGE]
    beat = at_once(bench.heart.handle([claim, BatchAnswered(out.delivery.id, Outcome(error=THROWN)), TimerDue(purge)]))
    assert [one.error for one in beat.decided] == [None] * 3
    assert bench.due(TimerKind.PURGE)
    assert bench.waiting() == [] and len(bench.tables.deliveries) == 2


@pytest.mark.usefixtures("in_twos")
def test_an_expiry_goes_by_nothing_that_its_own_group_has_taken() -> None:
    """Its timer stays while there is more than was read."""
    bench = QueueBench(consumes())
    bench.put(4)
    claim = QueueClaimed(ulid(bench.clock.ms, bench.clock.entropy(10)), HOLDER, "q", 2)
    bench.set(retention_ms=100_000)
    sent = MessagesSent("q", (NewMessage(f"{9:032x}", b"9", "json", 50_000),), fresh=True)
    beat = at_once(bench.heart.handle([claim, sent, TimerDue("expiry/q")]))
    assert [one.error for one in beat.decided] == [None] * 3
    assert bench.tables.timers.rows["expiry/q"].due_ms == bench.clock.ms and bench.waiting() == [3, 4, 9]
    assert bench.due(TimerKind.EXPIRY) and bench.tables.timers.rows["expiry/q"].due_ms == bench.clock.ms + 100_000


def dead_letters(*functions: object) -> tuple[QueueBench, list[str]]:
    """Two messages that have died of a queue, and one that was sent to the dead-letter queue itself."""
    bench = QueueBench(consumes(max_retries=0, dead_letter="dead"))
    ids = bench.put(2)
    for one in bench.take():
        bench.settle(one, error=THROWN)
    return bench, [*ids, *bench.put(queue="dead")]


def test_dead_letters_go_back_to_where_they_came_from() -> None:
    """With their lives before them; what never died stays, and so does what is not there."""
    bench, ids = dead_letters()
    assert bench.replied(MessagesMoved("dead", (*ids, ids[0], f"{99:032x}"))) == tuple(ids[:2])
    assert (bench.waiting(), bench.waiting("dead")) == ([1, 2], [3]) and bench.stirred
    assert {(message.attempts, message.dead_of, message.error) for one in bench.take() for message in one.messages} == {(1, None, None)}


def test_messages_may_be_moved_to_any_queue() -> None:
    """Named, it takes those that never died too."""
    bench, ids = dead_letters()
    assert bench.replied(MessagesMoved("dead", tuple(ids), to="third")) == tuple(ids)
    assert bench.waiting("third") == [1, 2, 3] and bench.tables.queues.rows["third"].waiting == 3
    assert bench.replied(MessagesMoved("third", (ids[0],), to="third")) == (ids[0],)
    assert bench.tables.queues.rows["third"].waiting == 3


def test_deleting_spares_what_is_out_or_elsewhere() -> None:
    """The answer names what was taken away."""
    bench, ids = dead_letters()
    bench.put()
    bench.take()
    assert bench.replied(MessagesDeleted("dead", (*ids, f"{4:032x}"))) == tuple(ids)
    assert bench.replied(MessagesDeleted("q", (f"{4:032x}", ids[0]))) == ()
    assert [message.id for message in bench.tables.messages] == [f"{4:032x}"]


def test_an_edited_message_is_a_new_one_in_the_old_ones_place() -> None:
    """Another id, since no stored body changes; its attempts and what it died of stay."""
    bench, ids = dead_letters()
    edit = MessageEdited("dead", ids[0], f"{50:032x}", b"50", "json")
    assert bench.replied(edit) is True
    assert bench.waiting("dead") == [2, 3, 50] and bench.message(50).dead_of == "q"
    assert bench.tables.queues.rows["dead"].waiting_bytes == 4
    assert bench.replied(edit) is True, "the same input once more finds what it has made"
    assert bench.replied(MessageEdited("dead", ids[0], f"{51:032x}", b"51", "json")) is False
