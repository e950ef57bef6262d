"""The functions of the drivers' conformance suite, with our SDK."""

import asyncio
from typing import Any

import stepwell

app = stepwell.App("conform")


def add(a: int, b: int) -> int:
    """A plain step."""
    return a + b


def text(size: int) -> str:
    """A large one."""
    return "ü" * size


@app.function(trigger="c/returns", id="returns")
async def returns(ctx: stepwell.Context) -> Any:
    return ctx.event.data


@app.function(trigger="c/nothing", id="nothing")
async def nothing(ctx: stepwell.Context) -> None:
    return None


@app.function(trigger="c/serial", id="serial")
async def serial(ctx: stepwell.Context) -> int:
    one = await ctx.step.run("one", add, 1, 2)
    return await ctx.step.run("two", add, one, 10)


@app.function(trigger="c/parallel", id="parallel")
async def parallel(ctx: stepwell.Context) -> list[int]:
    both = await asyncio.gather(ctx.step.run("left", add, 1, 2), ctx.step.run("right", add, 3, 4))
    return [*both, await ctx.step.run("after", add, *both)]


@app.function(trigger="c/sleeps", id="sleeps")
async def sleeps(ctx: stepwell.Context) -> str:
    await ctx.step.sleep("nap", "1h")
    return "awake"


@app.function(trigger="c/flaky", id="flaky", retries=2)
async def flaky(ctx: stepwell.Context) -> str:
    def fails() -> str:
        if ctx.attempt < 2:
            raise ValueError(f"try {ctx.attempt}")
        return f"try {ctx.attempt}"

    return await ctx.step.run("fails", fails)


@app.function(trigger="c/caught", id="caught", retries=0)
async def caught(ctx: stepwell.Context) -> str:
    def fails() -> None:
        raise ValueError("boom")

    try:
        await ctx.step.run("fails", fails)
    except stepwell.StepError as error:
        return f"caught {error.message}"
    return "not raised"


@app.function(trigger="c/fails", id="fails")
async def fails(ctx: stepwell.Context) -> None:
    raise ValueError("the function itself")


@app.function(trigger="c/final", id="final")
async def final(ctx: stepwell.Context) -> None:
    raise stepwell.NonRetriableError("no use")


@app.function(trigger="c/later", id="later")
async def later(ctx: stepwell.Context) -> None:
    raise stepwell.RetryAfterError("busy", after="2m")


@app.function(trigger="c/waits", id="waits")
async def waits(ctx: stepwell.Context) -> Any:
    event = await ctx.step.wait_for_event("paid?", "c/paid", timeout="1h", where="async.data.n == event.data.n")
    return None if event is None else event.data["n"]


@app.function(trigger="c/invokes", id="invokes")
async def invokes(ctx: stepwell.Context) -> Any:
    try:
        return await ctx.step.invoke("other", returns, {"n": 1}, timeout="5m")
    except stepwell.InvokeError as error:
        return f"caught {error.message}"


@app.function(trigger="c/beside", id="beside")
async def beside(ctx: stepwell.Context) -> Any:
    event, number = await asyncio.gather(ctx.step.wait_for_event("paid?", "c/paid", timeout="1h"), ctx.step.run("add", add, 1, 2))
    return [event is None, number]


@app.function(trigger="c/asks", id="asks")
async def asks(ctx: stepwell.Context) -> list[Any]:
    signal = await ctx.step.wait_for_signal("ok?", "go", timeout="1h")
    page = await ctx.step.fetch("page", "https://c.test/")
    said = await ctx.step.ai.infer("ask", stepwell.ai.openai("m", auth_key="k"), {"messages": []})
    return [signal and signal.data, page.status, said]


@app.function(trigger="c/asks-plain", id="asks-plain")
def asks_plain(ctx: stepwell.SyncContext) -> list[Any]:
    signal = ctx.step.wait_for_signal("ok?", "go", timeout="1h")
    page = ctx.step.fetch("page", "https://c.test/")
    said = ctx.step.ai.infer("ask", stepwell.ai.openai("m", auth_key="k"), {"messages": []})
    return [signal and signal.data, page.status, said]


@app.function(trigger="c/large", id="large")
async def large(ctx: stepwell.Context) -> int:
    return len(await ctx.step.run("text", text, ctx.event.data["size"]))
