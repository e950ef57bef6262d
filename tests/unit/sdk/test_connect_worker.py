"""`stepwell.connect` against a gateway played by the test: real sockets, no engine."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

import stepwell
from stepwell.protocol.calls import encode_call
from stepwell.protocol.connect import (
    SUBPROTOCOL,
    AppConfiguration,
    ConnectMessage,
    FlushResponse,
    GatewayConnectionReadyData,
    GatewayExecutorRequestData,
    Kind,
    Message,
    ReplyStatus,
    SDKResponse,
    StartRequest,
    StartResponse,
    WorkerConnectRequestData,
    WorkerReplyAckData,
    WorkerRequestExtendLeaseAckData,
    frame,
)
from stepwell.protocol.functions import parse_functions
from stepwell.protocol.signatures import bearer_hash
from stepwell.sdk.connect import machine
from stepwell.sdk.connect.shell import Shell
from tests.unit.protocol.messages import CALL

KEY, OTHER_KEY = "signkey-test-12ab", "signkey-test-34cd"
TIMEOUT_S = 30
BIG, BIGS = 3 * 1024 * 1024, 5
"""Together more than the operating system keeps for a reader who does not read."""

app = stepwell.App("shop")
started: list[str] = []
ended: list[str] = []


@app.function(trigger="shop/paid", id="charge")
async def charge(ctx: stepwell.Context) -> Any:
    """Runs a step of the kind that the event names."""

    async def step() -> str:
        started.append(ctx.event.data["do"])
        match ctx.event.data["do"]:
            case "block":
                time.sleep(1.5)  # noqa: ASYNC251
            case "fail":
                raise ValueError("boom")
            case "final":
                raise stepwell.NonRetriableError("no use")
            case "later":
                raise stepwell.RetryAfterError("busy", after="2m")
            case "long":
                await asyncio.sleep(0.5)
            case "big":
                return "x" * BIG
            case "ever":
                try:
                    await asyncio.sleep(60)
                finally:
                    ended.append("ever")
        return "done"

    return await ctx.step.run("one", step)


class Gateway:
    """A gateway and its control API, as far as a worker sees them."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()
        self.flushed: asyncio.Queue[SDKResponse] = asyncio.Queue()
        self.starts: list[StartRequest] = []
        self.key: str | None = None
        self.status, self.refused = 200, 0
        self.url = ""
        self._endpoint = ""

    async def serve(self, test: Callable[[Gateway], Awaitable[None]]) -> None:
        """Run a test."""
        http = await asyncio.start_server(self._http, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{http.sockets[0].getsockname()[1]}"
        async with http, serve(self._socket, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=2 * BIG) as ws:
            self._endpoint = f"ws://127.0.0.1:{next(iter(ws.sockets)).getsockname()[1]}/v0/connect"
            async with asyncio.timeout(TIMEOUT_S):
                await test(self)

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        status, answer = self.status, b""
        if self.key is not None and fields.get("authorization", "") != f"bearer {bearer_hash(self.key)}":
            status = 401
        elif "/v0/connect/start" in head and status == 200:
            self.starts.append(StartRequest.decode(body))
            answer = StartResponse(
                connection_id="c-1", gateway_endpoint=self._endpoint, gateway_group="group", session_token="session"
            ).encode()
        elif "/v0/connect/flush" in head and status == 200:
            reply = SDKResponse.decode(body)
            self.flushed.put_nowait(reply)
            answer = FlushResponse(request_id=reply.request_id).encode()
        self.refused += status != 200
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, len(answer), answer))
        await writer.drain()
        writer.close()

    async def _socket(self, ws: ServerConnection) -> None:
        socket = Socket(ws)
        self.sockets.put_nowait(socket)
        await ws.wait_closed()

    async def worker(self) -> Socket:
        """The next worker that connects, made ready."""
        socket = await self.sockets.get()
        await socket.says(Kind.GATEWAY_HELLO)
        socket.introduction = WorkerConnectRequestData.decode(await socket.hears(Kind.WORKER_CONNECT))
        await socket.says(Kind.GATEWAY_CONNECTION_READY, GatewayConnectionReadyData(heartbeat_interval="1s", extend_lease_interval="1s"))
        return socket


class Socket:
    """The gateway's end of a connection."""

    introduction: WorkerConnectRequestData

    def __init__(self, ws: ServerConnection) -> None:
        self.ws = ws

    async def says(self, kind: Kind, message: Message | None = None) -> None:
        """A frame of the gateway's."""
        await self.ws.send(frame(kind, message))

    async def hears(self, kind: Kind) -> bytes:
        """The next frame of this kind; heartbeats are answered, others passed over."""
        while True:
            message = ConnectMessage.decode(await self.ws.recv(decode=False))
            if message.kind == Kind.WORKER_HEARTBEAT:
                await self.says(Kind.GATEWAY_HEARTBEAT)
            if message.kind == kind:
                return message.payload

    async def calls(self, do: str, request_id: str = "r-1") -> None:
        """Send a call, and hear that it is begun."""
        await self.sends(do, request_id)
        await self.hears(Kind.WORKER_REQUEST_ACK)

    async def sends(self, do: str, request_id: str) -> None:
        """Send a call."""
        event = json.dumps({"data": {"do": do}, "id": "e", "name": "shop/paid", "ts": 1}).encode()
        request = msgspec.structs.replace(CALL, events=(event,), steps={}, stack=(), attempt=0, request_id=request_id)
        data = GatewayExecutorRequestData(
            request_id=request_id,
            account_id="acc",
            app_name="shop",
            function_slug="shop-charge",
            step_id="step",
            request_payload=encode_call(request),
            system_trace_ctx=b"{}",
            run_id=CALL.run_id,
            lease_id=f"lease-{request_id}",
        )
        await self.says(Kind.GATEWAY_EXECUTOR_REQUEST, data)

    async def reply(self, *, ack: bool = True) -> SDKResponse:
        """The next reply."""
        told = SDKResponse.decode(await self.hears(Kind.WORKER_REPLY))
        if ack:
            await self.says(Kind.WORKER_REPLY_ACK, WorkerReplyAckData(request_id=told.request_id))
        return told


async def soon(condition: Callable[[], bool]) -> None:
    """Returns when it is so; the test's own limit ends it otherwise."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def played(test: Callable[[Gateway], Awaitable[None]]) -> Callable[[], None]:
    """A test with a gateway."""

    @functools.wraps(test)
    def runs() -> None:
        started.clear()
        ended.clear()
        asyncio.run(Gateway().serve(test))

    del runs.__wrapped__  # type: ignore[attr-defined]
    return runs


@played
async def test_who_the_worker_is(gateway: Gateway) -> None:
    """It tells its name, its apps with their versions and functions, and how much it takes."""
    async with _entered(stepwell.connect(app, url=gateway.url, max_concurrency=7, instance_id="me", version="2"), gateway) as socket:
        told = socket.introduction
        assert (told.connection_id, told.instance_id, told.max_worker_concurrency, told.sdk_language) == ("c-1", "me", 7, "py")
        assert told.auth_data is not None and told.auth_data.session_token == "session"
        (shop,) = told.apps
        assert (shop.app_name, shop.app_version) == ("shop", "2")
        (function,) = parse_functions(shop.functions)
        assert function.id == "shop-charge" and function.url == "wss://connect?fnId=shop-charge&stepId=step"
        assert app.url == gateway.url
    unnamed = stepwell.connect(app, url=gateway.url)
    assert unnamed.instance_id != stepwell.connect(app, url=gateway.url).instance_id


@pytest.mark.parametrize(
    ("do", "status", "no_retry", "retry_after"),
    [
        ("plain", ReplyStatus.NOT_COMPLETED, False, None),
        ("fail", ReplyStatus.NOT_COMPLETED, False, None),
        ("final", ReplyStatus.NOT_COMPLETED, True, None),
        ("later", ReplyStatus.NOT_COMPLETED, False, "120"),
    ],
)
def test_replies(do: str, status: ReplyStatus, no_retry: bool, retry_after: str | None) -> None:
    """Say what an HTTP answer would, and echo what the call told."""

    @played
    async def test(gateway: Gateway) -> None:
        async with _entered(stepwell.connect(app, url=gateway.url), gateway) as socket:
            await socket.calls(do)
            reply = await socket.reply()
            assert (reply.status, reply.no_retry, reply.request_version, reply.account_id) == (status, no_retry, 2, "acc")
            assert reply.retry_after == retry_after and reply.run_id == CALL.run_id and reply.sdk_version.startswith("stepwell-py:v")
            assert json.loads(reply.body)[0]["op"] == ("StepRun" if do == "plain" else "StepFailed" if no_retry else "StepError")

    test()


class _Stuck:
    """A target whose user code keeps the worker's own thread from doing anything more, until the gateway has the acknowledgement."""

    def __init__(self) -> None:
        self.acknowledged = threading.Event()
        self.began: list[tuple[str, bool]] = []

    def begin(self, request: GatewayExecutorRequestData) -> None:
        self.began.append((request.request_id, self.acknowledged.wait(TIMEOUT_S / 3)))

    def give_up(self, request_id: str) -> None: ...

    def on_ready(self, gateway: str) -> None: ...

    def on_problem(self, problem: str) -> None: ...

    def on_end(self, failure: BaseException | None) -> None: ...


@played
async def test_an_acknowledgement_leaves_before_user_code_begins(gateway: Gateway) -> None:
    """Whatever user code does to its process then, a kill too, the server knows that the call was begun."""
    target = _Stuck()
    introduction = WorkerConnectRequestData(instance_id="me", apps=(AppConfiguration(app_name="shop"),))
    shell = Shell(gateway.url, introduction, [], target)
    shell.start()
    socket = await gateway.worker()
    await socket.calls("plain")
    target.acknowledged.set()
    await soon(lambda: bool(target.began))
    assert target.began == [("r-1", True)]
    shell.no_reply("r-1")
    shell.stop(1)
    await socket.ws.wait_closed()


@played
async def test_a_call_whose_acknowledgement_cannot_leave(gateway: Gateway) -> None:
    """Is not begun: a gateway that reads nothing has big replies before it, and gives the call to another when the connection breaks."""
    worker = stepwell.connect(app, url=gateway.url)
    async with _entered(worker, gateway) as socket:
        socket.ws.transport.pause_reading()
        for n in range(BIGS):
            await socket.sends("big", f"big-{n}")
        assert worker._shell is not None
        (one,) = worker._shell._open.values()
        await soon(lambda: one.ws.transport.get_write_buffer_size() > 0)
        await socket.sends("plain", "r-1")
        # What the gateway says next comes after the call: when the worker looks for another gateway, it has read the call.
        await socket.says(Kind.GATEWAY_CLOSING)
        again = await gateway.worker()
        socket.ws.transport.abort()
        assert {(await again.reply()).request_id for _ in range(BIGS)} == {f"big-{n}" for n in range(BIGS)}
        await again.calls("plain", "r-2")
        assert (await again.reply()).request_id == "r-2"
    assert started == ["big"] * BIGS + ["plain"]


@played
async def test_a_step_that_blocks_its_loop(gateway: Gateway) -> None:
    """Costs neither a heartbeat nor a lease."""
    running = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(_run_for_a_while(gateway.url))))
    socket = await gateway.worker()
    await socket.calls("block")
    lease = await socket.hears(Kind.WORKER_REQUEST_EXTEND_LEASE)
    assert b"lease-r-1" in lease and ended == []
    await socket.says(Kind.WORKER_REQUEST_EXTEND_LEASE_ACK, WorkerRequestExtendLeaseAckData(request_id="r-1", new_lease_id="next"))
    assert (await socket.reply()).request_id == "r-1"
    await running


async def _run_for_a_while(url: str) -> None:
    async with stepwell.connect(app, url=url):
        await soon(lambda: bool(started))
        await asyncio.sleep(0)


@played
async def test_a_lease_that_is_over(gateway: Gateway) -> None:
    """Takes the call down; there is no reply."""
    async with _entered(stepwell.connect(app, url=gateway.url), gateway) as socket:
        await socket.calls("ever")
        await socket.hears(Kind.WORKER_REQUEST_EXTEND_LEASE)
        await socket.says(Kind.WORKER_REQUEST_EXTEND_LEASE_ACK, WorkerRequestExtendLeaseAckData(request_id="r-1"))
        await soon(lambda: bool(ended))
        await socket.calls("plain", "r-2")
        assert (await socket.reply()).request_id == "r-2"


@played
async def test_a_connection_that_breaks(gateway: Gateway) -> None:
    """The worker connects again, goes on with its call, and brings the reply by the new connection."""
    async with _entered(stepwell.connect(app, url=gateway.url), gateway) as socket:
        await socket.calls("long")
        socket.ws.transport.abort()
        again = await gateway.worker()
        assert b"lease-r-1" in await again.hears(Kind.WORKER_REQUEST_EXTEND_LEASE)
        assert (await again.reply()).request_id == "r-1"


@played
async def test_a_reply_that_is_not_acknowledged(gateway: Gateway) -> None:
    """Is brought over HTTP, again and again until the server has it."""
    before, machine.REPLY_MS = machine.REPLY_MS, 500
    try:
        async with _entered(stepwell.connect(app, url=gateway.url), gateway) as socket:
            await socket.calls("plain")
            gateway.status = 503
            await socket.reply(ack=False)
            await soon(lambda: gateway.refused > 0)
            gateway.status = 200
            assert (await gateway.flushed.get()).request_id == "r-1"
    finally:
        machine.REPLY_MS = before
    assert gateway.flushed.empty()


@played
async def test_a_gateway_that_closes(gateway: Gateway) -> None:
    """The worker connects anew, past the old gateway, while the old connection still takes what it has in hand."""
    async with _entered(stepwell.connect(app, url=gateway.url), gateway) as socket:
        await socket.calls("long")
        await socket.says(Kind.GATEWAY_CLOSING)
        again = await gateway.worker()
        assert gateway.starts[-1].exclude_gateways == ("group",)
        assert (await again.reply()).request_id == "r-1"
        await socket.ws.close(1001)
        await again.calls("plain", "r-2")
        assert (await again.reply()).request_id == "r-2"


@played
async def test_stopping(gateway: Gateway) -> None:
    """No more calls are asked for; those in hand end and their replies are heard; then the socket is closed with a word."""
    worker = stepwell.connect(app, url=gateway.url)
    running = asyncio.create_task(worker.run())
    socket = await gateway.worker()
    await socket.calls("long")
    stopping = asyncio.create_task(worker.stop())
    await socket.hears(Kind.WORKER_PAUSE)
    assert (await socket.reply()).request_id == "r-1"
    await stopping
    await running
    assert (socket.ws.close_code, socket.ws.close_reason) == (1000, "WORKER_SHUTDOWN")
    with pytest.raises(stepwell.UsageError, match="runs already, or has been stopped"):
        await worker.run()


@played
async def test_stopping_without_patience(gateway: Gateway) -> None:
    """What is not finished in time is taken down."""
    worker = stepwell.connect(app, url=gateway.url)
    running = asyncio.create_task(worker.run())
    socket = await gateway.worker()
    await socket.calls("ever")
    await worker.stop(0.1)
    await running
    await soon(lambda: ended == ["ever"])
    assert socket.ws.close_code == 1000


@played
async def test_a_worker_that_is_cancelled(gateway: Gateway) -> None:
    """Disconnects at once."""
    running = asyncio.create_task(stepwell.connect(app, url=gateway.url).run())
    socket = await gateway.worker()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await socket.ws.wait_closed()


@played
async def test_keys(gateway: Gateway) -> None:
    """The fallback is tried after the key; a server that takes neither is told of in a sentence, and the worker ends."""
    gateway.key = OTHER_KEY
    keyed = stepwell.App("keyed", signing_key=KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPWELL_SIGNING_KEY_FALLBACK", OTHER_KEY)
        async with _entered(stepwell.connect(keyed, url=gateway.url), gateway):
            pass
    with pytest.raises(stepwell.UsageError, match="the signing key is not the server's"):
        await stepwell.connect(keyed, url=gateway.url).run()
    with pytest.raises(stepwell.UsageError, match="asks for its signing key"):
        async with stepwell.connect(stepwell.App("bare"), url=gateway.url):
            raise AssertionError("it is connected")


@played
async def test_a_server_that_is_not_there_yet(gateway: Gateway) -> None:
    """Is waited for; what is wrong is said once."""
    said: list[str] = []
    gateway.status = 502
    running = asyncio.create_task((worker := stepwell.connect(app, url=gateway.url, say=said.append)).run())
    await soon(lambda: bool(said))
    gateway.status = 200
    await gateway.worker()
    await worker.ready()
    await worker.stop()
    await running
    assert len(said) == 2 and "502" in said[0] and gateway.url in said[0] and "Connected to ws://" in said[1]


def test_wrong_use() -> None:
    """Is refused with a sentence."""
    with pytest.raises(stepwell.UsageError, match="no app"):
        stepwell.connect()
    with pytest.raises(stepwell.UsageError, match="max_concurrency is -1"):
        stepwell.connect(app, max_concurrency=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPWELL_MAX_CONCURRENCY", "many")
        with pytest.raises(stepwell.UsageError, match="STEPWELL_MAX_CONCURRENCY is 'many'"):
            stepwell.connect(app)
        patch.setenv("STEPWELL_MAX_CONCURRENCY", "3")
        assert stepwell.connect(app)._introduction.max_worker_concurrency == 3


class _entered:
    """A worker that is ready, and the gateway's end of its connection."""

    def __init__(self, worker: Any, gateway: Gateway) -> None:
        self._worker, self._gateway = worker, gateway

    async def __aenter__(self) -> Socket:
        entering = asyncio.ensure_future(self._worker.__aenter__())
        socket = await self._gateway.worker()
        await entering
        return socket

    async def __aexit__(self, *error: Any) -> None:
        await self._worker.stop(1)
        await self._worker.__aexit__(None, None, None)
