"""What became of the messages that this node has delivered since it started, by their queue."""

from __future__ import annotations

import msgspec

from stepwell.runtime.deliveries import BatchEnded


class Totals(msgspec.Struct):
    """Of one queue: batches, and messages of them. Those of lost batches come again, and count when they are settled."""

    batches: int = 0
    acked: int = 0
    retried: int = 0
    dead: int = 0
    dropped: int = 0


class QueueTotals:
    """The totals of every queue with a consumer."""

    def __init__(self) -> None:
        self.by_queue: dict[str, Totals] = {}

    def add(self, ended: BatchEnded) -> None:
        """Count a batch."""
        totals = self.by_queue.setdefault(ended.queue, Totals())
        totals.batches += 1
        totals.acked += ended.settled.acked
        totals.retried += ended.settled.retried
        totals.dead += len(ended.settled.dead)
        totals.dropped += len(ended.settled.dropped)
