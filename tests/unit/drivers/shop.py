"""The app of the process driver's tests; children import it."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import stepwell

app = stepwell.App("shop")


async def double(n: int) -> int:
    return n * 2


@app.function(trigger="shop/double", id="double")
async def double_it(ctx: stepwell.Context) -> list[int]:
    first = await ctx.step.run("first", double, ctx.event.data["n"])
    pair = await asyncio.gather(ctx.step.run("left", double, first), ctx.step.run("right", double, first + 1))
    return [first, *pair, os.getpid()]


@app.function(trigger="shop/die", id="die", retries=0)
async def die(ctx: stepwell.Context) -> str:
    marker = ctx.event.data["marker"]

    def fall() -> None:
        if os.path.exists(marker):
            return
        with open(marker, "w") as file:
            file.write(str(os.getpid()))
        if ctx.event.data["how"] == "segfault":
            ctypes.string_at(0)
        os.kill(os.getpid(), signal.SIGKILL)

    await ctx.step.run("fall", fall)
    return "survived"


@app.function(trigger="shop/hog", id="hog")
async def hog(ctx: stepwell.Context) -> int:
    """Holds the event loop and the interpreter."""

    async def burn() -> int:
        until = time.monotonic() + ctx.event.data["seconds"]
        old = sys.getswitchinterval()
        sys.setswitchinterval(1000)
        while time.monotonic() < until:
            pass
        sys.setswitchinterval(old)
        return os.getpid()

    return await ctx.step.run("burn", burn)


@app.function(trigger="shop/fork", id="fork")
async def fork(ctx: stepwell.Context) -> int:
    """Forks a process that outlives the step, and may outlive the child."""

    def spawn() -> int:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            time.sleep(ctx.event.data["seconds"])
            os._exit(0)
        return pid

    return await ctx.step.run("spawn", spawn)


@app.function(trigger="shop/long", id="long")
async def long(ctx: stepwell.Context) -> str:
    """A first step that ends when the gate is there, and a second one."""

    async def first() -> None:
        Path(ctx.event.data["started"]).touch()
        while not os.path.exists(ctx.event.data["gate"]):  # noqa: ASYNC110 – the test opens it from another process
            await asyncio.sleep(0.01)

    await ctx.step.run("first", first)
    await ctx.step.run("second", double, 1)
    return "done"


@app.function(trigger="shop/send", id="send")
async def send(ctx: stepwell.Context) -> list[str]:
    ids = await ctx.step.send_event("one", {"name": "shop/sent", "data": {"n": 1}})

    def from_a_thread() -> list[str]:
        return app.send_sync("shop/sent", {"n": 2})

    return [*ids, *await ctx.step.run("two", from_a_thread), *await app.send("shop/sent", {"n": 3})]


@app.function(trigger="shop/ask", id="ask")
async def ask(ctx: stepwell.Context) -> list[str]:
    waited = await ctx.step.send_signal("tell", "go", {"n": 1})
    run = await app.start("other-work", {"n": 2}, id="w")
    try:
        await run.output()
    except stepwell.InvokeError as error:
        return [str(waited), run.id, error.message]
    return []
