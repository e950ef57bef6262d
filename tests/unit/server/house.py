"""The server as one ASGI application over a store in memory, asked without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from stepwell.engine.inputs import AppSynced
from stepwell.protocol.functions import FunctionConfig, Trigger, registration
from stepwell.runtime.clock import SystemClock
from stepwell.runtime.node import Node
from stepwell.server.app import Server
from stepwell.server.auth import Keys
from stepwell.store.memory import MemoryStore


class SetClock(SystemClock):
    """A clock whose time tests may set."""

    ahead_ms = 0

    def now_ms(self) -> int:
        """Now, or as far ahead as it was set."""
        return super().now_ms() + self.ahead_ms


class House:
    """A node, its server, and a client."""

    def __init__(self, node: Node, server: Server, client: httpx.AsyncClient) -> None:
        self.node, self.server, self.client = node, server, client

    async def post(self, body: Any, *, key: str = "any", **headers: str) -> httpx.Response:
        """Send a body to the event API."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(f"/e/{key}", content=content, headers=told)

    async def stored(self) -> list[Any]:
        """The events, oldest first."""
        return list(reversed(await self.node.reader.events(limit=50)))

    async def runs(self, event_id: str) -> int:
        """How many runs an event has."""
        return len(await self.node.reader.runs_of_event(event_id, 10))


def within(test: Callable[[House], Awaitable[None]], *, keys: Keys | None = None, kind: str = "dev", **options: Any) -> None:
    """Run a test against a house with one app, which has a function for `shop/paid`."""

    async def main() -> None:
        node = Node(MemoryStore(), clock=SetClock())
        await node.start()
        try:
            paid = FunctionConfig(id="shop-paid", name="paid", triggers=(Trigger(event="shop/paid"),), url="http://127.0.0.1:9/")
            told = registration(app_name="shop", url="http://127.0.0.1:9/", sdk="js:v4.24.0", functions=(paid,))
            await node.submit(AppSynced(told, "nobody"))
            server = Server(node, keys or Keys(), kind, **options)
            transport = httpx.ASGITransport(app=server)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                await test(House(node, server, client))
        finally:
            await node.stop()

    asyncio.run(main())
