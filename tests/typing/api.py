"""The public API as users write it, for a type checker: each `assert_type` is a promise. Never run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, assert_type

import stepwell


@dataclass
class Order:
    """What a step gives."""

    id: str
    total_cents: int


class Receipt(TypedDict):
    """What a function gives."""

    url: str


class OrderPaid(stepwell.Event, name="shop/order.paid"):
    """An event's schema."""

    order_id: str
    total_cents: int = 0


app = stepwell.App("shop")


async def load_order(order_id: str, *, fresh: bool = False) -> Order:
    """An async step."""
    return Order(order_id, 1)


def charge_card(order: Order) -> int:
    """A plain step."""
    return order.total_cents


@app.step
async def reserve(order: Order) -> bool:
    """A step by decorator."""
    return bool(order.id)


@app.step(retries=2, timeout="30s", id="ship-it")
async def ship(order: Order, days: int = 1) -> str:
    """A step by decorator, with options."""
    return f"{order.id} in {days}"


@app.function(trigger=OrderPaid)
async def fulfil_order(ctx: stepwell.Context[OrderPaid]) -> Receipt:
    """A function with a typed event."""
    assert_type(ctx.event.data, OrderPaid)
    assert_type(ctx.event.data.order_id, str)
    assert_type(ctx.events, list[stepwell.ReceivedEvent[OrderPaid]])
    assert_type(ctx.event.at, datetime)
    order = await ctx.step.run("load", load_order, ctx.event.data.order_id, fresh=True)
    assert_type(order, Order)
    charged, reserved = await asyncio.gather(ctx.step.run("charge", charge_card, order), reserve(order))
    assert_type(charged, int)
    assert_type(reserved, bool)
    assert_type(await ship(order, days=2), str)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ctx.step.options(timeout="5s", retries=1).run("again", charge_card, order))
    assert_type(task.result(), int)
    assert_type(await ctx.step.run("lambda", lambda: 1.5), float)
    await ctx.step.sleep("nap", timedelta(minutes=1))
    await ctx.step.sleep_until("morning", datetime(2030, 1, 1, tzinfo=UTC))
    assert_type(await ctx.step.send_event("tell", OrderPaid(order_id="o"), {"name": "shop/told", "data": {}}), list[str])
    ctx.log.info("done")
    assert_type((ctx.run_id, ctx.function_id, ctx.attempt, ctx.max_attempts, ctx.is_replay), tuple[str, str, int, int, bool])
    return {"url": "https://example.com"}


assert_type(fulfil_order, stepwell.Function[Receipt])


@app.function(trigger=[stepwell.on("shop/*", where="event.data.total_cents > 10000"), stepwell.cron("0 8 * * MON-FRI", tz="Europe/Berlin")])
def plain(ctx: stepwell.SyncContext) -> int:
    """A plain function: its steps block."""
    assert_type(ctx.event.data, Any)
    order = ctx.step.run("load", load_order, "o-1")
    assert_type(order, Order)
    assert_type(ctx.step.run("charge", charge_card, order), int)
    ctx.step.sleep("nap", "1h30m")
    return 1


@app.function(
    trigger=["shop/a", "shop/b"],
    id="many-options",
    name="Many options",
    retries=2,
    concurrency=[stepwell.Concurrency(1, key="event.data.tenant"), stepwell.Concurrency(5, per="run")],
    throttle=stepwell.Throttle(10, per="1m", burst=2, key="event.data.tenant"),
    rate_limit=stepwell.RateLimit(10, per=timedelta(hours=1)),
    debounce=stepwell.Debounce("5s", timeout="1m"),
    singleton=stepwell.Singleton("skip"),
    timeouts=stepwell.Timeouts(start="1h", finish="1d"),
    cancel_on=[stepwell.cancel("shop/order.refunded", where="async.data.order_id == event.data.order_id", timeout="1d")],
    idempotency="event.data.order_id",
    priority="event.data.plan == 'pro' ? 120 : 0",
)
async def many_options(ctx: stepwell.Context) -> None:
    """All options."""
    try:
        await ctx.step.run("x", load_order, "o")
    except stepwell.StepError as error:
        assert_type((error.name, error.message, error.stack, error.step_id), tuple[str, str, str | None, str])
        raise stepwell.RetryAfterError("later", after="2m") from error


@app.step(effect=True)
async def mail(order: Order) -> None:
    """A step whose effect is not to be repeated lightly."""


async def undo(ctx: stepwell.FailureContext[OrderPaid]) -> None:
    """A failure function."""
    assert_type(ctx.event.data, OrderPaid)
    assert_type((ctx.failed_run_id, ctx.error), tuple[str, stepwell.StepError])
    await ctx.step.run("undo", load_order, ctx.event.data.order_id)


@app.function(on_failure=undo)
async def waits(ctx: stepwell.Context[OrderPaid]) -> Order:
    """What the server does as a step."""
    event = await ctx.step.wait_for_event("paid?", OrderPaid, timeout="1d", where="async.data.order_id == event.data.order_id")
    assert_type(event, stepwell.ReceivedEvent[OrderPaid] | None)
    if event is not None:
        assert_type(event.data.total_cents, int)
    assert_type(await ctx.step.wait_for_event("any", "shop/any", timeout=timedelta(days=1)), stepwell.ReceivedEvent[Any] | None)
    assert_type(await ctx.step.wait_for_signal("ok?", "go", timeout="1h", on_conflict="replace"), stepwell.Signal[Any] | None)
    assert_type(await ctx.step.send_signal("tell", "go", {"by": "Ada"}), str | None)
    assert_type(await ctx.step.invoke("receipt", fulfil_order, OrderPaid(order_id="o"), timeout="5m"), Receipt)
    assert_type(await ctx.step.invoke("plain", plain), int)
    assert_type(await ctx.step.invoke("other", "other-app-function", {"n": 1}), Any)
    response = await ctx.step.fetch("ask", "https://x.test", method="POST", headers={"a": "b"}, json={"n": 1})
    assert_type((response.status, response.text, response.ok, response.headers), tuple[int, str, bool, dict[str, str]])
    await ctx.step.ai.infer("say", stepwell.ai.openai("gpt-4o", auth_key="k"), {"messages": []}, publish="tokens")
    await ctx.step.publish("state", {"at": 1}, channel="all")
    await mail(Order("o", 1))
    first, second = await asyncio.gather(ctx.step.invoke("a", plain), ctx.step.wait_for_event("b", OrderPaid, timeout="1h"))
    assert_type(first, int)
    assert_type(second, stepwell.ReceivedEvent[OrderPaid] | None)
    return Order("o", 1)


def blocking_undo(ctx: stepwell.SyncFailureContext[OrderPaid]) -> None:
    """A plain failure function."""
    assert_type(ctx.event.data, OrderPaid)
    ctx.step.run("undo", load_order, ctx.event.data.order_id)


@app.cron("*/5 * * * *", tz="Europe/Berlin", jitter="10s", catchup="last", retries=0, on_failure=blocking_undo)
def sweep(ctx: stepwell.SyncContext[OrderPaid]) -> None:
    """The same, blocking, on a schedule."""
    event = ctx.step.wait_for_event("paid?", OrderPaid, timeout="1d")
    assert_type(event, stepwell.ReceivedEvent[OrderPaid] | None)
    assert_type(ctx.step.invoke("receipt", fulfil_order, {"order_id": "o"}), Receipt)
    assert_type(ctx.step.fetch("ask", "https://x.test"), stepwell.FetchResponse)
    assert_type(ctx.step.wait_for_signal("ok?", "go", timeout="1h"), stepwell.Signal[Any] | None)
    assert_type(ctx.step.send_signal("tell", "go"), str | None)
    ctx.step.publish("state", 1)
    ctx.step.options(effect=True).run("pay", charge_card, Order("o", 1))


async def starts() -> None:
    """Handles."""
    run = await app.start(fulfil_order, OrderPaid(order_id="o"), id="o")
    assert_type(run, stepwell.RunHandle[Receipt])
    assert_type((run.id, await run.status(), await run.output(timeout="5m")), tuple[str, str, Receipt])
    assert_type(await run.events(), list[stepwell.ReceivedEvent[Any]])
    await run.cancel()
    assert_type(await (await app.start("shop-plain", {})).output(), Any)
    assert_type(app.start_sync(plain).output(), int)


async def sends() -> None:
    """Every form of sending."""
    assert_type(await app.send("shop/order.paid", {"order_id": "o-1"}, id="o-1"), list[str])
    assert_type(await app.send(OrderPaid(order_id="o-1"), at=datetime.now(UTC)), list[str])
    await app.send(OrderPaid(order_id="o-1"), after="1h")
    await app.send([OrderPaid(order_id="o-1"), OrderPaid(order_id="o-2")])
    await app.send([{"name": "shop/a", "data": {}}])
    assert_type(app.send_sync("shop/a"), list[str])


async def stores() -> None:
    """Databases."""
    db = app.sql("jobs")
    assert_type(db, stepwell.sql.Database)
    statement = db.prepare("SELECT * FROM jobs WHERE id = ?").bind(1, 1.5, "x", b"x", None, True)
    assert_type(statement, stepwell.sql.Statement)
    rows = await statement.all()
    assert_type((rows, await statement.run()), tuple[stepwell.sql.Result, stepwell.sql.Result])
    assert_type([row for row in rows], list[dict[str, Any]])  # noqa: C416
    assert_type((rows.results, rows.meta.changes, len(rows), rows[0]), tuple[list[dict[str, Any]], int, int, dict[str, Any]])
    assert_type(await statement.first(), dict[str, Any] | None)
    assert_type(await statement.first("id"), Any)
    assert_type(await statement.raw(column_names=True), list[list[Any]])
    assert_type(await db.batch([statement, statement]), list[stepwell.sql.Result])
    assert_type((await db.exec("SELECT 1")).count, int)
    assert_type((statement.all_sync(), statement.first_sync()), tuple[stepwell.sql.Result, dict[str, Any] | None])
    db.prepare(1)  # type: ignore[arg-type]
    statement.bind([1])  # type: ignore[arg-type]
    await db.batch(["SELECT 1"])  # type: ignore[list-item]


async def works() -> None:
    """A worker in this process."""
    async with stepwell.connect(app, url="https://jobs.example", max_concurrency=5) as worker:
        assert_type(worker.instance_id, str)
    await stepwell.connect(app, app).run()


jobs = app.queue(
    "jobs", max_batch_size=20, max_batch_timeout="1s", max_retries=5, retry_delay=timedelta(seconds=5), dead_letter="jobs-dead"
)
letters = app.queue("jobs-dead", max_concurrency=1, retention="7d", delivery_delay="10s")
assert_type(jobs, stepwell.Queue)


@jobs.consumer
async def work(batch: stepwell.MessageBatch[Order]) -> None:
    """A consumer with typed bodies."""
    assert_type((batch.queue, len(batch), batch.backlog.messages), tuple[str, int, int])
    for message in batch.messages:
        assert_type(message, stepwell.Message[Order])
        assert_type(message.body, Order)
        assert_type((message.id, message.timestamp, message.attempts), tuple[str, datetime, int])
        if message.body.total_cents > 100:
            message.retry(delay="1m")
        else:
            message.ack()
    batch.retry_all(delay=timedelta(minutes=1))
    batch.ack_all()


@letters.consumer(id="bury", name="Bury them")
def bury(batch: stepwell.MessageBatch) -> None:
    """A plain one, whose bodies are whatever was sent."""
    for message in batch.messages:
        assert_type(message.body, Any)


assert_type(app.queue("other", dead_letter=letters), stepwell.Queue)


@app.function(trigger=app.queue("paid"), concurrency=2)
async def on_paid(ctx: stepwell.Context[Order]) -> str:
    """A function that a queue triggers."""
    assert_type(ctx.event.data, Order)
    assert_type(ctx.event.data.total_cents, int)
    return ctx.event.data.id


assert_type(on_paid, stepwell.Function[str])


@app.function(trigger=["shop/paid", app.queue("also-paid")])
def on_either(ctx: stepwell.SyncContext) -> None:
    """A queue among other triggers."""


async def queues() -> None:
    """Every form of sending to one."""
    assert_type(await jobs.send(Order("o", 1)), str)
    assert_type(await jobs.send("a text", delay="10s", content_type="text"), str)
    batch = [Order("o", 1), stepwell.message({"any": 1}, delay=timedelta(seconds=1)), stepwell.message(b"bytes", content_type="bytes")]
    assert_type(await jobs.send_batch(batch, delay="5s"), list[str])
    assert_type(jobs.send_sync({"n": 1}), str)
    assert_type(jobs.send_batch_sync([1, 2, 3]), list[str])


async def wrong_queues(batch: stepwell.MessageBatch[Order]) -> None:
    """What a type checker must refuse of queues."""
    await jobs.send(1, delay=30)  # type: ignore[arg-type]
    await jobs.send("x", content_type="xml")  # type: ignore[arg-type]
    app.queue("jobs", max_batch_timeout=5)  # type: ignore[arg-type]
    app.queue("jobs", dead_letter=3)  # type: ignore[arg-type]
    batch.messages[0].body.nothing  # type: ignore[attr-defined] # noqa: B018
    batch.messages[0].retry(delay=5)  # type: ignore[arg-type]


@app.actor
class Tenant(stepwell.Actor):
    """An actor with every kind of method."""

    async def enqueue(self, order: Order, *, soon: bool = False) -> int:
        """Every form of reading and writing."""
        assert_type(await self.storage.get("n", 0), int)
        assert_type(await self.storage.get("order", type=Order), Order | None)
        assert_type(await self.storage.get(["a", "b"], type=Order), dict[str, Order])
        assert_type(await self.storage.list(prefix="o/", type=Order), dict[str, Order])
        assert_type(await self.storage.delete("a"), bool)
        assert_type(await self.storage.delete(["a", "b"]), int)
        await self.storage.put({"a": 1, "b": order})
        await self.set_alarm("100ms")
        await self.set_alarm(timedelta(seconds=1))
        await self.set_alarm(datetime.now())
        assert_type(await self.get_alarm(), datetime | None)
        return 1

    async def alarm(self, info: stepwell.AlarmInfo) -> None:
        """What it is told."""
        assert_type(info.scheduled_time, datetime)
        assert_type(info.is_retry, bool)


@app.actor(id="rooms")
class Room(stepwell.Actor, gates=True):
    """One with gates."""

    async def open(self) -> str:
        """A block."""

        async def work() -> str:
            return "open"

        return await self.block_concurrency_while(work)


async def actors(ctx: stepwell.Context[OrderPaid]) -> None:
    """Stubs are typed as their class."""
    assert_type(await Tenant["acme"].enqueue(Order("o", 1), soon=True), int)
    assert_type(await Room["r"].open(), str)
    assert_type(await ctx.step.run("enqueue", Tenant["acme"].enqueue, Order("o", 1)), int)
    await Tenant["acme"].enqueue("o")  # type: ignore[arg-type]
    await Tenant["acme"].nothing()  # type: ignore[attr-defined]
    Tenant[3]  # type: ignore[index]


async def wrong(ctx: stepwell.Context[OrderPaid]) -> None:
    """What a type checker must refuse; `warn_unused_ignores` makes sure that it does."""
    await ctx.step.run("load", load_order, 1)  # type: ignore[call-overload]
    await ctx.step.run("load", load_order)  # type: ignore[call-overload]
    await ship("o-1")  # type: ignore[arg-type]
    await ctx.step.sleep("nap", 30)  # type: ignore[arg-type]
    await ctx.step.wait_for_event("w", OrderPaid)  # type: ignore[call-overload]
    await ctx.step.wait_for_event("w", Order, timeout="1h")  # type: ignore[type-var]
    await ctx.step.wait_for_signal("w", "go", timeout="1h", on_conflict="wait")  # type: ignore[arg-type]
    await ctx.step.invoke("w", load_order)  # type: ignore[call-overload]
    OrderPaid()  # type: ignore[call-arg]
    stepwell.Concurrency(1, scope="world")  # type: ignore[arg-type]
    ctx.event.data.nothing  # type: ignore[attr-defined] # noqa: B018
