"""The gateway and its control API over real sockets, with workers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from stepwell.drivers.connect import ConnectDriver, Timing
from stepwell.net.http_client import Pool, Response
from stepwell.protocol.connect import (
    FRAME_BYTES_MAX,
    SUBPROTOCOL,
    AppConfiguration,
    AuthData,
    ConnectMessage,
    FlushResponse,
    Kind,
    ReplyStatus,
    SDKResponse,
    StartResponse,
    SyncFailure,
    WorkerConnectRequestData,
    frame,
)
from stepwell.protocol.ids import is_ulid
from stepwell.protocol.signatures import bearer_hash
from stepwell.runtime.node import Node
from stepwell.server import connect_gateway
from stepwell.server.app import Server
from stepwell.server.auth import Keys
from stepwell.server.connect_gateway import ConnectGateway, SessionTokens
from stepwell.server.sdk_api import SdkApi
from stepwell.store.memory import MemoryStore

KEY = "signkey-test-12ab"
TIMEOUT_S = 30


class Rig:
    """A server with a gateway, in this process."""

    def __init__(self, node: Node, gateway: ConnectGateway, pool: Pool, url: str) -> None:
        self.node, self.gateway, self.pool, self.url = node, gateway, pool, url

    async def post(self, path: str, body: bytes = b"", **headers: str) -> Response:
        """A request to the control API."""
        return await self.pool.request("POST", f"{self.url}/v0/connect/{path}", headers=headers, body=body, timeout_s=10)

    async def get(self, path: str) -> Any:
        """A question of it."""
        response = await self.pool.request("GET", f"{self.url}/v0/connect/{path}", timeout_s=10)
        return response.status, json.loads(response.body)

    async def start(self) -> StartResponse:
        """Where to connect to."""
        response = await self.post("start")
        assert response.status == 200 and response.headers["content-type"] == "application/octet-stream", response.body
        return StartResponse.decode(response.body)

    @contextlib.asynccontextmanager
    async def worker(
        self, *, version: str = "", ready: bool = True, start: StartResponse | None = None, **fields: Any
    ) -> AsyncIterator[Any]:
        """A worker of the app `shop`, whose function's name tells the version."""
        start = start or await self.start()
        function = {"id": "shop-f", "name": f"f {version}", "triggers": [{"event": "shop/go"}], "steps": {"step": {"id": "step"}}}
        app = AppConfiguration(app_name="shop", app_version=version or None, functions=json.dumps([function]).encode())
        defaults: dict[str, Any] = {
            "connection_id": start.connection_id,
            "instance_id": "i-1",
            "auth_data": AuthData(session_token=start.session_token, sync_token=start.sync_token),
            "apps": (app,),
        }
        async with opened(start.gateway_endpoint) as ws:
            assert await received(ws) == Kind.GATEWAY_HELLO
            await ws.send(frame(Kind.WORKER_CONNECT, WorkerConnectRequestData(**(defaults | fields))))
            if ready:
                assert await received(ws) == Kind.GATEWAY_CONNECTION_READY
            yield ws

    def name(self) -> str:
        """The function's name, as the server knows it."""
        return self.node.registry.functions["shop-f"].row.name


def opened(endpoint: str, protocol: str = SUBPROTOCOL) -> Any:
    """A socket."""
    return connect(endpoint, subprotocols=[Subprotocol(protocol)], proxy=None, ping_interval=None)


def posted(url: str, headers: dict[str, str]) -> bytes:
    """A request under another host's name."""
    with urllib.request.urlopen(urllib.request.Request(url, b"", headers, method="POST"), timeout=10) as response:
        body: bytes = response.read()
        return body


async def received(ws: ClientConnection) -> int:
    """The kind of the next frame."""
    return ConnectMessage.decode(await ws.recv(decode=False)).kind


async def closed(ws: ClientConnection) -> tuple[int | None, str | None]:
    """How the gateway closes it."""
    with pytest.raises(ConnectionClosed):
        while True:
            await ws.recv()
    return ws.close_code, ws.close_reason


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave them to the test."""
        yield


def served(*, key: str | None = None, timing: Timing | None = None) -> Callable[[Callable[[Rig], Awaitable[None]]], Callable[[], None]]:
    """A test with a rig."""

    def made(test: Callable[[Rig], Awaitable[None]]) -> Callable[[], None]:
        async def main() -> None:
            driver = ConnectDriver(timing=timing)
            node = Node(MemoryStore(), drivers={"connect": driver.call}, rooms={"connect": driver})
            await node.start()
            keys = Keys(signing_key=key)
            sdk_api = SdkApi(node, keys, "dev")
            gateway = ConnectGateway(node, sdk_api, driver, SessionTokens(key))
            await gateway.start(socket.create_server(("127.0.0.1", 0)))
            listener = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(Server(node, keys, "dev", sdk_api=sdk_api, connect=gateway), log_level="error", lifespan="off")
            http = _Uvicorn(config)
            serving = asyncio.ensure_future(http.serve(sockets=[listener]))
            try:
                async with asyncio.timeout(TIMEOUT_S), Pool(environ={}) as pool:
                    await test(Rig(node, gateway, pool, f"http://127.0.0.1:{listener.getsockname()[1]}"))
            finally:
                await gateway.stop()
                http.should_exit = True
                await serving
                await node.stop()

        @functools.wraps(test)
        def runs() -> None:
            asyncio.run(main())

        del runs.__wrapped__  # type: ignore[attr-defined]
        return runs

    return made


@served()
async def test_start(rig: Rig) -> None:
    """The gateway is told under the name by which this server was reached, which holds in containers too; a bad body is refused."""
    start = await rig.start()
    assert is_ulid(start.connection_id) and start.gateway_group == rig.gateway.id and start.sync_token == ""
    assert start.gateway_endpoint == f"ws://127.0.0.1:{rig.gateway.port}/v0/connect"
    for host, forwarded, expected in (
        ("jobs.example:8288", "", "ws://jobs.example"),
        ("[::1]:8288", "", "ws://[::1]"),
        ("jobs.example", "https", "wss://jobs.example"),
    ):
        headers = {"host": host, "x-forwarded-proto": forwarded, "authorization": "Bearer any"}
        told = StartResponse.decode(await asyncio.to_thread(posted, f"{rig.url}/v0/connect/start", headers))
        assert told.gateway_endpoint == f"{expected}:{rig.gateway.port}/v0/connect" and told.sync_token == "any"
    assert (await rig.post("start", b"\xff\xff")).status == 400
    rig.gateway.url = "wss://workers.example/v0/connect"
    assert (await rig.start()).gateway_endpoint == "wss://workers.example/v0/connect"


@served(key=KEY)
async def test_start_asks_for_the_signing_key(rig: Rig) -> None:
    """Hashed, as SDKs send it; anything else is a 401, and so for replies and questions."""
    assert (await rig.post("start")).status == 401
    assert (await rig.post("start", authorization="Bearer nonsense")).status == 401
    assert (await rig.post("flush")).status == 401
    assert (await rig.get("envs/dev/conns"))[0] == 401
    response = await rig.post("start", authorization=f"Bearer {bearer_hash(KEY)}")
    start = StartResponse.decode(response.body)
    assert start.sync_token == bearer_hash(KEY)
    async with rig.worker(start=start):
        assert rig.gateway.driver.room("shop") == 1000


@served()
async def test_too_many_workers(rig: Rig) -> None:
    """429, and no socket either; while the server stops it is a 503."""
    start = await rig.start()
    most, connect_gateway.CONNECTIONS_MAX = connect_gateway.CONNECTIONS_MAX, 1
    try:
        async with rig.worker():
            assert (await rig.post("start")).status == 429
            with pytest.raises(InvalidStatus, match="503"):
                await opened(start.gateway_endpoint)
    finally:
        connect_gateway.CONNECTIONS_MAX = most
    await rig.gateway.stop()
    assert (await rig.post("start")).status == 503


@served()
async def test_sockets_that_are_not_workers(rig: Rig) -> None:
    """Another path, another subprotocol, none."""
    endpoint = (await rig.start()).gateway_endpoint
    with pytest.raises(InvalidStatus, match="404"):
        await opened(endpoint + "/other")
    with pytest.raises(InvalidStatus, match="400"):
        await opened(endpoint, "other")
    with pytest.raises(InvalidStatus, match="400"):
        await connect(endpoint, proxy=None)
    assert rig.gateway.driver.open_sockets == 0


@pytest.mark.parametrize("whose", ["none", "another", "forged"])
def test_tokens_that_are_not_good(whose: str) -> None:
    """A token opens the one connection that it was made for."""

    @served()
    async def test(rig: Rig) -> None:
        token = {
            "none": "",
            "another": (await rig.start()).session_token,
            "forged": SessionTokens("12ab").issue((await rig.start()).connection_id, 4_000_000_000),
        }[whose]
        async with rig.worker(ready=False, auth_data=AuthData(session_token=token)) as ws:
            assert await closed(ws) == (1008, "connect_authentication_failed")

    test()


@served()
async def test_a_token_that_is_too_old(rig: Rig) -> None:
    """Five minutes, then another start is needed."""
    start = await rig.start()
    old = rig.gateway.tokens.issue(start.connection_id, 1_000_000_000)
    async with rig.worker(start=start, ready=False, auth_data=AuthData(session_token=old)) as ws:
        assert await closed(ws) == (1008, "connect_authentication_failed")


@served()
async def test_apps_that_cannot_be_synced(rig: Rig) -> None:
    """The worker is told why, in a frame; the app's next worker is taken."""
    bad = AppConfiguration(
        app_name="shop", functions=b'[{"id": "shop-f", "name": "f", "triggers": [{"cron": "every day"}], "steps": {"step": {}}}]'
    )
    async with rig.worker(ready=False, apps=(bad,)) as ws:
        message = ConnectMessage.decode(await ws.recv(decode=False))
        assert message.kind == Kind.SYNC_FAILED and "every day" in SyncFailure.decode(message.payload).message
        assert (await closed(ws))[0] == 1008
    async with rig.worker():
        assert rig.name() == "f "


@served(timing=Timing(hello_ms=300))
async def test_close_codes_reach_the_worker(rig: Rig) -> None:
    """A worker that says nothing, nonsense, texts, or too much."""
    endpoint = (await rig.start()).gateway_endpoint
    async with opened(endpoint) as ws:
        assert await closed(ws) == (1008, "connect_worker_hello_timeout")
    for first in (b"\xff", "text"):
        async with opened(endpoint) as ws:
            await ws.send(first)
            assert await closed(ws) == (1008, "connect_worker_hello_invalid_msg")
    ws = await opened(endpoint)
    with contextlib.suppress(ConnectionClosed):
        await ws.send(bytes(FRAME_BYTES_MAX + 1))
    assert (await closed(ws))[0] == 1009


@served()
async def test_large_and_fragmented_frames(rig: Rig) -> None:
    """Are put together; pings are answered meanwhile."""
    async with rig.worker() as ws:
        data = frame(Kind.WORKER_REPLY, SDKResponse(request_id="unknown", body=bytes(4_000_000)))
        await ws.send([data[:10], data[10:3_000_000], data[3_000_000:]])
        await (await ws.ping())
        assert await received(ws) == Kind.WORKER_REPLY_ACK
        await ws.send(frame(Kind.WORKER_HEARTBEAT))
        assert await received(ws) == Kind.GATEWAY_HEARTBEAT


@served()
async def test_flushes(rig: Rig) -> None:
    """Of calls that nobody waits for are taken, as often as they come; what is no reply is refused."""
    for _ in range(2):
        response = await rig.post("flush", SDKResponse(request_id="late", status=ReplyStatus.DONE).encode())
        assert response.status == 200 and FlushResponse.decode(response.body).request_id == "late"
    assert (await rig.post("flush", b"")).status == 400 and (await rig.post("flush", b"\xff")).status == 400


@served()
async def test_connections_are_listed_oldest_first(rig: Rig) -> None:
    """With their states; those that are closed are not."""
    async with rig.worker(instance_id="one") as one:
        async with rig.worker(instance_id="two", worker_manual_readiness_ack=True) as two:
            _, told = await rig.get("envs/dev/conns")
            assert [(conn["instance_id"], conn["status"]) for conn in told["data"]] == [("one", 1), ("two", 0)]
            assert rig.gateway.driver.room("shop") == 1000
            await two.send(frame(Kind.WORKER_READY))
            await one.send(frame(Kind.WORKER_PAUSE))
            for ws in (one, two):
                await ws.send(frame(Kind.WORKER_HEARTBEAT))
                assert await received(ws) == Kind.GATEWAY_HEARTBEAT
            _, told = await rig.get("envs/dev/conns")
            assert [conn["status"] for conn in told["data"]] == [2, 1]
            assert rig.gateway.driver.room("shop") == 1000
        await one.send(frame(Kind.WORKER_HEARTBEAT))
        assert await received(one) == Kind.GATEWAY_HEARTBEAT
        _, told = await rig.get("envs/dev/conns")
        assert [conn["instance_id"] for conn in told["data"]] == ["one"]
    assert (await rig.get("envs/dev/groups/none"))[0] == 404


@served()
async def test_versions(rig: Rig) -> None:
    """The newest counts; an old worker that comes back changes nothing."""
    async with rig.worker(version="1"):
        assert rig.name() == "f 1"
        async with rig.worker(version="2"):
            assert rig.name() == "f 2"
            async with rig.worker(version="1"):
                assert rig.name() == "f 2"
            _, told = await rig.get("envs/dev/conns")
            hashes = [conn["all_worker_groups"]["shop"] for conn in told["data"]]
            group = (await rig.get(f"envs/dev/groups/{hashes[1]}"))[1]["data"]
            assert group["app_version"] == "2" and len(group["conns"]) == 1 and hashes[0] != hashes[1]


@served(timing=Timing(group_ms=0))
async def test_the_old_version_counts_again_when_the_new_is_gone(rig: Rig) -> None:
    """As after a rollback."""
    async with rig.worker(version="1") as old:
        async with rig.worker(version="2"):
            assert rig.name() == "f 2"
        await old.send(frame(Kind.WORKER_HEARTBEAT))
        assert await received(old) == Kind.GATEWAY_HEARTBEAT
        await rig.gateway.look()
        assert rig.name() == "f 1"


@served()
async def test_the_gateways_end(rig: Rig) -> None:
    """Workers are told to go elsewhere, and closed with a code that says why."""
    async with rig.worker() as ws:
        rig.gateway.drain()
        assert await received(ws) == Kind.GATEWAY_CLOSING
        async with rig.worker() as again:
            # There is no other gateway: a connection to bring replies by, and no calls.
            assert rig.gateway.driver.room("shop") == 0
            await again.send(frame(Kind.WORKER_REPLY, SDKResponse(request_id="late")))
            assert await received(again) == Kind.WORKER_REPLY_ACK
            await rig.gateway.stop()
            for one in (ws, again):
                assert await closed(one) == (1001, "connect_gateway_closing")
