"""An app of the unmodified `inngest` package, whose function a queue triggers. Served by `uvicorn inngest_queue_app:app`."""

import fastapi
import inngest
import inngest.fast_api

client = inngest.Inngest(app_id="theirs", is_production=False)


@client.create_function(fn_id="each", trigger=inngest.TriggerEvent(event="stepwell/queue.theirs"))
async def each(ctx: inngest.Context) -> dict[str, object]:
    """Give what the message was."""

    async def look() -> dict[str, object]:
        return dict(ctx.event.data)

    return {"name": ctx.event.name, "data": await ctx.step.run("look", look)}


app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, [each])
