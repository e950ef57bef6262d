"""An app on the unmodified `inngest` package whose steps ask models through the server. `PROVIDER_URL` names who answers, `KEY` the key."""

from __future__ import annotations

import os
from typing import Any

import fastapi
import inngest
import inngest.fast_api
from inngest.experimental.ai import anthropic, base, deepseek, gemini, grok, openai

SERVER, PROVIDER, KEY = os.environ["SERVER_URL"], os.environ["PROVIDER_URL"], os.environ["KEY"]
client = inngest.Inngest(app_id="asking", api_base_url=SERVER, event_api_base_url=SERVER, is_production=False)

ADAPTERS: dict[str, base.BaseAdapter] = {
    "openai": openai.Adapter(auth_key=KEY, base_url=PROVIDER, model="m-1"),
    "anthropic": anthropic.Adapter(auth_key=KEY, base_url=PROVIDER, model="m-1"),
    "gemini": gemini.Adapter(auth_key=KEY, base_url=PROVIDER, model="m-1"),
    "deepseek": deepseek.Adapter(auth_key=KEY, base_url=PROVIDER, model="m-1"),
    "grok": grok.Adapter(auth_key=KEY, base_url=PROVIDER, model="m-1"),
}


def body(text: str) -> dict[str, Any]:
    """What a model is asked."""
    return {"messages": [{"role": "user", "content": text}]}


@client.create_function(fn_id="asks", trigger=inngest.TriggerEvent(event="ask/all"))
async def asks(ctx: inngest.Context) -> list[object]:
    """Every adapter, one after the other."""
    return [await ctx.step.ai.infer(f"ask {name}", adapter=adapter, body=body(name)) for name, adapter in ADAPTERS.items()]


@client.create_function(fn_id="parallel", trigger=inngest.TriggerEvent(event="ask/parallel"))
async def parallel(ctx: inngest.Context) -> list[object]:
    """Two at a time, beside a step."""

    async def step() -> str:
        return "step"

    def ask(name: str) -> Any:
        return lambda: ctx.step.ai.infer(name, adapter=ADAPTERS["openai"], body=body(name))

    return list(await ctx.group.parallel((ask("a"), lambda: ctx.step.run("s", step), ask("b"))))


@client.create_function(fn_id="refused", trigger=inngest.TriggerEvent(event="ask/refused"), retries=1)
async def refused(ctx: inngest.Context) -> dict[str, object]:
    """A provider that refuses: the error, as user code gets it. Gemini's key is in the URL."""
    try:
        await ctx.step.ai.infer("ask", adapter=ADAPTERS[str(ctx.event.data["adapter"])], body=body("refuse"))
    except inngest.StepError as error:
        return {"name": error.name, "message": error.message}
    return {}


@client.create_function(fn_id="unreachable", trigger=inngest.TriggerEvent(event="ask/unreachable"), retries=0)
async def unreachable(ctx: inngest.Context) -> None:
    """Nobody listens there, and nobody catches the error."""
    adapter = gemini.Adapter(auth_key=KEY, base_url="http://127.0.0.1:9", model="m-1")
    await ctx.step.ai.infer("ask", adapter=adapter, body=body("nobody"))


@client.create_function(fn_id="patient", trigger=inngest.TriggerEvent(event="ask/patient"))
async def patient(ctx: inngest.Context) -> object:
    """A provider that takes its time, after a step."""

    async def before() -> int:
        return 1

    await ctx.step.run("before", before)
    return await ctx.step.ai.infer("ask", adapter=ADAPTERS["openai"], body=body("hang"))


app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, [asks, parallel, refused, unreachable, patient])
