"""The same functions with the unmodified `inngest` package."""

import datetime
import logging
from typing import Any

import fastapi
import inngest
import inngest.fast_api

client = inngest.Inngest(app_id="conform", is_production=False, logger=logging.getLogger("conform"))


def event(name: str) -> inngest.TriggerEvent:
    """A trigger."""
    return inngest.TriggerEvent(event=name)


async def add(a: int, b: int) -> int:
    """A plain step."""
    return a + b


async def text(size: int) -> str:
    """A large one."""
    return "ü" * size


@client.create_function(fn_id="returns", trigger=event("c/returns"))
async def returns(ctx: inngest.Context) -> Any:
    return ctx.event.data


@client.create_function(fn_id="nothing", trigger=event("c/nothing"))
async def nothing(ctx: inngest.Context) -> None:
    return None


@client.create_function(fn_id="serial", trigger=event("c/serial"))
async def serial(ctx: inngest.Context) -> int:
    one = await ctx.step.run("one", add, 1, 2)
    return await ctx.step.run("two", add, one, 10)


@client.create_function(fn_id="parallel", trigger=event("c/parallel"))
async def parallel(ctx: inngest.Context) -> list[int]:
    left, right = await ctx.group.parallel((lambda: ctx.step.run("left", add, 1, 2), lambda: ctx.step.run("right", add, 3, 4)))
    return [left, right, await ctx.step.run("after", add, left, right)]


@client.create_function(fn_id="sleeps", trigger=event("c/sleeps"))
async def sleeps(ctx: inngest.Context) -> str:
    await ctx.step.sleep("nap", datetime.timedelta(hours=1))
    return "awake"


@client.create_function(fn_id="flaky", trigger=event("c/flaky"), retries=2)
async def flaky(ctx: inngest.Context) -> str:
    async def fails() -> str:
        if ctx.attempt < 2:
            raise ValueError(f"try {ctx.attempt}")
        return f"try {ctx.attempt}"

    return await ctx.step.run("fails", fails)


@client.create_function(fn_id="caught", trigger=event("c/caught"), retries=0)
async def caught(ctx: inngest.Context) -> str:
    async def fails() -> None:
        raise ValueError("boom")

    try:
        await ctx.step.run("fails", fails)
    except inngest.StepError as error:
        return f"caught {error.message}"
    return "not raised"


@client.create_function(fn_id="fails", trigger=event("c/fails"))
async def fails(ctx: inngest.Context) -> None:
    raise ValueError("the function itself")


@client.create_function(fn_id="final", trigger=event("c/final"))
async def final(ctx: inngest.Context) -> None:
    raise inngest.NonRetriableError("no use")


@client.create_function(fn_id="later", trigger=event("c/later"))
async def later(ctx: inngest.Context) -> None:
    raise inngest.RetryAfterError("busy", datetime.timedelta(minutes=2))


@client.create_function(fn_id="waits", trigger=event("c/waits"))
async def waits(ctx: inngest.Context) -> Any:
    hour = datetime.timedelta(hours=1)
    paid = await ctx.step.wait_for_event("paid?", event="c/paid", timeout=hour, if_exp="async.data.n == event.data.n")
    return None if paid is None else paid.data["n"]


@client.create_function(fn_id="invokes", trigger=event("c/invokes"))
async def invokes(ctx: inngest.Context) -> Any:
    try:
        return await ctx.step.invoke("other", function=returns, data={"n": 1}, timeout=datetime.timedelta(minutes=5))
    except inngest.StepError as error:
        return f"caught {error.message}"


@client.create_function(fn_id="beside", trigger=event("c/beside"))
async def beside(ctx: inngest.Context) -> Any:
    hour = datetime.timedelta(hours=1)
    paid, number = await ctx.group.parallel(
        (lambda: ctx.step.wait_for_event("paid?", event="c/paid", timeout=hour), lambda: ctx.step.run("add", add, 1, 2))
    )
    return [paid is None, number]


@client.create_function(fn_id="large", trigger=event("c/large"))
async def large(ctx: inngest.Context) -> int:
    assert isinstance(ctx.event.data["size"], int)
    return len(await ctx.step.run("text", text, ctx.event.data["size"]))


functions = [returns, nothing, serial, parallel, sleeps, flaky, caught, fails, final, later, waits, invokes, beside, large]

app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, functions)
