"""A worker's side of Connect, by a clock that is only a number."""

from __future__ import annotations

import pytest

from stepwell.protocol.connect import (
    AppConfiguration,
    ConnectMessage,
    GatewayConnectionReadyData,
    GatewayExecutorRequestData,
    Kind,
    SDKResponse,
    SyncFailure,
    WorkerConnectRequestData,
    WorkerReplyAckData,
    WorkerRequestAckData,
    WorkerRequestExtendLeaseAckData,
    WorkerRequestExtendLeaseData,
    frame,
)
from stepwell.sdk.connect import machine
from stepwell.sdk.connect.machine import Break, Called, Cancelled, Connection, Leave, Output, Ready, Refused, Send, State, Work

INTRODUCTION = WorkerConnectRequestData(connection_id="c", instance_id="i", apps=(AppConfiguration(app_name="shop"),))
READY = frame(Kind.GATEWAY_CONNECTION_READY, GatewayConnectionReadyData(heartbeat_interval="10s", extend_lease_interval="5s"))


def call(request_id: str = "r-1", lease_id: str = "l-1") -> GatewayExecutorRequestData:
    """A call of the gateway's."""
    return GatewayExecutorRequestData(
        request_id=request_id, lease_id=lease_id, app_id="a", function_slug="shop-f", step_id="step", run_id="run"
    )


def active(work: Work | None = None, now_ms: int = 0) -> Connection:
    """A connection that calls come by."""
    connection = Connection(work or Work(), INTRODUCTION, now_ms)
    connection.receive(frame(Kind.GATEWAY_HELLO), now_ms)
    assert connection.receive(READY, now_ms)[0] == Ready()
    return connection


def begun(connection: Connection, work: Work, request: GatewayExecutorRequestData, now_ms: int = 1) -> list[Output]:
    """A call comes, its acknowledgement leaves, and it begins."""
    outputs = connection.receive(frame(Kind.GATEWAY_EXECUTOR_REQUEST, request), now_ms)
    assert isinstance(called := outputs[-1], Called) and work.acknowledged(called.request, sent=True)
    return outputs


def sent(outputs: list[Output]) -> list[Kind]:
    """The kinds of the frames that are sent."""
    return [Kind(ConnectMessage.decode(one.frame).kind) for one in outputs if isinstance(one, Send)]


def payload(output: Output) -> bytes:
    """What a frame holds."""
    assert isinstance(output, Send)
    return ConnectMessage.decode(output.frame).payload


def test_the_introduction() -> None:
    """Given when the gateway greets, once; calls come when it is ready."""
    connection = Connection(Work(), INTRODUCTION, 0)
    assert connection.receive(READY, 1) == []
    (hello,) = connection.receive(frame(Kind.GATEWAY_HELLO), 1)
    assert WorkerConnectRequestData.decode(payload(hello)) == INTRODUCTION
    assert connection.receive(frame(Kind.GATEWAY_HELLO), 2) == []
    assert connection.receive(READY, 3) == [Ready()] and connection.takes_frames


@pytest.mark.parametrize("greeted", [False, True])
def test_a_gateway_that_does_not_become_ready(greeted: bool) -> None:
    """Is left after a while."""
    connection = Connection(Work(), INTRODUCTION, 0)
    if greeted:
        connection.receive(frame(Kind.GATEWAY_HELLO), 0)
    assert connection.tick(machine.READY_MAX_MS - 1) == []
    (broken,) = connection.tick(machine.READY_MAX_MS)
    assert isinstance(broken, Break) and connection.state is State.BROKEN
    assert connection.receive(frame(Kind.GATEWAY_HELLO), machine.READY_MAX_MS) == []


def test_heartbeats() -> None:
    """As often as the gateway asks; two without an answer are the connection's end, an answer begins anew."""
    connection = active()
    assert connection.tick(9_999) == [] and sent(connection.tick(10_000)) == [Kind.WORKER_HEARTBEAT]
    assert connection.tick(15_000) == [] and sent(connection.tick(20_000)) == [Kind.WORKER_HEARTBEAT]
    connection.receive(frame(Kind.GATEWAY_HEARTBEAT), 20_001)
    assert sent([*connection.tick(30_000), *connection.tick(40_000)]) == [Kind.WORKER_HEARTBEAT] * 2
    assert connection.tick(50_000) == [Break("the gateway did not answer 2 heartbeats")]


def test_a_call_and_its_reply() -> None:
    """Acknowledged before it is begun; its reply is kept until the server has it."""
    work = Work()
    connection = active(work)
    ack, called = begun(connection, work, call())
    told = WorkerRequestAckData.decode(payload(ack))
    assert (told.request_id, told.app_id, told.function_slug, told.step_id, told.run_id) == ("r-1", "a", "shop-f", "step", "run")
    assert called == Called(call()) and not work.is_idle
    reply = SDKResponse(request_id="r-1", body=b"1")
    assert work.reply(reply, 1000) == reply
    assert work.replies == [reply] and not work.is_idle and work.stale(5999) == [] and work.stale(6000) == [reply]
    connection.receive(frame(Kind.WORKER_REPLY_ACK, WorkerReplyAckData(request_id="r-1")), 2)
    assert work.replies == [] and work.is_idle
    assert connection.receive(frame(Kind.WORKER_REPLY_ACK, WorkerReplyAckData(request_id="r-1")), 3) == []


def test_a_call_that_comes_twice() -> None:
    """Is acknowledged again and not begun again; it goes on under the new lease."""
    work = Work()
    connection = active(work)
    begun(connection, work, call(lease_id="l-1"))
    assert sent(connection.receive(frame(Kind.GATEWAY_EXECUTOR_REQUEST, call(lease_id="l-2")), 2)) == [Kind.WORKER_REQUEST_ACK]
    (extension,) = work.due(5000)
    assert WorkerRequestExtendLeaseData.decode(ConnectMessage.decode(extension).payload).lease_id == "l-2"


def test_a_call_whose_acknowledgement_does_not_leave() -> None:
    """Is not begun, has no lease to extend and is not waited for: the server gives it to another worker."""
    work = Work()
    connection = active(work)
    _, called = connection.receive(frame(Kind.GATEWAY_EXECUTOR_REQUEST, call()), 1)
    assert isinstance(called, Called) and work.due(5_000) == [] and not work.is_idle
    assert not work.acknowledged(called.request, sent=False) and work.is_idle
    assert not work.acknowledged(called.request, sent=True)


def test_a_call_that_comes_again_before_it_is_begun() -> None:
    """Begins when the first acknowledgement leaves, by whichever connection, and only then; one that fails takes nothing from the other."""
    work = Work()
    connection, other = active(work), active(work)
    _, first = connection.receive(frame(Kind.GATEWAY_EXECUTOR_REQUEST, call(lease_id="l-1")), 1)
    _, again = other.receive(frame(Kind.GATEWAY_EXECUTOR_REQUEST, call(lease_id="l-2")), 2)
    assert isinstance(first, Called) and isinstance(again, Called)
    assert not work.acknowledged(first.request, sent=False) and not work.is_idle
    assert work.acknowledged(again.request, sent=True) and not work.acknowledged(first.request, sent=True)
    (extension,) = work.due(5_000)
    assert WorkerRequestExtendLeaseData.decode(ConnectMessage.decode(extension).payload).lease_id == "l-2"


def test_leases() -> None:
    """Extended as often as the gateway asks, each time with the id that it gave last; one that is over ends the call."""
    work = Work()
    connection = active(work)
    begun(connection, work, call())
    assert work.due(4_999) == [] and len(work.due(5_000)) == 1 and work.due(9_999) == []
    ack = WorkerRequestExtendLeaseAckData(request_id="r-1", new_lease_id="l-2")
    assert connection.receive(frame(Kind.WORKER_REQUEST_EXTEND_LEASE_ACK, ack), 5_001) == []
    (extension,) = work.due(10_000)
    assert WorkerRequestExtendLeaseData.decode(ConnectMessage.decode(extension).payload).lease_id == "l-2"
    over = frame(Kind.WORKER_REQUEST_EXTEND_LEASE_ACK, WorkerRequestExtendLeaseAckData(request_id="r-1"))
    assert connection.receive(over, 10_001) == [Cancelled("r-1")]
    assert connection.receive(over, 10_002) == [] and work.is_idle
    assert work.reply(SDKResponse(request_id="r-1"), 10_003) is None and work.replies == []


def test_what_outlives_a_connection() -> None:
    """The next one extends the leases at once and brings the replies that are not acknowledged."""
    work = Work()
    connection = active(work)
    for name in ("r-1", "r-2"):
        begun(connection, work, call(name))
    work.reply(SDKResponse(request_id="r-2"), 2)
    again = Connection(work, INTRODUCTION, 3)
    again.receive(frame(Kind.GATEWAY_HELLO), 3)
    outputs = again.receive(READY, 4)
    assert outputs[0] == Ready() and sent(outputs) == [Kind.WORKER_REQUEST_EXTEND_LEASE, Kind.WORKER_REPLY]
    assert work.stale(5003) == [] and len(work.stale(5004)) == 1


def test_a_gateway_that_closes() -> None:
    """The worker goes elsewhere, and brings what it has in hand while it may."""
    connection = active()
    assert connection.receive(frame(Kind.GATEWAY_CLOSING), 1) == [Leave()]
    assert connection.receive(frame(Kind.GATEWAY_CLOSING), 2) == []
    assert connection.takes_frames and connection.pause() == []
    assert sent(connection.tick(10_000)) == [Kind.WORKER_HEARTBEAT]


def test_pausing() -> None:
    """Asks for no more calls, where calls come."""
    assert sent(active().pause()) == [Kind.WORKER_PAUSE]
    assert Connection(Work(), INTRODUCTION, 0).pause() == []


def test_a_gateway_that_refuses_the_apps() -> None:
    """Says why."""
    connection = Connection(Work(), INTRODUCTION, 0)
    connection.receive(frame(Kind.GATEWAY_HELLO), 0)
    failure = SyncFailure(code="c", message="function 'x' has no name")
    assert connection.receive(frame(Kind.SYNC_FAILED, failure), 1) == [Refused("function 'x' has no name")]


@pytest.mark.parametrize("bad", ["text", b"\xff", ConnectMessage(kind=Kind.GATEWAY_EXECUTOR_REQUEST, payload=b"\xff").encode()])
def test_nonsense(bad: bytes | str) -> None:
    """Ends the connection."""
    (broken,) = active().receive(bad, 1)
    assert isinstance(broken, Break) and "makes no sense" in broken.reason


def test_frames_of_a_newer_gateway() -> None:
    """Are passed over."""
    assert active().receive(ConnectMessage(kind=99).encode(), 1) == []


def test_replies_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go; the last one stays however large it is."""
    monkeypatch.setattr(machine, "REPLIES_BYTES_MAX", 10)
    work = Work()
    for n in range(3):
        work.take(call(f"r-{n}"))
        work.reply(SDKResponse(request_id=f"r-{n}", body=b"123456"), n)
    assert [reply.request_id for reply in work.replies] == ["r-2"]
    work.take(call("big"))
    work.reply(SDKResponse(request_id="big", body=bytes(100)), 9)
    assert [reply.request_id for reply in work.replies] == ["big"]
    work.sent("none", 1)
    work.end("none")
    work.recorded("big")
    assert work.is_idle
