"""A node's answers to syncs."""

from __future__ import annotations

import asyncio
from typing import Any

from stepwell.engine.inputs import AppSynced
from stepwell.protocol.functions import FunctionConfig, Registration, Trigger
from stepwell.runtime.node import Node
from stepwell.store.base import Catalogue, Reader
from stepwell.store.memory import MemoryStore


class SlowCatalogue:
    """A reader whose catalogue comes when it is let go."""

    def __init__(self, reader: Reader, go: asyncio.Event, asked: asyncio.Event) -> None:
        self._reader, self._go, self._asked = reader, go, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    async def catalogue(self) -> Catalogue:
        self._asked.set()
        await self._go.wait()
        return await self._reader.catalogue()


class SlowStore(MemoryStore):
    """A store with such a reader."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.asked = asyncio.Event(), asyncio.Event()

    @property
    def reader(self) -> Reader:
        return SlowCatalogue(super().reader, self.go, self.asked)  # type: ignore[return-value]


def test_a_sync_is_answered_when_its_functions_are_known() -> None:
    """Who has the answer finds the functions in the registry: nothing reads an older one after it."""

    async def main() -> None:
        store = SlowStore()
        store.go.set()
        node = Node(store)
        await node.start()
        try:
            store.go.clear()
            store.asked.clear()
            function = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="a/x"),))
            told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(function,), checksum="1")
            answer = asyncio.ensure_future(node.submit(AppSynced(told, "local")))
            await store.asked.wait()
            assert not answer.done() and "a-f" not in node.registry.functions
            store.go.set()
            assert (await answer).modified and "a-f" in node.registry.functions
        finally:
            store.go.set()
            await node.drain(1)
            await node.stop()

    asyncio.run(main())
