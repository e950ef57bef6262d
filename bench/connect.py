"""Connect: what idle workers cost a server in memory, and step calls over one connection."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from bench.overhttp import _through
from bench.result import Result
from stepwell.protocol.connect import (
    PATH,
    SUBPROTOCOL,
    AppConfiguration,
    AuthData,
    ConnectMessage,
    GatewayExecutorRequestData,
    Kind,
    ReplyStatus,
    SDKResponse,
    StartResponse,
    WorkerConnectRequestData,
    WorkerRequestAckData,
    frame,
)
from tests.support.processes import Process, Server, until

FUNCTION = {
    "id": "raw-f",
    "name": "f",
    "triggers": [{"event": "raw/go"}],
    "steps": {"step": {"id": "step", "name": "step", "runtime": {"type": "ws", "url": "wss://connect?fnId=raw-f&stepId=step"}}},
}
STEPS = 5


def idle_workers(folder: Path, scale: int) -> list[Result]:
    """The server's memory with so many workers that wait for calls, against none."""
    home = folder / "idle"
    home.mkdir()
    server = Server(home)
    try:
        return uvloop.run(_idle_workers(server, 1000 // scale))
    finally:
        server.kill()


async def _idle_workers(server: Server, count: int) -> list[Result]:
    process = psutil.Process(server.popen.pid)
    first = await _worker(server.url, 0)
    before = process.memory_info().rss
    workers = [first]
    began = time.perf_counter()
    for start in range(1, count, 50):
        workers += await asyncio.gather(*(_worker(server.url, n) for n in range(start, min(count, start + 50))))
    seconds = time.perf_counter() - began
    for worker in workers:
        await worker.send(frame(Kind.WORKER_HEARTBEAT))
        assert ConnectMessage.decode(await worker.recv(decode=False)).kind == Kind.GATEWAY_HEARTBEAT
    cpu = sum(process.cpu_times()[:2])
    await asyncio.sleep(5)
    idle = (sum(process.cpu_times()[:2]) - cpu) / 5
    grown = process.memory_info().rss - before
    conns = await asyncio.to_thread(server.ask, "/v0/connect/envs/dev/conns")
    assert len(conns["data"]) == count
    for worker in workers:
        worker.transport.abort()
    return [
        Result(f"Connect, {count} idle workers: memory in all", grown / 2**20, "MiB"),
        Result("Connect, idle workers: memory each", grown / 1024 / count, "KiB"),
        Result("Connect, workers that connect and are synced", count / seconds, "/s"),
        Result(f"Connect, {count} silent workers: server's CPU", 100 * idle, "%"),
    ]


async def _worker(url: str, n: int, most: int = 1000) -> ClientConnection:
    """A worker that is ready, without an SDK."""
    start = StartResponse.decode(await asyncio.to_thread(_post, f"{url}{PATH}/start"))
    worker = await connect(
        start.gateway_endpoint,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        ping_interval=None,
        max_size=None,
        max_queue=None,
        proxy=None,
    )
    assert ConnectMessage.decode(await worker.recv(decode=False)).kind == Kind.GATEWAY_HELLO
    told = WorkerConnectRequestData(
        connection_id=start.connection_id,
        instance_id=f"raw-{n}",
        auth_data=AuthData(session_token=start.session_token, sync_token=start.sync_token),
        apps=(AppConfiguration(app_name="raw", functions=json.dumps([FUNCTION]).encode()),),
        sdk_language="raw",
        sdk_version="1",
        max_worker_concurrency=most,
    )
    await worker.send(frame(Kind.WORKER_CONNECT, told))
    assert ConnectMessage.decode(await worker.recv(decode=False)).kind == Kind.GATEWAY_CONNECTION_READY
    return worker


def _post(url: str) -> bytes:
    request = urllib.request.Request(url, data=b"", method="POST", headers={"content-type": "application/protobuf"})
    with urllib.request.urlopen(request, timeout=30) as response:
        body: bytes = response.read()
        return body


def step_calls(folder: Path, scale: int) -> list[Result]:
    """Step calls a second over one connection to a raw worker, with the CPU of each side."""
    home = folder / "connect"
    home.mkdir()
    server = Server(home)
    try:
        return uvloop.run(_step_calls(server, 4000 // scale))
    finally:
        server.kill()


async def _step_calls(server: Server, runs: int) -> list[Result]:
    worker = await _worker(server.url, 0)
    answering = asyncio.create_task(_answer_all(worker))
    process = psutil.Process(server.popen.pid)
    await asyncio.to_thread(_through, server, "raw/go", 200)
    cpu, own = sum(process.cpu_times()[:2]), time.process_time()
    seconds = await asyncio.to_thread(_through, server, "raw/go", runs)
    answering.cancel()
    worker.transport.abort()
    return [
        Result("Connect, raw worker, five-step function: step calls", STEPS * runs / seconds, "/s"),
        Result("Connect, server's CPU a step call", 1e6 * (sum(process.cpu_times()[:2]) - cpu) / ((STEPS + 1) * runs), "µs"),
        Result("Connect, raw worker's CPU a step call", 1e6 * (time.process_time() - own) / ((STEPS + 1) * runs), "µs"),
    ]


async def _answer_all(worker: ClientConnection) -> None:
    async for data in worker:
        assert isinstance(data, bytes)
        message = ConnectMessage.decode(data)
        if message.kind != Kind.GATEWAY_EXECUTOR_REQUEST:
            continue
        call = GatewayExecutorRequestData.decode(message.payload)
        await worker.send(frame(Kind.WORKER_REQUEST_ACK, WorkerRequestAckData(request_id=call.request_id)))
        body = call.request_payload
        done = body[body.index(b'"stack":[') :].split(b"]")[0].count(b'"s')
        status, answer = ReplyStatus.DONE, b'"done"'
        if done < STEPS:
            status, answer = ReplyStatus.NOT_COMPLETED, b'[{"op":"StepRun","id":"s%d","name":"s","displayName":"s","data":1}]' % done
        reply = SDKResponse(request_id=call.request_id, status=status, body=answer, sdk_version="raw:v1", request_version=2)
        await worker.send(frame(Kind.WORKER_REPLY, reply))


def our_worker(folder: Path, scale: int) -> list[Result]:
    """Steps in one process of `stepwell worker`."""
    home = folder / "worker"
    home.mkdir()
    server = Server(home)
    process = None
    try:
        args = [sys.executable, "-m", "stepwell", "worker", str(Path(__file__).parent / "app.py"), "--url", server.url]
        process = Process(args, home / "worker.log")
        server.synced("bench-five")
        until(lambda: server.ask("/v0/connect/envs/dev/conns")["data"], "the worker is connected")
        _through(server, "bench/five", 100)
        runs = 1500 // scale
        return [Result("Connect, stepwell worker, five-step function: steps", 5 * runs / _through(server, "bench/five", runs), "/s")]
    finally:
        if process is not None:
            process.kill()
        server.kill()


ALL = (idle_workers, step_calls, our_worker)
