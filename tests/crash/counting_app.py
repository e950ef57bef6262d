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


@client.create_function(fn_id="steps", trigger=inngest.TriggerEvent(event="count/steps"), retries=4)
async def steps(ctx: inngest.Context) -> list[int]:
    async def step(n: int) -> int:
        calls.write(f"{ctx.run_id} s{n}\n")
        await asyncio.sleep(0.005)
        return n

    done = [await ctx.step.run(f"s{n}", step, n) for n in (0, 1)]
    both = await ctx.group.parallel((lambda: ctx.step.run("s2", step, 2), lambda: ctx.step.run("s3", step, 3)))
    await ctx.step.sleep("nap", datetime.timedelta(milliseconds=100))
    return [*done, *both, await ctx.step.run("s4", step, 4)]


app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, [steps])
