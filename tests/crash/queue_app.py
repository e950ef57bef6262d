"""Consumers that note each message they are given, and what they say of it, for tests that kill the server and its children.

A number that 5 divides is asked for once more in its first delivery; the line is written before anything is said of the message.
"""

from __future__ import annotations

import os
import time
from typing import Any

import stepwell

app = stepwell.App("killed")
jobs = app.queue("jobs", max_batch_size=4, max_batch_timeout="100ms", max_retries=100, retry_delay="50ms", dead_letter="dead")
wild = app.queue("wild", max_batch_size=3, max_batch_timeout="50ms", max_retries=100, max_concurrency=2, dead_letter="dead")
noted = os.open(os.environ["NOTES_FILE"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)


def note(batch: stepwell.MessageBatch[dict[str, Any]], message: Any) -> None:
    os.write(noted, b"%s %d %d\n" % (batch.queue.encode(), message.body["n"], os.getpid()))


@jobs.consumer
def work(batch: stepwell.MessageBatch[dict[str, Any]]) -> None:
    for message in batch.messages:
        note(batch, message)
        time.sleep(0.002)
        if message.body["n"] % 5 == 0 and message.attempts == 1:
            message.retry()
        else:
            message.ack()
    if any(message.body["n"] % 7 == 0 and message.attempts == 1 for message in batch.messages):
        raise RuntimeError("thrown: what was acked is acked all the same")


@wild.consumer
async def roam(batch: stepwell.MessageBatch[dict[str, Any]]) -> None:
    for message in batch.messages:
        note(batch, message)
