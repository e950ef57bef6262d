"""A batch of messages as a `queue` handler gets it, and the report of what the handler decided.

Which call counts, where several are made, is Cloudflare's rule: `ack()` and `retry()` of one message, `ackAll()` and `retryAll()` of the
batch: the first of the two holds, and a call of the other kind does nothing but warn. Of several calls of the same kind the last one says
the delay, but that a plain `retryAll()` leaves an earlier delay as it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from stepwell.workers.rpc import Record, python_from_rpc

log = logging.getLogger("stepwell.workers")
DELAY_MIN, DELAY_MAX = -(2**31), 2**31 - 1


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it is delivered; its body is a value already."""

    id: str
    timestamp_ms: int
    body: Any
    attempts: int


class Decisions:
    """What a handler has decided so far."""

    def __init__(self) -> None:
        self.acks_all = self.retries_all = False
        self.retry_all_delay: int | None = None
        self.acked: dict[str, None] = {}
        self.retried: dict[str, int | None] = {}

    def ack(self, id: str) -> None:
        """One message is done."""
        if self.acks_all:
            return
        if self.retries_all:
            _warn(f"ack() on message {id}", "retryAll()", "ack() on a message")
        elif id in self.retried:
            _warn(f"ack() on message {id}", "retry()", "ack() on a message")
        else:
            self.acked[id] = None

    def retry(self, id: str, delay: int | None) -> None:
        """One message is to come again."""
        if self.acks_all:
            _warn(f"retry() on message {id}", "ackAll()", "retry() on a message")
        elif id in self.acked:
            _warn(f"retry() on message {id}", "ack()", "retry() on a message")
        else:
            self.retried[id] = delay

    def ack_all(self) -> None:
        """All messages without a word of their own are done."""
        if self.retries_all:
            _warn("ackAll()", "retryAll()", "ackAll()")
        else:
            self.acks_all = True

    def retry_all(self, delay: int | None) -> None:
        """All messages without a word of their own are to come again."""
        if self.acks_all:
            _warn("retryAll()", "ackAll()", "retryAll()")
            return
        self.retries_all = True
        if delay is not None:
            self.retry_all_delay = delay

    def report(self, outcome: str) -> dict[str, Any]:
        """What the server settles the batch by."""
        again: dict[str, Any] = {"retry": self.retries_all}
        if self.retry_all_delay is not None:
            again["delaySeconds"] = self.retry_all_delay
        return {
            "outcome": outcome,
            "ackAll": self.acks_all,
            "retryBatch": again,
            "explicitAcks": list(self.acked),
            "retryMessages": [
                {"msgId": id} if delay is None else {"msgId": id, "delaySeconds": delay} for id, delay in self.retried.items()
            ],
        }


def _warn(call: str, before: str, then: str) -> None:
    log.warning("Received a call to %s after %s was already called. Calling %s after calling %s has no effect.", call, before, then, before)


class Message:
    """A message of a batch."""

    def __init__(self, told: Delivered, decisions: Decisions) -> None:
        self.id, self.attempts = told.id, told.attempts
        self.timestamp = datetime.fromtimestamp(told.timestamp_ms / 1000)
        self.body = python_from_rpc(told.body)
        self._decisions = decisions

    def ack(self) -> None:
        """The message is done, whatever becomes of the others."""
        self._decisions.ack(self.id)

    def retry(self, options: Any = None, *, delaySeconds: Any = None) -> None:
        """The message is to come again, after so many seconds."""
        self._decisions.retry(self.id, _delay(options, delaySeconds))

    def __repr__(self) -> str:
        return f"<message {self.id}, attempt {self.attempts}>"


class MessageBatch:
    """What a `queue` handler gets."""

    def __init__(self, queue: str, messages: Sequence[Delivered], metrics: dict[str, Any] | None = None) -> None:
        self.queue = queue
        self.decisions = Decisions()
        self.messages = [Message(told, self.decisions) for told in messages]
        self.metadata = Record(metrics=python_from_rpc(metrics or {}))

    def ackAll(self) -> None:
        """All messages are done, but for those that were told to come again."""
        self.decisions.ack_all()

    def retryAll(self, options: Any = None, *, delaySeconds: Any = None) -> None:
        """All messages are to come again, but for those that are done."""
        self.decisions.retry_all(_delay(options, delaySeconds))

    def __repr__(self) -> str:
        return f"<batch of {len(self.messages)} from {self.queue}>"


def _delay(options: Any, given: Any) -> int | None:
    """Whole seconds, as JavaScript makes a number of what is given; out of bounds is the server's to judge."""
    if isinstance(options, dict):
        given = options.get("delaySeconds", given)
    elif options is not None:
        raise TypeError(f"retry({options!r}): write retry(delaySeconds={options!r})")
    if given is None:
        return None
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        raise TypeError(f"delaySeconds is {given!r}; it must be a number of seconds") from None
    if math.isnan(seconds):
        return 0
    if not DELAY_MIN <= seconds <= DELAY_MAX:
        raise TypeError(f"Value out of range. Must be between {DELAY_MIN} and {DELAY_MAX} (inclusive).")
    return int(seconds)
