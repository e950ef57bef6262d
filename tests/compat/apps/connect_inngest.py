"""A Connect worker with the unmodified `inngest` package. Notes each call of a step in a file, with its process."""

import asyncio
import datetime
import logging
import os
import pathlib

import inngest
import inngest.connect

calls = pathlib.Path(os.environ["CALLS_FILE"])
client = inngest.Inngest(
    app_id="wk",
    api_base_url=os.environ["SERVER_URL"],
    event_api_base_url=os.environ["SERVER_URL"],
    is_production=os.environ.get("INNGEST_DEV") == "0",
    logger=logging.getLogger("app"),
)


def note(what: str) -> int:
    """Write the call down; says how often it was made."""
    with calls.open("a") as file:
        file.write(f"{what} {os.getpid()}\n")
    return sum(line.split()[0] == what for line in calls.read_text().splitlines())


def event(name: str) -> inngest.TriggerEvent:
    """A trigger."""
    return inngest.TriggerEvent(event=name)


@client.create_function(fn_id="whole", trigger=event("k/whole"), retries=3)
async def whole(ctx: inngest.Context) -> list[object]:
    async def one(what: str) -> str:
        note(what)
        return what

    async def flaky() -> int:
        count = note("flaky")
        if count < 3:
            raise ValueError(f"try {count}")
        return count

    first = await ctx.step.run("first", one, "first")
    both = await ctx.group.parallel((lambda: ctx.step.run("left", one, "left"), lambda: ctx.step.run("right", one, "right")))
    await ctx.step.sleep("nap", datetime.timedelta(milliseconds=300))
    third = await ctx.step.run("flaky", flaky)
    sent = await ctx.step.send_event("send", inngest.Event(name="k/sent", data={"from": "whole"}))
    return [first, list(both), third, len(sent), ctx.event.data]


@client.create_function(fn_id="caught", trigger=event("k/caught"), retries=1)
async def caught(ctx: inngest.Context) -> str:
    async def boom() -> None:
        note("boom")
        raise ValueError("boom")

    try:
        await ctx.step.run("boom", boom)
    except inngest.StepError as error:
        return f"caught {error.message}"
    return "nothing raised"


@client.create_function(fn_id="final", trigger=event("k/final"), retries=4)
async def final(ctx: inngest.Context) -> None:
    note("final")
    raise inngest.NonRetriableError("no use")


@client.create_function(fn_id="long", trigger=event("k/long"), retries=0)
async def long(ctx: inngest.Context) -> str:
    name = str(ctx.event.data["name"])
    seconds = ctx.event.data["seconds"]
    assert isinstance(seconds, int | float)

    async def short(what: str) -> str:
        note(f"{name}-{what}")
        return what

    async def works() -> str:
        note(f"{name}-begin")
        await asyncio.sleep(seconds)
        note(f"{name}-end")
        return name

    await ctx.step.run("before", short, "before")
    done = await ctx.step.run("works", works)
    await ctx.step.run("after", short, "after")
    return done


async def main() -> None:
    """Serve until SIGTERM."""
    worker = inngest.connect.connect(
        [(client, [whole, caught, final, long])],
        instance_id=f"worker-{os.getpid()}",
        max_worker_concurrency=int(os.environ.get("MOST", "100")),
    )
    await worker.start()


asyncio.run(main())
