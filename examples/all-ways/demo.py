"""Has the same reports made in five ways, side by side, and shows what became of them."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from app import Customer, app, by_flag, by_table, flags, jobs, results, want_by_table

WAYS = ("function", "queue", "actor", "flag", "table")
CUSTOMERS = ("ann", "bob", "cyd")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with app.engine(db=Path(folder) / "reports.db", retry_interval="100ms"):
            for customer in CUSTOMERS:
                await app.send("reports/wanted", {"customer": customer})
                await jobs.send({"customer": customer})
                await Customer[customer].want()
                await flags.put(f"report/{customer}", True, ttl="1h")
                await want_by_table(customer)
            for schedule in (by_flag, by_table):
                # The renderer fails at first: it takes two ticks, which nobody waits for here.
                for _ in range(2):
                    await (await app.start(schedule)).output()
            await asyncio.wait_for(finished(), 30)
            for way in WAYS:
                reports = [await results.get(f"{way}/{customer}") for customer in CUSTOMERS]
                shown = ", ".join(f"{report['customer']}: {report['pages']} pages in {report['tries']} tries" for report in reports)
                print(f"{way:<9} {shown}")


async def finished() -> None:
    """Returns when every way has made every report."""
    while len([key async for key in results.keys("")]) < len(WAYS) * len(CUSTOMERS):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
