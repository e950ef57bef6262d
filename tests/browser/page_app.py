"""A small app for the page's tests, served over HTTP by our own SDK."""

import stepwell

app = stepwell.App("page")


async def compose(who: str) -> str:
    return f"hello {who}"


def broken() -> None:
    raise ValueError("broken on purpose")


@app.function(trigger="page/greet")
async def greet(ctx: stepwell.Context) -> str:
    return await ctx.step.run("compose", compose, ctx.event.data["who"])


@app.function(trigger="page/fail", retries=1)
async def fail(ctx: stepwell.Context) -> None:
    await ctx.step.run("break", broken)


@app.function(trigger="page/sleep")
async def doze(ctx: stepwell.Context) -> None:
    await ctx.step.sleep("nap", "1h")


web = stepwell.serve(app)
