"""A server process: a node, its drivers and its HTTP, from start to a drained end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from stepwell.drivers.connect import ConnectDriver
from stepwell.drivers.connect.timing import timing_of
from stepwell.drivers.endpoint import EndpointDriver
from stepwell.drivers.gateway import Gateway
from stepwell.drivers.http import HttpDriver
from stepwell.engine.endpoints import DRIVER
from stepwell.engine.registry import Settings
from stepwell.errors import UsageError
from stepwell.net.addresses import is_public
from stepwell.net.http_client import Pool
from stepwell.protocol.connect import PATH as CONNECT_PATH
from stepwell.protocol.events import EVENT_BYTES_MAX
from stepwell.protocol.realtime import REQUEST_BYTES_MAX
from stepwell.runtime.deliveries import BatchEnded, Told
from stepwell.runtime.dispatcher import MakeCall
from stepwell.runtime.node import Node
from stepwell.server.app import Server
from stepwell.server.auth import Keys
from stepwell.server.connect_gateway import ConnectGateway, SessionTokens
from stepwell.server.discovery import Discovery
from stepwell.server.ingest import Ingest
from stepwell.server.inside import asked
from stepwell.server.programs import Program, Programs
from stepwell.server.queue_log import lines
from stepwell.server.sdk_api import SdkApi
from stepwell.server.shapes import ACCOUNT_ID, ENVIRONMENT_ID
from stepwell.store.sqlite import SqliteStore

DRAIN_S = 10.0
CONNECT_PORT = 8289
FILES_MAX = 1_048_576
"""Descriptors that a server asks for: a socket each for apps, clients and workers."""
SWITCH_INTERVAL_S = 0.0005
"""How soon a thread that waits for the interpreter gets it: the writer's commits must not wait for a busy event loop."""


GC_THRESHOLDS = (20_000, 20, 100)
"""A server holds many rows and few cycles: looking for these less often leaves more time for the rows."""


def ready_lines(address: str, gateway: str) -> Sequence[str]:
    """What a server says when it is ready."""
    return (f"Connect gateway for workers: {gateway}", f"Stepwell is ready: {address}")


class HostOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `stepwell dev` and `stepwell start` are told.

    `kind` is `dev` or `cloud`; `programs` are the apps that run in child processes; `poll_s` `None` means no polling.
    `public_requests_only`: requests of steps go to no private address.
    `queued_max` and `queued_per_function_max` bound what may wait.
    `connect_port` `None` is the usual one, or a free one where that is taken or `port` is 0; `connect_url` is the gateway's address where
    workers reach it by another one.
    `read_keys` gives the keys anew at SIGHUP.
    `prepare` is done before the programs are started, `tend` goes on beside them; `ready` says what to tell when all answer, from the
    server's address and that of its Connect gateway.
    """

    kind: str
    db: Path
    host: str = "127.0.0.1"
    port: int = 8288
    programs: tuple[Program, ...] = ()
    urls: tuple[str, ...] = ()
    discover: bool = False
    poll_s: float | None = None
    settings: Settings = Settings()
    event_bytes_max: int = EVENT_BYTES_MAX
    public_requests_only: bool = False
    queued_max: int | None = None
    queued_per_function_max: int | None = None
    keys: Keys = msgspec.field(default_factory=Keys)
    read_keys: Callable[[], Keys] | None = None
    connect_port: int | None = None
    connect_url: str | None = None
    connect_lease_s: float | None = None
    drain_s: float = DRAIN_S
    prepare: Callable[[Node], Awaitable[None]] | None = None
    tend: Callable[[Node, Programs], Coroutine[Any, Any, None]] | None = None
    ready: Callable[[str, str], Sequence[str]] = ready_lines


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers: the host has its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell when requests are answered."""
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


async def run_host(options: HostOptions, say: Callable[[str], None] = print, on_ready: Callable[[Node, str], object] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then drain and stop. Says the address when requests are answered.

    SIGHUP has keys that are kept read anew; where there are none to read, it ends the server too.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    raise_file_limit()
    timing = timing_of(options.connect_lease_s)
    listener = bound(options.host, options.port)
    workers_listener = _bound_for_workers(options)
    pool, outside = Pool(), Pool(as_browsers=True, allows=is_public if options.public_requests_only else None)
    driver = HttpDriver(pool, kind=options.kind, signing_keys=options.keys.signing_keys)
    connect = ConnectDriver(timing=timing, account_id=ACCOUNT_ID, environment_id=ENVIRONMENT_ID)
    endpoints = EndpointDriver(pool, kind=options.kind, signing_key=options.keys.signing_key)
    drivers: dict[str, MakeCall] = {"http": driver.call, "connect": connect.call, DRIVER: endpoints.call}
    programs = Programs(
        options.programs,
        locks=Path(f"{options.db}.d"),
        on_send=lambda body, seed: _store(server.ingest, body, seed),
        on_api=lambda method, path, body: asked(server, options.keys, method, path, body),
        on_registration=lambda registration: sdk_api.sync(registration, "process"),
        house=lambda: node.actors,
        say=say,
    )
    drivers["process"] = programs.call
    node = Node(
        SqliteStore(options.db),
        drivers=drivers,
        settings=options.settings,
        node_id=socket.gethostname(),
        perform=Gateway(outside).perform,
        queued_max=options.queued_max,
        queued_per_function_max=options.queued_per_function_max,
        rooms={"connect": connect},
        on_settled=_log_batches(say) if options.kind == "dev" else None,
    )
    node.actors.files = Path(f"{options.db}.actors")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    if options.read_keys is not None:
        loop.add_signal_handler(signal.SIGHUP, _adopt_keys, options, say)
    try:
        await node.start()
    except BaseException:
        listener.close()
        workers_listener.close()
        raise
    hosts = frozenset() if options.host in ("127.0.0.1", "::1", "localhost") else frozenset((options.host,))
    sdk_api = SdkApi(node, options.keys, options.kind, urls=options.urls, discovers=options.discover)
    gateway = ConnectGateway(node, sdk_api, connect, SessionTokens(options.keys.signing_key), url=options.connect_url)
    discovery = Discovery(node, sdk_api, pool, kind=options.kind, keys=options.keys, say=say)
    server = Server(
        node,
        options.keys,
        options.kind,
        sdk_api=sdk_api,
        hosts=hosts,
        connect=gateway,
        sync_url=discovery.sync,
        discovery=discovery,
        event_bytes_max=options.event_bytes_max,
    )
    http = _Uvicorn(
        uvicorn.Config(
            server,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=3,
            ws_per_message_deflate=False,
            ws_max_size=2 * REQUEST_BYTES_MAX,
        )
    )
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    watching = [asyncio.create_task(discovery.watch(options.urls, poll_s=options.poll_s, discover=options.discover))]
    try:
        await gateway.start(workers_listener)
        await http.ready.wait()
        if options.prepare is not None:
            await options.prepare(node)
        await programs.start()
        watching += programs.watching
        if options.tend is not None:
            watching.append(asyncio.create_task(options.tend(node, programs)))
        address = f"http://{shown_host(options.host)}:{listener.getsockname()[1]}"
        for line in options.ready(address, options.connect_url or f"ws://{shown_host(options.host)}:{gateway.port}{CONNECT_PATH}"):
            say(line)
        if on_ready is not None:
            on_ready(node, address)
        # A search for apps may end by itself; one that fails ends the server, visibly, as every other part does.
        parts: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopping.wait()), serving, node.failed()]
        while not any(part.done() for part in parts):
            await asyncio.wait([*parts, *watching], return_when=asyncio.FIRST_COMPLETED)
            for watch in [watch for watch in watching if watch.done()]:
                watching.remove(watch)
                watch.result()
    finally:
        for watch in watching:
            watch.cancel()
        gateway.drain()
        await programs.stop(options.drain_s)
        if not await node.drain(options.drain_s):
            say(f"{node.calls_out} calls did not come back within {options.drain_s:g} s; they are made again at the next start")
        node.realtime.hub.close("the server stops: connect again in a moment")
        await gateway.stop()
        http.should_exit = True
        await asyncio.gather(serving, *watching, return_exceptions=True)
        await node.stop()
        await pool.close()
        await outside.close()


def _log_batches(say: Callable[[str], None]) -> Told:
    """Say how each batch of a queue ended."""

    def told(ended: BatchEnded) -> None:
        for line in lines(ended):
            say(line)

    return told


def _adopt_keys(options: HostOptions, say: Callable[[str], None]) -> None:
    """SIGHUP: the keys as they are kept now hold from here on."""
    assert options.read_keys is not None
    try:
        options.keys.adopt(options.read_keys())
    except UsageError as error:
        say(f"The keys stay as they were: {error}")
    else:
        say("The keys are read anew")


async def _store(ingest: Ingest, body: bytes, seed: str) -> list[str]:
    """Store the events that a child sends. Raises `ProtocolError` for a bad one."""
    ids, error = await ingest.take(body, seed or None)
    if error is not None:
        raise error
    return list(ids)


def raise_file_limit() -> None:
    """Let this process open as many descriptors as the system allows it, for each worker and client takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _bound_for_workers(options: HostOptions) -> socket.socket:
    """The Connect gateway's listening socket: at its usual port, where nobody said another and it is free."""
    if options.connect_port is not None:
        return bound(options.host, options.connect_port, "--connect-gateway-port")
    if options.port != 0:
        with contextlib.suppress(UsageError):
            return bound(options.host, CONNECT_PORT, "--connect-gateway-port")
    return bound(options.host, 0, "--connect-gateway-port")


def bound(host: str, port: int, option: str = "--port") -> socket.socket:
    """A listening socket. Raises `UsageError` where the port is taken; `option` is how to choose another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} of {host} cannot be used: {error.strerror}. Choose another with {option}; {option} 0 finds a free one"
        ) from None
    listener.listen(2048)
    return listener


def shown_host(host: str) -> str:
    """The host as it is put into an address."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
