"""Functions of any shape end, with the result of plain Python, and run each step once; however calls come, and whatever replays."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stepwell
from tests.unit.sdk.fake_engine import FakeEngine

LEAVES = st.one_of(
    st.just(("step",)),
    st.just(("plain",)),
    st.just(("sleep", "10ms")),
    st.just(("sleep", "1h")),
    st.just(("io", 0)),
    st.just(("io", 0.001)),
    st.just(("shaky",)),
    st.just(("caught",)),
    st.just(("event", True)),
    st.just(("event", False)),
    st.just(("signal", True)),
    st.just(("invoke", True)),
    st.just(("invoke", False)),
    st.just(("fetch",)),
)
SHAPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("sequence"), st.lists(inner, max_size=4)),
        st.tuples(st.just("gather"), st.lists(inner, max_size=4)),
        st.tuples(st.just("group"), st.lists(inner, max_size=4)),
        st.tuples(st.just("limited"), st.lists(inner, max_size=4)),
        st.tuples(st.just("waited"), st.lists(inner, max_size=3)),
        st.tuples(st.just("raced"), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=10,
)


class World:
    """The steps of one run, and how often each has succeeded."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()

    async def step(self, name: str) -> str:
        self.ran[name] += 1
        return name

    async def shaky(self, name: str) -> str:
        self.tries[name] += 1
        if self.tries[name] == 1:
            raise ValueError("the first try")
        return await self.step(name)

    async def hopeless(self) -> None:
        raise stepwell.NonRetriableError("never")

    async def play(self, ctx: stepwell.Context, shape: tuple[Any, ...], path: str) -> list[str]:
        """Do what the shape says; `path` makes the ids."""
        kind = shape[0]
        if kind == "step":
            return [await ctx.step.run(path, self.step, path)]
        if kind == "plain":
            return [await ctx.step.run(path, lambda: path)]
        if kind == "shaky":
            return [await ctx.step.run(path, self.shaky, path)]
        if kind == "caught":
            try:
                await ctx.step.run(path, self.hopeless)
            except stepwell.StepError as error:
                return [error.message]
        if kind == "event":
            event = await ctx.step.wait_for_event(path, "t/go", timeout="1h")
            return [path if event is None else event.data]
        if kind == "signal":
            signal = await ctx.step.wait_for_signal(path, path, timeout="1h")
            return ["nothing" if signal is None else signal.data]
        if kind == "invoke":
            try:
                return [await ctx.step.invoke(path, "t-other")]
            except stepwell.InvokeError as error:
                return [error.message]
        if kind == "fetch":
            return [(await ctx.step.fetch(path, "http://t.test")).text]
        if kind == "sleep":
            await ctx.step.sleep(path, shape[1])
            return [path]
        if kind == "io":
            await asyncio.sleep(shape[1])
            return [path]
        branches = [self.play(ctx, inner, f"{path}.{n}") for n, inner in enumerate(shape[1])]
        return [name for names in await self.together(kind, branches) for name in names]

    async def together(self, kind: str, branches: list[Any]) -> list[list[str]]:
        """Await the branches in one of asyncio's ways."""
        if kind == "sequence":
            return [await branch for branch in branches]
        if kind == "gather":
            gathered: list[list[str]] = await asyncio.gather(*branches)
            return gathered
        if kind == "group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(branch) for branch in branches]
            return [task.result() for task in tasks]
        if kind == "limited":
            limit = asyncio.Semaphore(2)

            async def limited(branch: Any) -> list[str]:
                async with limit:
                    names: list[str] = await branch
                    return names

            return await asyncio.gather(*(limited(branch) for branch in branches))
        tasks = [asyncio.ensure_future(branch) for branch in branches]
        try:
            if kind == "raced":
                # Whichever is first; the others are cancelled, whatever they wait for. What is given does not depend on which it was.
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                return [["raced"]]
            left = set(tasks)
            while left:
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()


def expected(shape: tuple[Any, ...], path: str) -> list[str]:
    """What the shape gives in plain Python."""
    if shape[0] == "caught":
        return ["never"]
    if shape[0] == "raced":
        return ["raced"]
    if shape[0] in ("event", "signal", "invoke", "fetch"):
        return [reply_of(shape, path)[1]]
    if len(shape) > 1 and isinstance(shape[1], list):
        return [name for n, inner in enumerate(shape[1]) for name in expected(inner, f"{path}.{n}")]
    return [path]


def reply_of(shape: tuple[Any, ...], path: str) -> tuple[Any, str]:
    """What a server gives for a step that is for it, and what becomes of that."""
    match shape:
        case ("event", True):
            return {"name": "t/go", "id": "e", "data": f"event {path}", "ts": 1}, f"event {path}"
        case ("event", _):
            return None, path
        case ("signal", _):
            return {"data": {"signal": path, "data": f"signal {path}"}}, f"signal {path}"
        case ("invoke", True):
            return {"data": f"invoked {path}"}, f"invoked {path}"
        case ("invoke", _):
            return {"error": {"name": "E", "message": f"failed {path}"}}, f"failed {path}"
        case _:
            return {"data": {"url": "u", "status_code": 200, "body": f"page {path}"}}, f"page {path}"


def replies(shape: tuple[Any, ...], path: str) -> dict[str, Any]:
    """What the server gives, for each step of the shape that is for it."""
    if len(shape) > 1 and isinstance(shape[1], list):
        return {key: reply for n, inner in enumerate(shape[1]) for key, reply in replies(inner, f"{path}.{n}").items()}
    return {path: reply_of(shape, path)[0]}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("mode", ["checkpoints", "no checkpoints", "replayed"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=SHAPES)
def test_any_shape_ends_as_plain_python_would(mode: str, shape: tuple[Any, ...]) -> None:
    """No standstill, no step lost, none run twice."""
    world = World()
    app = stepwell.App("t")

    @app.function(trigger="t/e", id="work")
    async def work(ctx: stepwell.Context) -> list[str]:
        return await world.play(ctx, shape, "s")

    checkpoints, forgets = mode != "no checkpoints", mode == "replayed"
    engine = FakeEngine(app, "work", checkpoints=checkpoints, forgets=forgets, replies=replies(shape, "s"))
    assert asyncio.run(engine.run(timeout_s=20)) == expected(shape, "s")
    if "raced" not in repr(shape):
        assert all(count == 1 for count in world.ran.values()), world.ran
