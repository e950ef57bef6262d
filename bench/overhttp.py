"""A real server process: events posted over raw sockets, and step calls to a raw app."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httptools
import psutil
import uvloop

from bench.result import Result
from tests.support.processes import Server, until

POSTERS = 32
EVENT = {"name": "bench/x", "data": {"order": "o-1", "tenant": "acme", "items": [1, 2, 3]}}


def ingest(folder: Path, scale: int) -> list[Result]:
    """Events a second: single posts at concurrency 32, and arrays of 100."""
    home = folder / "ingest"
    home.mkdir()
    server = Server(home)
    try:
        results = []
        for name, body, per, rounds in (("single posts", EVENT, 1, 1000), ("arrays of 100", [EVENT] * 100, 100, 30)):
            uvloop.run(_post_all(server.url, json.dumps(body).encode(), 20))
            rounds = max(2, rounds // scale)
            began = time.perf_counter()
            uvloop.run(_post_all(server.url, json.dumps(body).encode(), rounds))
            results.append(Result(f"events, {name} at concurrency {POSTERS}", POSTERS * rounds * per / (time.perf_counter() - began), "/s"))
        results.append(Result("server memory after that", psutil.Process(server.popen.pid).memory_info().rss / 2**20, "MiB"))
        return results
    finally:
        server.kill()


async def _post_all(url: str, body: bytes, rounds: int) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"POST /e/bench HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def post() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(rounds):
            writer.write(head + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 200 " in answer, answer
            await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(post() for _ in range(POSTERS)))


class RawApp(asyncio.Protocol):
    """An app without an SDK: answers a call with the next of five steps, from the memo, or with the result."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        done = body[body.index(b'"stack":[') :].split(b"]")[0].count(b'"s')
        if done < 5:
            status = b"206 Partial Content"
            answer = b'[{"op":"StepRun","id":"s%d","name":"s%d","displayName":"s%d","data":%d}]' % (done, done, done, done)
        else:
            status, answer = b"200 OK", b'"done"'
        head = b"HTTP/1.1 %s\r\nx-inngest-sdk: raw:v1\r\nx-inngest-req-version: 2\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % (status, len(answer)) + answer)


def step_calls(folder: Path, scale: int) -> list[Result]:
    """Step calls a second over HTTP to a raw app, with the CPU of each side."""
    home = folder / "calls"
    home.mkdir()
    server = Server(home, "--no-poll")
    try:
        return uvloop.run(_step_calls(server, 4000 // scale))
    finally:
        server.kill()


async def _step_calls(server: Server, runs: int) -> list[Result]:
    loop = asyncio.get_running_loop()
    app = await loop.create_server(RawApp, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{app.sockets[0].getsockname()[1]}/x"
    runtime = {"runtime": {"type": "http", "url": f"{url}?fnId=raw-f&stepId=step"}}
    function = {"id": "raw-f", "name": "f", "triggers": [{"event": "raw/go"}], "steps": {"step": runtime}}
    body = {"appName": "raw", "url": url, "sdk": "raw", "functions": [function]}
    await asyncio.to_thread(server.ask, "/fn/register", body)
    process = psutil.Process(server.popen.pid)
    cpu, own = sum(process.cpu_times()[:2]), time.process_time()
    seconds = await asyncio.to_thread(_through, server, "raw/go", runs)
    app.close()
    return [
        Result("HTTP, raw app, five-step function: step calls", 5 * runs / seconds, "/s"),
        Result("HTTP, raw app, five-step function: runs", runs / seconds, "/s"),
        Result("HTTP, server's CPU a step call", 1e6 * (sum(process.cpu_times()[:2]) - cpu) / (6 * runs), "µs"),
        Result("HTTP, raw app's and client's CPU a step call", 1e6 * (time.process_time() - own) / (6 * runs), "µs"),
    ]


def _through(server: Server, name: str, runs: int) -> float:
    """Send so many events in arrays of 500; the seconds until no run is under way."""
    began = time.perf_counter()
    for start in range(0, runs, 500):
        ids = server.ask("/e/x", [{"name": name}] * min(500, runs - start))["ids"]
    until(lambda: not any(server.ask(f"/api/runs?limit=1&status={word}")["runs"] for word in ("queued", "running")), "all runs end", 120)
    seconds = time.perf_counter() - began
    (run,) = server.ask(f"/v1/events/{ids[-1]}/runs")["data"]
    assert run["status"] == "Completed", run
    return seconds


def process_driver(folder: Path, scale: int) -> list[Result]:
    """Steps in child processes, two of them, with the CPU of the server and of its children."""
    home = folder / "process"
    home.mkdir()
    server = Server(home, str(Path(__file__).parent / "app.py"))
    try:
        server.synced("bench-five")
        process = psutil.Process(server.popen.pid)
        results = []
        for name, steps, runs in (("five", 5, 4000 // scale), ("ten", 10, 1000 // scale)):
            _through(server, f"bench/{name}", 200)
            children = process.children()
            cpu, theirs = sum(process.cpu_times()[:2]), sum(sum(child.cpu_times()[:2]) for child in children)
            seconds = _through(server, f"bench/{name}", runs)
            cpu, theirs = sum(process.cpu_times()[:2]) - cpu, sum(sum(child.cpu_times()[:2]) for child in children) - theirs
            results += [
                Result(f"process driver, {name}-step function: steps", steps * runs / seconds, "/s"),
                Result(f"process driver, {name}-step function: server's CPU a step", 1e6 * cpu / (steps * runs), "µs"),
                Result(f"process driver, {name}-step function: children's CPU a step", 1e6 * theirs / (steps * runs), "µs"),
            ]
        return results
    finally:
        server.kill()


ALL = (ingest, step_calls, process_driver)
