"""An app that uses everything, for each way that an app may be reached: a child's target, or served by a framework.

`python ways_app.py FRAMEWORK PORT` serves it under that framework.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import Any

import stepwell

app = stepwell.App("ways")
begun: dict[str, int] = {}
"""How often a run's function has begun in this process."""


@dataclass
class Sum:
    """What a function gives."""

    total: int


class Numbers(stepwell.Event, name="ways/numbers"):
    """An event's schema."""

    numbers: list[int]


@app.function(trigger=Numbers)
async def add(ctx: stepwell.Context[Numbers]) -> Sum:
    return Sum(await ctx.step.run("add", sum, ctx.event.data.numbers))


@app.function
async def five(ctx: stepwell.Context) -> list[int]:
    begun[ctx.run_id] = begun.get(ctx.run_id, 0) + 1
    for n in range(5):
        await ctx.step.run(f"s{n}", int, n)
    return [begun[ctx.run_id], os.getpid()]


@app.function
async def many(ctx: stepwell.Context) -> list[int]:
    return [await ctx.step.run(f"s{n}", asyncio.sleep, 0.05, n) for n in range(20)]


@app.function
async def everything(ctx: stepwell.Context) -> list[Any]:
    url = ctx.event.data["url"]
    pair = await asyncio.gather(ctx.step.run("one", int, 1), ctx.step.run("two", int, 2))
    got = await ctx.step.invoke("add", add, Numbers(numbers=pair))
    page = await ctx.step.fetch("page", f"{url}/health")
    await ctx.step.sleep("nap", "10ms")
    event, _ = await asyncio.gather(
        ctx.step.wait_for_event("event", "ways/go", timeout="1m", where="async.data.run == event.data.run"),
        ctx.step.run("after", int, 3),
    )
    signal = await ctx.step.wait_for_signal("signal", f"go-{ctx.event.data['run']}", timeout="1m")
    await ctx.step.publish("state", {"signal": True})
    nobody = await ctx.step.send_signal("tell", "nobody")
    assert event is not None and signal is not None
    return [isinstance(got, Sum), got.total, page.json()["status"], event.data["n"], signal.data, nobody]


@app.function
def everything_plain(ctx: stepwell.SyncContext) -> list[Any]:
    url = ctx.event.data["url"]
    pair = [ctx.step.run("one", int, 1), ctx.step.run("two", int, 2)]
    got = ctx.step.invoke("add", add, Numbers(numbers=pair))
    page = ctx.step.fetch("page", f"{url}/health")
    ctx.step.sleep("nap", "10ms")
    event = ctx.step.wait_for_event("event", "ways/go", timeout="1m", where="async.data.run == event.data.run")
    signal = ctx.step.wait_for_signal("signal", f"go-{ctx.event.data['run']}", timeout="1m")
    ctx.step.publish("state", {"signal": True})
    nobody = ctx.step.send_signal("tell", "nobody")
    assert event is not None and signal is not None
    return [isinstance(got, Sum), got.total, page.json()["status"], event.data["n"], signal.data, nobody]


@app.function
async def race(ctx: stepwell.Context) -> list[str]:
    """Whichever is first: a step before a wait, an event before a sleep; each beside something that would take an hour."""

    async def first(*branches: Any) -> str:
        tasks = [asyncio.ensure_future(branch) for branch in branches]
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        return str(done.pop().result())

    async def event() -> str:
        came = await ctx.step.wait_for_event("event", "ways/raced", timeout="1h", where="async.data.run == event.data.run")
        return "none" if came is None else str(came.data["n"])

    async def nap() -> str:
        await ctx.step.sleep("nap", "1h")
        return "slept"

    one = await first(ctx.step.run("quick", str, "quick"), ctx.step.wait_for_event("never", "ways/never", timeout="1h"))
    two = await first(event(), nap())
    return [one, two, await ctx.step.run("last", str, "last")]


@app.function
async def starts(ctx: stepwell.Context) -> int:
    """Starts another run from a step, and waits for it there."""

    async def start() -> int:
        run = await app.start(add, Numbers(numbers=[4, 5]), id=ctx.run_id)
        return (await run.output("20s")).total

    def start_blocking() -> int:
        run = app.start_sync(add, {"numbers": [6]})
        return run.output("20s").total

    return await ctx.step.run("start", start) + await ctx.step.run("blocking", start_blocking)


PATH = "/api/stepwell"


def starlette_app() -> Any:
    """Under Starlette."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount(PATH, stepwell.serve(app))])


def fastapi_app() -> Any:
    """Under FastAPI."""
    from fastapi import FastAPI

    web = FastAPI()
    web.mount(PATH, stepwell.serve(app))
    return web


def flask_app() -> Any:
    """Under Flask."""
    from flask import Flask
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    web = Flask("ways")
    web.wsgi_app = DispatcherMiddleware(web.wsgi_app, {PATH: stepwell.serve_wsgi(app)})  # type: ignore[method-assign]
    return web


def _django() -> None:
    from types import ModuleType

    from django.conf import settings
    from django.urls import path

    urls = ModuleType("ways_urls")
    urls.urlpatterns = [path(PATH[1:], stepwell.serve_django(app))]  # type: ignore[attr-defined]
    sys.modules["ways_urls"] = urls
    csrf = "django.middleware.csrf.CsrfViewMiddleware"
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="ways_urls", SECRET_KEY="x", MIDDLEWARE=[csrf])


def django_wsgi_app() -> Any:
    """Under Django, by WSGI."""
    from django.core.wsgi import get_wsgi_application

    _django()
    return get_wsgi_application()


def django_asgi_app() -> Any:
    """Under Django, by ASGI."""
    from django.core.asgi import get_asgi_application

    _django()
    return get_asgi_application()


FRAMEWORKS = {
    "starlette": "uvicorn",
    "fastapi": "uvicorn",
    "workers": "uvicorn",
    "django_asgi": "uvicorn",
    "flask": "werkzeug",
    "django_wsgi": "werkzeug",
}


def main(framework: str, port: int) -> None:
    """Serve until ended."""
    if framework == "workers":
        import uvicorn

        uvicorn.run("ways_app:starlette_app", factory=True, workers=2, port=port, log_level="error", app_dir=os.path.dirname(__file__))
    elif FRAMEWORKS[framework] == "uvicorn":
        import uvicorn

        uvicorn.run(globals()[f"{framework}_app"](), port=port, log_level="error", lifespan="off")
    else:
        from werkzeug.serving import run_simple

        run_simple("127.0.0.1", port, globals()[f"{framework}_app"](), threaded=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
