"""A scripted app in a real node over the memory store, with the whole server before it, asked in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx

from stepwell.engine.inputs import AppSynced, RunCancelled
from stepwell.engine.model import Run, Step
from stepwell.engine.registry import Settings
from stepwell.runtime.node import Node
from stepwell.server.app import Server
from stepwell.server.auth import Keys
from stepwell.store.memory import MemoryStore
from tests.unit.server.scripted import Scripted

WAIT_S = 20.0
PAUSE_S = 0.005


class Rig:
    """The server and what asks it."""

    def __init__(self, node: Node, server: Server, client: httpx.AsyncClient) -> None:
        self.node, self.server, self.client = node, server, client

    async def send(self, name: str, data: dict[str, Any] | None = None, **fields: Any) -> str:
        """Send an event; gives its id."""
        answer = await self.client.post("/e/key", json={"name": name, "data": data or {}, **fields})
        event_id: str = answer.json()["ids"][0]
        return event_id

    async def run_of(self, event_id: str) -> str:
        """The run that an event started."""
        runs = await self.until(lambda: self.node.reader.runs_of_event(event_id, 9), f"event {event_id} has a run")
        run_id: str = runs[0].id
        return run_id

    async def ended(self, name: str, data: dict[str, Any] | None = None) -> str:
        """Send an event, and wait for the end of its run; gives the run's id."""
        run_id = await self.run_of(await self.send(name, data))
        await self.end_of(run_id)
        return run_id

    async def end_of(self, run_id: str) -> Run:
        """Wait for a run's end."""

        async def look() -> Run | None:
            run = await self.run(run_id)
            return run if run.ended_ms is not None else None

        run: Run = await self.until(look, f"run {run_id} ends")
        return run

    async def run(self, run_id: str) -> Run:
        """A run as it stands."""
        run = await self.node.reader.run(run_id)
        assert run is not None
        return run

    async def steps(self, run_id: str) -> tuple[Step, ...]:
        """A run's steps."""
        return await self.node.reader.steps(run_id)

    async def cancel(self, run_id: str) -> None:
        """End a run."""
        await self.node.submit(RunCancelled(run_id, "a test"))

    async def until(self, look: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Wait until something is found."""
        until_s = asyncio.get_running_loop().time() + WAIT_S
        while asyncio.get_running_loop().time() < until_s:
            if found := await look():
                return found
            await asyncio.sleep(PAUSE_S)
        raise AssertionError(f"not within {WAIT_S:g} s: {what}")

    async def answer(self, query: str, **variables: Any) -> dict[str, Any]:
        """A document's whole answer."""
        response = await self.client.post("/v0/gql", json={"query": query, "variables": variables})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """A document's data, where it has no errors."""
        answer = await self.answer(query, **variables)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    async def refused(self, query: str, **variables: Any) -> str:
        """The messages of a document that is answered with errors."""
        answer = await self.answer(query, **variables)
        return " | ".join(error["message"] for error in answer["errors"])


@asynccontextmanager
async def serving(app: Scripted, keys: Keys | None = None, kind: str = "dev", **options: Any) -> AsyncIterator[Rig]:
    """A rig for an app."""
    node = Node(MemoryStore(), drivers={"local": app.call}, settings=Settings(retry_interval_ms=20))
    await node.start()
    try:
        await node.submit(AppSynced(app.registration(), "local"))
        server = Server(node, keys or Keys(), kind, **options)
        transport = httpx.ASGITransport(app=server)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8288") as client:
            yield Rig(node, server, client)
    finally:
        await node.drain(5)
        await node.stop()


def work(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's work."""
    asyncio.run(main())
