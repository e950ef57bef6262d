"""An app of queues, for each way that an app may be reached. `python queues_app.py PORT` serves it over HTTP.

Its consumers note what they got in the file `NOTES` of their environment.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stepwell

app = stepwell.App("queues")
PATH = "/api/stepwell"


@dataclass
class Job:
    """What travels in `jobs`."""

    n: int
    tenant: str = "nobody"


@dataclass
class Order:
    """What travels in `orders`."""

    item: str


jobs = app.queue("jobs", max_batch_size=3, max_batch_timeout="200ms", max_retries=1, dead_letter="jobs-dead")
plain = app.queue("plain", max_batch_size=1)
orders = app.queue("orders")


def note(**what: Any) -> None:
    """Write it down for the test."""
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(json.dumps(what) + "\n")


@jobs.consumer
async def work(batch: stepwell.MessageBatch[Job]) -> None:
    for message in batch.messages:
        assert isinstance(message.body, Job)
        note(n=message.body.n, id=message.id, attempts=message.attempts, of=len(batch), queue=batch.queue)
        if message.body.tenant == "broken" and not Path(os.environ["NOTES"] + ".mended").exists():
            raise ValueError(f"tenant of {message.body.n} is broken")
        if message.body.tenant == "busy" and message.attempts == 1:
            message.retry(delay="100ms")
        else:
            message.ack()


@plain.consumer
def take(batch: stepwell.MessageBatch) -> None:
    (message,) = batch.messages
    note(plain=message.body if isinstance(message.body, str) else list(message.body))


@app.function(trigger=orders)
async def fulfil(ctx: stepwell.Context[Order]) -> str:
    assert isinstance(ctx.event.data, Order)
    return await ctx.step.run("pack", str.upper, ctx.event.data.item)


if __name__ == "__main__":
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount

    uvicorn.run(Starlette(routes=[Mount(PATH, stepwell.serve(app))]), port=int(sys.argv[1]), log_level="error", lifespan="off")
