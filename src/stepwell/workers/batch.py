"""A batch of messages as a `queue` handler gets it, under Cloudflare's names.

Which call counts, where several are made, is the same for consumers of our own (`sdk/batch.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from stepwell.protocol.queues import DELAY_MS_MAX
from stepwell.sdk.batch import Decisions, warn
from stepwell.workers.rpc import Record, python_from_rpc

DELAY_MIN, DELAY_MAX = -(2**31), 2**31 - 1


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it is delivered; its body is a value already."""

    id: str
    timestamp_ms: int
    body: Any
    attempts: int


class Message:
    """A message of a batch."""

    def __init__(self, told: Delivered, decisions: Decisions) -> None:
        self.id, self.attempts = told.id, told.attempts
        self.timestamp = datetime.fromtimestamp(told.timestamp_ms / 1000)
        self.body = python_from_rpc(told.body)
        self._decisions = decisions

    def ack(self) -> None:
        """The message is done, whatever becomes of the others."""
        warn(self._decisions.ack(self.id))

    def retry(self, options: Any = None, *, delaySeconds: Any = None) -> None:
        """The message is to come again, after so many seconds."""
        warn(self._decisions.retry(self.id, _delay_ms(options, delaySeconds)))

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
        warn(self.decisions.ack_all())

    def retryAll(self, options: Any = None, *, delaySeconds: Any = None) -> None:
        """All messages are to come again, but for those that are done."""
        warn(self.decisions.retry_all(_delay_ms(options, delaySeconds)))

    def __repr__(self) -> str:
        return f"<batch of {len(self.messages)} from {self.queue}>"


def _delay_ms(options: Any, given: Any) -> int | None:
    """Whole seconds, as JavaScript makes a number of what is given. The platform takes those out of bounds without a word."""
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
    return min(max(int(seconds), 0) * 1000, DELAY_MS_MAX)
