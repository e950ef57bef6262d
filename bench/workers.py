"""Workers: what `fetch` takes while nothing else is done, and while a `queue` handler of the same project burns a core."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import uvloop

from bench.result import Result, percentile
from tests.support.workers import WorkersDev, project

RATE = 50
BURN_S = 60
TRIES, LOOK_S = 1000, 0.01
WRANGLER = """
name = "burner"
main = "src/entry.py"
compatibility_date = "2026-07-01"
compatibility_flags = ["python_workers"]
queues.producers = [{ queue = "burns", binding = "BURNS" }]
queues.consumers = [{ queue = "burns", max_batch_timeout = 0 }]
kv_namespaces = [{ binding = "KV", id = "burner" }]
"""
SOURCE = """
import time
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.method == "POST":
            await self.env.BURNS.send(float(await request.text()))
        return Response.json({"burns": await self.env.KV.get("burns")})

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            await self.env.KV.put("burns", "yes")
            end = time.monotonic() + message.body
            while time.monotonic() < end:
                pass
            await self.env.KV.put("burns", "no")
"""


def beside_a_burning_queue(folder: Path, scale: int) -> list[Result]:
    """Requests that read a value, 50 a second whatever the ones before take: median and 99th percentile, idle and beside the burning."""
    seconds = max(4, BURN_S // scale)
    made = project(folder / "workers", WRANGLER, SOURCE)
    server = WorkersDev(made)
    try:
        return uvloop.run(_measured(server, seconds))
    finally:
        server.kill()


async def _measured(server: WorkersDev, seconds: int) -> list[Result]:
    host, port = server.url.removeprefix("http://").split(":")
    client = _Client(host, int(port))
    await client.steady(2)
    idle = await client.steady(seconds)
    await client.request("POST", str(seconds + 2).encode())
    for _ in range(TRIES):
        if b"yes" in await client.request("GET"):
            break
        await asyncio.sleep(LOOK_S)
    burning = await client.steady(seconds)
    # It has burnt for all that time: it has not ended yet.
    assert b"yes" in await client.request("GET")
    results = []
    for name, times in (("idle", idle), ("beside a queue handler that burns a core", burning)):
        results.append(Result(f"workers, fetch at {RATE}/s, {name}: median", percentile(times, 0.5), "ms"))
        results.append(Result(f"workers, fetch at {RATE}/s, {name}: 99th percentile", percentile(times, 0.99), "ms"))
    return results


class _Client:
    """Connections to one server, as many as are needed at once."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(self, method: str, body: bytes = b"") -> bytes:
        """The body of the answer."""
        self._free = [(reader, writer) for reader, writer in self._free if not reader.at_eof()]
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(self._host, self._port)
        writer.write(f"{method} / HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
        answer = await reader.readexactly(length)
        self._free.append((reader, writer))
        return answer

    async def steady(self, seconds: int) -> list[float]:
        """What each request took, in milliseconds, from the moment at which it was due."""
        times: list[float] = []

        async def one(due: float) -> None:
            await self.request("GET")
            times.append(1000 * (time.perf_counter() - due))

        async with asyncio.TaskGroup() as group:
            began = time.perf_counter()
            for nth in range(RATE * seconds):
                due = began + nth / RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(one(due))
        return times


ALL = (beside_a_burning_queue,)
