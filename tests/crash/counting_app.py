"""An unmodified `inngest` app whose steps note each call with their run, for tests that kill the server."""

import asyncio
import datetime
import logging
import os

import fastapi
import inngest
import inngest.fast_api

client = inngest.Inngest(
    app_id="count",
    api_base_url=os.environ["SERVER_URL"],
    event_api_base_url=os.environ["SERVER_URL"],
    is_production=False,
    logger=logging.getLogger("app"),
)
calls = open(os.environ["CALLS_FILE"], "a", buffering=1)  # noqa: SIM115 - open as long as the app


async def note(run_id: str, step: str, result: int) -> int:
    calls.write(f"{run_id} {step}\n")
    await asyncio.sleep(0.005)
    return result


@client.create_function(fn_id="steps", trigger=inngest.TriggerEvent(event="count/steps"), retries=4)
async def steps(ctx: inngest.Context) -> list[int]:
    async def step(n: int) -> int:
        return await note(ctx.run_id, f"s{n}", n)

    done = [await ctx.step.run(f"s{n}", step, n) for n in (0, 1)]
    both = await ctx.group.parallel((lambda: ctx.step.run("s2", step, 2), lambda: ctx.step.run("s3", step, 3)))
    await ctx.step.sleep("nap", datetime.timedelta(milliseconds=100))
    return [*done, *both, await ctx.step.run("s4", step, 4)]


@client.create_function(fn_id="child", trigger=inngest.TriggerEvent(event="count/child"), retries=4)
async def child(ctx: inngest.Context) -> int:
    return await ctx.step.run("c", note, ctx.run_id, "c", int(str(ctx.event.data["n"])))


@client.create_function(fn_id="mixed", trigger=inngest.TriggerEvent(event="count/mixed"), retries=4)
async def mixed(ctx: inngest.Context) -> list[object]:
    answer = inngest.Event(name="count/answer", data={"run": ctx.run_id, "n": 4})
    first = await ctx.step.run("a", note, ctx.run_id, "a", 0)
    second, invoked, found, _ = await ctx.group.parallel(
        (
            lambda: ctx.step.run("b", note, ctx.run_id, "b", 1),
            lambda: ctx.step.invoke("invoke", function=child, data={"n": 2}),
            lambda: ctx.step.wait_for_event(
                "wait", event="count/answer", if_exp=f"async.data.run == '{ctx.run_id}'", timeout=datetime.timedelta(hours=1)
            ),
            lambda: ctx.step.send_event("send", answer),
        )
    )
    never = await ctx.step.wait_for_event("never", event="count/never", timeout=datetime.timedelta(seconds=1))
    return [first, second, invoked, found.data["n"] if found else None, never]


@client.create_function(fn_id="ticks", trigger=inngest.TriggerCron(cron="* * * * *"), retries=4)
async def ticks(ctx: inngest.Context) -> int:
    return await ctx.step.run("tick", note, ctx.run_id, "tick", 0)


app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, [steps, child, mixed, ticks])
