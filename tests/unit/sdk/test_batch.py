"""What a handler says of a batch: which word counts, what is warned of, and what the messages hold."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import stepwell
from stepwell.protocol.queues import Outcome, decode_outcome
from stepwell.sdk.batch import Backlog, MessageBatch
from stepwell.sdk.serializer import ANY, codec_of

Handler = Callable[[Any], Any]


def event(message_id: str, body: bytes = b"1", kind: str = "json", attempts: int = 1) -> bytes:
    """A message as it comes with the call."""
    backlog = b'{"bytes":7,"messages":2,"oldest_ms":5}'
    data = b'{"attempts":%d,"backlog":%s,"body":%s,"content_type":"%s"}' % (attempts, backlog, body, kind.encode())
    return b'{"data":%s,"id":"%s","name":"stepwell/queue.q","ts":1500,"user":{}}' % (data, message_id.encode())


def batch(*events: bytes, codec: Any = ANY) -> MessageBatch[Any]:
    """A batch of a, b and c, if nothing is said."""
    return MessageBatch("q", events or tuple(map(event, "abc")), codec)


def retry(delay: str | None = None) -> Handler:
    """`retry` of the first message."""
    return lambda batch: batch.messages[0].retry(delay=delay)


def retry_all(delay: str | None = None) -> Handler:
    """`retry_all` of the batch."""
    return lambda batch: batch.retry_all(delay=delay)


def ack(batch: MessageBatch[Any]) -> None:
    """`ack` of the first message."""
    batch.messages[0].ack()


def ack_all(batch: MessageBatch[Any]) -> None:
    """`ack_all` of the batch."""
    batch.ack_all()


ALL = Outcome(retry_all=True)


@pytest.mark.parametrize(
    "says, outcome, warns",
    [
        ((), Outcome(), ""),
        ((ack, ack), Outcome(acks=("a",)), ""),
        ((ack, retry()), Outcome(acks=("a",)), "retry() on message a after ack()"),
        ((retry(), ack), Outcome(retries={"a": None}), "ack() on message a after retry()"),
        ((retry("4s"), retry("2s")), Outcome(retries={"a": 2000}), ""),
        ((retry("2s"), retry()), Outcome(retries={"a": None}), ""),
        ((ack_all, retry()), Outcome(ack_all=True), "retry() on message a after ackAll()"),
        ((ack_all, ack), Outcome(ack_all=True, acks=("a",)), ""),
        ((retry(), ack_all), Outcome(retries={"a": None}, ack_all=True), ""),
        ((retry(), ack_all, retry("2s")), Outcome(retries={"a": 2000}, ack_all=True), ""),
        ((ack, retry_all()), Outcome(acks=("a",), retry_all=True), ""),
        ((ack, retry_all(), ack), Outcome(acks=("a",), retry_all=True), ""),
        ((retry_all(), ack), ALL, "ack() on message a after retryAll()"),
        ((retry_all("1s"), retry("3s")), Outcome(retries={"a": 3000}, retry_all=True, retry_all_delay_ms=1000), ""),
        ((retry_all(), ack_all), ALL, "ackAll() after retryAll()"),
        ((ack_all, retry_all()), Outcome(ack_all=True), "retryAll() after ackAll()"),
        ((ack_all, ack_all), Outcome(ack_all=True), ""),
        ((retry_all("4s"), retry_all("2s")), Outcome(retry_all=True, retry_all_delay_ms=2000), ""),
        ((retry_all("2s"), retry_all("4s")), Outcome(retry_all=True, retry_all_delay_ms=4000), ""),
        ((retry_all("2s"), retry_all()), Outcome(retry_all=True, retry_all_delay_ms=2000), ""),
        ((retry_all("0s"),), Outcome(retry_all=True, retry_all_delay_ms=0), ""),
    ],
)
def test_which_word_counts(says: tuple[Handler, ...], outcome: Outcome, warns: str, caplog: pytest.LogCaptureFixture) -> None:
    """As the platform's runtime has it; a word that comes too late is warned of, in its words, and has no effect."""
    one = batch()
    with caplog.at_level(logging.WARNING, "stepwell.queue"):
        for word in says:
            word(one)
    assert one.decisions.outcome(None) == outcome
    assert one.decisions.outcome(b'"x"') == msgspec.structs.replace(outcome, error=b'"x"')
    assert [warns in record.getMessage() for record in caplog.records] == [True] * bool(warns)


def test_the_words_of_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Whole, as they were observed."""
    one = batch()
    one.retry_all()
    one.messages[0].ack()
    one.ack_all()
    assert [record.getMessage() for record in caplog.records] == [
        "Received a call to ack() on message a after retryAll() was already called. "
        "Calling ack() on a message after calling retryAll() has no effect.",
        "Received a call to ackAll() after retryAll() was already called. Calling ackAll() after calling retryAll() has no effect.",
    ]


@pytest.mark.parametrize("delay", [-1, "soon", True])
def test_a_delay_that_is_none_is_refused(delay: Any) -> None:
    """And nothing is said by that."""
    one = batch()
    for word in (one.messages[0].retry, one.retry_all):
        with pytest.raises(stepwell.UsageError):
            word(delay=delay)
    assert one.decisions.outcome(None) == Outcome()


class Order(msgspec.Struct):
    """What a consumer's annotation may say."""

    n: int


def test_what_a_message_holds() -> None:
    """Its body by the annotation, a text, or bytes; when it was sent, and how often it was delivered."""
    events = (event("a", b'{"n":5}'), event("b", b'"text"', "text", attempts=3), event("c", b'"/w=="', "bytes"), event("d", b'"x"'))
    one = batch(*events, codec=codec_of(Order))
    json, text, raw, wrong = one.messages
    assert json.body == Order(5) and json.body is json.body
    assert (text.body, text.attempts, raw.body) == ("text", 3, b"\xff")
    assert json.timestamp == datetime.datetime(1970, 1, 1, 0, 0, 1, 500_000, datetime.UTC)
    assert (len(one), one.queue, one.backlog) == (4, "q", Backlog(2, 7, 5))
    assert (repr(one), repr(text)) == ("<batch of 4 messages of q>", "<message b attempt 3>")
    with pytest.raises(stepwell.UsageError):
        wrong.body  # noqa: B018 - it is read as it is asked for
    assert batch.__call__ is not None and MessageBatch("q", (), ANY).backlog == Backlog()


# Handlers.


def report(handler: Handler) -> tuple[Outcome, dict[str, Any]]:
    """What the server is told of a handler's batch."""
    queue = stepwell.App("shop").queue("q")
    consumer = queue.consumer(handler)
    returned = asyncio.run(consumer.start(None, tuple(map(event, "abc"))))  # type: ignore[arg-type]
    outcome = decode_outcome(msgspec.json.encode(returned))
    return outcome, {} if outcome.error is None else msgspec.json.decode(outcome.error)


def test_a_handler_that_throws_keeps_what_it_said() -> None:
    """Plain functions and async ones alike."""

    def plain(batch: stepwell.MessageBatch[int]) -> None:
        batch.messages[0].ack()
        raise ValueError("no")

    async def awaited(batch: stepwell.MessageBatch[int]) -> None:
        plain(batch)

    for handler in (plain, awaited):
        outcome, error = report(handler)
        assert outcome.acks == ("a",) and (error["name"], error["message"]) == ("ValueError", "no")


def test_what_a_handler_returns_is_no_matter() -> None:
    """Returning acks what nothing was said of."""

    async def consumer(batch: stepwell.MessageBatch[int]) -> int:
        batch.messages[1].retry(delay="5s")
        return sum(message.body for message in batch.messages)

    assert report(consumer) == (Outcome(retries={"b": 5000}), {})


def test_a_body_that_does_not_fit_fails_its_batch() -> None:
    """The handler may catch it; else it is its error."""

    async def consumer(batch: stepwell.MessageBatch[Order]) -> None:
        print(batch.messages[0].body)

    outcome, error = report(consumer)
    assert outcome.error is not None and error["name"] == "UsageError"
