"""The engine in this process over a SQLite file with full fsync: throughput, latency, lateness, memory."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import uvloop

import stepwell
from bench.result import Result, percentile

SWITCH_INTERVAL_S = 0.0005
"""What the server sets too."""


def make_app() -> tuple[stepwell.App, dict[str, float]]:
    """The functions that are measured, and where they note when they were called."""
    app = stepwell.App("bench")
    began: dict[str, float] = {}

    async def note(i: int) -> int:
        return i

    @app.function(trigger="bench/one")
    async def one(ctx: stepwell.Context) -> int:
        began[ctx.run_id] = time.perf_counter()
        return await ctx.step.run("step", note, 1)

    @app.function(trigger="bench/five")
    async def five(ctx: stepwell.Context) -> str:
        for i in range(5):
            await ctx.step.run(f"step-{i}", note, i)
        return "done"

    @app.function(trigger="bench/ten")
    async def ten(ctx: stepwell.Context) -> list[int]:
        return await asyncio.gather(*(ctx.step.run(f"step-{i}", note, i) for i in range(10)))

    @app.function(trigger="bench/nap")
    async def nap(ctx: stepwell.Context) -> float:
        asleep = await ctx.step.run("now", clock)
        await ctx.step.sleep("nap", "1s")
        return (await ctx.step.run("late", clock)) - asleep

    @app.function(trigger="bench/long")
    async def long(ctx: stepwell.Context) -> None:
        await ctx.step.sleep("long", "1d")

    return app, began


async def clock() -> float:
    """Wall time, in seconds."""
    return time.time()


class Rig:
    """An engine and a count of ended runs."""

    def __init__(self, engine: Any, app: stepwell.App, began: dict[str, float]) -> None:
        self.engine, self.app, self.began = engine, app, began
        self.ended: dict[str, float] = {}
        self._wanted = 0
        self._enough = asyncio.Event()
        forward = engine.node._on_run_ended

        def on_ended(run_id: str) -> None:
            self.ended[run_id] = time.perf_counter()
            forward(run_id)
            if len(self.ended) >= self._wanted:
                self._enough.set()

        engine.node._on_run_ended = on_ended

    async def through(self, name: str, runs: int) -> float:
        """Send so many events in arrays of 100; the seconds until all their runs have ended."""
        self.ended.clear()
        self._wanted = runs
        self._enough.clear()
        began = time.perf_counter()
        for start in range(0, runs, 100):
            await self.app.send([{"name": name, "data": {"n": n}} for n in range(start, min(start + 100, runs))])
        await self._enough.wait()
        return time.perf_counter() - began


def with_engine(folder: Path, name: str, work: Callable[[Rig], Awaitable[list[Result]]]) -> list[Result]:
    """Run a measurement against a fresh file."""

    async def main() -> list[Result]:
        app, began = make_app()
        async with app.engine(db=folder / f"{name}.db") as engine:
            return await work(Rig(engine, app, began))

    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        return uvloop.run(main())
    finally:
        sys.setswitchinterval(before)


def throughput(folder: Path, scale: int) -> list[Result]:
    """Runs and steps a second, and what they cost."""

    async def work(rig: Rig) -> list[Result]:
        results = []
        for function, steps, runs in (("one", 1, 10_000), ("five", 5, 6_000), ("ten", 10, 1_500)):
            await rig.through(f"bench/{function}", 200)
            cpu = time.process_time()
            seconds = await rig.through(f"bench/{function}", runs // scale)
            cpu = time.process_time() - cpu
            done = runs // scale
            results += [
                Result(f"local driver, {function}-step function: runs", done / seconds, "/s"),
                Result(f"local driver, {function}-step function: steps", steps * done / seconds, "/s"),
                Result(f"local driver, {function}-step function: CPU of 1,000 runs", 1000 * cpu / done, "s"),
            ]
        return results

    return with_engine(folder, "throughput", work)


def latency(folder: Path, scale: int) -> list[Result]:
    """From event to first call and to the run's end, at 20 events a second."""

    async def work(rig: Rig) -> list[Result]:
        await rig.through("bench/one", 100)
        rig.ended.clear()
        sent: dict[str, float] = {}
        first, whole = [], []
        for n in range(200 // scale):
            at = time.perf_counter()
            (event_id,) = await rig.app.send("bench/one", {"n": n})
            sent[event_id] = at
            await asyncio.sleep(0.05 - (time.perf_counter() - at))
        for event_id, at in sent.items():
            (run,) = await rig.engine.runs_of(event_id)
            first.append(1000 * (rig.began[run.id] - at))
            whole.append(1000 * (rig.ended[run.id] - at))
        return [
            Result("20 events/s: event to first call, p50", percentile(first, 0.5), "ms"),
            Result("20 events/s: event to first call, p99", percentile(first, 0.99), "ms"),
            Result("20 events/s: event to run's end, p50", percentile(whole, 0.5), "ms"),
            Result("20 events/s: event to run's end, p99", percentile(whole, 0.99), "ms"),
        ]

    return with_engine(folder, "latency", work)


def sleeps(folder: Path, scale: int) -> list[Result]:
    """How late the line behind 1,000 concurrent one-second sleeps runs, all begun as fast as they can be."""

    async def work(rig: Rig) -> list[Result]:
        count = 1000 // scale
        await rig.through("bench/nap", count)
        late = []
        for run_id in list(rig.ended):
            steps = {step.name: step for step in await rig.engine.steps_of(run_id)}
            # From when the timer was due to when the function's next line ran.
            late.append(steps["late"].started_ms - (steps["nap"].queued_ms + 1000))
        return [
            Result(f"{count} sleeps of 1 s: late, p50", percentile(late, 0.5), "ms"),
            Result(f"{count} sleeps of 1 s: late, p99", percentile(late, 0.99), "ms"),
        ]

    return with_engine(folder, "sleeps", work)


def rows(folder: Path, scale: int) -> list[Result]:
    """Rows written for a transition of five-step runs: net changes of each group, as they go to the database."""

    async def work(rig: Rig) -> list[Result]:
        heart = rig.engine.node._heart
        handle = heart.handle
        written = inputs = groups = 0

        async def counting(group: Any) -> Any:
            nonlocal written, inputs, groups
            beat = await handle(group)
            inputs += len(beat.decided)
            groups += 1
            for change in beat.changes.tables.values() if beat.changes else ():
                written += len(change.inserted) + len(change.updated) + len(change.deleted)
            return beat

        heart.handle = counting
        runs = 2000 // scale
        await rig.through("bench/five", runs)
        return [
            Result("five-step runs: rows written a transition", written / inputs, ""),
            Result("five-step runs: transitions a run", inputs / runs, ""),
            Result("five-step runs: commits of 1,000 runs", 1000 * groups / runs, ""),
        ]

    return with_engine(folder, "rows", work)


def history(folder: Path, scale: int) -> list[Result]:
    """The same throughput with 50,000 finished and 20,000 sleeping runs stored, and what the sleeping ones cost in memory."""

    async def work(rig: Rig) -> list[Result]:
        process = psutil.Process()
        await rig.through("bench/five", 1000 // scale)
        alone = await rig.through("bench/five", 5000 // scale)
        await rig.through("bench/one", 50_000 // scale)
        before = process.memory_info().rss
        for _ in range(200 // scale):
            await rig.app.send([{"name": "bench/long"}] * 100)
        await rig.through("bench/one", 100)
        grown = process.memory_info().rss - before
        beside = await rig.through("bench/five", 5000 // scale)
        return [
            Result("five-step throughput with history, share of that without", 100 * alone / beside, "%"),
            Result(f"memory of {20_000 // scale} sleeping runs", grown / 2**20, "MiB"),
            Result("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB"),
        ]

    return with_engine(folder, "history", work)


ALL = (throughput, latency, sleeps, rows, history)
