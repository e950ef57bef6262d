"""The consumer that is measured in child processes: it acks its batches of a hundred."""

from __future__ import annotations

from typing import Any

import stepwell

app = stepwell.App("bench")
jobs = app.queue("jobs", max_batch_size=100, max_batch_timeout="0s")


@jobs.consumer
async def consume(batch: stepwell.MessageBatch[dict[str, Any]]) -> None:
    for message in batch.messages:
        assert message.body["tenant"]
