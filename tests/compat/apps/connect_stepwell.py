"""The same functions with our SDK, for `stepwell worker`."""

import asyncio
import os
import pathlib
from typing import Any

import stepwell

calls = pathlib.Path(os.environ["CALLS_FILE"])
app = stepwell.App("wk")


def note(what: str) -> int:
    """Write the call down; says how often it was made."""
    with calls.open("a") as file:
        file.write(f"{what} {os.getpid()}\n")
    return sum(line.split()[0] == what for line in calls.read_text().splitlines())


@app.function(trigger="k/whole", retries=3)
async def whole(ctx: stepwell.Context) -> list[Any]:
    def one(what: str) -> str:
        note(what)
        return what

    def flaky() -> int:
        count = note("flaky")
        if count < 3:
            raise ValueError(f"try {count}")
        return count

    first = await ctx.step.run("first", one, "first")
    both = await asyncio.gather(ctx.step.run("left", one, "left"), ctx.step.run("right", one, "right"))
    await ctx.step.sleep("nap", "300ms")
    third = await ctx.step.run("flaky", flaky)
    sent = await ctx.step.send_event("send", {"name": "k/sent", "data": {"from": "whole"}})
    return [first, list(both), third, len(sent), ctx.event.data]


@app.function(trigger="k/caught", retries=1)
async def caught(ctx: stepwell.Context) -> str:
    def boom() -> None:
        note("boom")
        raise ValueError("boom")

    try:
        await ctx.step.run("boom", boom)
    except stepwell.StepError as error:
        return f"caught {error.message}"
    return "nothing raised"


@app.function(trigger="k/final", retries=4)
async def final(ctx: stepwell.Context) -> None:
    note("final")
    raise stepwell.NonRetriableError("no use")


@app.function(trigger="k/long", retries=0)
async def long(ctx: stepwell.Context) -> str:
    name, seconds = ctx.event.data["name"], ctx.event.data["seconds"]

    def short(what: str) -> str:
        note(f"{name}-{what}")
        return what

    async def works() -> str:
        note(f"{name}-begin")
        await asyncio.sleep(seconds)
        note(f"{name}-end")
        return str(name)

    await ctx.step.run("before", short, "before")
    done = await ctx.step.run("works", works)
    await ctx.step.run("after", short, "after")
    return done
