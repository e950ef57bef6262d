"""A store that fails as disks and databases do: before the commit, after it with the answer lost, by a conflict, by being full."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from stepwell.engine.view import Changes, Selection, View
from stepwell.errors import Conflict, StoreFull, StoreUnavailable
from stepwell.store.base import Transaction
from stepwell.store.memory import MemoryStore


class FaultyStore(MemoryStore):
    """The memory store with seeded faults. `rate` is the share of commits that fail; 0 stops them."""

    def __init__(self, chance: random.Random, rate: float) -> None:
        super().__init__()
        self._chance, self.rate = chance, rate

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction whose save may fail."""
        async with super().transaction() as tx:
            yield _Faulty(tx, self._chance, self.rate)


class _Faulty:
    def __init__(self, tx: Transaction, chance: random.Random, rate: float) -> None:
        self._tx, self._chance, self._rate = tx, chance, rate

    async def load(self, selections: Iterable[Selection], view: View) -> None:
        await self._tx.load(selections, view)

    async def save(self, changes: Changes) -> None:
        fault = self._chance.choice(("before", "after", "conflict", "full")) if self._chance.random() < self._rate else ""
        match fault:
            case "before":
                raise StoreUnavailable("crashed before the commit")
            case "conflict":
                raise Conflict("somebody else was first")
            case "full":
                raise StoreFull("no space")
        await self._tx.save(changes)
        if fault == "after":
            raise StoreUnavailable("the commit's answer was lost")
