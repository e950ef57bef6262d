"""Connect's driver against workers that do anything in any order: the books balance, and every call comes to one end."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.drivers.base import NotTaken
from stepwell.drivers.connect import ConnectDriver, Timing
from stepwell.protocol.calls import Answer, Checkpoint
from stepwell.protocol.connect import (
    AppConfiguration,
    ConnectMessage,
    GatewayExecutorRequestData,
    Kind,
    Message,
    ReplyStatus,
    SDKResponse,
    WorkerConnectRequestData,
    WorkerReplyAckData,
    WorkerRequestAckData,
    WorkerRequestExtendLeaseAckData,
    WorkerRequestExtendLeaseData,
    frame,
)
from stepwell.protocol.ids import ulid
from tests.unit.protocol.messages import CALL

TIMING = Timing(lease_ms=4_000, ack_ms=1_000, silence_ms=6_000, heartbeat_ms=2_000)
OPS = ("call", "call", "join", "back", "back", "go", "goodbye", "pause", "ack", "extend", "reply", "flush", "beat", "tick", "record")


class Instance:
    """A worker process: what it has in hand outlives its connections, as in every SDK."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.leases: dict[str, str] = {}
        self.connection: Link | None = None


class Link:
    """One of its connections."""

    def __init__(self, world: World, instance: Instance, most: int) -> None:
        self.world, self.instance, self.open = world, instance, True
        self.unacked: set[str] = set()
        self.id = ulid(world.number(), bytes(10))
        instance.connection = self
        self.peer = world.driver.opened(self)
        app = AppConfiguration(app_name="shop", functions=b"[]")
        told = WorkerConnectRequestData(connection_id=self.id, instance_id=instance.name, apps=(app,), max_worker_concurrency=most)
        self.says(Kind.WORKER_CONNECT, told)
        world.driver.accept(self.peer, {"shop": 1 + len(world.instances) % 2})

    def send(self, data: bytes) -> None:
        """As a link: what the gateway says."""
        message = ConnectMessage.decode(data)
        if message.kind == Kind.GATEWAY_EXECUTOR_REQUEST:
            call = GatewayExecutorRequestData.decode(message.payload)
            self.world.given[call.request_id] += 1
            self.instance.leases[call.request_id] = call.lease_id
        elif message.kind == Kind.WORKER_REQUEST_EXTEND_LEASE_ACK:
            ack = WorkerRequestExtendLeaseAckData.decode(message.payload)
            if ack.new_lease_id:
                self.instance.leases[ack.request_id] = ack.new_lease_id
            else:
                self.instance.leases.pop(ack.request_id, None)
        elif message.kind == Kind.WORKER_REPLY_ACK:
            request_id = WorkerReplyAckData.decode(message.payload).request_id
            self.world.told_recorded(request_id)
            self.unacked.discard(request_id)

    def close(self, code: int, reason: str) -> None:
        """As a link: the gateway has enough."""
        self.world.closing.append(self)

    def says(self, kind: Kind, message: Message | None = None) -> None:
        """A frame of the worker's."""
        if self.open:
            self.world.driver.received(self.peer, frame(kind, message))

    def goes(self, reason: str = "") -> None:
        """The socket is gone."""
        if self.open:
            self.open = False
            if self.instance.connection is self:
                self.instance.connection = None
            self.world.driver.closed(self.peer, reason)


class World:
    """The driver, the workers, and the calls that the server waits for."""

    def __init__(self) -> None:
        self.now_ms, self._number = 1_000_000, 0
        self.driver = ConnectDriver(timing=TIMING, now_ms=lambda: self.now_ms)
        self.driver._admit = lambda peer, worker: None
        self.instances: list[Instance] = [Instance(f"i-{n}") for n in range(3)]
        self.calls: dict[str, asyncio.Task[Answer]] = {}
        self.unrecorded: set[str] = set()
        self.given: Counter[str] = Counter()
        self.closing: list[Link] = []
        self.ended: Counter[str] = Counter()
        self.flushes: list[asyncio.Task[bool]] = []

    def number(self) -> int:
        """The next number."""
        self._number += 1
        return self._number

    def told_recorded(self, request_id: str) -> None:
        """A worker may forget a reply: the call is recorded, or nobody waits for it."""
        assert request_id not in self.calls and request_id not in self.unrecorded

    async def settle(self) -> None:
        """Let tasks run, and sockets that the gateway closes go."""
        for _ in range(4):
            await asyncio.sleep(0)
        while self.closing:
            self.closing.pop().goes()
        for request_id, task in list(self.calls.items()):
            if task.done():
                del self.calls[request_id]
                self.ended[request_id] += 1
                if isinstance(task.exception(), NotTaken):
                    self.driver.settled(request_id, recorded=False)
                else:
                    assert task.exception() is None
                    self.unrecorded.add(request_id)

    def record(self) -> None:
        """The server has recorded what it was given."""
        told, self.unrecorded = self.unrecorded, set()
        for request_id in told:
            self.driver.settled(request_id, recorded=True)

    async def do(self, op: str, n: int) -> None:
        """One thing happens."""
        instance = self.instances[n % 3]
        link = instance.connection
        request_id = next(iter(sorted(instance.leases)[n % 2 :]), "")
        match op:
            case "call":

                async def checkpoint(told: Checkpoint) -> None:
                    """Not used."""

                made = f"r-{self.number()}"
                self.calls[made] = asyncio.ensure_future(
                    self.driver.call(msgspec.structs.replace(CALL, request_id=made, steps={}, stack=()), checkpoint)
                )
            case "join":
                Link(self, instance, 1 + n % 3)
            case "tick":
                self.now_ms += 250 * (1 + n)
                self.driver.tick()
            case "record":
                self.record()
            case "flush" if request_id:
                instance.leases.pop(request_id)
                self.flushes.append(asyncio.ensure_future(self.driver.flush(reply(request_id))))
            case "back":
                # As SDKs do: the connection breaks, and the next one extends what is in hand.
                if link is not None:
                    for held in instance.leases:
                        link.says(Kind.WORKER_REQUEST_ACK, WorkerRequestAckData(request_id=held))
                    link.goes()
                again = Link(self, instance, 1 + n % 3)
                for held, lease_id in list(instance.leases.items()):
                    again.says(Kind.WORKER_REQUEST_EXTEND_LEASE, WorkerRequestExtendLeaseData(request_id=held, lease_id=lease_id))
            case "go" | "goodbye" if link is not None:
                link.goes("WORKER_SHUTDOWN" if op == "goodbye" else "")
            case "beat" if link is not None:
                link.says(Kind.WORKER_HEARTBEAT)
            case "pause" if link is not None:
                link.says(Kind.WORKER_PAUSE)
            case "ack" if link is not None and request_id:
                link.says(Kind.WORKER_REQUEST_ACK, WorkerRequestAckData(request_id=request_id))
            case "extend" if link is not None and request_id:
                told = WorkerRequestExtendLeaseData(request_id=request_id, lease_id=instance.leases[request_id])
                link.says(Kind.WORKER_REQUEST_EXTEND_LEASE, told)
            case "reply" if link is not None and request_id:
                instance.leases.pop(request_id)
                link.unacked.add(request_id)
                link.says(Kind.WORKER_REPLY, reply(request_id))

    def check(self) -> None:
        """The books balance."""
        driver = self.driver
        held = Counter(lease.connection_id for lease in driver._leases._by_request.values())
        for worker in driver._roster:
            assert worker.in_hand == held[worker.connection_id], (worker.connection_id, worker.in_hand, held)
            assert worker.connection_id in driver._by_id
        assert driver.room("shop") == sum(worker.free for worker in driver._roster)
        assert set(driver._leases._by_request) <= set(self.calls)
        assert set(driver._calls) <= set(self.calls) | self.unrecorded


def reply(request_id: str) -> SDKResponse:
    """A worker's answer."""
    return SDKResponse(request_id=request_id, status=ReplyStatus.DONE, body=b"1", sdk_version="x")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 7)), max_size=120))
def test_every_call_comes_to_one_end(steps: list[tuple[str, int]]) -> None:
    """Answered, lost or handed back, once; and when nothing more happens, in bounded time."""

    async def main() -> None:
        world = World()
        for op, n in [("join", 0), ("join", 1), *steps]:
            await world.do(op, n)
            await world.settle()
            world.check()
        world.record()
        await world.settle()
        for instance in world.instances:
            assert instance.connection is None or not instance.connection.unacked, "a reply was not acknowledged"
        for _ in range(4 * (TIMING.lease_ms + TIMING.silence_ms) // 1000):
            await world.do("tick", 0)
            await world.settle()
            world.check()
        assert not world.calls, "a call has no end"
        assert all(times == 1 for times in world.ended.values())
        world.record()
        await world.settle()
        assert all(flush.done() for flush in world.flushes), "a flush is not answered"
        assert not world.driver._calls and len(world.driver._leases) == 0

    asyncio.run(main())
