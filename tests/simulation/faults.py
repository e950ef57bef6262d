"""A store that fails as disks and databases do: before the commit, after it with the answer lost, by a conflict, by being full."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from stepwell.engine.view import Changes, Selection, View
from stepwell.errors import Conflict, StoreFull, StoreUnavailable
from stepwell.store.base import Reader, Store, Transaction
from stepwell.store.databases import Databases


class Luck:
    """Says for each commit which fault it meets. `rate` is the share of those that fail; 0 stops them. `met` is what came."""

    def __init__(self, chance: random.Random, rate: float) -> None:
        self._chance, self.rate = chance, rate
        self.met: list[str] = []

    def __call__(self) -> str:
        fault = self._chance.choice(("before", "after", "conflict", "full")) if self._chance.random() < self.rate else ""
        self.met.append(fault)
        return fault


class FaultyStore:
    """A store whose commits meet faults."""

    def __init__(self, store: Store, fault: Callable[[], str]) -> None:
        self._store, self._fault = store, fault

    async def open(self) -> None:
        """Open the store."""
        await self._store.open()

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    @property
    def databases(self) -> Databases:
        """Users' databases, which are no part of its transactions."""
        return self._store.databases

    @property
    def reader(self) -> Reader:
        """The store's queries, which never fail."""
        return self._store.reader

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction whose save may fail."""
        async with self._store.transaction() as tx:
            yield _Faulty(tx, self._fault)


class _Faulty:
    def __init__(self, tx: Transaction, fault: Callable[[], str]) -> None:
        self._tx, self._fault = tx, fault

    async def load(self, selections: Iterable[Selection], view: View) -> None:
        await self._tx.load(selections, view)

    async def save(self, changes: Changes) -> None:
        fault = self._fault()
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
