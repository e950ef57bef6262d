"""The functions that are measured in child processes."""

from __future__ import annotations

import asyncio

import stepwell

app = stepwell.App("bench")


async def note(i: int) -> int:
    return i


@app.function(trigger="bench/five")
async def five(ctx: stepwell.Context) -> str:
    for i in range(5):
        await ctx.step.run(f"step-{i}", note, i)
    return "done"


@app.function(trigger="bench/ten")
async def ten(ctx: stepwell.Context) -> list[int]:
    return await asyncio.gather(*(ctx.step.run(f"step-{i}", note, i) for i in range(10)))
