"""Which decision of a `queue` handler counts: the table of what Cloudflare's runtime was seen to report, with its warnings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from stepwell.protocol.queues import Outcome
from stepwell.workers.batch import Delivered, MessageBatch


def batch() -> MessageBatch:
    return MessageBatch("q", [Delivered(id=id, timestamp_ms=0, body={"name": id}, attempts=1) for id in "abc"])


def nothing_more(then: str, before: str, message: str = "") -> str:
    of = f" on message {message}" if message else ""
    then_of = f"{then} on a message" if message else then
    return f"Received a call to {then}{of} after {before} was already called. Calling {then_of} after calling {before} has no effect."


ALL_AGAIN = Outcome(retry_all=True)


def after(seconds: int) -> Outcome:
    return Outcome(retry_all=True, retry_all_delay_ms=seconds * 1000)


Do = Callable[[MessageBatch, Any, Any], object]
CASES: list[tuple[str, Do, Outcome, str | None]] = [
    ("nothing", lambda batch, a, b: None, Outcome(), None),
    ("ack and retry", lambda batch, a, b: (a.ack(), b.retry()), Outcome(acks=("a",), retries={"b": None}), None),
    ("ack twice", lambda batch, a, b: (a.ack(), a.ack()), Outcome(acks=("a",)), None),
    ("ack, retry", lambda batch, a, b: (a.ack(), a.retry()), Outcome(acks=("a",)), nothing_more("retry()", "ack()", "a")),
    ("retry, ack", lambda batch, a, b: (a.retry(), a.ack()), Outcome(retries={"a": None}), nothing_more("ack()", "retry()", "a")),
    ("ackAll", lambda batch, a, b: batch.ackAll(), Outcome(ack_all=True), None),
    ("ackAll, b.retry", lambda batch, a, b: (batch.ackAll(), b.retry()), Outcome(ack_all=True), nothing_more("retry()", "ackAll()", "b")),
    ("ackAll, b.ack", lambda batch, a, b: (batch.ackAll(), b.ack()), Outcome(ack_all=True, acks=("b",)), None),
    ("b.retry, ackAll", lambda batch, a, b: (b.retry(), batch.ackAll()), Outcome(ack_all=True, retries={"b": None}), None),
    ("a.ack, retryAll", lambda batch, a, b: (a.ack(), batch.retryAll()), Outcome(acks=("a",), retry_all=True), None),
    ("retryAll, a.ack", lambda batch, a, b: (batch.retryAll(), a.ack()), ALL_AGAIN, nothing_more("ack()", "retryAll()", "a")),
    ("retryAll, ackAll", lambda batch, a, b: (batch.retryAll(), batch.ackAll()), ALL_AGAIN, nothing_more("ackAll()", "retryAll()")),
    (
        "ackAll, retryAll",
        lambda batch, a, b: (batch.ackAll(), batch.retryAll()),
        Outcome(ack_all=True),
        nothing_more("retryAll()", "ackAll()"),
    ),
    ("retryAll 4, 2", lambda batch, a, b: (batch.retryAll(delaySeconds=4), batch.retryAll(delaySeconds=2)), after(2), None),
    ("retryAll 2, 4", lambda batch, a, b: (batch.retryAll(delaySeconds=2), batch.retryAll(delaySeconds=4)), after(4), None),
    ("retryAll 2, plain", lambda batch, a, b: (batch.retryAll(delaySeconds=2), batch.retryAll()), after(2), None),
    ("retryAll 0", lambda batch, a, b: batch.retryAll({"delaySeconds": 0}), after(0), None),
    (
        "retry 4, 2",
        lambda batch, a, b: (a.retry(delaySeconds=4), a.retry(delaySeconds=2)),
        Outcome(retries={"a": 2000}),
        None,
    ),
    ("retry 2, plain", lambda batch, a, b: (a.retry(delaySeconds=2), a.retry()), Outcome(retries={"a": None}), None),
    (
        "all kinds",
        lambda batch, a, b: (a.retry({"delaySeconds": 3}), b.retry(), batch.retryAll(delaySeconds=1)),
        Outcome(retries={"a": 3000, "b": None}, retry_all=True, retry_all_delay_ms=1000),
        None,
    ),
]


@pytest.mark.parametrize(("do", "expected", "warning"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_precedence(do: Do, expected: Outcome, warning: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """What is told of the batch, and the warning of a call that has no effect."""
    made = batch()
    do(made, made.messages[0], made.messages[1])
    assert made.decisions.outcome(None) == expected
    assert [record.getMessage() for record in caplog.records] == ([] if warning is None else [warning])


@pytest.mark.parametrize(("given", "seconds"), [(-1, 0), (86401, 86400), (1.5, 1), ("5", 5), (float("nan"), 0), (True, 1)])
def test_delays_are_taken_as_numbers(given: Any, seconds: int) -> None:
    """Those out of bounds as the bound, for the platform takes them without a word."""
    made = batch()
    made.messages[0].retry(delaySeconds=given)
    assert made.decisions.outcome(None).retries == {"a": seconds * 1000}


def test_delays_that_are_none() -> None:
    """No number, or one that no number of seconds holds."""
    message = batch().messages[0]
    with pytest.raises(TypeError, match=r"Value out of range. Must be between -2147483648 and 2147483647 \(inclusive\)\."):
        message.retry(delaySeconds=1e12)
    with pytest.raises(TypeError, match="delaySeconds is 'soon'; it must be a number of seconds"):
        message.retry(delaySeconds="soon")
    with pytest.raises(TypeError, match=r"retry\(5\): write retry\(delaySeconds=5\)"):
        message.retry(5)


def test_what_a_batch_shows() -> None:
    """Its queue, its messages with bodies that have attributes, times in the local zone, the backlog."""
    made = MessageBatch("q", [Delivered(id="a", timestamp_ms=1_000, body={"n": [1]}, attempts=2)], {"backlogCount": 3, "backlogBytes": 40})
    (message,) = made.messages
    assert (made.queue, message.id, message.attempts, message.body.n, message.timestamp) == ("q", "a", 2, [1], datetime.fromtimestamp(1))
    assert made.metadata.metrics.backlogCount == 3 and not hasattr(made.metadata.metrics, "oldestMessageTimestamp")
    assert (repr(made), repr(message)) == ("<batch of 1 from q>", "<message a, attempt 2>")
