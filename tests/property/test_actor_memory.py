"""An activation's memory is the store with what was written since: whatever is in memory, read late, or let go of."""

from __future__ import annotations

import asyncio
import random
from unittest import mock

import pytest

from stepwell.protocol.actors import Snapshot
from stepwell.sdk.actors import memory as module
from stepwell.sdk.actors.memory import Entries, Memory, Unit

SEEDS = range(1, 201)
KEYS = [f"k{n}" for n in range(12)] + ["", "é", "\U0001f600", "\uffff"]


class Rows:
    """What is stored: units arrive in order, and reads wait for those before them. Answers come later, and a few entries at a time."""

    def __init__(self, chance: random.Random, entries: dict[str, bytes]) -> None:
        self.chance, self.entries = chance, dict(entries)
        self.units: list[Unit] = []
        self.alarm: int | None = None

    def store(self, unit: Unit) -> None:
        assert unit.number == len(self.units) + 1 and not unit.is_empty
        self.units.append(unit)
        if unit.clear:
            self.entries.clear()
        for key, value in unit.puts.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    async def sync(self) -> None:
        await self._later()

    async def values(self, keys: tuple[str, ...]) -> tuple[Entries, bool]:
        found = sorted((key, value) for key, value in self.entries.items() if key in keys)
        await self._later()
        cut = self.chance.randint(1, 4)
        return found[:cut], len(found) > cut

    async def range(self, start: str, end: str | None, reverse: bool, limit: int) -> tuple[Entries, bool]:
        found = sorted((key, value) for key, value in self.entries.items() if key >= start and (end is None or key < end))
        if reverse:
            found.reverse()
        await self._later()
        cut = min(limit, self.chance.randint(1, 4))
        return found[:cut], len(found) > cut

    async def _later(self) -> None:
        for _ in range(self.chance.randint(1, 3)):
            await asyncio.sleep(0)


class Course:
    """One seed: the memory and, beside it, a dictionary that says what it is to be."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        first = {key: b"%d" % n for n, key in enumerate(KEYS) if self.chance.random() < 0.6}
        self.rows = Rows(self.chance, first)
        whole = self.chance.random() < 0.4
        told = tuple(sorted(first.items())) if whole else ()
        self.memory = Memory(Snapshot(entries=told, whole=whole), self.rows)
        self.meant = dict(first)
        self.alarm: int | None = None

    async def run(self) -> None:
        """Many operations, one after the other, some in transactions; then what is stored is what is meant."""
        for _ in range(60):
            await self.step(0)
        await self.memory.durable()
        assert self.rows.entries == self.meant

    async def step(self, depth: int) -> None:
        """One operation."""
        what = self.chance.random()
        if what < 0.25:
            key, value = self.chance.choice(KEYS), b"v" * self.chance.randint(1, 9)
            await self.memory.has_room()
            self.memory.put(key, value)
            self.meant[key] = value
        elif what < 0.4:
            key = self.chance.choice(KEYS)
            assert await self.memory.value(key) == self.meant.get(key)
            self.memory.remove(key)
            self.meant.pop(key, None)
        elif what < 0.43:
            self.memory.clear()
            self.meant.clear()
        elif what < 0.6:
            keys = self.chance.sample(KEYS, self.chance.randint(1, 6))
            assert await self.memory.values(keys) == {key: self.meant[key] for key in sorted(keys) if key in self.meant}
        elif what < 0.8:
            await self.read_range()
        elif what < 0.85:
            self.alarm = self.chance.choice((None, 1, 2))
            self.memory.set_alarm(self.alarm)
        elif what < 0.95 and depth < 3:
            await self.transact(depth)
        else:
            await asyncio.sleep(0)
        assert self.memory.alarm_ms == self.alarm

    async def read_range(self) -> None:
        start = self.chance.choice(("", *KEYS))
        end = self.chance.choice((None, *KEYS))
        reverse = self.chance.random() < 0.5
        limit = self.chance.choice((None, 1, 2, 5))
        wanted = [key for key in sorted(self.meant, reverse=reverse) if key >= start and (end is None or key < end)][:limit]
        found = await self.memory.range(start, end, reverse, limit)
        assert list(found.items()) == [(key, self.meant[key]) for key in wanted]

    async def transact(self, depth: int) -> None:
        before, alarm, units = dict(self.meant), self.alarm, len(self.rows.units)
        how = self.chance.choice(("commit", "raise", "roll back"))
        try:
            with self.memory.transaction() as roll_back:
                first = len(self.rows.units)
                for _ in range(self.chance.randint(0, 6)):
                    await self.step(depth + 1)
                assert len(self.rows.units) == first, "a unit ended in a transaction"
                if how == "raise":
                    raise ValueError
                if how == "roll back":
                    roll_back()
        except ValueError:
            pass
        assert len(self.rows.units) >= units
        if how != "commit":
            self.meant, self.alarm = before, alarm


@pytest.mark.parametrize("seed", SEEDS)
def test_memory_is_what_is_meant(seed: int) -> None:
    """Reads, writes, ranges, transactions and clearing, with little room and entries that come late."""
    with mock.patch.multiple(module, KEPT_BYTES_MAX=random.Random(seed).choice((20, 60, 1 << 20)), READ_AT_ONCE=3):
        asyncio.run(Course(seed).run())


def test_a_wait_for_the_storage_ends_no_unit() -> None:
    """Writes around a read that has to go to the store are one unit; the task's next other await ends it."""

    async def main() -> None:
        rows = Rows(random.Random(1), {"old": b"1"})
        memory = Memory(Snapshot(), rows)
        memory.put("a", b"1")
        assert await memory.value("old") == b"1"
        memory.put("b", b"2")
        assert rows.units == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (unit,) = rows.units
        assert unit.puts == {"a": b"1", "b": b"2"}

    asyncio.run(main())


def test_nothing_is_written_after_the_end() -> None:
    """A closed memory drops the unit that is not told, and refuses what comes."""

    async def main() -> None:
        rows = Rows(random.Random(1), {})
        memory = Memory(Snapshot(whole=True), rows)
        memory.put("a", b"1")
        memory.close()
        await asyncio.sleep(0)
        assert rows.units == []
        with pytest.raises(BaseException, match="is over"):
            memory.put("b", b"2")

    asyncio.run(main())
