"""An app of queues for the page's tests: some of its messages cannot be consumed."""

import stepwell

app = stepwell.App("queues")
jobs = app.queue("jobs", max_batch_timeout="50ms", max_batch_size=1, max_retries=1, dead_letter="jobs-dead")
orders = app.queue("orders")


@jobs.consumer
async def work(batch: stepwell.MessageBatch) -> None:
    for message in batch.messages:
        if message.body["tenant"] != "acme":
            raise LookupError(f"there is no tenant {message.body['tenant']}")


@app.function(trigger=orders)
async def fulfil(ctx: stepwell.Context) -> None: ...
