"""One job, done in five ways: render a report of a customer's orders, though the renderer fails at first.

Each way keeps its result under the same KV namespace, as `WAY/CUSTOMER`.
"""

from __future__ import annotations

import hashlib
import json

import stepwell

app = stepwell.App("all-ways")
results = app.kv("results")


class Busy(Exception):
    """The renderer takes nothing now."""


class Renderer:
    """It refuses the first try of each report."""

    def __init__(self) -> None:
        self.tried: dict[str, int] = {}

    def render(self, way: str, customer: str) -> dict[str, object]:
        report = f"{way}/{customer}"
        self.tried[report] = self.tried.get(report, 0) + 1
        if self.tried[report] == 1:
            raise Busy("the renderer is busy")
        digest = hashlib.sha256(customer.encode()).hexdigest()
        return {"customer": customer, "pages": 1 + int(digest[:2], 16) % 9, "tries": self.tried[report]}


renderer = Renderer()


async def keep(way: str, customer: str, report: dict[str, object]) -> None:
    await results.put(f"{way}/{customer}", report)


# 1. A durable function: steps that are stored, each with retries of its own.


@app.function(trigger="reports/wanted", retries=5)
async def by_function(ctx: stepwell.Context) -> dict[str, object]:
    customer = ctx.event.data["customer"]
    report = await ctx.step.run("render", renderer.render, "function", customer)
    await ctx.step.run("keep", keep, "function", customer, report)
    return report


# 2. A queue: many small jobs, in batches; what fails comes again by itself.

jobs = app.queue("reports", max_batch_size=10, max_batch_timeout="200ms", max_retries=3, retry_delay="200ms", dead_letter="reports-dead")


@jobs.consumer
async def by_queue(batch: stepwell.MessageBatch[dict[str, str]]) -> None:
    for message in batch.messages:
        try:
            report = renderer.render("queue", message.body["customer"])
        except Busy:
            message.retry()
        else:
            await keep("queue", message.body["customer"], report)
            message.ack()


# 3. An actor with an alarm: one customer's jobs one after the other, with state of its own between them.


@app.actor
class Customer(stepwell.Actor):
    async def want(self) -> int:
        wanted = await self.storage.get("wanted", 0) + 1
        await self.storage.put("wanted", wanted)
        await self.set_alarm("10ms")
        return wanted

    async def alarm(self, info: stepwell.AlarmInfo) -> None:
        if await self.storage.get("wanted", 0):
            await keep("actor", self.name, renderer.render("actor", self.name))
            await self.storage.put("wanted", 0)


# 4. A flag in KV that a schedule looks for: work that is the same however often it is asked for.

flags = app.kv("flags")


@app.cron("* * * * *", id="by-flag", retries=0)
async def by_flag(ctx: stepwell.Context) -> int:
    done = 0
    async for flag in flags.keys("report/"):
        customer = flag.name.removeprefix("report/")
        try:
            await keep("flag", customer, renderer.render("flag", customer))
        except Busy:
            continue  # the flag stays for the next tick
        await flags.delete(flag.name)
        done += 1
    return done


# 5. A table of jobs that a schedule works off: the queue is a table that can be asked anything.

db = app.sql("reports")
TABLE = "CREATE TABLE IF NOT EXISTS jobs (customer TEXT PRIMARY KEY, tries INTEGER NOT NULL DEFAULT 0, report TEXT)"


async def want_by_table(customer: str) -> None:
    await db.exec(TABLE)
    await db.prepare("INSERT INTO jobs (customer) VALUES (?) ON CONFLICT DO NOTHING").bind(customer).run()


@app.cron("* * * * *", id="by-table", retries=0)
async def by_table(ctx: stepwell.Context) -> int:
    await db.exec(TABLE)
    waiting = await db.prepare("SELECT customer FROM jobs WHERE report IS NULL AND tries < 5").all()
    for row in waiting:
        try:
            report = renderer.render("table", row["customer"])
        except Busy:
            await db.prepare("UPDATE jobs SET tries = tries + 1 WHERE customer = ?").bind(row["customer"]).run()
        else:
            done = db.prepare("UPDATE jobs SET tries = tries + 1, report = ? WHERE customer = ?")
            await done.bind(json.dumps(report), row["customer"]).run()
            await keep("table", row["customer"], report)
    return len(waiting)
