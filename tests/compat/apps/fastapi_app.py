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


@client.create_function(fn_id="waits", trigger=inngest.TriggerEvent(event="t/waits"), retries=0)
async def waits(ctx: inngest.Context) -> list[object]:
    found = await ctx.step.wait_for_event(
        "answer", event="t/answer", if_exp="event.data.id == async.data.id && async.data.ok", timeout=datetime.timedelta(minutes=5)
    )
    none = await ctx.step.wait_for_event("never", event="t/never", timeout=datetime.timedelta(seconds=1))
    return [found.data if found else None, found.name if found else None, none]


@client.create_function(fn_id="both", trigger=inngest.TriggerEvent(event="t/both"), retries=0)
async def both(ctx: inngest.Context) -> list[object]:
    found, sent = await ctx.group.parallel(
        (
            lambda: ctx.step.wait_for_event("answer", event="t/self", timeout=datetime.timedelta(minutes=5)),
            lambda: ctx.step.send_event("send", inngest.Event(name="t/self", data={"n": 1})),
        ),
    )
    return [found.data if found else None, len(sent)]


@client.create_function(fn_id="child", trigger=inngest.TriggerEvent(event="t/child"), retries=0)
async def child(ctx: inngest.Context) -> object:
    note("child")
    if ctx.event.data.get("fail"):
        raise inngest.NonRetriableError("the child failed")
    await ctx.step.sleep("nap", datetime.timedelta(seconds=ctx.event.data.get("nap", 0)))
    return {"got": ctx.event.data.get("x")}


@client.create_function(fn_id="invokes", trigger=inngest.TriggerEvent(event="t/invokes"), retries=0)
async def invokes(ctx: inngest.Context) -> list[object]:
    good = await ctx.step.invoke("good", function=child, data={"x": [1, 2]})
    errors = []
    for step_id, call in {
        "bad": lambda: ctx.step.invoke("bad", function=child, data={"fail": True}),
        "slow": lambda: ctx.step.invoke("slow", function=child, data={"nap": 60}, timeout=datetime.timedelta(seconds=1)),
        "nobody": lambda: ctx.step.invoke_by_id("nobody", app_id="py", function_id="nobody"),
    }.items():
        try:
            await call()
        except inngest.StepError as error:
            errors.append([step_id, error.name, error.message])
    return [good, errors]


@client.create_function(
    fn_id="cancelled",
    trigger=inngest.TriggerEvent(event="t/cancelled"),
    cancel=[inngest.Cancel(event="t/stop", if_exp="event.data.id == async.data.id")],
)
async def cancelled(ctx: inngest.Context) -> str:
    await ctx.step.sleep("long", datetime.timedelta(minutes=5))
    return "went on"


@client.create_function(
    fn_id="limited", trigger=inngest.TriggerEvent(event="t/limited"), timeouts=inngest.Timeouts(finish=datetime.timedelta(seconds=1))
)
async def limited(ctx: inngest.Context) -> str:
    await ctx.step.sleep("long", datetime.timedelta(minutes=5))
    return "went on"


@client.create_function(fn_id="races", trigger=inngest.TriggerEvent(event="t/races"), retries=0)
async def races(ctx: inngest.Context) -> list[object]:
    async def slow() -> str:
        await ctx.step.sleep("slow", datetime.timedelta(minutes=5))
        return "slow"

    done = await ctx.group.parallel(
        (lambda: ctx.step.run("quick", one, "quick"), lambda: ctx.step.run("other", one, "other")),
        parallel_mode=inngest.ParallelMode.RACE,
    )
    return list(done)


@client.create_function(fn_id="ticks", trigger=inngest.TriggerCron(cron="* * * * *"), retries=0)
async def ticks(ctx: inngest.Context) -> str:
    note("tick")
    return str(ctx.event.data["cron"])


app = fastapi.FastAPI()
functions = [whole, caught, failing, final, told, picky, waits, both, child, invokes, cancelled, limited, races, ticks]
inngest.fast_api.serve(app, client, functions)
