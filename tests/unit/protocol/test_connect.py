"""Connect's messages: golden bytes for every frame, the same bytes as the public SDK's, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import ProtocolError
from stepwell.protocol.connect import (
    MESSAGES,
    AppConfiguration,
    AuthData,
    ConnectMessage,
    FlushResponse,
    GatewayConnectionReadyData,
    GatewayExecutorRequestData,
    Kind,
    Message,
    ReplyStatus,
    SDKResponse,
    StartRequest,
    StartResponse,
    SyncFailure,
    SystemAttributes,
    Timestamp,
    WorkerConnectRequestData,
    WorkerReplyAckData,
    WorkerRequestAckData,
    WorkerRequestExtendLeaseAckData,
    WorkerRequestExtendLeaseData,
    WorkerStatusData,
    frame,
)

GOLDEN = Path(__file__).parent / "golden"
IDS = {"request_id": "01J0REQUEST", "account_id": "acc", "env_id": "env", "app_id": "app-uuid"}
CALL = {**IDS, "function_slug": "shop-charge", "step_id": "step", "system_trace_ctx": b"{}", "user_trace_ctx": b"{}", "run_id": "01J0RUN"}

PAYLOADS: dict[Kind, Message | None] = {
    Kind.GATEWAY_HELLO: None,
    Kind.WORKER_CONNECT: WorkerConnectRequestData(
        connection_id="01J0CONNECTION",
        instance_id="host-1",
        auth_data=AuthData(session_token="session", sync_token="sync"),
        capabilities=b'{"connect":"v1"}',
        apps=(AppConfiguration(app_name="shop", app_version="2024-1", functions=b"[]"), AppConfiguration(app_name="bare", app_version="")),
        worker_manual_readiness_ack=True,
        system_attributes=SystemAttributes(cpu_cores=8, mem_bytes=1 << 40, os="linux"),
        environment="",
        framework="connect",
        platform="fly",
        sdk_version="0.5.19",
        sdk_language="py",
        started_at=Timestamp(seconds=1_735_689_600, nanos=5),
        max_worker_concurrency=0,
    ),
    Kind.GATEWAY_CONNECTION_READY: GatewayConnectionReadyData(heartbeat_interval="10s", extend_lease_interval="5s", status_interval="0s"),
    Kind.GATEWAY_EXECUTOR_REQUEST: GatewayExecutorRequestData(
        **CALL, app_name="shop", function_id="fn-uuid", request_payload='{"ü":1}'.encode(), lease_id="01J0LEASE", job_id="job"
    ),
    Kind.WORKER_READY: None,
    Kind.WORKER_REQUEST_ACK: WorkerRequestAckData(**CALL),
    Kind.WORKER_REPLY: SDKResponse(
        **IDS,
        status=ReplyStatus.ERROR,
        body=b'{"name":"Error"}',
        no_retry=True,
        retry_after="30",
        sdk_version="py:v0.5.19",
        request_version=2,
        system_trace_ctx=b"{}",
        user_trace_ctx=b"{}",
        run_id="01J0RUN",
    ),
    Kind.WORKER_REPLY_ACK: WorkerReplyAckData(request_id="01J0REQUEST"),
    Kind.WORKER_PAUSE: None,
    Kind.WORKER_HEARTBEAT: None,
    Kind.GATEWAY_HEARTBEAT: None,
    Kind.GATEWAY_CLOSING: None,
    Kind.WORKER_REQUEST_EXTEND_LEASE: WorkerRequestExtendLeaseData(**CALL, lease_id="01J0LEASE"),
    Kind.WORKER_REQUEST_EXTEND_LEASE_ACK: WorkerRequestExtendLeaseAckData(**IDS, function_slug="shop-charge", new_lease_id="01J0NEXT"),
    Kind.SYNC_FAILED: SyncFailure(code="connect_sync_failed", message="function 'x' has no name"),
    Kind.WORKER_STATUS: WorkerStatusData(in_flight_request_ids=("a", "b"), shutdown_requested=True),
}
OTHERS: dict[str, Message] = {
    "start_request": StartRequest(exclude_gateways=("one", "two")),
    "start_response": StartResponse(
        connection_id="01J0CONNECTION", gateway_endpoint="ws://h:8289/v0/connect", gateway_group="g", session_token="s", sync_token="t"
    ),
    "flush_response": FlushResponse(request_id="01J0REQUEST"),
}
FRAMES = {kind.name.lower(): frame(kind, payload) for kind, payload in PAYLOADS.items()} | {
    name: message.encode() for name, message in OTHERS.items()
}


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_frames_are_written_as_ever(name: str) -> None:
    """Byte for byte."""
    path = GOLDEN / f"connect_{name}.hex"
    if not path.exists():
        path.write_text(FRAMES[name].hex() + "\n")
        pytest.fail(f"{path.name} was missing and has been written: look at it, then commit it")
    assert FRAMES[name].hex() == path.read_text().strip()


def test_every_golden_frame_has_its_message() -> None:
    """None is left behind, and every kind of frame has one."""
    assert {path.stem.removeprefix("connect_") for path in GOLDEN.glob("*.hex")} == set(FRAMES)
    assert set(PAYLOADS) == set(Kind)


@pytest.mark.parametrize("message", [*filter(None, PAYLOADS.values()), *OTHERS.values()], ids=lambda message: type(message).__name__)
def test_messages_are_read_as_written(message: Message) -> None:
    """What is absent stays absent, what is empty stays empty."""
    assert type(message).decode(message.encode()) == message
    assert type(message).decode(b"") == type(message)()


@pytest.mark.parametrize("message", [*filter(None, PAYLOADS.values()), *OTHERS.values()], ids=lambda message: type(message).__name__)
def test_the_public_sdk_reads_and_writes_the_same(message: Message) -> None:
    """Its descriptors and ours live in one process, and their bytes are the same; fields it does not know are passed over."""
    from inngest.connect._internal import connect_pb2

    theirs = getattr(connect_pb2, {"SyncFailure": "SystemError"}.get(type(message).__name__, type(message).__name__), None)
    if theirs is None:
        pytest.skip(f"this release of the SDK has no {type(message).__name__}")
    wire = theirs.FromString(message.encode())
    for name in message.__struct_fields__:
        ours = getattr(message, name)
        if hasattr(wire, name) and not isinstance(ours, Message | tuple | None):
            assert getattr(wire, name) == ours
    assert type(message).decode(wire.SerializeToString()) == message


def test_kinds_have_the_public_numbers() -> None:
    """Each name the SDK has too has its number."""
    from inngest.connect._internal import connect_pb2

    theirs = dict(connect_pb2.GatewayMessageType.items())
    assert theirs == {kind.name: kind.value for kind in Kind if kind.name in theirs} and len(theirs) >= 15
    assert dict(connect_pb2.SDKResponseStatus.items()) == {status.name: status.value for status in ReplyStatus}


def test_what_is_newer_is_passed_over() -> None:
    """Unknown kinds and fields do no harm."""
    unknown = b"\x9a\x06\x03abc"  # field 99, three bytes
    assert ConnectMessage.decode(ConnectMessage(kind=99).encode()).kind == 99
    assert WorkerReplyAckData.decode(WorkerReplyAckData(request_id="r").encode() + unknown).request_id == "r"
    assert SDKResponse.decode(SDKResponse(status=7).encode()).status == 7


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """Whatever a peer sends, `ProtocolError` is all that is raised."""
    for message in MESSAGES:
        try:
            told = message.decode(raw)
        except ProtocolError as error:
            assert message.__name__ in str(error)
        else:
            assert msgspec.structs.asdict(told) == msgspec.structs.asdict(message.decode(told.encode()))


@pytest.mark.parametrize("wrong", [StartRequest(exclude_gateways=("\ud800",)), SystemAttributes(cpu_cores=1 << 40)])
def test_what_cannot_be_written_is_refused(wrong: Message) -> None:
    """With a sentence that names the message."""
    with pytest.raises(ProtocolError, match=type(wrong).__name__):
        wrong.encode()
