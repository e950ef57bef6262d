"""Calls over Connect: a call goes to a worker that has room, and comes back as its reply, or as lost.

The gateway brings sockets as `Link`s and feeds what they receive; everything else about a connection is decided here and in the
machines beside. A reply is acknowledged when the server has recorded it, not before, so that a worker keeps what is not durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from stepwell.drivers.base import CheckpointFn, NotTaken
from stepwell.drivers.connect.connection import (
    Acked,
    BecameReady,
    Close,
    Connection,
    Extends,
    Introduced,
    Output,
    Paused,
    Replied,
    Send,
    State,
)
from stepwell.drivers.connect.exchange import answer_of, data_of
from stepwell.drivers.connect.leases import Lease, Leases, Overdue
from stepwell.drivers.connect.roster import Roster, Worker
from stepwell.drivers.connect.timing import Timing
from stepwell.protocol.calls import Answer, CallRequest, Lost
from stepwell.protocol.connect import (
    CloseCode,
    GatewayExecutorRequestData,
    Kind,
    Reason,
    SDKResponse,
    WorkerConnectRequestData,
    WorkerReplyAckData,
    WorkerRequestExtendLeaseAckData,
    WorkerRequestExtendLeaseData,
    frame,
)
from stepwell.protocol.ids import ulid

TICKS_A_SECOND = 4


class Link(Protocol):
    """A worker's socket."""

    def send(self, data: bytes) -> None:
        """Send a frame; what cannot be sent any more is dropped, for the end of the socket will be told."""

    def close(self, code: int, reason: str) -> None:
        """Send what is to be sent, and close."""


class Admit(Protocol):
    """Checks a worker that introduces itself and syncs its apps, then calls `accept` or `refuse`."""

    def __call__(self, peer: Peer, worker: WorkerConnectRequestData) -> None:
        """Begin it."""


class Peer:
    """A connection: its machine and its socket. `groups` are the versions of its apps, by app."""

    def __init__(self, machine: Connection, link: Link) -> None:
        self.machine, self.link = machine, link
        self.id = ""
        self.groups: dict[str, str] = {}


class _Call:
    """A call in hand, or whose reply is not recorded yet."""

    __slots__ = ("data", "future", "recorded", "replied_by")

    def __init__(self, data: GatewayExecutorRequestData, loop: asyncio.AbstractEventLoop) -> None:
        self.data = data
        self.future: asyncio.Future[SDKResponse | Lost | NotTaken] = loop.create_future()
        self.recorded: asyncio.Future[bool] = loop.create_future()
        self.replied_by: set[Peer] = set()


class ConnectDriver:
    """All connections of a server and the calls in their hands. `account_id` and `environment_id` are what workers are told."""

    def __init__(
        self,
        *,
        timing: Timing | None = None,
        account_id: str = "",
        environment_id: str = "",
        now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.timing = timing or Timing()
        self._account_id, self._environment_id, self._now_ms = account_id, environment_id, now_ms
        self._entropy = entropy
        self._leases = Leases(self.timing, self._new_id)
        self._roster = Roster()
        self._peers: dict[Peer, None] = {}
        self._by_id: dict[str, Peer] = {}
        self._calls: dict[str, _Call] = {}
        self._admit: Admit | None = None
        self._on_room: list[Callable[[str], None]] = []
        self._ticking: asyncio.Task[None] | None = None
        self._draining = False

    def _new_id(self) -> str:
        return ulid(time.time_ns() // 1_000_000, self._entropy(10))

    # What the dispatcher asks.

    def room(self, app_id: str) -> int:
        """How many more calls the app's workers take now."""
        return 0 if self._draining else self._roster.free(app_id)

    def on_room(self, told: Callable[[str], None]) -> None:
        """Whom to tell too when an app's room has grown."""
        self._on_room.append(told)

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Advance the run in a worker. Raises `NotTaken` where none has room now.

        Steps that a worker checkpoints come to the server by requests of their own.
        """
        data = data_of(request, self._account_id, self._environment_id)
        call = self._calls[data.request_id] = _Call(data, asyncio.get_running_loop())
        if not self._place(call, ()):
            del self._calls[data.request_id]
            raise NotTaken(f"no connected worker takes a call of app {request.app_id!r} ({Reason.NO_HEALTHY_CONNECTION})")
        try:
            answered = await call.future
        except asyncio.CancelledError:
            self._end(data.request_id)
            self.settled(data.request_id, recorded=False)
            raise
        if isinstance(answered, NotTaken):
            raise answered
        return answered if isinstance(answered, Lost) else answer_of(answered, now_ms=time.time_ns() // 1_000_000)

    def settled(self, request_id: str, *, recorded: bool) -> None:
        """The server has recorded what `call` gave, or will not: only what is recorded is acknowledged."""
        call = self._calls.pop(request_id, None)
        if call is None:
            return
        if not call.recorded.done():
            call.recorded.set_result(recorded)
        if recorded:
            for peer in call.replied_by:
                self._ack_reply(peer, request_id)

    # Calls and workers.

    def _place(self, call: _Call, without: tuple[str, ...]) -> bool:
        """Give the call to a worker that it has not been given to. Says whether there is one."""
        if self._draining:
            return False
        data = call.data
        worker = self._roster.take(data.app_name, without)
        if worker is None:
            return False
        lease = self._leases.give(data.request_id, data.app_name, worker.connection_id, worker.instance_id, self._now_ms())
        told = msgspec.structs.replace(data, lease_id=lease.lease_id)
        self._by_id[worker.connection_id].link.send(frame(Kind.GATEWAY_EXECUTOR_REQUEST, told))
        return True

    def _end(self, request_id: str) -> None:
        """The call is in nobody's hand any more."""
        lease = self._leases.end(request_id)
        if lease is not None:
            self._freed(self._roster.give_back(lease.connection_id))

    def _freed(self, worker: Worker | None) -> None:
        if worker is not None and worker.free:
            for app in worker.ranks:
                for told in self._on_room:
                    told(app)

    def _overdue(self, overdue: Overdue) -> None:
        """A call was not acknowledged: another worker gets it. Or it is lost."""
        lease = overdue.lease
        call = self._calls.get(lease.request_id)
        if call is None or call.future.done():
            self._end(lease.request_id)
            return
        if overdue.lost:
            self._end(lease.request_id)
            call.future.set_result(Lost(reason=overdue.reason))
            return
        self._doubt(lease.connection_id)
        now_ms = self._now_ms()
        if self._place(call, lease.tried):
            self._freed(self._roster.give_back(lease.connection_id))
        elif lease.connection_id in self._by_id and now_ms < lease.until_ms:
            # Nobody else takes it now, and the worker may only be slow: look again.
            lease.ack_by_ms = now_ms + self.timing.ack_ms
        else:
            # As far as anybody knows it was never begun: it waits in the queue, not here.
            self._end(lease.request_id)
            call.future.set_result(NotTaken(f"worker {lease.instance_id} did not take the call ({Reason.STOPPED_RESPONDING})"))

    def _doubt(self, connection_id: str) -> None:
        """A worker does not acknowledge: it gets nothing until it is heard of."""
        worker = self._roster.get(connection_id)
        if worker is not None and not worker.doubted:
            worker.doubted = True
            self._roster.changed(worker)

    def _trust(self, connection_id: str) -> None:
        worker = self._roster.get(connection_id)
        if worker is not None and worker.doubted:
            worker.doubted = False
            self._roster.changed(worker)
            self._freed(worker)

    # Connections, as the gateway brings them.

    def start(self, admit: Admit) -> None:
        """Begin to watch the time. `admit` is asked about every worker that introduces itself."""
        self._admit = admit
        self._ticking = asyncio.get_running_loop().create_task(self._tick(), name="connect")

    def opened(self, link: Link) -> Peer:
        """A socket is open."""
        peer = Peer(Connection(self.timing, self._now_ms()), link)
        self._peers[peer] = None
        self._perform(peer, peer.machine.open())
        return peer

    def received(self, peer: Peer, data: bytes | None) -> None:
        """A frame; `None` for one that is not binary."""
        self._trust(peer.id)
        self._perform(peer, peer.machine.receive(data, self._now_ms()))

    def closed(self, peer: Peer, reason: str = "") -> None:
        """A socket is gone; `reason` is what the worker closed it with."""
        if peer not in self._peers:
            return
        del self._peers[peer]
        peer.machine.lost()
        if self._by_id.get(peer.id) is peer:
            del self._by_id[peer.id]
            self._roster.remove(peer.id)
            for overdue in self._leases.broken(peer.id, self._now_ms(), for_good=reason == Reason.WORKER_SHUTDOWN):
                self._overdue(overdue)

    def accept(self, peer: Peer, ranks: Mapping[str, int]) -> bool:
        """The worker's apps are synced; `ranks` says how new each is. Says whether the worker is still there."""
        told = peer.machine.worker
        if peer not in self._peers or told is None or peer.machine.state is not State.SYNCING:
            return False
        peer.id = told.connection_id
        if (old := self._by_id.get(peer.id)) is not None:
            # Two sockets show the same connection id: the later one counts.
            self._perform(old, old.machine.close(CloseCode.POLICY_VIOLATION, Reason.INVALID_MSG))
            self.closed(old)
        self._by_id[peer.id] = peer
        self._roster.add(Worker(peer.id, told.instance_id, ranks, told.max_worker_concurrency))
        self._perform(peer, peer.machine.accept())
        return True

    def refuse(self, peer: Peer, code: CloseCode, reason: str, problem: str = "") -> None:
        """The worker is not taken."""
        self._perform(peer, peer.machine.refuse(code, reason, problem))

    def peers(self) -> list[Peer]:
        """The connections of workers that are known, oldest first."""
        return list(self._by_id.values())

    def silent_ms(self, peer: Peer) -> int:
        """How long nothing has been heard of a connection."""
        return self._now_ms() - peer.machine.heard_ms

    @property
    def open_sockets(self) -> int:
        """How many sockets there are, those of workers that are not known yet too."""
        return len(self._peers)

    async def flush(self, response: SDKResponse) -> bool:
        """A reply that came another way than by the socket. Says, when that is known, whether it need not be sent again."""
        call = self._calls.get(response.request_id)
        if call is None:
            return True
        self._answer(call, response)
        return await asyncio.shield(call.recorded)

    def drain(self) -> None:
        """Send no more calls, and tell the workers that this gateway is about to close.

        A worker looks for another gateway then. There may be none: one that comes back here gets no calls, and has a connection to
        bring its replies by, without which public SDKs hold them back and wait longer and longer.
        """
        self._draining = True
        for peer in list(self._peers):
            self._perform(peer, peer.machine.drain())

    async def stop(self) -> None:
        """Close every connection. Calls that are in hand stay so: who waits for them is cut off by the node's stop."""
        self._draining = True
        for peer in list(self._peers):
            self._perform(peer, peer.machine.close(CloseCode.GOING_AWAY, Reason.GATEWAY_CLOSING))
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking

    # What the machines say.

    def _perform(self, peer: Peer, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(data):
                    peer.link.send(data)
                case Close(code, reason):
                    worker = self._roster.get(peer.id)
                    if worker is not None:
                        worker.ready = False
                        self._roster.changed(worker)
                    peer.link.close(code, reason)
                case Introduced(worker):
                    assert self._admit is not None
                    self._admit(peer, worker)
                case BecameReady():
                    self._set_ready(peer, True)
                case Paused():
                    self._set_ready(peer, False)
                case Acked(request_id):
                    self._leases.acked(request_id, peer.id)
                case Extends(told):
                    self._extend(peer, told)
                case Replied(response):
                    self._replied(peer, response)

    def _set_ready(self, peer: Peer, ready: bool) -> None:
        worker = self._roster.get(peer.id)
        if worker is not None:
            worker.ready = ready
            self._roster.changed(worker)
            self._freed(worker)

    def _extend(self, peer: Peer, told: WorkerRequestExtendLeaseData) -> None:
        worker = self._roster.get(peer.id)
        before = self._leases.get(told.request_id)
        held_by = before.connection_id if before is not None else ""
        lease: Lease | None = None
        if worker is not None:
            lease = self._leases.extend(told.request_id, told.lease_id, peer.id, worker.instance_id, self._now_ms())
        if lease is not None and worker is not None and held_by != peer.id:
            # The worker came back by another connection, and holds the call by that one.
            self._freed(self._roster.give_back(held_by))
            worker.in_hand += 1
            self._roster.changed(worker)
        ack = WorkerRequestExtendLeaseAckData(
            request_id=told.request_id,
            account_id=told.account_id,
            env_id=told.env_id,
            app_id=told.app_id,
            function_slug=told.function_slug,
            new_lease_id=None if lease is None else lease.lease_id,
        )
        peer.link.send(frame(Kind.WORKER_REQUEST_EXTEND_LEASE_ACK, ack))

    def _replied(self, peer: Peer, response: SDKResponse) -> None:
        call = self._calls.get(response.request_id)
        if call is None:
            # Late, or twice: nobody waits for it, and the worker may forget it.
            self._ack_reply(peer, response.request_id)
            return
        call.replied_by.add(peer)
        self._answer(call, response)

    def _answer(self, call: _Call, response: SDKResponse) -> None:
        """The first reply counts, whichever worker it is of."""
        if not call.future.done():
            call.future.set_result(response)
        self._end(response.request_id)

    def _ack_reply(self, peer: Peer, request_id: str) -> None:
        if peer.machine.is_open:
            peer.link.send(frame(Kind.WORKER_REPLY_ACK, WorkerReplyAckData(request_id=request_id)))

    # Time.

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1 / TICKS_A_SECOND)
            self.tick()

    def tick(self) -> None:
        """Find what has taken too long."""
        now_ms = self._now_ms()
        for overdue in self._leases.due(now_ms):
            self._overdue(overdue)
        for peer in list(self._peers):
            self._perform(peer, peer.machine.tick(now_ms))
            if now_ms - peer.machine.heard_ms >= self.timing.doubt_ms and (worker := self._roster.get(peer.id)) and worker.in_hand:
                # It has leases to extend, and says nothing.
                self._doubt(peer.id)


__all__ = ["Admit", "ConnectDriver", "Link", "Peer"]
