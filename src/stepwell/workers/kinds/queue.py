"""Batches: a consumer of the server for each queue that the project takes messages of."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from stepwell.protocol.queues import Outcome
from stepwell.sdk import batch as sdk
from stepwell.sdk.app import App
from stepwell.sdk.queues import Consumer, Queue
from stepwell.workers import config
from stepwell.workers.batch import Delivered, MessageBatch
from stepwell.workers.bindings.calling import paid
from stepwell.workers.entrypoints import Worker


def declare(app: App, worker: Worker, consumers: tuple[config.Consumer, ...]) -> None:
    """Declare all that are delivered to; a queue that is pulled over HTTP has none."""
    for told in consumers:
        if not told.is_pulled:
            app.add(WorkerConsumer(app, worker, queue_of(app, told)))


def queue_of(app: App, told: config.Consumer) -> Queue:
    """The queue with its consumer's settings. A batch of no messages is one of one."""
    return app.queue(
        told.queue,
        max_batch_size=None if told.max_batch_size is None else max(1, told.max_batch_size),
        max_batch_timeout=_seconds(told.max_batch_timeout_s),
        max_retries=told.max_retries,
        retry_delay=_seconds(told.retry_delay_s),
        max_concurrency=told.max_concurrency,
        dead_letter=told.dead_letter_queue,
    )


def _seconds(count: int | None) -> timedelta | None:
    return None if count is None else timedelta(seconds=count)


class WorkerConsumer(Consumer):
    """A consumer whose batches go to the Worker's `queue`."""

    def __init__(self, app: App, worker: Worker, queue: Queue) -> None:
        super().__init__(app, worker.call_queue, queue, id=queue.name, name=f"queue {queue.name}")
        self._worker = worker

    async def handle(self, batch: sdk.MessageBatch[Any]) -> Outcome:
        """What the handler says of the batch, when all that it left to `waitUntil` is done."""
        outcome = await self._worker.call_queue(given(batch))
        await paid()
        return outcome


def given(batch: sdk.MessageBatch[Any]) -> MessageBatch:
    """A batch as the handler gets it."""
    delivered = [
        Delivered(id=one.id, timestamp_ms=round(one.timestamp.timestamp() * 1000), body=one.body, attempts=one.attempts)
        for one in batch.messages
    ]
    metrics = {"backlogCount": batch.backlog.messages, "backlogBytes": batch.backlog.bytes}
    if batch.backlog.oldest_ms is not None:
        metrics["oldestMessageTimestamp"] = batch.backlog.oldest_ms
    return MessageBatch(batch.queue, delivered, metrics)
