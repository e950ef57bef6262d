"""An app as users of the public `inngest` package write it, whose one step says when it was called."""

from __future__ import annotations

import time

import fastapi
import inngest
import inngest.fast_api

client = inngest.Inngest(app_id="sdk", is_production=False)


async def now() -> float:
    """Wall time, in seconds."""
    return time.time()


@client.create_function(fn_id="one", trigger=inngest.TriggerEvent(event="sdk/one"))
async def one(ctx: inngest.Context) -> float:
    """One step."""
    return await ctx.step.run("now", now)


app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, [one])
