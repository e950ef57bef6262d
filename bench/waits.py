"""Waits and schedules in bulk: an event that one of 100,000 runs waits for, and 10,000 functions that are due in the same minute."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

import stepwell
from bench.inprocess import Rig
from bench.result import Result, percentile
from stepwell.engine.inputs import EventsReceived
from stepwell.server.host import GC_THRESHOLDS, SWITCH_INTERVAL_S

MINUTE_S = 60


def matching(folder: Path, scale: int) -> list[Result]:
    """From an event to the commit that resumes its run, whose wait is one of 100,000 for events of that name, each of another key."""
    app = stepwell.App("waits")

    @app.function(trigger="waits/begin")
    async def waiter(ctx: stepwell.Context) -> None:
        await ctx.step.wait_for_event("paid", "waits/paid", timeout="1d", where="async.data.order == event.data.order")

    async def main() -> list[Result]:
        async with app.engine(db=folder / "waits.db") as engine:
            rig = Rig(engine, app, {})
            waits = 100_000 // scale
            for start in range(0, waits, 100):
                await app.send([{"name": "waits/begin", "data": {"order": f"o-{n}"}} for n in range(start, start + 100)])
            await until(lambda: counted(folder / "waits.db", "SELECT count(*) FROM waits") >= waits)
            meeting = timed(engine, EventsReceived)
            times, count = [], 200 // min(scale, 4)
            for n in range(count):
                rig.ended.clear()
                rig._wanted = 1
                rig._enough.clear()
                began = time.perf_counter()
                await app.send("waits/paid", {"order": f"o-{n * (waits // count)}"})
                await asyncio.wait_for(rig._enough.wait(), 30)
                times.append(1000 * (time.perf_counter() - began))
            return [
                Result(f"a wait among {waits:,}: event to its run's end, p50", percentile(times, 0.5), "ms"),
                Result(f"a wait among {waits:,}: the event read, matched and committed, p50", percentile(meeting, 0.5), "ms"),
            ]

    return uvloop.run(main())


def schedules(folder: Path, scale: int) -> list[Result]:
    """From the minute at which 10,000 functions are due to the commit of the last one's run."""
    app = stepwell.App("crons")
    functions = 10_000 // scale

    async def main() -> list[Result]:
        for n in range(functions):

            @app.function(trigger=stepwell.cron("* * * * *"), id=f"f-{n}")
            async def tick(ctx: stepwell.Context) -> None: ...

        # As in a server.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.set_threshold(*GC_THRESHOLDS)
        # Too near to the minute, the functions would not be known in time.
        await until(lambda: time.time() % MINUTE_S < MINUTE_S / 2)
        path = folder / "crons.db"
        async with app.engine(db=path):
            assert time.time() % MINUTE_S < MINUTE_S - 1, "the functions were registered too late"
            await asyncio.sleep(MINUTE_S - time.time() % MINUTE_S)
            minute_ms = time.time_ns() // 1_000_000 // 60_000 * 60_000
            await until(lambda: counted(path, "SELECT count(*) FROM runs WHERE cause = 'cron'") >= functions)
            last_ms = counted(path, "SELECT max(created_ms) FROM runs WHERE cause = 'cron'")
            await until(lambda: not counted(path, "SELECT count(*) FROM runs WHERE cause = 'cron' AND ended_ms IS NULL"))
            ended_ms = counted(path, "SELECT max(ended_ms) FROM runs WHERE cause = 'cron'")
        return [
            Result(f"{functions:,} functions due in one minute: the last one's run is recorded after", (last_ms - minute_ms) / 1000, "s"),
            Result(f"{functions:,} functions due in one minute: all runs have ended after", (ended_ms - minute_ms) / 1000, "s"),
        ]

    before = sys.getswitchinterval(), gc.get_threshold()
    try:
        return uvloop.run(main())
    finally:
        sys.setswitchinterval(before[0])
        gc.set_threshold(*before[1])


def timed(engine: Any, kind: type) -> list[float]:
    """How long the groups with such an input take from now on, from reading to commit, in ms."""
    heart, times = engine.node._heart, []
    handle = heart.handle

    async def timing(group: Any) -> Any:
        began = time.perf_counter()
        beat = await handle(group)
        if any(isinstance(input, kind) for input in group):
            times.append(1000 * (time.perf_counter() - began))
        return beat

    heart.handle = timing
    return times


async def until(condition: Callable[[], bool]) -> None:
    """Look until it is true."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise TimeoutError("not within five minutes")


def counted(path: Path, statement: str) -> int:
    """A number from the file, read beside the engine."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        number: int = connection.execute(statement).fetchone()[0]
        return number


ALL = (matching, schedules)
