"""The functions that a Worker's events start, and the consumer of its messages."""

from __future__ import annotations

from typing import Any

import stepwell

app = stepwell.App("shop")
parcels = app.queue("parcels")


@app.function(trigger="shop/order.placed")
async def fulfil(ctx: stepwell.Context) -> dict[str, Any]:
    data = ctx.event.data
    total = await ctx.step.run("total", sum, data["prices"])
    return {"order": data["order"], "total": total}


@app.function(trigger=parcels)
async def ship(ctx: stepwell.Context) -> Any:
    return ctx.event.data
