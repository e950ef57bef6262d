"""A worker's connection at the gateway: every state, every close code, every timeout, by a clock that is only a number."""

from __future__ import annotations

import msgspec
import pytest

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
from stepwell.drivers.connect.timing import Timing, timing_of
from stepwell.errors import UsageError
from stepwell.protocol.connect import (
    APPS_MAX,
    AppConfiguration,
    CloseCode,
    ConnectMessage,
    GatewayConnectionReadyData,
    Kind,
    Reason,
    SDKResponse,
    SyncFailure,
    WorkerConnectRequestData,
    WorkerRequestAckData,
    WorkerRequestExtendLeaseData,
    WorkerStatusData,
    frame,
)

ULID = "01J0000000000000000000000A"
WORKER = WorkerConnectRequestData(connection_id=ULID, instance_id="i-1", apps=(AppConfiguration(app_name="shop", functions=b"[]"),))
TIMING = Timing()


def introduced(now_ms: int = 0, **fields: object) -> Connection:
    """A connection whose worker has said who it is."""
    connection = Connection(TIMING, now_ms)
    connection.open()
    worker = msgspec.structs.replace(WORKER, **fields)
    assert connection.receive(frame(Kind.WORKER_CONNECT, worker), now_ms) == [Introduced(worker)]
    return connection


def ready(now_ms: int = 0) -> Connection:
    """A connection that takes calls."""
    connection = introduced(now_ms)
    connection.accept()
    assert connection.takes_calls
    return connection


def kinds(outputs: list[Output]) -> list[object]:
    """What is sent, by kind; the rest as it is."""
    return [Kind(ConnectMessage.decode(one.frame).kind) if isinstance(one, Send) else one for one in outputs]


def test_a_worker_becomes_ready() -> None:
    """Greeted at once, asked to wait while its apps are synced, then told the intervals, as every SDK reads them."""
    connection = Connection(TIMING, 0)
    assert kinds(connection.open()) == [Kind.GATEWAY_HELLO]
    assert connection.receive(frame(Kind.WORKER_CONNECT, WORKER), 10) == [Introduced(WORKER)]
    assert connection.state is State.SYNCING and not connection.takes_calls
    told, became = connection.accept()
    assert isinstance(told, Send) and became == BecameReady()
    data = GatewayConnectionReadyData.decode(ConnectMessage.decode(told.frame).payload)
    assert (data.heartbeat_interval, data.extend_lease_interval, data.status_interval) == ("10s", "5s", "0s")
    assert connection.takes_calls
    assert connection.accept() == []


def test_a_worker_may_say_itself_when_it_is_ready() -> None:
    """Until then it gets no call; saying it twice does nothing."""
    connection = introduced(worker_manual_readiness_ack=True)
    assert kinds(connection.accept()) == [Kind.GATEWAY_CONNECTION_READY]
    assert connection.state is State.CONNECTED and not connection.takes_calls
    assert connection.receive(frame(Kind.WORKER_READY), 1) == [BecameReady()]
    assert connection.receive(frame(Kind.WORKER_READY), 2) == []


def test_heartbeats_are_echoed() -> None:
    """Each of them, in every state behind the introduction."""
    for connection in (introduced(), ready()):
        assert kinds(connection.receive(frame(Kind.WORKER_HEARTBEAT), 1)) == [Kind.GATEWAY_HEARTBEAT]


def test_what_a_worker_tells_of_calls() -> None:
    """Is handed on."""
    connection = ready()
    extends = WorkerRequestExtendLeaseData(request_id="r", lease_id="l")
    assert connection.receive(frame(Kind.WORKER_REQUEST_ACK, WorkerRequestAckData(request_id="r")), 1) == [Acked("r")]
    assert connection.receive(frame(Kind.WORKER_REQUEST_EXTEND_LEASE, extends), 1) == [Extends(extends)]
    assert connection.receive(frame(Kind.WORKER_REPLY, SDKResponse(request_id="r")), 1) == [Replied(SDKResponse(request_id="r"))]


@pytest.mark.parametrize("pause", [frame(Kind.WORKER_PAUSE), frame(Kind.WORKER_STATUS, WorkerStatusData(shutdown_requested=True))])
def test_a_worker_that_pauses_gets_no_more_calls(pause: bytes) -> None:
    """It may still tell of those in hand."""
    connection = ready()
    assert connection.receive(pause, 1) == [Paused()]
    assert connection.state is State.DRAINING and connection.is_open
    assert connection.receive(pause, 2) == []
    assert connection.receive(frame(Kind.WORKER_REPLY, SDKResponse(request_id="r")), 3) == [Replied(SDKResponse(request_id="r"))]
    assert connection.receive(frame(Kind.WORKER_STATUS, WorkerStatusData()), 4) == []


def test_frames_without_meaning_are_passed_over() -> None:
    """Of a newer worker, or of the gateway's own kinds."""
    connection = ready()
    for kind in (99, Kind.GATEWAY_HELLO, Kind.WORKER_CONNECT):
        assert connection.receive(ConnectMessage(kind=kind).encode(), 1) == []
    assert connection.takes_calls


def test_silence_before_the_introduction() -> None:
    """Five seconds, and not one less."""
    connection = Connection(TIMING, 1000)
    connection.open()
    assert connection.tick(5999) == []
    assert connection.tick(6000) == [Close(1008, "connect_worker_hello_timeout")]
    assert connection.tick(7000) == [] and connection.receive(frame(Kind.WORKER_CONNECT, WORKER), 7000) == []


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"\xff\xff", "connect_worker_hello_invalid_msg"),
        (None, "connect_worker_hello_invalid_msg"),
        (frame(Kind.WORKER_HEARTBEAT), "connect_worker_hello_invalid_msg"),
        (ConnectMessage(kind=Kind.WORKER_CONNECT, payload=b"\xff").encode(), "connect_worker_hello_invalid_payload"),
        (frame(Kind.WORKER_CONNECT, msgspec.structs.replace(WORKER, connection_id="x")), "connect_worker_hello_invalid_payload"),
        (frame(Kind.WORKER_CONNECT, msgspec.structs.replace(WORKER, instance_id="")), "connect_worker_hello_invalid_payload"),
        (frame(Kind.WORKER_CONNECT, msgspec.structs.replace(WORKER, apps=())), "connect_worker_hello_invalid_payload"),
        (frame(Kind.WORKER_CONNECT, msgspec.structs.replace(WORKER, apps=WORKER.apps * 2)), "connect_worker_hello_invalid_payload"),
        (frame(Kind.WORKER_CONNECT, msgspec.structs.replace(WORKER, max_worker_concurrency=-1)), "connect_worker_hello_invalid_payload"),
        (
            frame(Kind.WORKER_CONNECT, msgspec.structs.replace(WORKER, apps=WORKER.apps * (APPS_MAX + 1))),
            "connect_too_many_apps_per_connection",
        ),
    ],
)
def test_a_bad_introduction(first: bytes | None, reason: str) -> None:
    """Is closed as a violation, with the reason's name."""
    connection = Connection(TIMING, 0)
    connection.open()
    assert connection.receive(first, 1) == [Close(1008, reason)]
    assert connection.state is State.CLOSED


def test_as_many_apps_as_may_be() -> None:
    """Are taken."""
    introduced(apps=tuple(AppConfiguration(app_name=f"app-{n}", functions=b"[]") for n in range(APPS_MAX)))


@pytest.mark.parametrize("bad", [b"\xff", None, ConnectMessage(kind=Kind.WORKER_REPLY, payload=b"\xff").encode()])
def test_nonsense_later(bad: bytes | None) -> None:
    """A frame that cannot be read ends the connection."""
    assert ready().receive(bad, 1) == [Close(1008, "connect_worker_invalid_msg")]


def test_refusals() -> None:
    """Tokens that are not good; apps that cannot be synced, with a sentence for people; a server that fails."""
    assert introduced().refuse(CloseCode.POLICY_VIOLATION, Reason.AUTHENTICATION_FAILED) == [Close(1008, "connect_authentication_failed")]
    failed, closed = introduced().refuse(CloseCode.POLICY_VIOLATION, Reason.SYNC_FAILED, "function 'x' has no name")
    assert isinstance(failed, Send) and closed == Close(1008, "connect_sync_failed")
    assert SyncFailure.decode(ConnectMessage.decode(failed.frame).payload).message == "function 'x' has no name"
    connection = introduced()
    assert connection.refuse(CloseCode.INTERNAL_ERROR, Reason.INTERNAL_ERROR) == [Close(1011, "connect_internal_error")]
    assert connection.refuse(CloseCode.INTERNAL_ERROR, Reason.INTERNAL_ERROR) == [] and connection.accept() == []


def test_missed_heartbeats() -> None:
    """Three of them: any frame is a sign of life."""
    connection = ready(0)
    connection.receive(frame(Kind.WORKER_REQUEST_ACK, WorkerRequestAckData(request_id="r")), 20_000)
    assert connection.tick(49_999) == []
    assert connection.tick(50_000) == [Close(1008, "connect_consecutive_heartbeats_missed")]


def test_a_long_sync_is_no_silence() -> None:
    """The worker has nothing to say while it waits."""
    assert introduced(0).tick(100_000) == []


def test_draining() -> None:
    """A worker that is ready is told to go and may finish; one that is not there yet is closed."""
    connection = ready()
    assert kinds(connection.drain()) == [Kind.GATEWAY_CLOSING, Paused()]
    assert connection.is_open and not connection.takes_calls
    assert connection.close(CloseCode.GOING_AWAY, Reason.GATEWAY_CLOSING) == [Close(1001, "connect_gateway_closing")]
    assert introduced().drain() == [Close(1001, "connect_gateway_closing")]
    assert Connection(TIMING, 0).drain() == [Close(1001, "connect_gateway_closing")]


def test_a_socket_that_is_gone() -> None:
    """Nothing is done on it any more."""
    connection = ready()
    connection.lost()
    assert connection.tick(100_000) == connection.drain() == connection.receive(frame(Kind.WORKER_HEARTBEAT), 1) == []


@pytest.mark.parametrize(("lease_s", "extend"), [(None, "5s"), (2, "1s"), (12, "2s"), (120, "20s"), (600, "100s")])
def test_intervals(lease_s: float | None, extend: str) -> None:
    """A lease is extended several times, at whole seconds, which is all that Python's SDK reads."""
    timing = timing_of(lease_s)
    assert timing.extend_text == extend
    assert timing.extend_ms * 2 <= timing.lease_ms
    assert timing.return_ms <= timing.lease_ms


def test_too_short_a_lease() -> None:
    """Is refused with the option's name."""
    with pytest.raises(UsageError, match="--connect-lease is 1"):
        timing_of(1)
