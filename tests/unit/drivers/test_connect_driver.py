"""Calls over Connect, by a virtual clock: who gets a call, what becomes of it, and when a worker hears that its reply is recorded."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from stepwell.drivers.base import NotTaken
from stepwell.drivers.connect import ConnectDriver, Timing
from stepwell.drivers.connect.driver import Peer
from stepwell.drivers.connect.exchange import answer_of
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint, Failed, Lost, Ops, Returned
from stepwell.protocol.connect import (
    AppConfiguration,
    CloseCode,
    ConnectMessage,
    GatewayExecutorRequestData,
    Kind,
    Message,
    Reason,
    ReplyStatus,
    SDKResponse,
    WorkerConnectRequestData,
    WorkerReplyAckData,
    WorkerRequestAckData,
    WorkerRequestExtendLeaseAckData,
    WorkerRequestExtendLeaseData,
    frame,
)
from stepwell.protocol.ids import run_of_trace_id, ulid
from tests.unit.protocol.messages import CALL

LEASE_MS, ACK_MS = 30_000, 3_000
numbers = itertools.count(1)


class Clock:
    """Time, turned by hand."""

    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


class FakeWorker:
    """A worker at the other end of a link: keeps what it was sent."""

    def __init__(self, rig: Rig, instance: str, most: int | None = None, rank: int = 1) -> None:
        self.driver, self.sent, self.closed = rig.driver, list[ConnectMessage](), list[tuple[int, str]]()
        self.id = ulid(next(numbers), bytes(10))
        self.peer: Peer = self.driver.opened(self)
        app = AppConfiguration(app_name="shop", functions=b"[]")
        told = WorkerConnectRequestData(connection_id=self.id, instance_id=instance, apps=(app,), max_worker_concurrency=most)
        self.says(Kind.WORKER_CONNECT, told)
        self.driver.accept(self.peer, {"shop": rank})

    def send(self, data: bytes) -> None:
        """As a link."""
        self.sent.append(ConnectMessage.decode(data))

    def close(self, code: int, reason: str) -> None:
        """As a link."""
        self.closed.append((code, reason))

    def says(self, kind: Kind, message: Message | None = None) -> None:
        """A frame of the worker's."""
        self.driver.received(self.peer, frame(kind, message))

    def got(self, kind: Kind) -> list[bytes]:
        """The payloads of this kind."""
        return [message.payload for message in self.sent if message.kind == kind]

    @property
    def calls(self) -> list[GatewayExecutorRequestData]:
        """The calls that it was given."""
        return [GatewayExecutorRequestData.decode(payload) for payload in self.got(Kind.GATEWAY_EXECUTOR_REQUEST)]

    @property
    def acked_replies(self) -> list[str]:
        """The replies that it may forget."""
        return [WorkerReplyAckData.decode(payload).request_id for payload in self.got(Kind.WORKER_REPLY_ACK)]

    def acks(self, request_id: str) -> None:
        """It has begun."""
        self.says(Kind.WORKER_REQUEST_ACK, WorkerRequestAckData(request_id=request_id))

    def replies(self, request_id: str, body: bytes = b'"done"') -> None:
        """It has an answer."""
        self.says(Kind.WORKER_REPLY, SDKResponse(request_id=request_id, status=ReplyStatus.DONE, body=body, sdk_version="py:v1"))

    def extends(self, request_id: str, lease_id: str) -> str | None:
        """It is at it; gives the new lease id."""
        self.says(Kind.WORKER_REQUEST_EXTEND_LEASE, WorkerRequestExtendLeaseData(request_id=request_id, lease_id=lease_id))
        return WorkerRequestExtendLeaseAckData.decode(self.got(Kind.WORKER_REQUEST_EXTEND_LEASE_ACK)[-1]).new_lease_id

    def goes(self, reason: str = "") -> None:
        """Its socket is gone."""
        self.driver.closed(self.peer, reason)


class Rig:
    """A driver with its clock. `roomy` is what it told of room."""

    def __init__(self) -> None:
        self.clock, self.roomy = Clock(), list[str]()
        self.driver = ConnectDriver(
            timing=Timing(lease_ms=LEASE_MS, ack_ms=ACK_MS), account_id="acc", environment_id="env", now_ms=self.clock
        )
        self.driver.on_room(self.roomy.append)
        self.driver._admit = lambda peer, worker: None

    def worker(self, instance: str = "i-1", most: int | None = None, rank: int = 1) -> FakeWorker:
        """A worker that is ready."""
        return FakeWorker(self, instance, most, rank)

    async def call(self, request_id: str = "r-1") -> asyncio.Task[Answer]:
        """A call under way."""

        async def checkpoint(told: Checkpoint) -> None:
            """Not used."""

        task = asyncio.ensure_future(self.driver.call(_request(request_id), checkpoint))
        await asyncio.sleep(0)
        return task

    async def after(self, ms: int) -> None:
        """Time passes, in ticks."""
        end = self.clock.now_ms + ms
        while self.clock.now_ms < end:
            self.clock.now_ms = min(end, self.clock.now_ms + 250)
            self.driver.tick()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def _request(request_id: str) -> CallRequest:
    return msgspec.structs.replace(CALL, request_id=request_id)


def driven(test: Callable[[Rig], Awaitable[None]]) -> Callable[[], None]:
    """A test in an event loop, with a rig."""

    @functools.wraps(test)
    def runs() -> None:
        async def main() -> None:
            await test(Rig())

        asyncio.run(main())

    del runs.__wrapped__  # type: ignore[attr-defined]
    return runs


@driven
async def test_a_call_and_its_reply(rig: Rig) -> None:
    """The worker is told all it needs; it hears that the reply is recorded only when it is."""
    worker = rig.worker()
    task = await rig.call()
    (call,) = worker.calls
    assert (call.request_id, call.account_id, call.env_id) == ("r-1", "acc", "env")
    assert (call.app_name, call.function_slug, call.step_id, call.run_id, call.job_id) == (
        "shop",
        "shop-charge",
        "step",
        CALL.run_id,
        CALL.item_id,
    )
    traced = json.loads(call.user_trace_ctx)
    assert run_of_trace_id(traced["traceparent"].split("-")[1]) == call.run_id and "inngest@fn=" in traced["tracestate"]
    assert call.system_trace_ctx == b"{}" and json.loads(call.request_payload)["ctx"]["request_id"] == "r-1"
    worker.acks("r-1")
    worker.replies("r-1")
    assert await task == Returned(data=b'"done"')
    assert worker.acked_replies == []
    rig.driver.settled("r-1", recorded=True)
    assert worker.acked_replies == ["r-1"]
    worker.replies("r-1")
    assert worker.acked_replies == ["r-1", "r-1"]


@driven
async def test_a_reply_that_is_not_recorded_is_not_acknowledged(rig: Rig) -> None:
    """The worker keeps it."""
    worker = rig.worker()
    task = await rig.call()
    worker.replies("r-1")
    await task
    rig.driver.settled("r-1", recorded=False)
    assert worker.acked_replies == []


@driven
async def test_no_worker_no_call(rig: Rig) -> None:
    """There is no room, and a call that is made all the same goes back to its queue."""
    assert rig.driver.room("shop") == 0
    with pytest.raises(NotTaken, match=r"shop.*connect_no_healthy_connection"):
        await (await rig.call())
    rig.worker(most=1)
    assert rig.driver.room("shop") == 1 and rig.driver.room("other") == 0 and rig.roomy == ["shop"]


@driven
async def test_room_is_told_when_it_grows(rig: Rig) -> None:
    """By a reply, and by a worker that goes back on its pause."""
    worker = rig.worker(most=1)
    rig.roomy.clear()
    task = await rig.call()
    assert rig.driver.room("shop") == 0
    worker.replies("r-1")
    await task
    assert rig.driver.room("shop") == 1 and rig.roomy == ["shop"]


@driven
async def test_a_call_that_is_not_acknowledged_goes_to_another_worker(rig: Rig) -> None:
    """Under the same request id and a new lease; the silent one gets nothing until it is heard of; the first reply counts."""
    silent, other = rig.worker("i-1", most=9), rig.worker("i-2", most=1)
    task = await rig.call()
    (first,) = silent.calls
    await rig.after(ACK_MS)
    (second,) = other.calls
    assert second.request_id == first.request_id and second.lease_id != first.lease_id
    assert rig.driver.room("shop") == 0
    assert silent.extends("r-1", first.lease_id) is None
    assert rig.driver.room("shop") == 9
    other.acks("r-1")
    silent.replies("r-1", b'"early"')
    other.replies("r-1", b'"late"')
    assert await task == Returned(data=b'"early"')
    rig.driver.settled("r-1", recorded=True)
    assert silent.acked_replies == other.acked_replies == ["r-1"]
    assert rig.driver.room("shop") == 10


@driven
async def test_a_call_that_nobody_else_takes_stays(rig: Rig) -> None:
    """The worker may only be slow. When another comes, it gets the call."""
    slow = rig.worker()
    task = await rig.call()
    await rig.after(2 * ACK_MS)
    assert len(slow.calls) == 1 and not task.done() and rig.driver.room("shop") == 0
    late = rig.worker("i-2")
    await rig.after(ACK_MS)
    assert len(late.calls) == 1
    late.replies("r-1")
    assert await task == Returned(data=b'"done"')


@driven
async def test_a_call_that_was_never_begun_goes_back_to_its_queue(rig: Rig) -> None:
    """It counts as no loss: its worker fell silent before it took it, or broke off."""
    worker = rig.worker()
    task = await rig.call()
    await rig.after(LEASE_MS)
    with pytest.raises(NotTaken):
        await task
    other = rig.worker("i-2")
    task = await rig.call("r-2")
    other.goes()
    with pytest.raises(NotTaken, match="i-2"):
        await task
    assert worker.closed == [(1008, "connect_consecutive_heartbeats_missed")]


@driven
async def test_leases_are_extended(rig: Rig) -> None:
    """Each time under a new id. The one before still holds, for its acknowledgement may not have arrived; older ones do not."""
    worker = rig.worker()
    task = await rig.call()
    worker.acks("r-1")
    ids = [worker.calls[0].lease_id]
    for _ in range(4):
        await rig.after(LEASE_MS - 1000)
        new = worker.extends("r-1", ids[-1])
        assert new is not None and new not in ids
        ids.append(new)
    assert worker.extends("r-1", ids[-3]) is None
    again = worker.extends("r-1", ids[-2])
    assert again is not None and again not in ids
    assert worker.extends("r-1", "nonsense") is None and worker.extends("r-1", "") is None and worker.extends("r-9", again) is None
    assert not task.done()
    await rig.after(LEASE_MS)
    answer = await task
    assert isinstance(answer, Lost) and "i-1" in answer.reason and "connect_worker_stopped_responding" in answer.reason
    assert worker.extends("r-1", again) is None


@driven
async def test_a_late_reply_of_a_lost_call_changes_nothing(rig: Rig) -> None:
    """It is acknowledged and dropped."""
    worker = rig.worker()
    task = await rig.call()
    worker.acks("r-1")
    for _ in range(5):
        await rig.after(LEASE_MS // 5)
        worker.says(Kind.WORKER_HEARTBEAT)
    assert isinstance(await task, Lost)
    rig.driver.settled("r-1", recorded=True)
    worker.replies("r-1")
    assert worker.acked_replies == ["r-1"] and await rig.driver.flush(SDKResponse(request_id="r-1"))


@driven
async def test_a_worker_that_comes_back_goes_on(rig: Rig) -> None:
    """Its call waits for it: it extends over the new connection, which then holds the call, and counts it."""
    worker = rig.worker(most=5)
    task = await rig.call()
    worker.acks("r-1")
    worker.goes()
    await rig.after(rig.driver.timing.return_ms - 1000)
    assert not task.done()
    again = rig.worker(most=5)
    assert rig.driver.room("shop") == 5
    lease = again.extends("r-1", worker.calls[0].lease_id)
    assert lease is not None and rig.driver.room("shop") == 4
    for _ in range(3):
        await rig.after(LEASE_MS - 2000)
        lease = again.extends("r-1", lease)
        assert lease is not None
    again.replies("r-1")
    assert await task == Returned(data=b'"done"')
    assert rig.driver.room("shop") == 5


@driven
async def test_a_worker_that_says_nothing_about_its_calls(rig: Rig) -> None:
    """Gets no more of them, long before its lease is over; one without calls has nothing to say."""
    busy, idle = rig.worker("i-1", most=9), rig.worker("i-2", most=5)
    await rig.call()
    busy.acks("r-1")
    await rig.after(rig.driver.timing.doubt_ms)
    assert rig.driver.room("shop") == 5
    rig.roomy.clear()
    busy.says(Kind.WORKER_HEARTBEAT)
    assert rig.driver.room("shop") == 13 and rig.roomy == ["shop"] and idle.calls == []


@driven
async def test_another_instance_cannot_extend(rig: Rig) -> None:
    """A lease is its worker's."""
    worker, other = rig.worker("i-1", most=9), rig.worker("i-2", most=1)
    await rig.call()
    worker.acks("r-1")
    assert other.extends("r-1", worker.calls[0].lease_id) is None


@driven
async def test_a_worker_that_does_not_come_back(rig: Rig) -> None:
    """Its call is lost before its lease is over; one that said goodbye loses it at once."""
    worker = rig.worker()
    task = await rig.call()
    worker.acks("r-1")
    worker.goes()
    await rig.after(rig.driver.timing.return_ms)
    assert isinstance(answer := await task, Lost) and "did not come back" in answer.reason
    worker = rig.worker("i-2")
    task = await rig.call("r-2")
    worker.acks("r-2")
    worker.goes(Reason.WORKER_SHUTDOWN)
    assert isinstance(answer := await task, Lost) and "shut down" in answer.reason


@driven
async def test_a_reply_over_http(rig: Rig) -> None:
    """Counts as one over the socket; it is answered when it is recorded."""
    worker = rig.worker()
    task = await rig.call()
    worker.acks("r-1")
    worker.goes()
    flushing = asyncio.ensure_future(rig.driver.flush(SDKResponse(request_id="r-1", status=ReplyStatus.DONE, body=b"7", sdk_version="x")))
    assert await task == Returned(data=b"7")
    await asyncio.sleep(0)
    assert not flushing.done()
    rig.driver.settled("r-1", recorded=True)
    assert await flushing is True


@driven
async def test_a_call_that_is_given_up(rig: Rig) -> None:
    """The node stops: the worker's reply finds nobody."""
    worker = rig.worker(most=1)
    task = await rig.call()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.driver.room("shop") == 1
    worker.replies("r-1")
    assert worker.acked_replies == ["r-1"]


@driven
async def test_draining(rig: Rig) -> None:
    """No more calls; replies are still taken; then everything is closed."""
    worker = rig.worker()
    rig.driver._ticking = None
    task = await rig.call()
    rig.driver.drain()
    assert worker.got(Kind.GATEWAY_CLOSING) == [b""] and rig.driver.room("shop") == 0
    with pytest.raises(NotTaken):
        await (await rig.call("r-2"))
    worker.replies("r-1")
    assert await task == Returned(data=b'"done"')
    rig.driver.settled("r-1", recorded=True)
    assert worker.acked_replies == ["r-1"]
    await rig.driver.stop()
    assert worker.closed == [(1001, "connect_gateway_closing")]


@driven
async def test_one_connection_id_twice(rig: Rig) -> None:
    """The later socket counts; the earlier one is closed."""
    worker = rig.worker(most=2)
    twin = FakeWorker.__new__(FakeWorker)
    twin.driver, twin.sent, twin.closed = rig.driver, [], []
    twin.peer = rig.driver.opened(twin)
    told = worker.peer.machine.worker
    assert told is not None
    twin.says(Kind.WORKER_CONNECT, told)
    assert rig.driver.accept(twin.peer, {"shop": 1})
    assert worker.closed == [(1008, "connect_worker_invalid_msg")] and rig.driver.peers() == [twin.peer]
    assert rig.driver.room("shop") == 2


@driven
async def test_a_worker_that_left_while_its_apps_were_synced(rig: Rig) -> None:
    """Is not accepted any more."""
    worker = rig.worker()
    assert not rig.driver.accept(worker.peer, {"shop": 1})
    worker.goes()
    worker.goes()
    assert rig.driver.open_sockets == 0 and rig.driver.peers() == []
    rig.driver.refuse(worker.peer, CloseCode.INTERNAL_ERROR, Reason.INTERNAL_ERROR)
    assert worker.closed == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (SDKResponse(status=ReplyStatus.DONE, body=b""), Returned),
        (SDKResponse(status=ReplyStatus.NOT_COMPLETED, body=b"[]", request_version=2), Ops),
        (SDKResponse(status=ReplyStatus.ERROR, body=b"{}"), Failed),
        (SDKResponse(status=ReplyStatus.DONE, body=b'{"message":"m"}', no_retry=True), Failed),
        (SDKResponse(status=9, body=b"{}"), Failed),
    ],
)
def test_what_replies_mean(reply: SDKResponse, kind: type[Any]) -> None:
    """As the same HTTP answers would; a result with `no_retry` is a final failure, as JavaScript's SDK sends it."""
    answer = answer_of(reply, now_ms=0)
    assert isinstance(answer, kind)
    if isinstance(answer, Ops):
        assert answer.request_version == 2
    if isinstance(answer, Failed):
        assert answer.retriable is not reply.no_retry


def test_a_reply_that_names_its_next_try() -> None:
    """As the header does."""
    answer = answer_of(SDKResponse(status=ReplyStatus.ERROR, body=b"{}", retry_after="120"), now_ms=0)
    assert isinstance(answer, Failed) and answer.retry_after_ms == 120_000
