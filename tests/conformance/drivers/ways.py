"""The ways to user code under test, and a small server that takes a run along one of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import inngest
import inngest.connect
import msgspec
import uvicorn

import stepwell
from stepwell.drivers.base import CheckpointFn, Driver
from stepwell.drivers.connect import ConnectDriver
from stepwell.drivers.http import HttpDriver
from stepwell.drivers.local import LocalDriver
from stepwell.drivers.process import ProcessDriver
from stepwell.net.http_client import Pool
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint, Ops
from stepwell.protocol.ids import function_uuid, step_hash, ulid
from stepwell.protocol.ops import Op, opts_of
from stepwell.runtime.node import Node
from stepwell.sdk.replay import Executor
from stepwell.server.app import Server
from stepwell.server.auth import Keys
from stepwell.server.connect_gateway import ConnectGateway, SessionTokens
from stepwell.server.sdk_api import SdkApi
from stepwell.store.memory import MemoryStore
from tests.conformance.drivers import inngest_app, stepwell_app

CALLS_MAX = 30
PATH = "/api/inngest"


class Way:
    """A driver, and the address under which it finds the app."""

    def __init__(self, driver: Driver, url: str = "") -> None:
        self.driver, self.url = driver, url

    def request(self, function: str, *, run_id: str = "01JRUN", data: Any = None, **fields: Any) -> CallRequest:
        """A call request for a run that has just begun, but for `fields`."""
        event = json.dumps({"data": {} if data is None else data, "id": "e", "name": f"c/{function}", "ts": 1, "user": {}}).encode()
        slug = f"conform-{function}"
        defaults: dict[str, Any] = {
            "run_id": run_id,
            "function_id": slug,
            "function_uuid": function_uuid(slug),
            "app_id": "conform",
            "url": self.url,
            "step_id": "step",
            "attempt": 0,
            "max_attempts": 5,
            "request_version": -1,
            "stack": (),
            "disable_immediate_execution": False,
            "item_id": f"item-{run_id}",
            "fence": 1,
            "request_id": "01JREQUEST",
            "events": (event,),
            "steps": {},
        }
        return CallRequest(**(defaults | fields))

    async def call(self, function: str, **fields: Any) -> Answer:
        """One call; checkpoints are taken and forgotten."""

        async def checkpoint(told: Checkpoint) -> None:
            """Durable."""

        return await self.driver.call(self.request(function, **fields), checkpoint)


class Run:
    """Takes a run to its end, by the protocol's rules for version 2 (§4.6).

    `ops` is what was done, in order, `opts` what steps asked of the server, `replies` what those end with, by their ids.
    """

    def __init__(
        self,
        way: Way,
        function: str,
        *,
        run_id: str = "01JRUN",
        max_attempts: int = 5,
        data: Any = None,
        replies: dict[str, Any] | None = None,
    ) -> None:
        self._replies = replies or {}
        self.opts: dict[str, Any] = {}
        self._way, self._function, self._run_id, self._max_attempts, self._data = way, function, run_id, max_attempts, data
        self.memos: dict[str, bytes] = {}
        self.ops: list[tuple[str, str]] = []
        self._version = -1
        self._calls = 0

    async def end(self) -> Answer:
        """The answer that ends the run: the first that is neither ops nor a step's failure to be tried again."""
        while True:
            answer = await self._call("step", plan=False)
            if not isinstance(answer, Ops):
                return answer
            planned = [op.id for op in answer.ops if op.op == "StepPlanned"]
            targeted = await asyncio.gather(*[self._call(step_id, plan=True) for step_id in planned])
            assert all(isinstance(one, Ops) for one in targeted), targeted

    async def _call(self, step_id: str, *, plan: bool) -> Answer:
        attempt = 0
        while True:
            self._calls += 1
            assert self._calls < CALLS_MAX, f"the run goes round in circles: {self.ops}"
            request = self._way.request(
                self._function,
                run_id=self._run_id,
                data=self._data,
                step_id=step_id,
                attempt=attempt,
                max_attempts=self._max_attempts,
                request_version=self._version,
                stack=tuple(self.memos),
                disable_immediate_execution=plan,
                item_id=f"{self._run_id}-{step_id}-{self._calls}",
                fence=self._calls,
                steps=dict(self.memos),
            )
            answer = await self._way.driver.call(request, self._checkpoint)
            if not isinstance(answer, Ops):
                return answer
            self._version = answer.request_version
            for op in answer.ops:
                self._take(op)
            if not any(op.op == "StepError" for op in answer.ops):
                return answer
            attempt += 1

    async def _checkpoint(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.run_id == self._run_id
        for op in checkpoint.ops:
            self._take(op)

    def _take(self, op: Op) -> None:
        self.ops.append((op.op, op.user_id))
        match op.op:
            case "StepRun":
                self.memos[op.id] = b'{"data":%s}' % (op.data or b"null")
            case "StepFailed":
                self.memos[op.id] = b'{"error":%s}' % (op.error or b"{}")
            case "Sleep":
                self.memos[op.id] = b"null"
            case "WaitForEvent" | "WaitForSignal" | "InvokeFunction" | "Gateway" | "AIGateway":
                self.opts[op.user_id] = {**opts_of(op), "name": op.name}
                self.memos[op.id] = json.dumps(self._replies[op.user_id]).encode()
            case other:
                assert other in ("StepPlanned", "StepError"), op


@contextlib.asynccontextmanager
async def local() -> AsyncIterator[Way]:
    """In this process."""
    executor = Executor(stepwell_app.app)
    driver = LocalDriver()
    driver.add("conform", executor)
    try:
        yield Way(driver)
    finally:
        await executor.close()


@contextlib.asynccontextmanager
async def process() -> AsyncIterator[Way]:
    """In a child process."""
    driver = ProcessDriver(f"{Path(stepwell_app.__file__)}:app", children=1, say=lambda text: None)
    await driver.start()
    try:
        yield Way(driver)
    finally:
        await driver.stop(1)


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to the test."""
        yield


@contextlib.asynccontextmanager
async def _http(app: Any) -> AsyncIterator[Way]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Uvicorn(uvicorn.Config(app, log_level="error", lifespan="off"))
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            async with Pool(environ={}) as pool:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}?fnId=other&stepId=step"
                yield Way(HttpDriver(pool), url)
        finally:
            server.should_exit = True
            await serving


def http_stepwell() -> AbstractAsyncContextManager[Way]:
    """Over HTTP, to our own SDK."""
    return _http(stepwell.serve(stepwell_app.app))


def http_inngest() -> AbstractAsyncContextManager[Way]:
    """Over HTTP, to the public SDK."""
    return _http(inngest_app.app)


class _Settled:
    """A Connect driver as the dispatcher uses it: what was answered is recorded."""

    def __init__(self, driver: ConnectDriver) -> None:
        self._driver = driver

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Each call under an id of its own, as the dispatcher gives them."""
        request = msgspec.structs.replace(request, request_id=ulid(next(_numbers), bytes(10)))
        answer = await self._driver.call(request, checkpoint)
        self._driver.settled(request.request_id, recorded=True)
        return answer


@contextlib.asynccontextmanager
async def _gateway() -> AsyncIterator[tuple[Way, str, ConnectDriver]]:
    """A server with a gateway on ports of their own, whose driver is called past its node."""
    driver = ConnectDriver()
    node = Node(MemoryStore(), drivers={"connect": driver.call}, rooms={"connect": driver})
    await node.start()
    sdk_api = SdkApi(node, Keys(), "dev")
    gateway = ConnectGateway(node, sdk_api, driver, SessionTokens(None))
    listener = socket.create_server(("127.0.0.1", 0))
    await gateway.start(listener)
    try:
        async with _http(Server(node, Keys(), "dev", sdk_api=sdk_api, connect=gateway)) as way:
            yield Way(_Settled(driver)), way.url.partition(PATH)[0], driver
    finally:
        await gateway.stop()
        await node.stop()


@contextlib.asynccontextmanager
async def connect_stepwell() -> AsyncIterator[Way]:
    """Over Connect, to our own SDK's worker."""
    async with _gateway() as (way, url, _), stepwell.connect(stepwell_app.app, url=url):
        yield way


@contextlib.asynccontextmanager
async def connect_inngest() -> AsyncIterator[Way]:
    """Over Connect, to the public SDK's worker."""
    async with _gateway() as (way, url, driver):
        client = inngest.Inngest(app_id="conform", api_base_url=url, is_production=False, logger=inngest_app.client.logger)
        worker = inngest.connect.connect([(client, inngest_app.functions)], shutdown_signals=[])
        running = asyncio.ensure_future(worker.start())
        await worker.wait_for_state(inngest.connect.ConnectionState.ACTIVE)
        assert driver.room("conform")
        try:
            yield way
        finally:
            await worker.close()
            await running


_numbers = itertools.count(1)

WAYS: list[Callable[[], AbstractAsyncContextManager[Way]]] = [
    local,
    process,
    http_stepwell,
    http_inngest,
    connect_stepwell,
    connect_inngest,
]

OURS = [local, process, http_stepwell, connect_stepwell]
"""The ways to functions of our own SDK, which has tools that others have not."""

__all__ = ["OURS", "WAYS", "Run", "Way", "step_hash"]
