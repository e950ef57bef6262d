"""Each piece of work is done with a store of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from stepwell.store.base import Store
from stepwell.store.memory import MemoryStore
from stepwell.store.sqlite import SqliteStore

Work = Callable[[Store], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Work], None]:
    """Runs a piece of work against an open store of each kind."""

    def run(work: Work) -> None:
        async def main() -> None:
            store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db")
            await store.open()
            try:
                await work(store)
            finally:
                await store.close()

        asyncio.run(main())

    return run
