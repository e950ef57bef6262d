"""Connect's messages: what a worker and a gateway say to each other over a WebSocket, and to `/v0/connect` (inngest-protocol §9).

Each message is a struct; its fields carry their numbers, and the descriptors that the protobuf library needs are built from them at
import. They live in a pool and under a package name of our own, so that a process which also holds the descriptors of a public SDK
has no clash: names of messages and packages are not on the wire. Fields that this side does not know are passed over.
"""

from __future__ import annotations

import types
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Wire

from stepwell.errors import ProtocolError

SUBPROTOCOL = "v0.connect.inngest.com"
PATH = "/v0/connect"
"""Of the gateway's WebSocket, and what its control API begins with."""
FRAME_BYTES_MAX = 8 * 1024 * 1024
"""The longest frame that a gateway reads."""
WORKER_FRAME_BYTES_MAX = 10 * 1024 * 1024
"""The longest frame that our worker reads."""
APPS_MAX = 10
"""Apps of one connection."""
CONCURRENCY_DEFAULT = 1000
"""Calls that a worker takes at a time where it does not say; 0 says that it sets no limit."""
TRACE_CONTEXT = b"{}"
"""The trace context of calls: JSON, since workers read it as that, and empty."""

PACKAGE = "stepwell.connect"
M = TypeVar("M", bound="Message")


class Kind(IntEnum):
    """What a frame is (§9.2)."""

    GATEWAY_HELLO = 0
    WORKER_CONNECT = 1
    GATEWAY_CONNECTION_READY = 2
    GATEWAY_EXECUTOR_REQUEST = 3
    WORKER_READY = 4
    WORKER_REQUEST_ACK = 5
    WORKER_REPLY = 6
    WORKER_REPLY_ACK = 7
    WORKER_PAUSE = 8
    WORKER_HEARTBEAT = 9
    GATEWAY_HEARTBEAT = 10
    GATEWAY_CLOSING = 11
    WORKER_REQUEST_EXTEND_LEASE = 12
    WORKER_REQUEST_EXTEND_LEASE_ACK = 13
    SYNC_FAILED = 14
    WORKER_STATUS = 15


class ReplyStatus(IntEnum):
    """What an `SDKResponse` says: steps were done (206), the function ended (200), or it failed (500)."""

    NOT_COMPLETED = 0
    DONE = 1
    ERROR = 2


class CloseCode(IntEnum):
    """The codes that a gateway closes connections with; the reason is a code of its own, in words."""

    NORMAL = 1000
    GOING_AWAY = 1001
    POLICY_VIOLATION = 1008
    INTERNAL_ERROR = 1011


class Reason:
    """The reasons of closes and of lost calls (§9.4, §9.5)."""

    HELLO_TIMEOUT = "connect_worker_hello_timeout"
    HELLO_INVALID_MSG = "connect_worker_hello_invalid_msg"
    HELLO_INVALID_PAYLOAD = "connect_worker_hello_invalid_payload"
    AUTHENTICATION_FAILED = "connect_authentication_failed"
    TOO_MANY_APPS = "connect_too_many_apps_per_connection"
    SYNC_FAILED = "connect_sync_failed"
    INVALID_MSG = "connect_worker_invalid_msg"
    HEARTBEATS_MISSED = "connect_consecutive_heartbeats_missed"
    INTERNAL_ERROR = "connect_internal_error"
    GATEWAY_CLOSING = "connect_gateway_closing"
    NO_HEALTHY_CONNECTION = "connect_no_healthy_connection"
    STOPPED_RESPONDING = "connect_worker_stopped_responding"
    WORKER_SHUTDOWN = "WORKER_SHUTDOWN"


class Field(msgspec.Struct, frozen=True):
    """A field's number on the wire, and its type where the annotation leaves a choice."""

    number: int
    kind: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What every message is."""

    def encode(self) -> bytes:
        """The message's bytes: fields in the order of their numbers, those at their default left out."""
        return self._wire().SerializeToString(deterministic=True)

    def _wire(self) -> Wire:
        told: dict[str, Any] = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Message):
                told[name] = value._wire()
            elif isinstance(value, tuple):
                told[name] = [item._wire() if isinstance(item, Message) else item for item in value]
            elif value is not None:
                told[name] = value
        try:
            return _class_of(type(self))(**told)
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"{type(self).__name__} cannot be written: {error}") from None

    @classmethod
    def decode(cls: type[M], raw: bytes) -> M:
        """The message of these bytes. Raises `ProtocolError` for what is none."""
        wire = _class_of(cls)()
        try:
            wire.ParseFromString(raw)
        except DecodeError as error:
            raise ProtocolError(f"{len(raw)} bytes are no {cls.__name__}: {error}") from None
        return _read(cls, wire)


class ConnectMessage(Message, frozen=True, kw_only=True):
    """A frame. `kind` may be one that this side does not know."""

    kind: Annotated[int, Field(1, "int32")] = 0
    payload: Annotated[bytes, Field(2)] = b""


class StartRequest(Message, frozen=True, kw_only=True):
    """A worker wants a gateway, and none of these."""

    exclude_gateways: Annotated[tuple[str, ...], Field(1)] = ()


class StartResponse(Message, frozen=True, kw_only=True):
    """Where to connect to, and what to show there."""

    connection_id: Annotated[str, Field(1)] = ""
    gateway_endpoint: Annotated[str, Field(2)] = ""
    gateway_group: Annotated[str, Field(3)] = ""
    session_token: Annotated[str, Field(4)] = ""
    sync_token: Annotated[str, Field(5)] = ""


class AuthData(Message, frozen=True, kw_only=True):
    """The tokens of a `StartResponse`."""

    session_token: Annotated[str, Field(1)] = ""
    sync_token: Annotated[str, Field(2)] = ""


class AppConfiguration(Message, frozen=True, kw_only=True):
    """An app of a worker: `functions` is a JSON array as in a register body (§3.4)."""

    app_name: Annotated[str, Field(1)] = ""
    app_version: Annotated[str | None, Field(2)] = None
    functions: Annotated[bytes, Field(4)] = b""


class SystemAttributes(Message, frozen=True, kw_only=True):
    """The worker's machine."""

    cpu_cores: Annotated[int, Field(1, "int32")] = 0
    mem_bytes: Annotated[int, Field(2, "int64")] = 0
    os: Annotated[str, Field(3)] = ""


class Timestamp(Message, frozen=True, kw_only=True):
    """A time, as `google.protobuf.Timestamp` is written."""

    seconds: Annotated[int, Field(1, "int64")] = 0
    nanos: Annotated[int, Field(2, "int32")] = 0


class WorkerConnectRequestData(Message, frozen=True, kw_only=True):
    """A worker's first word: who it is and which apps it runs."""

    connection_id: Annotated[str, Field(1)] = ""
    instance_id: Annotated[str, Field(2)] = ""
    auth_data: Annotated[AuthData | None, Field(3)] = None
    capabilities: Annotated[bytes, Field(4)] = b""
    apps: Annotated[tuple[AppConfiguration, ...], Field(5)] = ()
    worker_manual_readiness_ack: Annotated[bool, Field(6)] = False
    system_attributes: Annotated[SystemAttributes | None, Field(7)] = None
    environment: Annotated[str | None, Field(8)] = None
    framework: Annotated[str, Field(9)] = ""
    platform: Annotated[str | None, Field(10)] = None
    sdk_version: Annotated[str, Field(11)] = ""
    sdk_language: Annotated[str, Field(12)] = ""
    started_at: Annotated[Timestamp | None, Field(13)] = None
    max_worker_concurrency: Annotated[int | None, Field(14, "int64")] = None


class GatewayConnectionReadyData(Message, frozen=True, kw_only=True):
    """The apps are synced; durations as `10s`."""

    heartbeat_interval: Annotated[str, Field(1)] = ""
    extend_lease_interval: Annotated[str, Field(2)] = ""
    status_interval: Annotated[str, Field(3)] = ""


class GatewayExecutorRequestData(Message, frozen=True, kw_only=True):
    """A call: `request_payload` is the body of §4.1, `app_name` the SDK's app id; slug and step are what HTTP has in its query."""

    request_id: Annotated[str, Field(1)] = ""
    account_id: Annotated[str, Field(2)] = ""
    env_id: Annotated[str, Field(3)] = ""
    app_id: Annotated[str, Field(4)] = ""
    app_name: Annotated[str, Field(5)] = ""
    function_id: Annotated[str, Field(6)] = ""
    function_slug: Annotated[str, Field(7)] = ""
    step_id: Annotated[str | None, Field(8)] = None
    request_payload: Annotated[bytes, Field(9)] = b""
    system_trace_ctx: Annotated[bytes, Field(10)] = b""
    user_trace_ctx: Annotated[bytes, Field(11)] = b""
    run_id: Annotated[str, Field(12)] = ""
    lease_id: Annotated[str, Field(13)] = ""
    job_id: Annotated[str, Field(14)] = ""


class WorkerRequestAckData(Message, frozen=True, kw_only=True):
    """The worker has begun a call."""

    request_id: Annotated[str, Field(1)] = ""
    account_id: Annotated[str, Field(2)] = ""
    env_id: Annotated[str, Field(3)] = ""
    app_id: Annotated[str, Field(4)] = ""
    function_slug: Annotated[str, Field(5)] = ""
    step_id: Annotated[str | None, Field(6)] = None
    system_trace_ctx: Annotated[bytes, Field(7)] = b""
    user_trace_ctx: Annotated[bytes, Field(8)] = b""
    run_id: Annotated[str, Field(9)] = ""


class WorkerRequestExtendLeaseData(WorkerRequestAckData, frozen=True, kw_only=True):
    """The worker is still at a call."""

    lease_id: Annotated[str, Field(10)] = ""


class WorkerRequestExtendLeaseAckData(Message, frozen=True, kw_only=True):
    """The lease goes on under a new id; without one it is over, and the worker has to give the call up."""

    request_id: Annotated[str, Field(1)] = ""
    account_id: Annotated[str, Field(2)] = ""
    env_id: Annotated[str, Field(3)] = ""
    app_id: Annotated[str, Field(4)] = ""
    function_slug: Annotated[str, Field(5)] = ""
    new_lease_id: Annotated[str | None, Field(6)] = None


class SDKResponse(Message, frozen=True, kw_only=True):
    """A call's answer, over the socket or to `/v0/connect/flush`."""

    request_id: Annotated[str, Field(1)] = ""
    account_id: Annotated[str, Field(2)] = ""
    env_id: Annotated[str, Field(3)] = ""
    app_id: Annotated[str, Field(4)] = ""
    status: Annotated[int, Field(5, "int32")] = 0
    body: Annotated[bytes, Field(6)] = b""
    no_retry: Annotated[bool, Field(7)] = False
    retry_after: Annotated[str | None, Field(8)] = None
    sdk_version: Annotated[str, Field(9)] = ""
    request_version: Annotated[int, Field(10, "uint32")] = 0
    system_trace_ctx: Annotated[bytes, Field(11)] = b""
    user_trace_ctx: Annotated[bytes, Field(12)] = b""
    run_id: Annotated[str, Field(13)] = ""


class WorkerReplyAckData(Message, frozen=True, kw_only=True):
    """The answer is recorded, or is not wanted any more: the worker may forget it."""

    request_id: Annotated[str, Field(1)] = ""


class FlushResponse(WorkerReplyAckData, frozen=True, kw_only=True):
    """The same, over HTTP."""


class WorkerStatusData(Message, frozen=True, kw_only=True):
    """What a worker has in hand."""

    in_flight_request_ids: Annotated[tuple[str, ...], Field(1)] = ()
    shutdown_requested: Annotated[bool, Field(2)] = False


class SyncFailure(Message, frozen=True, kw_only=True):
    """Why a sync failed."""

    code: Annotated[str, Field(1)] = ""
    data: Annotated[bytes | None, Field(2)] = None
    message: Annotated[str, Field(3)] = ""


MESSAGES: tuple[type[Message], ...] = (
    Timestamp,
    AuthData,
    AppConfiguration,
    SystemAttributes,
    ConnectMessage,
    StartRequest,
    StartResponse,
    WorkerConnectRequestData,
    GatewayConnectionReadyData,
    GatewayExecutorRequestData,
    WorkerRequestAckData,
    WorkerRequestExtendLeaseData,
    WorkerRequestExtendLeaseAckData,
    SDKResponse,
    WorkerReplyAckData,
    FlushResponse,
    WorkerStatusData,
    SyncFailure,
)
"""Every message there is, those that others hold first."""


def frame(kind: Kind, payload: Message | None = None) -> bytes:
    """A frame with its message."""
    return ConnectMessage(kind=kind, payload=b"" if payload is None else payload.encode()).encode()


# From structs to descriptors.

_Descriptor = descriptor_pb2.FieldDescriptorProto
_TYPES = {str: _Descriptor.TYPE_STRING, bytes: _Descriptor.TYPE_BYTES, bool: _Descriptor.TYPE_BOOL}
_INTEGERS = {"int32": _Descriptor.TYPE_INT32, "int64": _Descriptor.TYPE_INT64, "uint32": _Descriptor.TYPE_UINT32}


class _Shape(msgspec.Struct, frozen=True):
    """A field's type: what one value is, and whether there may be none, or many."""

    field: Field
    of: type
    optional: bool
    many: bool


@cache
def _shapes(message: type[Message]) -> dict[str, _Shape]:
    shapes = {}
    for name, hint in get_type_hints(message, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue
        of, field = get_args(hint)
        optional = many = False
        if get_origin(of) in (types.UnionType, Union):
            of, optional = next(one for one in get_args(of) if one is not types.NoneType), True
        elif get_origin(of) is tuple:
            of, many = get_args(of)[0], True
        shapes[name] = _Shape(field, of, optional, many)
    return shapes


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="stepwell/connect.proto", package=PACKAGE, syntax="proto3")
    for message in MESSAGES:
        told = file.message_type.add(name=message.__name__)
        for name, shape in sorted(_shapes(message).items(), key=lambda pair: pair[1].field.number):
            field = told.field.add(name=name, number=shape.field.number)
            field.label = _Descriptor.LABEL_REPEATED if shape.many else _Descriptor.LABEL_OPTIONAL
            if issubclass(shape.of, Message):
                field.type, field.type_name = _Descriptor.TYPE_MESSAGE, f".{PACKAGE}.{shape.of.__name__}"
                continue
            field.type = _INTEGERS[shape.field.kind] if shape.field.kind else _TYPES[shape.of]
            if shape.optional:
                # Proto3 tells a value that is absent from an empty one by a group of its own for the field.
                field.proto3_optional, field.oneof_index = True, len(told.oneof_decl)
                told.oneof_decl.add(name=f"_{name}")
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


@cache
def _class_of(message: type[Message]) -> type[Wire]:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{message.__name__}"))


def _read(message: type[M], wire: Wire) -> M:
    fields: dict[str, Any] = {}
    for name, shape in _shapes(message).items():
        if shape.many:
            values = getattr(wire, name)
            fields[name] = tuple([_read(shape.of, value) for value in values] if issubclass(shape.of, Message) else values)
        elif shape.optional:
            if wire.HasField(name):
                value = getattr(wire, name)
                fields[name] = _read(shape.of, value) if issubclass(shape.of, Message) else value
        else:
            fields[name] = getattr(wire, name)
    return message(**fields)
