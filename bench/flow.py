"""Flow control: what a claim costs beside a backlog, many keys and shut lanes; what limits, debounces and batches cost."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

import stepwell
from bench.inprocess import SWITCH_INTERVAL_S, Rig
from bench.result import Result
from stepwell.engine.commands import Call
from stepwell.engine.inputs import AppSynced, Ask, CallAnswered, Claim, EventsReceived, NodeStarted
from stepwell.engine.lanes import lane_id
from stepwell.protocol.calls import Returned
from stepwell.protocol.events import Event
from stepwell.protocol.functions import Concurrency, FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import numbered_ulids
from stepwell.runtime.clock import SystemClock
from stepwell.runtime.heart import Heart
from stepwell.store.sqlite import SqliteStore

ROOM = 64
"""Items that one claim takes."""

ROUNDS = 40
BACKLOG = 1_000_000
KEYS = 10_000


class Claims:
    """A heart over a file, whose claims are timed."""

    def __init__(self, path: Path, *, limit: int, keyed: bool) -> None:
        self.path, self.limit, self.keyed = path, limit, keyed
        self.store = SqliteStore(path)
        self.heart = Heart(self.store, SystemClock())
        self.times: list[float] = []
        self._sent = 0

    async def open(self) -> None:
        """Open it, with one function."""
        await self.store.open()
        key = "event.data.t" if self.keyed else None
        config = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), concurrency=(Concurrency(limit=self.limit, key=key),))
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(config,), checksum="1")
        await self.heart.handle([NodeStarted("n", "n/1")])
        await self.heart.handle([AppSynced(told, "local")])
        await self.heart.reload()

    async def reopen(self) -> None:
        """Look at the file anew, after rows were put into it from outside."""
        await self.store.close()
        await self.store.open()
        await self.heart.reload()

    async def send(self, count: int, keys: int) -> None:
        """Queue runs, spread over so many values of the key."""
        now_ms = time.time_ns() // 1_000_000
        ids = numbered_ulids(now_ms, b"%010d" % self._sent)
        events = []
        for n in range(count):
            data = b'{"t":%d}' % ((self._sent + n) % keys)
            event_id = ids(n)
            events.append(
                Event(internal_id=event_id, id=event_id, name="x", data=data, user=b"{}", ts=now_ms, v=None, meta=None, received_ms=now_ms)
            )
        self._sent += count
        for start in range(0, count, 100):
            await self.heart.handle([EventsReceived(tuple(events[start : start + 100]), fresh=True)])

    async def round(self, keys: int) -> None:
        """Queue as many as a claim takes, claim them, and answer: only the claim is timed."""
        await self.send(ROOM, keys)
        began = time.perf_counter()
        beat = await self.heart.handle([Claim("n/1", (Ask("a-f", ROOM),))])
        spent = time.perf_counter() - began
        calls = [effect for one in beat.decided for effect in one.effects if isinstance(effect, Call)]
        assert calls, "nothing was claimed"
        self.times.append(spent / len(calls))
        answers = [CallAnswered(call.run.id, call.item.id, call.item.fence, Returned(data=b"null")) for call in calls]
        while answers:
            beat = await self.heart.handle(answers)
            answers = answers[len(beat.decided) :]

    def fill(self, runs: int, keys: int, *, shut: bool = False) -> None:
        """Put queued runs into the file, as events would: with their items, and lanes that are ready, or shut by their own key."""
        prefix = "fn/a-f/event.data.t/" if self.keyed else "fn/a-f//"
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("BEGIN")

        def key_of(n: int) -> str:
            return f"{prefix}old-{n % keys}" if self.keyed else prefix

        def rows() -> Iterator[tuple[Any, ...]]:
            for n in range(runs):
                key = key_of(n)
                yield (f"00000{n:021d}", lane_id("a-f", (key,)), f'["{key}"]', n)

        connection.executemany(
            "INSERT INTO runs (id, function_id, function_version, app_name, event_ids, status, cause, lane_id, keys, order_ms, created_ms,"
            " request_version, force_plan, pending, pending_key, steps, finished, state_bytes, calls, waits, guarded)"
            " VALUES (?1, 'a-f', 1, 'a', '[\"none\"]', 'queued', 'event', ?2, ?3, 9000000000000 + ?4, 1,"
            " -1, 0, '[]', '', 0, 0, 0, 1, 0, 0)",
            rows(),
        )
        lanes = {lane_id("a-f", (key_of(n),)): key_of(n) for n in range(min(runs, keys))}
        connection.executemany(
            "INSERT OR IGNORE INTO lanes (id, function_id, keys, state, shut_by, tag, shut_at) VALUES (?, 'a-f', ?, ?, ?, ?, ?)",
            [
                (lane, f'["{key}"]', "shut" if shut else "ready", key if shut else None, 1 << 50, self.limit if shut else 0)
                for lane, key in lanes.items()
            ],
        )
        connection.executemany(
            "INSERT INTO items (id, run_id, function_id, lane_id, keys, starts, order_ms, step_id, attempt, fence, losses,"
            " lane_number)"
            " VALUES (?1 || '-start', ?1, 'a-f', ?2, ?3, 1, 9000000000000 + ?4, 'step', 0, 0, 0,"
            " coalesce((SELECT number FROM lanes WHERE lanes.id = ?2), 0))",
            rows(),
        )
        if shut:
            connection.executemany("INSERT INTO counters (id, running) VALUES (?, ?)", [(key, self.limit) for key in lanes.values()])
        connection.execute("COMMIT")
        connection.close()


async def compared(
    folder: Path, name: str, scale: int, full: Callable[[Claims], None], *, limit: int, keyed: bool, keys: tuple[int, int]
) -> Result:
    """The cost of a claimed item beside what `full` puts in, as a share of the cost without it; rounds of both take turns."""
    sides = [Claims(folder / f"{name}-{side}.db", limit=limit, keyed=keyed) for side in ("empty", "full")]
    for side in sides:
        await side.open()
    full(sides[1])
    await sides[1].reopen()
    for _ in range(max(4, ROUNDS // scale)):
        for side, values in zip(sides, keys, strict=True):
            await side.round(values)
    for side in sides:
        await side.store.close()
    empty, filled = (statistics.median(side.times[2:]) for side in sides)
    return Result(f"claim cost with {name}, share of that without", 100 * filled / empty, "%")


def claims(folder: Path, scale: int) -> list[Result]:
    """Claims beside a backlog, with many keys, and with nearly all lanes shut."""

    async def main() -> list[Result]:
        backlog, keys = BACKLOG // scale, KEYS // scale
        return [
            await compared(folder, "1,000,000 queued", scale, lambda c: c.fill(backlog, 1), limit=1_000, keyed=False, keys=(1, 1)),
            await compared(folder, "10,000 keys", scale, lambda c: None, limit=1_000, keyed=True, keys=(1, keys)),
            await compared(
                folder, "99 % of lanes shut", scale, lambda c: c.fill(keys, keys, shut=True), limit=1, keyed=True, keys=(100, 100)
            ),
        ]

    return uvloop.run(main())


def limited(folder: Path, scale: int) -> list[Result]:
    """Throughput with a limit of 1 for each of 1,000 keys, and events a second into debounces and batches."""
    app = stepwell.App("flow")

    @app.function(trigger="flow/free")
    async def free(ctx: stepwell.Context) -> None: ...

    @app.function(trigger="flow/limited", concurrency=stepwell.Concurrency(1, key="event.data.n"))
    async def narrow(ctx: stepwell.Context) -> None: ...

    @app.function(trigger="flow/debounced", debounce=stepwell.Debounce("1h", key="event.data.n"))
    async def debounced(ctx: stepwell.Context) -> None: ...

    @app.function(trigger="flow/batched", batch=stepwell.Batch(100, timeout="1h", key="event.data.k"))
    async def batched(ctx: stepwell.Context) -> None: ...

    async def main() -> list[Result]:
        import sys

        sys.setswitchinterval(SWITCH_INTERVAL_S)
        async with app.engine(db=folder / "limited.db") as engine:
            rig = Rig(engine, app, {})
            seconds: dict[str, list[float]] = {"free": [], "limited": []}
            runs = 3_000 // scale
            for _ in range(8):
                for name, times in seconds.items():
                    times.append(await through(rig, f"flow/{name}", runs))
            # The first round of both warms up.
            share = 100 * statistics.median(seconds["free"][1:]) / statistics.median(seconds["limited"][1:])
            results = [Result("throughput with 1 a key and 1,000 keys, share of unlimited", share, "%")]
            for name in ("debounced", "batched"):
                count = 20_000 // scale
                began = time.perf_counter()
                for start in range(0, count, 100):
                    await app.send([{"name": f"flow/{name}", "data": {"n": n % 1000, "k": n % 7}} for n in range(start, start + 100)])
                results.append(Result(f"events into {name} functions, arrays of 100", count / (time.perf_counter() - began), "/s"))
            return results

    return uvloop.run(main())


async def through(rig: Rig, name: str, runs: int) -> float:
    """The seconds until so many runs of 1,000 keys have ended."""
    rig.ended.clear()
    rig._wanted = runs
    rig._enough.clear()
    began = time.perf_counter()
    for start in range(0, runs, 100):
        await rig.app.send([{"name": name, "data": {"n": n % 1000}} for n in range(start, start + 100)])
    await asyncio.wait_for(rig._enough.wait(), 600)
    return time.perf_counter() - began


ALL = (claims, limited)
