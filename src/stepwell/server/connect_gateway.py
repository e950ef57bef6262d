"""The Connect gateway of a server: workers' sockets on a port of their own, who may connect, and the syncs of their apps (§9)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import socket
from typing import Any

import jwt

from stepwell.drivers.connect import ConnectDriver
from stepwell.drivers.connect.driver import Peer
from stepwell.drivers.connect.groups import Group, Groups
from stepwell.errors import Error, ProtocolError
from stepwell.protocol.connect import CloseCode, Reason, WorkerConnectRequestData
from stepwell.protocol.functions import Registration, parse_functions, registration
from stepwell.runtime.node import Node
from stepwell.server.connect_socket import WorkerSocket
from stepwell.server.sdk_api import SdkApi
from stepwell.server.shapes import ACCOUNT_ID, ENVIRONMENT_ID

CONNECTIONS_MAX = 10_000
"""Workers' sockets at one gateway."""
TOKEN_S = 300
"""How long a session token opens a connection."""
CLOSE_MAX_S = 1.0
"""How long workers may take to answer the close, when the server ends."""
LOOK_S = 5.0
"""How often versions of apps that no worker has are looked for."""
_ALGORITHM = "HS256"


class SessionTokens:
    """Session tokens: each opens the one connection it was made for, for some minutes."""

    def __init__(self, signing_key: str | None) -> None:
        told = secrets.token_bytes(32) if signing_key is None else signing_key.encode()
        self._secret = hashlib.sha256(b"stepwell connect session\0" + told).digest()

    def issue(self, connection_id: str, now_s: int) -> str:
        """A token for a connection."""
        claims = {"sub": connection_id, "account_id": ACCOUNT_ID, "env_id": ENVIRONMENT_ID, "iat": now_s, "exp": now_s + TOKEN_S}
        return jwt.encode(claims, self._secret, _ALGORITHM)

    def check(self, token: str, connection_id: str) -> None:
        """Raise `ProtocolError` (401) where the token does not open this connection."""
        try:
            claims: dict[str, Any] = jwt.decode(token, self._secret, [_ALGORITHM], options={"require": ["exp", "sub"]})
        except jwt.PyJWTError as error:
            raise ProtocolError(f"the session token is not good: {error}", 401, Reason.AUTHENTICATION_FAILED) from None
        if claims["sub"] != connection_id:
            raise ProtocolError("the session token is another connection's", 401, Reason.AUTHENTICATION_FAILED)


class ConnectGateway:
    """The sockets over a driver. `id` names this gateway to workers; `url`, where it is set, is the address they are told."""

    def __init__(self, node: Node, sdk_api: SdkApi, driver: ConnectDriver, tokens: SessionTokens, *, url: str | None = None) -> None:
        self._node, self._sdk_api, self.driver, self.tokens, self.url = node, sdk_api, driver, tokens, url
        self.id = node.new_id()
        self.port = 0
        self.groups = Groups(driver.timing.group_ms)
        self.closing = False
        self._sockets: dict[WorkerSocket, Peer] = {}
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._syncs: dict[str, asyncio.Lock] = {}

    # Life.

    async def start(self, listener: socket.socket) -> None:
        """Take connections."""
        self.port = listener.getsockname()[1]
        self.driver.start(self.admit)
        self._server = await asyncio.get_running_loop().create_server(lambda: WorkerSocket(self, self.refusal), sock=listener)
        self._task(self._look())

    def drain(self) -> None:
        """Send no more calls, and have the workers go elsewhere; their replies are still taken, by new connections too."""
        self.driver.drain()

    async def stop(self) -> None:
        """Close every connection."""
        self.closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.driver.stop()
        if self._server is not None:
            self._server.close()
        if self._sockets:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_MAX_S):
                    await self._empty.wait()
        for one in list(self._sockets):
            one.abort()

    def refusal(self) -> str | None:
        """Why no worker is taken now."""
        if self.closing:
            return f"this gateway is closing ({Reason.GATEWAY_CLOSING})"
        if self.driver.open_sockets >= CONNECTIONS_MAX:
            return f"this gateway has {CONNECTIONS_MAX} connections, which is all it takes"
        return None

    # Sockets.

    def opened(self, socket: WorkerSocket) -> None:
        """A worker's socket is open."""
        self._sockets[socket] = self.driver.opened(socket)

    def received(self, socket: WorkerSocket, data: bytes | None) -> None:
        """A frame of a worker's."""
        self.driver.received(self._sockets[socket], data)

    def closed(self, socket: WorkerSocket, code: int, reason: str) -> None:
        """A worker's socket is gone."""
        peer = self._sockets.pop(socket)
        self.driver.closed(peer, reason)
        self._leave(peer)
        if not self._sockets:
            self._empty.set()

    # Workers.

    def admit(self, peer: Peer, worker: WorkerConnectRequestData) -> None:
        """A worker has introduced itself: begin to look at it."""
        self._task(self._admit(peer, worker))

    async def _admit(self, peer: Peer, worker: WorkerConnectRequestData) -> None:
        driver = self.driver
        try:
            self.tokens.check(worker.auth_data.session_token if worker.auth_data is not None else "", worker.connection_id)
            registrations = [registration_of(worker, n) for n in range(len(worker.apps))]
        except ProtocolError as error:
            driver.refuse(peer, CloseCode.POLICY_VIOLATION, error.code or Reason.HELLO_INVALID_PAYLOAD, str(error))
            return
        try:
            ranks = {told.app_name: (await self._join(peer, worker.connection_id, told)).rank for told in registrations}
        except ProtocolError as error:
            driver.refuse(peer, CloseCode.POLICY_VIOLATION, Reason.SYNC_FAILED, str(error))
        except Error as error:
            driver.refuse(peer, CloseCode.INTERNAL_ERROR, Reason.INTERNAL_ERROR, str(error))
        else:
            if driver.accept(peer, ranks):
                return
        self._leave(peer)

    async def _join(self, peer: Peer, connection_id: str, told: Registration) -> Group:
        """Put the worker among those of its version, and sync the app where that is news."""
        async with self._syncs.setdefault(told.app_name, asyncio.Lock()):
            group, sync = self.groups.joins(told, connection_id)
            peer.groups[told.app_name] = group.hash
            if sync:
                await self._sync(group)
            return group

    def _leave(self, peer: Peer) -> None:
        """The worker is none of its versions' any more."""
        if peer.machine.worker is not None:
            for group_hash in peer.groups.values():
                self.groups.leaves(group_hash, peer.machine.worker.connection_id, self._node.clock.now_ms())
            peer.groups.clear()

    async def _sync(self, group: Group) -> None:
        """Make this version the one that counts."""
        row = self._node.registry.apps.get(group.app)
        known = None if row is None else (row.checksum, row.driver, row.archived)
        if self.groups.current(group.app) is group and known == (group.registration.checksum, "connect", False):
            return
        synced = await self._sdk_api.sync(group.registration, "connect")
        self.groups.counts(group, synced.sync_id)

    async def look(self) -> None:
        """Forget versions of apps that no worker has had for long; where one of them counted, another does now."""
        for group in self.groups.forget(self._node.clock.now_ms()):
            async with self._syncs.setdefault(group.app, asyncio.Lock()):
                await self._sync(group)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            # A server that cannot write says so elsewhere; the next look, or the next worker, does it.
            with contextlib.suppress(Error):
                await self.look()

    def _task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "the Connect gateway failed", "exception": error, "task": task})


def registration_of(worker: WorkerConnectRequestData, n: int) -> Registration:
    """What a worker tells of one of its apps. Raises `ProtocolError` naming what is wrong."""
    app = worker.apps[n]
    return registration(
        app_name=app.app_name,
        url="",
        sdk=f"{worker.sdk_language}:v{worker.sdk_version.removeprefix('v')}",
        framework=worker.framework,
        app_version=app.app_version or "",
        functions=parse_functions(app.functions or b"[]"),
    )
