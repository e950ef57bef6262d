"""Each step tool through the whole engine: `app.engine()` on a database file, with a real clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import stepwell
from stepwell.protocol.codec import decode
from stepwell.protocol.realtime import Topic
from stepwell.sdk.threads import THREADS_MAX
from tests.support.http_peer import answering

TIMEOUT_S = 30


class Paid(stepwell.Event, name="shop/paid"):
    """An event's schema."""

    order_id: str
    cents: int = 0


@dataclass
class Receipt:
    """What a function gives."""

    url: str
    at: datetime


@pytest.fixture
def run(tmp_path: Path) -> Callable[[stepwell.App, Callable[[Any], Awaitable[None]]], None]:
    """Run a test with an engine of the app."""

    def runs(app: stepwell.App, test: Callable[[Any], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(TIMEOUT_S), app.engine(db=tmp_path / "t.db", retry_interval="10ms") as engine:
                await test(engine)

        asyncio.run(main())

    return runs


async def waiting(engine: Any, run: stepwell.RunHandle[Any]) -> None:
    """Returns when the run waits."""
    async for _ in ticks():
        if await run.status() == "waiting":
            return


async def ticks() -> AsyncIterator[None]:
    """Looks, until the test's time is over."""
    while True:
        yield
        await asyncio.sleep(0.005)


Runs = Callable[[stepwell.App, Callable[[Any], Awaitable[None]]], None]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_wait_for_an_event(run: Runs, kind: str) -> None:
    """The event that fits ends it, typed; another order's does not."""
    app = stepwell.App("shop")
    where = "async.data.order_id == event.data.order_id"
    if kind == "async":

        @app.function(id="work")
        async def work(ctx: stepwell.Context[Paid]) -> int:
            event = await ctx.step.wait_for_event("paid?", Paid, timeout="1h", where=where)
            return -1 if event is None else event.data.cents
    else:

        @app.function(id="work")
        def work(ctx: stepwell.SyncContext[Paid]) -> int:
            event = ctx.step.wait_for_event("paid?", Paid, timeout="1h", where=where)
            return -1 if event is None else event.data.cents

    async def test(engine: Any) -> None:
        handle = await app.start(work, {"order_id": "o-1"})
        await waiting(engine, handle)
        await app.send([Paid(order_id="o-2", cents=1), Paid(order_id="o-1", cents=2)])
        assert await handle.output("10s") == 2

    run(app, test)


def test_plain_functions_that_wait_hold_no_threads(run: Runs) -> None:
    """More of them than there are threads wait, and another one is served."""
    app = stepwell.App("shop")

    @app.function(id="waits")
    def waits(ctx: stepwell.SyncContext) -> None:
        ctx.step.wait_for_event("go", "shop/go", timeout="1h")

    @app.function(id="works")
    def works(ctx: stepwell.SyncContext) -> int:
        return ctx.step.run("one", lambda: 1)

    async def test(engine: Any) -> None:
        waiters = [await app.start(waits) for _ in range(THREADS_MAX + 5)]
        for waiter in waiters:
            await waiting(engine, waiter)
        assert await (await app.start(works)).output("10s") == 1
        await app.send("shop/go")
        for waiter in waiters:
            await waiter.output("20s")

    run(app, test)


def test_waits_that_are_over(run: Runs) -> None:
    """`None` for the event and the signal; an `InvokeError` for the invoke."""
    app = stepwell.App("shop")

    @app.function(id="slow")
    async def slow(ctx: stepwell.Context) -> None:
        await ctx.step.sleep("long", "1h")

    @app.function(id="work")
    async def work(ctx: stepwell.Context) -> list[Any]:
        event, signal = await asyncio.gather(
            ctx.step.wait_for_event("event", "shop/paid", timeout="50ms"), ctx.step.wait_for_signal("signal", "go", timeout="50ms")
        )
        try:
            await ctx.step.invoke("slow", slow, timeout="50ms")
        except stepwell.InvokeError as error:
            return [event, signal, error.name]
        return []

    async def test(engine: Any) -> None:
        assert await (await app.start(work)).output("20s") == [None, None, "InngestInvokeTimeoutError"]

    run(app, test)


def test_signals_between_runs(run: Runs) -> None:
    """One run waits, another sends; nobody waiting is `None`; a second waiter fails, or takes the name over."""
    app = stepwell.App("shop")

    @app.function(id="waits")
    async def waits(ctx: stepwell.Context) -> Any:
        signal = await ctx.step.wait_for_signal("ok?", ctx.event.data["name"], timeout="1h", on_conflict=ctx.event.data["on_conflict"])
        return None if signal is None else [signal.name, signal.data]

    @app.function(id="sends")
    def sends(ctx: stepwell.SyncContext) -> list[str | None]:
        return [ctx.step.send_signal("one", "go", {"by": "Ada"}), ctx.step.send_signal("two", "nobody")]

    async def test(engine: Any) -> None:
        old = await app.start(waits, {"name": "go", "on_conflict": "fail"})
        await waiting(engine, old)
        refused = await app.start(waits, {"name": "go", "on_conflict": "fail"})
        with pytest.raises(stepwell.InvokeError, match="Signal conflict"):
            await refused.output("10s")
        new = await app.start(waits, {"name": "go", "on_conflict": "replace"})
        await waiting(engine, new)
        assert await (await app.start(sends)).output("10s") == [new.id, None]
        assert await new.output("10s") == ["go", {"by": "Ada"}]
        assert await old.status() == "waiting"

    run(app, test)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_invokes(run: Runs, kind: str) -> None:
    """The result comes typed; failures of all kinds are an `InvokeError`."""
    app = stepwell.App("shop")

    @app.function(id="receipt")
    async def receipt(ctx: stepwell.Context[Paid]) -> Receipt:
        return Receipt(ctx.event.data.order_id, datetime(2026, 1, 1, tzinfo=UTC))

    @app.function(id="fails", retries=0)
    async def fails(ctx: stepwell.Context) -> None:
        raise ValueError("no paper")

    calls: list[tuple[Any, Any]] = [(receipt, Paid(order_id="o-1")), (fails, None), ("shop-nothing", None)]
    if kind == "async":

        @app.function(id="work")
        async def work(ctx: stepwell.Context) -> list[Any]:
            said: list[Any] = []
            for function, data in calls:
                try:
                    said.append(await ctx.step.invoke("call", function, data))
                except stepwell.InvokeError as error:
                    said.append([error.name, error.message])
            return [isinstance(said[0], Receipt), *said[1:]]
    else:

        @app.function(id="work")
        def work(ctx: stepwell.SyncContext) -> list[Any]:
            said: list[Any] = []
            for function, data in calls:
                try:
                    said.append(ctx.step.invoke("call", function, data))
                except stepwell.InvokeError as error:
                    said.append([error.name, error.message])
            return [isinstance(said[0], Receipt), *said[1:]]

    async def test(engine: Any) -> None:
        said = await (await app.start(work)).output("20s")
        assert said[0] is True
        assert said[1] == ["ValueError", "no paper"]
        assert "shop-nothing" in said[2][1]

    run(app, test)


def test_an_invoked_run_that_is_cancelled(run: Runs) -> None:
    """The invoker is told so."""
    app = stepwell.App("shop")

    @app.function(id="slow", cancel_on=[stepwell.cancel("shop/stop")])
    async def slow(ctx: stepwell.Context) -> None:
        await ctx.step.wait_for_event("never", "shop/never", timeout="1h")

    @app.function(id="work")
    async def work(ctx: stepwell.Context) -> str:
        try:
            await ctx.step.invoke("slow", slow)
        except stepwell.InvokeError as error:
            return error.name
        return ""

    async def test(engine: Any) -> None:
        handle = await app.start(work)
        await waiting(engine, handle)
        async for _ in ticks():
            await app.send("shop/stop")
            if await handle.status() == "completed":
                break
        assert await handle.output("10s") == "InngestInvokeCancelledError"

    run(app, test)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_fetches_and_models(run: Runs, kind: str) -> None:
    """The engine makes the requests, with headers, body and key; any status is an answer; a model's failure can be caught."""
    app = stepwell.App("shop")
    place: list[str] = []

    def model() -> stepwell.ai.Model:
        return stepwell.ai.openai("m", auth_key="sk-1", base_url=f"{place[0]}/v1")

    def told(one: stepwell.FetchResponse, two: Any) -> list[Any]:
        return [one.status, one.json()["method"], one.json()["headers"]["x-a"], one.json()["body"], two["headers"]["authorization"]]

    if kind == "async":

        @app.function(id="work", retries=0)
        async def work(ctx: stepwell.Context) -> list[Any]:
            one = await ctx.step.fetch("one", f"{place[0]}/404", method="PUT", headers={"X-A": "1"}, body="hi")
            two = await ctx.step.ai.infer("two", model(), {"messages": []})
            try:
                await ctx.step.fetch("three", "http://127.0.0.1:9/")
            except stepwell.StepError as error:
                return [*told(one, two), error.name]
            return []
    else:

        @app.function(id="work", retries=0)
        def work(ctx: stepwell.SyncContext) -> list[Any]:
            one = ctx.step.fetch("one", f"{place[0]}/404", method="PUT", headers={"X-A": "1"}, body="hi")
            two = ctx.step.ai.infer("two", model(), {"messages": []})
            try:
                ctx.step.fetch("three", "http://127.0.0.1:9/")
            except stepwell.StepError as error:
                return [*told(one, two), error.name]
            return []

    async def test(engine: Any) -> None:
        async with answering() as url:
            place.append(url)
            output = await (await app.start(work)).output("20s")
        assert output == [404, "PUT", "1", "hi", "Bearer sk-1", "GatewayError"]

    run(app, test)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_what_is_published_is_heard_once(run: Runs, kind: str) -> None:
    """On the run's own channel, and on one that is named; a replay publishes nothing again."""
    app = stepwell.App("shop")
    if kind == "async":

        @app.function(id="work")
        async def work(ctx: stepwell.Context) -> None:
            await ctx.step.publish("state", {"at": 1}, channel="shop")
            await ctx.step.sleep("nap", "1100ms")
            await ctx.step.publish("state", {"at": 2}, channel="shop")
    else:

        @app.function(id="work")
        def work(ctx: stepwell.SyncContext) -> None:
            ctx.step.publish("state", {"at": 1}, channel="shop")
            ctx.step.sleep("nap", "1100ms")
            ctx.step.publish("state", {"at": 2}, channel="shop")

    async def test(engine: Any) -> None:
        heard = engine.node.realtime.subscribe([Topic("shop", "state")])
        handle = await app.start(work)
        await handle.output("20s")
        messages = [decode((await heard.next()).body) for _ in range(2)]
        assert [(message["data"], message["run_id"]) for message in messages] == [({"at": 1}, handle.id), ({"at": 2}, handle.id)]
        assert engine.node.realtime.hub.counts.published == 2

    run(app, test)


def test_a_handle(run: Runs) -> None:
    """Status, output, events and cancel; an id starts once; a wrong payload starts nothing."""
    app = stepwell.App("shop")

    @app.function(id="work")
    async def work(ctx: stepwell.Context[Paid]) -> Receipt:
        await ctx.step.wait_for_event("go", "shop/go", timeout="1h")
        return Receipt(ctx.event.data.order_id, datetime(2026, 1, 1, tzinfo=UTC))

    async def test(engine: Any) -> None:
        handle = await app.start(work, Paid(order_id="o-1", cents=1), id="o-1")
        await waiting(engine, handle)
        again = await app.start(work, Paid(order_id="o-1", cents=1), id="o-1")
        assert again.id == handle.id
        assert (await app.start(work, Paid(order_id="o-1"), id="o-2")).id != handle.id
        (event,) = await handle.events()
        assert event.id == "o-1" and event.data == Paid(order_id="o-1", cents=1)
        with pytest.raises(TimeoutError, match=r"waiting after 0\.05 s"):
            await handle.output("50ms")
        await app.send("shop/go")
        output = await handle.output()
        assert output == Receipt("o-1", datetime(2026, 1, 1, tzinfo=UTC))
        with pytest.raises(stepwell.RunHasEnded):
            await handle.cancel()
        other = await app.start("shop-work", {"order_id": "o-3"})
        await other.cancel()
        assert await other.status() == "cancelled"
        with pytest.raises(stepwell.Cancelled):
            await other.output()
        with pytest.raises(stepwell.UsageError, match=r"\$\.cents"):
            await app.start(work, {"order_id": "o-1", "cents": "x"})
        with pytest.raises(stepwell.NotFound, match="shop-nothing"):
            await app.start("shop-nothing")

    run(app, test)


def test_a_handle_of_sync_code(run: Runs) -> None:
    """From a thread beside the engine's loop; in the loop itself there is a sentence."""
    app = stepwell.App("shop")

    @app.function(id="work")
    def work(ctx: stepwell.SyncContext) -> int:
        ctx.step.sleep("nap", timedelta(milliseconds=10))
        return ctx.step.run("one", lambda: 1)

    async def test(engine: Any) -> None:
        def beside() -> list[Any]:
            handle = app.start_sync(work, {"n": 1})
            return [handle.output("10s"), handle.status(), handle.events()[0].data]

        assert await asyncio.to_thread(beside) == [1, "completed", {"n": 1}]
        with pytest.raises(stepwell.UsageError, match="block the event loop"):
            app.start_sync(work)

    run(app, test)


def test_a_failed_run_has_its_failure_function(run: Runs) -> None:
    """With the failed run's event, id and error."""
    app = stepwell.App("shop")
    seen: list[Any] = []

    async def failed(ctx: stepwell.FailureContext[Paid]) -> None:
        seen.append((ctx.event.data.order_id, ctx.failed_run_id, ctx.error.message))
        await ctx.step.run("undo", lambda: None)

    @app.function(trigger=Paid, id="work", retries=0, on_failure=failed)
    async def work(ctx: stepwell.Context[Paid]) -> None:
        raise ValueError("no paper")

    async def test(engine: Any) -> None:
        (event_id,) = await app.send(Paid(order_id="o-1"))
        (failing,) = await engine.runs_of(event_id)
        async for _ in ticks():
            if seen:
                break
        assert seen[0] == ("o-1", failing.id, "no paper")

    run(app, test)


def test_a_bad_event_fails_its_run_before_anything_runs(run: Runs) -> None:
    """At once, without a retry, with the path of the field."""
    app = stepwell.App("shop")
    ran: list[int] = []

    @app.function(trigger=Paid, id="work")
    async def work(ctx: stepwell.Context[Paid]) -> None:
        ran.append(1)

    async def test(engine: Any) -> None:
        (event_id,) = await app.send("shop/paid", {"order_id": "o-1", "cents": "many"})
        (run,) = await engine.runs_of(event_id)
        ended = await engine.ended(run.id)
        assert ended.status == "failed" and not ran
        assert "$.cents" in decode(ended.output)["message"]

    run(app, test)


@asynccontextmanager
async def engine_of(app: stepwell.App, path: Path) -> AsyncIterator[Any]:
    async with app.engine(db=path, retry_interval="10ms") as engine:
        yield engine


def test_waits_outlive_the_process(tmp_path: Path) -> None:
    """An engine that is closed and opened again: the wait goes on, the event that comes then ends it."""
    app = stepwell.App("shop")

    @app.function(id="work")
    async def work(ctx: stepwell.Context) -> str:
        event = await ctx.step.wait_for_event("go", "shop/go", timeout="1h")
        return "none" if event is None else str(event.data["by"])

    async def main() -> None:
        async with engine_of(app, tmp_path / "t.db") as engine:
            handle = await app.start(work)
            await waiting(engine, handle)
        async with engine_of(app, tmp_path / "t.db"):
            await app.send("shop/go", {"by": "Ada"})
            assert await handle.output("10s") == "Ada"

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
