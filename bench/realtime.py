"""Realtime: one publisher and a thousand subscribers by WebSocket, in a real server; and what an idle subscriber costs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import psutil
import uvloop

from bench.result import Result, percentile
from tests.support.processes import Server

SUBSCRIBERS = 1000
MESSAGES = 120
AT_ONCE = 4
"""Publishers: the server is not idle between two messages."""
BODY = json.dumps({"state": "packing", "percent": 42, "note": "x" * 60}).encode()


class _Subscriber(asyncio.Protocol):
    """Counts the frames that come; knows nothing of their content, so that a subscriber costs little here."""

    def __init__(self, request: bytes) -> None:
        self._request, self._rest = request, b""
        self.open = asyncio.get_running_loop().create_future()
        self.count = 0
        self.on_count = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self.open.done():
            head, end, self._rest = self._rest.partition(b"\r\n\r\n")
            assert end and head.startswith(b"HTTP/1.1 101"), head
            self.open.set_result(None)
        while len(self._rest) >= 4:
            short = self._rest[1] & 127
            whole = 4 + int.from_bytes(self._rest[2:4], "big") if short == 126 else 2 + short
            if len(self._rest) < whole:
                break
            if self._rest[0] == 0x81:  # a text, whole; pings of the connection are passed over
                self.count += 1
                self.on_count()
            self._rest = self._rest[whole:]


def fan_out(folder: Path, scale: int) -> list[Result]:
    """Deliveries a second to a thousand subscribers of one topic, how long a message takes to the last of them, memory."""
    home = folder / "realtime"
    home.mkdir()
    server = Server(home)
    try:
        return uvloop.run(_fan_out(server, max(10, MESSAGES // scale)))
    finally:
        server.kill()


async def _fan_out(server: Server, messages: int) -> list[Result]:
    host, port = server.url.removeprefix("http://").split(":")
    topics = [{"channel": "bench", "name": "status", "kind": "run"}]
    jwt = (await asyncio.to_thread(server.ask, "/v1/realtime/token", topics))["jwt"]
    process = psutil.Process(server.popen.pid)
    before = process.memory_info().rss
    lines = [f"GET /v1/realtime/connect?token={jwt} HTTP/1.1", f"host: {host}", "connection: upgrade", "upgrade: websocket"]
    lines += ["sec-websocket-version: 13", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""]
    request = "\r\n".join(lines).encode()
    loop = asyncio.get_running_loop()
    subscribers: list[_Subscriber] = []
    for _ in range(SUBSCRIBERS):
        _, subscriber = await loop.create_connection(lambda: _Subscriber(request), host, int(port))
        await subscriber.open
        subscribers.append(subscriber)
    idle = (process.memory_info().rss - before) / SUBSCRIBERS / 1024

    # One at a time: the time to the last subscriber.
    left, all_in = 0, asyncio.Event()

    def counted() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            all_in.set()

    for subscriber in subscribers:
        subscriber.on_count = counted
    times = []
    publish, close = await _publisher(host, int(port))
    for _ in range(20):
        left = SUBSCRIBERS
        all_in.clear()
        began = time.perf_counter()
        await publish()
        await all_in.wait()
        times.append(1000 * (time.perf_counter() - began))

    # As many as go: several publishers.
    left = SUBSCRIBERS * messages
    all_in.clear()
    publishers = [await _publisher(host, int(port)) for _ in range(AT_ONCE)]
    cpu = sum(process.cpu_times()[:2])
    began = time.perf_counter()

    async def many(publish: object) -> None:
        for _ in range(messages // AT_ONCE):
            await publish()  # type: ignore[operator]

    left -= SUBSCRIBERS * (messages % AT_ONCE)
    await asyncio.gather(*(many(one) for one, _ in publishers))
    await all_in.wait()
    seconds, cpu = time.perf_counter() - began, sum(process.cpu_times()[:2]) - cpu
    delivered = SUBSCRIBERS * (messages - messages % AT_ONCE)
    for _, end in [*publishers, (publish, close)]:
        end()
    for subscriber in subscribers:
        subscriber.transport.abort()  # type: ignore[attr-defined]
    return [
        Result(f"realtime, {SUBSCRIBERS} subscribers: deliveries", delivered / seconds, "/s"),
        Result("realtime, server's CPU a delivery", 1e6 * cpu / delivered, "µs"),
        Result("realtime, a message to the last of them, median", percentile(times, 0.5), "ms"),
        Result("realtime, server's memory an idle subscriber", idle, "KiB"),
    ]


async def _publisher(host: str, port: int):  # type: ignore[no-untyped-def]
    """A function that publishes one message over its own connection, and one that closes it."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /v1/realtime/publish?channel=bench&topic=status HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()

    async def publish() -> None:
        writer.write(head + BODY)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer, answer

    return publish, writer.close


ALL = (fan_out,)
