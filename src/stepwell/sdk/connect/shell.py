"""A worker's I/O: it asks where to connect to, keeps a socket open, and sends over HTTP the replies whose socket is gone.

It lives in a thread of its own with an event loop of its own, so that a step which blocks the loop that user code runs in costs no
heartbeat and no lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from stepwell.errors import CallError, Error, ProtocolError, UsageError
from stepwell.protocol.connect import (
    PATH,
    SUBPROTOCOL,
    WORKER_FRAME_BYTES_MAX,
    AuthData,
    CloseCode,
    GatewayExecutorRequestData,
    Kind,
    Reason,
    SDKResponse,
    StartRequest,
    StartResponse,
    WorkerConnectRequestData,
    frame,
)
from stepwell.protocol.signatures import bearer_hash
from stepwell.sdk import http
from stepwell.sdk.connect.machine import Break, Called, Cancelled, Connection, Leave, Output, Ready, Refused, Send, Work

BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits before the next try to connect, give or take a half; the last one serves all further ones."""
TICK_S = 0.25
OPEN_MAX_S = 10.0
CLOSE_MAX_S = 5.0


class Target(Protocol):
    """Who runs the calls. All of it is called in the shell's thread."""

    def begin(self, request: GatewayExecutorRequestData) -> None:
        """Run it; its reply goes to `Shell.reply`."""

    def give_up(self, request_id: str) -> None:
        """Nobody wants its reply any more."""

    def on_ready(self, gateway: str) -> None:
        """Calls may come."""

    def on_problem(self, problem: str) -> None:
        """What keeps it from being connected, for people."""

    def on_end(self, failure: BaseException | None) -> None:
        """The shell has ended, as it was told to or by a failure."""


class Shell:
    """The connection of one worker to one server. `introduction` says who it is; `keys` are the signing key and its fallback."""

    def __init__(self, server: str, introduction: WorkerConnectRequestData, keys: list[str], target: Target) -> None:
        self._server, self._introduction, self._target = server, introduction, target
        self._bearers = [bearer_hash(key) for key in keys]
        self._work = Work()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="stepwell-connect", daemon=True)
        self._open: dict[Connection, _Socket] = {}
        self._excluded: list[str] = []
        self._stop = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._drain_s = 0.0

    # From other threads.

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def stop(self, drain_s: float) -> None:
        """Take no more calls; end when those in hand have given their replies, or after so long."""

        def begin() -> None:
            self._drain_s = drain_s
            self._stop.set()

        self._call(begin)

    def reply(self, response: SDKResponse) -> None:
        """A call has given its reply."""
        self._call(lambda: self._reply(response))

    def no_reply(self, request_id: str) -> None:
        """A call has ended without one."""
        self._call(lambda: self._ended(request_id))

    def _call(self, work: Callable[[], None]) -> None:
        # A loop that is closed has nobody who wants to hear it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)

    # In its own thread.

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            failure = error
        self._target.on_end(failure)

    async def _main(self) -> None:
        keeping = asyncio.create_task(self._keep_connected())
        ticking = asyncio.create_task(self._ticks())
        tasks: list[asyncio.Task[Any]] = [keeping, ticking, asyncio.create_task(self._stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (keeping, ticking):
                if task.done():
                    task.result()
            await self._drain()
        finally:
            for one_task in tasks:
                one_task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(one.close(CloseCode.NORMAL, Reason.WORKER_SHUTDOWN) for one in list(self._open.values())))
            await http.close_pool()

    async def _drain(self) -> None:
        """Wait for the calls in hand and for the server's word on their replies; then bring what replies are left."""
        for connection, one in list(self._open.items()):
            self._perform(connection, one, connection.pause())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s):
                await self._idle.wait()
        for reply in self._work.replies:
            await self._flush(reply)

    async def _keep_connected(self) -> None:
        """Connect, and again when the connection breaks or the gateway wants that."""
        tries = 0
        while True:
            one: _Socket | None = None
            try:
                start = await self._where()
                one = await self._connect(start)
                await one.over.wait()
                if one.was_ready:
                    tries = 0
                if one.leaves:
                    self._excluded = [start.gateway_group]
            except (OSError, TimeoutError, WebSocketException, CallError, ProtocolError) as error:
                self._target.on_problem(f"{self._server} could not be reached as a worker's server: {error or type(error).__name__}")
            wait_s = BACKOFF_S[min(tries, len(BACKOFF_S) - 1)]
            tries += 1
            await asyncio.sleep(wait_s * (0.5 + random.random()))

    async def _where(self) -> StartResponse:
        """Ask the server for a gateway. Raises `UsageError` where it refuses the key."""
        body = StartRequest(exclude_gateways=tuple(self._excluded)).encode()
        response = await self._post("start", body, tries=1)
        if response.status in (401, 403):
            what = "the signing key is not the server's" if self._bearers else "the server asks for its signing key"
            raise UsageError(f"{self._server} refuses this worker: {what}. Set STEPWELL_SIGNING_KEY, or --signing-key")
        if response.status != 200:
            shown = response.body[:300].decode("utf-8", "replace")
            raise ProtocolError(f"POST {PATH}/start was answered with HTTP {response.status}: {shown}", response.status)
        return StartResponse.decode(response.body)

    async def _connect(self, start: StartResponse) -> _Socket:
        ws = await connect(
            start.gateway_endpoint,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            max_size=WORKER_FRAME_BYTES_MAX,
            compression=None,
            ping_interval=None,
            write_limit=0,
            open_timeout=OPEN_MAX_S,
            close_timeout=CLOSE_MAX_S,
        )
        auth = AuthData(session_token=start.session_token, sync_token=start.sync_token)
        introduction = msgspec.structs.replace(self._introduction, connection_id=start.connection_id, auth_data=auth)
        connection = Connection(self._work, introduction, self._now_ms())
        one = _Socket(ws, start.gateway_endpoint)
        self._open[connection] = one
        one.reading = asyncio.create_task(self._read(connection, one))
        return one

    async def _read(self, connection: Connection, one: _Socket) -> None:
        try:
            async for data in one.ws:
                self._perform(connection, one, connection.receive(data, self._now_ms()))
                self._look_idle()
        except ConnectionClosed:
            pass
        finally:
            self._open.pop(connection, None)
            reason = one.ws.close_reason
            if not one.was_ready and not one.broken and reason:
                self._target.on_problem(f"the gateway closed the connection: {reason}")
            one.over.set()
            await one.close(CloseCode.NORMAL, "")

    def _perform(self, connection: Connection, one: _Socket, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(data):
                    one.send(data)
                case Ready():
                    one.was_ready = True
                    self._target.on_ready(one.endpoint)
                    if self._stop.is_set():
                        self._perform(connection, one, connection.pause())
                case Leave():
                    one.leaves = True
                    one.over.set()
                case Break(reason):
                    one.broken = True
                    self._target.on_problem(reason)
                    one.over.set()
                    one.abort()
                case Refused(reason):
                    one.broken = True
                    self._target.on_problem(f"the server does not take the app: {reason}")
                case Called(request):
                    self._idle.clear()
                    one.after(functools.partial(self._acknowledged, request))
                case Cancelled(request_id):
                    self._target.give_up(request_id)

    def _acknowledged(self, request: GatewayExecutorRequestData, sent: bool) -> None:
        if self._work.acknowledged(request, sent=sent):
            self._target.begin(request)
        self._look_idle()

    def _sender(self) -> _Socket | None:
        """The newest connection that takes frames."""
        return next((one for connection, one in reversed(self._open.items()) if connection.takes_frames), None)

    def _reply(self, response: SDKResponse) -> None:
        reply = self._work.reply(response, self._now_ms())
        if reply is not None and (one := self._sender()) is not None:
            one.send(frame(Kind.WORKER_REPLY, reply))
        if reply is None:
            self._look_idle()

    def _ended(self, request_id: str) -> None:
        self._work.end(request_id)
        self._look_idle()

    def _look_idle(self) -> None:
        if self._work.is_idle:
            self._idle.set()

    async def _ticks(self) -> None:
        flushing: asyncio.Task[None] | None = None
        while True:
            await asyncio.sleep(TICK_S)
            now_ms = self._now_ms()
            for connection, one in list(self._open.items()):
                self._perform(connection, one, connection.tick(now_ms))
            if (sender := self._sender()) is not None:
                for data in self._work.due(now_ms):
                    sender.send(data)
            if (flushing is None or flushing.done()) and (stale := self._work.stale(now_ms)):
                flushing = asyncio.create_task(self._flush_all(stale))

    async def _flush_all(self, stale: list[SDKResponse]) -> None:
        for reply in stale:
            await self._flush(reply)

    async def _flush(self, reply: SDKResponse) -> None:
        """Bring a reply over HTTP. What cannot be brought now is tried again, until the server says that it has it."""
        with contextlib.suppress(Error):
            response = await self._post("flush", reply.encode(), tries=1)
            if response.status == 200 or 400 <= response.status < 429:
                self._work.recorded(reply.request_id)
                self._look_idle()
                return
        self._work.sent(reply.request_id, self._now_ms())

    async def _post(self, what: str, body: bytes, *, tries: int) -> Any:
        """A request to the control API, with the key, and with its fallback where the server wants that."""
        url = f"{self._server}{PATH}/{what}"
        response = None
        for bearer in self._bearers or [""]:
            headers = {"content-type": "application/protobuf", **({"authorization": f"Bearer {bearer}"} if bearer else {})}
            response = await http.request("POST", url, headers=headers, body=body, tries=tries)
            if response.status not in (401, 403):
                break
        return response

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)


class _Socket:
    """An open WebSocket with what is to be sent on it. `over` is set when another one is wanted."""

    def __init__(self, ws: ClientConnection, endpoint: str) -> None:
        self.ws, self.endpoint = ws, endpoint
        self.over = asyncio.Event()
        self.was_ready = self.leaves = self.broken = False
        self.reading: asyncio.Task[None] | None = None
        self._out: asyncio.Queue[bytes | Callable[[bool], None]] = asyncio.Queue()
        self._writing = asyncio.create_task(self._write())

    def send(self, data: bytes) -> None:
        """Send a frame, after those that are to be sent already."""
        self._out.put_nowait(data)

    def after(self, told: Callable[[bool], None]) -> None:
        """Tell, once, when what is to be sent by now has left this process: True; or when it never will: False."""
        self._out.put_nowait(told)

    def abort(self) -> None:
        """Cut it off: the other side does not answer."""
        self.ws.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """Send what is to be sent, and close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_MAX_S):
                await self._out.join()
        self._writing.cancel()
        await self.ws.close(code, reason)

    async def _write(self) -> None:
        sent = True
        try:
            while True:
                next_one = await self._out.get()
                if callable(next_one):
                    next_one(sent)
                else:
                    try:
                        # With a write limit of 0 this returns when the operating system has the last byte.
                        await self.ws.send(next_one)
                    except ConnectionClosed:
                        sent = False
                self._out.task_done()
        finally:
            while not self._out.empty():
                if callable(next_one := self._out.get_nowait()):
                    next_one(False)
