"""The app that `bench/actors.py` measures."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import stepwell

app = stepwell.App("bench")


@app.actor
class Counter(stepwell.Actor):
    """Counts, durably."""

    async def add(self) -> int:
        """A turn that reads and writes."""
        count = await self.storage.get("count", 0) + 1
        await self.storage.put("count", count)
        return int(count)

    async def look(self) -> int:
        """A turn that reads."""
        return int(await self.storage.get("count", 0))


@app.actor
class Sleeper(stepwell.Actor):
    """Notes how late its alarm was."""

    async def alarm(self, info: stepwell.AlarmInfo) -> None:
        """Note it."""
        await self.storage.put("late_ms", round((datetime.now(UTC) - info.scheduled_time).total_seconds() * 1000))


@app.function(trigger="bench/turns")
async def turns(ctx: stepwell.Context[Any]) -> dict[str, Any]:
    """So many turns of so many actors, each in a loop of its own. Gives how long they took."""
    actors, rounds, method = ctx.event.data["actors"], ctx.event.data["rounds"], ctx.event.data["method"]

    async def go(name: str) -> None:
        call = getattr(Counter[name], method)
        for _ in range(rounds):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(go(f"a-{n}") for n in range(actors)))
    return {"seconds": time.perf_counter() - began}
