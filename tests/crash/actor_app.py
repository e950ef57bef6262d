"""An app of actors that note in files when their turns overlap, for tests that kill its server and its processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import stepwell

app = stepwell.App("kill")
folder = Path(os.environ["TURNS_DIR"])


class Exclusive:
    """A lock that ends with its process: whoever does not get it has found another turn of the same actor under way."""

    def __init__(self, name: str) -> None:
        self._path = folder / f"{name}.lock"

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with (folder / "overlaps").open("a") as told:
                told.write(f"{self._path.stem} in {os.getpid()}\n")

    def __exit__(self, *_: object) -> None:
        self._file.close()


@app.actor
class Account(stepwell.Actor):
    """Counts in two entries that belong to one unit, in a third that follows, and lets its alarm copy the count."""

    async def add(self) -> int:
        """One more: `a` and `b` in one unit with the alarm, `c` in the next."""
        with Exclusive(self.name):
            count = int(await self.storage.get("a", 0)) + 1
            await self.storage.put("a", count)
            await self.storage.put({"b": count, f"n/{count:06}": "x" * 50})
            await self.set_alarm("0s")
            await asyncio.sleep(0.001)
            await self.storage.put("c", count)
        return count

    async def look(self) -> dict[str, int]:
        """What is stored."""
        with Exclusive(self.name):
            entries = await self.storage.get(["a", "b", "c", "seen"])
            return {**entries, "notes": len(await self.storage.list(prefix="n/"))}

    async def alarm(self, info: stepwell.AlarmInfo) -> None:
        """Note the count."""
        with Exclusive(self.name):
            seen = await self.storage.get("a", 0)
            await asyncio.sleep(0.001)
            await self.storage.put("seen", seen)


@app.actor
class Ledger(stepwell.Actor, sql=True):
    """The same, with rows in place of the notes, all in a file of its own."""

    async def on_activate(self) -> None:
        """Its table."""
        self.sql.exec("CREATE TABLE IF NOT EXISTS notes (n INTEGER PRIMARY KEY, text TEXT NOT NULL)")

    async def add(self) -> int:
        """One more: `a`, `b` and a row in one unit with the alarm, `c` in the next."""
        with Exclusive(f"ledger-{self.name}"):
            count = int(await self.storage.get("a", 0)) + 1
            await self.storage.put("a", count)
            self.sql.exec("INSERT INTO notes VALUES (?, ?)", count, "x" * 50)
            await self.storage.put("b", count)
            await self.set_alarm("0s")
            await asyncio.sleep(0.001)
            await self.storage.put("c", count)
        return count

    async def look(self) -> dict[str, int]:
        """What is stored."""
        with Exclusive(f"ledger-{self.name}"):
            entries = await self.storage.get(["a", "b", "c", "seen"])
            return {**entries, "notes": self.sql.exec("SELECT count(*) AS n FROM notes").one()["n"]}

    async def alarm(self, info: stepwell.AlarmInfo) -> None:
        """Note the count."""
        with Exclusive(f"ledger-{self.name}"):
            seen = await self.storage.get("a", 0)
            await asyncio.sleep(0.001)
            await self.storage.put("seen", seen)


@app.function(trigger="kill/ready")
async def ready(ctx: stepwell.Context) -> None:
    """So that the app can be waited for."""
