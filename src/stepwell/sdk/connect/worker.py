"""An app's worker: runs the calls that come over its connection, in the event loop that it is started in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import platform
import socket
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec

from stepwell.errors import Error, ProtocolError, UsageError
from stepwell.protocol.answers import NO_RETRY_HEADER, RETRY_AFTER_HEADER, VERSION_HEADER, Lost, encode_answer, failed
from stepwell.protocol.calls import Answer, decode_call
from stepwell.protocol.codec import canonical
from stepwell.protocol.connect import (
    AppConfiguration,
    GatewayExecutorRequestData,
    ReplyStatus,
    SDKResponse,
    SystemAttributes,
    WorkerConnectRequestData,
)
from stepwell.protocol.registration import encode_function
from stepwell.protocol.signatures import bearer_hash
from stepwell.sdk import VERSION
from stepwell.sdk.app import SDK, App
from stepwell.sdk.client import server_url
from stepwell.sdk.connect import CONCURRENCY_DEFAULT
from stepwell.sdk.connect.shell import Shell
from stepwell.sdk.replay import Executor
from stepwell.sdk.state import with_state

DRAIN_S = 30.0
"""How long calls in hand may go on when the worker is stopped."""
_STATUS = {206: ReplyStatus.NOT_COMPLETED, 200: ReplyStatus.DONE}


class Worker:
    """Apps connected to a server. Made by `stepwell.connect`."""

    def __init__(
        self,
        apps: Sequence[App],
        *,
        url: str | None = None,
        max_concurrency: int | None = None,
        instance_id: str | None = None,
        version: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if not apps:
            raise UsageError("connect() has no app: write stepwell.connect(app)")
        if max_concurrency is None:
            max_concurrency = _told_concurrency()
        if max_concurrency < 0:
            raise UsageError(f"max_concurrency is {max_concurrency}; it must be 0 (no limit) or more")
        if url is not None:
            # Where the worker is connected to is where its events go.
            for app in apps:
                app.url = url
        self.url = server_url(apps[0])
        self.instance_id = instance_id or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._apps, self._say = apps, say or _silent
        self._keys = _keys(apps[0])
        self._introduction = WorkerConnectRequestData(
            instance_id=self.instance_id,
            capabilities=b'{"connect":"v1"}',
            apps=tuple(
                AppConfiguration(
                    app_name=app.name, app_version=version or os.environ.get("STEPWELL_APP_VERSION") or None, functions=_told(app)
                )
                for app in apps
            ),
            system_attributes=SystemAttributes(cpu_cores=os.cpu_count() or 1, mem_bytes=_memory(), os=platform.system().lower()),
            framework="connect",
            sdk_version=VERSION,
            sdk_language="py",
            max_worker_concurrency=max_concurrency,
        )
        self._executor = Executor(*apps)
        self._running: dict[str, concurrent.futures.Future[None]] = {}
        self._shell: Shell | None = None
        self._ready = asyncio.Event()
        self._run: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None]
        self._problem = ""

    # Life.

    async def run(self) -> None:
        """Connect, and run what comes, until `stop` is called. Raises `UsageError` where the server refuses the worker's key."""
        if self._shell is not None:
            raise UsageError("this worker runs already, or has been stopped: make another with stepwell.connect(app)")
        self._loop = asyncio.get_running_loop()
        self._shell = Shell(self.url, self._introduction, self._keys, self)
        self._ended = self._loop.create_future()
        self._shell.start()
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._shell.stop(0)
            await asyncio.wait([self._ended])
            raise
        finally:
            running = list(self._running.values())
            for call in running:
                call.cancel()
            await asyncio.gather(*map(asyncio.wrap_future, running), return_exceptions=True)
            await self._executor.close()

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Take no more calls, let those in hand end within the time, bring their replies, and disconnect."""
        if self._shell is None:
            return
        self._shell.stop(drain_s)
        await asyncio.wait([self._ended])

    async def ready(self) -> None:
        """Returns when calls may come."""
        await self._ready.wait()

    async def __aenter__(self) -> Worker:
        self._run = asyncio.create_task(self.run())
        waiting = asyncio.create_task(self._ready.wait())
        await asyncio.wait([self._run, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._run.done():
            self._run.result()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()
        if self._run is not None:
            await self._run

    # What the shell tells, in its thread.

    def begin(self, request: GatewayExecutorRequestData) -> None:
        """Run a call in the loop of user code."""
        assert self._loop is not None
        running = self._running[request.request_id] = asyncio.run_coroutine_threadsafe(self._serve(request), self._loop)
        running.add_done_callback(lambda _: self._running.pop(request.request_id, None))

    def give_up(self, request_id: str) -> None:
        """Its lease is over: what it does counts no more."""
        running = self._running.get(request_id)
        if running is not None:
            running.cancel()

    def on_ready(self, gateway: str) -> None:
        """Calls may come."""
        self._problem = ""
        self._say(f"Connected to {gateway} as {self.instance_id}")
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ready.set)

    def on_problem(self, problem: str) -> None:
        """A problem is said once, until it changes."""
        if problem != self._problem:
            self._problem = problem
            self._say(problem)

    def on_end(self, failure: BaseException | None) -> None:
        """No more calls come, and no more replies are taken."""

        def tell() -> None:
            if self._ended.done():
                return
            if failure is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(failure)

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(tell)

    # Calls.

    async def _serve(self, request: GatewayExecutorRequestData) -> None:
        assert self._shell is not None
        try:
            answer = await self._answer(request)
        except BaseException:
            self._shell.no_reply(request.request_id)
            raise
        if isinstance(answer, Lost):
            # The server makes the call again when its lease is over.
            self._shell.no_reply(request.request_id)
        else:
            self._shell.reply(reply_of(request, answer))

    async def _answer(self, request: GatewayExecutorRequestData) -> Answer:
        try:
            call = decode_call(request.request_payload, request.function_slug, request.step_id or "step")
            if call.use_api:
                call = await with_state(call, self.url, {"authorization": f"Bearer {bearer_hash(self._keys[0])}"} if self._keys else {})
            return await self._executor.call(call)
        except Error as error:
            return failed(type(error).__name__, str(error))


def reply_of(request: GatewayExecutorRequestData, answer: Answer) -> SDKResponse:
    """The reply that tells an answer."""
    try:
        status, headers, body = encode_answer(answer, SDK)
    except ProtocolError as error:
        status, headers, body = encode_answer(failed(type(error).__name__, str(error)), SDK)
    return SDKResponse(
        request_id=request.request_id,
        account_id=request.account_id,
        env_id=request.env_id,
        app_id=request.app_id,
        status=_STATUS.get(status, ReplyStatus.ERROR),
        body=body,
        no_retry=headers.get(NO_RETRY_HEADER) == "true",
        retry_after=headers.get(RETRY_AFTER_HEADER),
        sdk_version=SDK,
        request_version=int(headers.get(VERSION_HEADER, "2")),
        system_trace_ctx=request.system_trace_ctx,
        user_trace_ctx=request.user_trace_ctx,
        run_id=request.run_id,
    )


def _told(app: App) -> bytes:
    """The app's functions, as a register body has them."""
    configs = app.registration().functions
    at_worker = [msgspec.structs.replace(config, url=f"wss://connect?fnId={config.id}&stepId=step") for config in configs]
    return canonical([encode_function(config) for config in at_worker])


def _told_concurrency() -> int:
    for name in ("STEPWELL_MAX_CONCURRENCY", "INNGEST_CONNECT_MAX_WORKER_CONCURRENCY"):
        if told := os.environ.get(name):
            if not told.isdigit():
                raise UsageError(f"{name} is {told!r}; it must be a whole number")
            return int(told)
    return CONCURRENCY_DEFAULT


def _keys(app: App) -> list[str]:
    env = os.environ.get
    key = app.signing_key or env("STEPWELL_SIGNING_KEY") or env("INNGEST_SIGNING_KEY")
    fallback = env("STEPWELL_SIGNING_KEY_FALLBACK") or env("INNGEST_SIGNING_KEY_FALLBACK")
    return [one for one in (key, fallback) if one]


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _silent(line: str) -> None:
    """Nobody listens."""
