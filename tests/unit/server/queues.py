"""A node with queues behind the whole server, asked in process; its consumer does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from stepwell.engine.inputs import AppSynced
from stepwell.protocol.calls import Answer, CallRequest, Returned
from stepwell.protocol.codec import decode
from stepwell.protocol.config_reader import read_function
from stepwell.protocol.functions import Registration
from stepwell.protocol.queues import Outcome, encode_outcome
from stepwell.runtime.clock import SystemClock
from stepwell.runtime.node import Node
from stepwell.server.app import Server
from stepwell.server.auth import Keys
from stepwell.store.memory import MemoryStore

URL = "http://127.0.0.1:1/app"
PAUSE_S = 0.002
ACCOUNT = "/client/v4/accounts/any/queues"


class Ahead(SystemClock):
    """A clock that a test puts forward."""

    ahead_ms = 0

    def now_ms(self) -> int:
        """The time, and what the test has added."""
        return super().now_ms() + self.ahead_ms


class Rig:
    """The server, and the consumer of whatever queue is synced."""

    def __init__(self, node: Node, client: httpx.AsyncClient, clock: Ahead) -> None:
        self.node, self.client, self.clock = node, client, clock
        self.batches: list[list[dict[str, Any]]] = []
        self.outcome: Callable[[list[dict[str, Any]]], Outcome] = lambda events: Outcome()
        self.gate: asyncio.Event | None = None

    async def call(self, request: CallRequest, checkpoint: Any) -> Answer:
        """The consumer: it keeps what it got and reports as the test says, when the test lets it."""
        events = [decode(event) for event in request.events]
        self.batches.append(events)
        if self.gate is not None:
            await self.gate.wait()
        return Returned(data=encode_outcome(self.outcome(events)))

    async def sync(self, queue: str = "jobs", *, consumer: dict[str, Any] | None = None, **more: Any) -> None:
        """An app tells the queue's consumer, or a function that the queue triggers."""
        told = {
            "id": f"a-{queue}",
            "name": queue,
            "triggers": [{"queue": queue}],
            "steps": {"step": {"id": "step", "runtime": {"url": URL}}},
        }
        config = read_function({**told, **({} if consumer is None else {"consumer": consumer}), **more})
        registration = Registration(
            app_name=f"a-{queue}", url=f"{URL}/{queue}", sdk="", framework="", app_version="", functions=(config,), checksum=repr(config)
        )
        await self.node.submit(AppSynced(registration, "http"))

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        """The answer to a request, which has that status."""
        answer = await self.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def send(self, queue: str, *bodies: Any, **more: Any) -> list[str]:
        """Send messages by hand; their ids."""
        return [(await self.ask("POST", f"/api/queues/{queue}/messages", {"body": body, **more}))["id"] for body in bodies]

    async def until(self, look: Callable[[], Awaitable[Any]], what: str) -> Any:
        """As soon as something is found."""
        async with asyncio.timeout(10):
            while not (found := await look()):  # noqa: ASYNC110 - what is looked for is in a store
                await asyncio.sleep(PAUSE_S)
        return found

    async def waiting(self, queue: str, count: int) -> dict[str, Any]:
        """The queue, as soon as so many wait in it and none is out."""

        async def look() -> dict[str, Any] | None:
            answer = await self.client.get(f"/api/queues/{queue}")
            told: dict[str, Any] = answer.json()
            return told if answer.status_code == 200 and (told["waiting"], told["deliveries_out"]) == (count, 0) else None

        found: dict[str, Any] = await self.until(look, f"{count} wait in {queue}")
        return found

    async def bodies(self, queue: str, where: str = "") -> list[Any]:
        """The bodies of the messages that wait."""
        answer = await self.client.get(f"/api/queues/{queue}/messages", params={"limit": 100, "where": where})
        return [message["body"] for message in answer.json()["messages"]]


def with_queues(work: Callable[[Rig], Awaitable[None]], keys: Keys | None = None, kind: str = "dev") -> None:
    """Run a test against a node in memory."""

    async def main() -> None:
        rig: Rig
        clock = Ahead()
        node = Node(MemoryStore(), drivers={"http": lambda request, save: rig.call(request, save)}, clock=clock)
        server = Server(node, keys or Keys(), kind)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=server), base_url="http://localhost") as client:
            rig = Rig(node, client, clock)
            await node.start()
            try:
                async with asyncio.timeout(30):
                    await work(rig)
            finally:
                await node.stop()

    asyncio.run(main())
