"""The smallest app: `stepwell dev examples/hello/app.py`, then `stepwell send app/hello '{"who": "you"}'`."""

import stepwell

app = stepwell.App("hello")


async def compose(who: str) -> str:
    return f"Hello, {who}!"


@app.function(trigger="app/hello")
async def say_hello(ctx: stepwell.Context) -> str:
    text = await ctx.step.run("compose", compose, ctx.event.data.get("who", "world"))
    await ctx.step.sleep("breathe", "1s")
    return text
