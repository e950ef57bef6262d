"""An app written with the unmodified `inngest` package, as its users write it. Notes each call of a step in a file."""

import datetime
import logging
import os
import pathlib

import fastapi
import inngest
import inngest.fast_api

calls = pathlib.Path(os.environ["CALLS_FILE"])
client = inngest.Inngest(
    app_id="py",
    api_base_url=os.environ["SERVER_URL"],
    event_api_base_url=os.environ["SERVER_URL"],
    is_production=False,
    logger=logging.getLogger("app"),
)


def note(what: str) -> int:
    """Write the call down; says how often it was made."""
    with calls.open("a") as file:
        file.write(what + "\n")
    return calls.read_text().splitlines().count(what)


async def one(what: str) -> dict[str, float]:
    note(what)
    return {"whole": 1.0, "half": 1.5}


async def flaky() -> int:
    count = note("flaky")
    if count < 3:
        raise ValueError(f"try {count}")
    return count


async def boom() -> None:
    note("boom")
    raise ValueError("boom")


@client.create_function(fn_id="whole", trigger=inngest.TriggerEvent(event="t/whole"), retries=3)
async def whole(ctx: inngest.Context) -> list[object]:
    first = await ctx.step.run("first", one, "first")
    both = await ctx.group.parallel(
        (lambda: ctx.step.run("left", one, "left"), lambda: ctx.step.run("right", one, "right")),
    )
    await ctx.step.sleep("nap", datetime.timedelta(milliseconds=300))
    third = await ctx.step.run("flaky", flaky)
    sent = await ctx.step.send_event("send", inngest.Event(name="t/sent", data={"from": "whole"}))
    return [first, list(both), third, len(sent), ctx.event.data]


@client.create_function(fn_id="caught", trigger=inngest.TriggerEvent(event="t/caught"), retries=1)
async def caught(ctx: inngest.Context) -> str:
    try:
        await ctx.step.run("boom", boom)
    except inngest.StepError as error:
        return f"caught {error.message}"
    return "nothing raised"


@client.create_function(fn_id="failing", trigger=inngest.TriggerEvent(event="t/failing"), retries=1)
async def failing(ctx: inngest.Context) -> None:
    note("failing")
    raise ValueError("the function itself")


@client.create_function(fn_id="final", trigger=inngest.TriggerEvent(event="t/final"), retries=4)
async def final(ctx: inngest.Context) -> None:
    note("final")
    raise inngest.NonRetriableError("no use")


async def on_failure(ctx: inngest.Context) -> str:
    note("on_failure")
    return "told of it"


@client.create_function(fn_id="told", trigger=inngest.TriggerEvent(event="t/told"), retries=0, on_failure=on_failure)
async def told(ctx: inngest.Context) -> None:
    raise ValueError("tell them")


@client.create_function(fn_id="picky", trigger=inngest.TriggerEvent(event="t/*", expression="event.data.amount > 10"))
async def picky(ctx: inngest.Context) -> float:
    return 1.0


app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, [whole, caught, failing, final, told, picky])
