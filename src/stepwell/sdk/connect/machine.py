"""A worker's side of Connect, without I/O: one connection to a gateway, and the calls and replies that outlive it.

A `Connection` greets, waits until it is ready, sends heartbeats and finds out when the other side is silent. `Work` knows which calls
are in hand and under which lease, and keeps every reply until the server has acknowledged it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.connect import (
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
from stepwell.protocol.durations import parse_duration_ms

READY_MAX_MS = 20_000
"""How long the gateway may take to greet, and to sync the apps."""
HEARTBEAT_MS = 10_000
EXTEND_MS = 5_000
"""Where the gateway does not say."""
SILENT_BEATS = 2
"""Heartbeats without an answer, after which the connection counts as broken."""
REPLY_MS = 5_000
"""How long a reply waits for its acknowledgement before it is sent over HTTP."""
REPLIES_BYTES_MAX = 256 * 1024 * 1024
"""Replies that are kept; the oldest go first."""


class State(IntEnum):
    """Where a connection stands. CLOSING: the gateway wants the worker elsewhere, and still takes replies."""

    HELLO = 0
    SYNCING = 1
    ACTIVE = 2
    CLOSING = 3
    BROKEN = 4


class Send(msgspec.Struct, frozen=True):
    """Send this frame."""

    frame: bytes


class Ready(msgspec.Struct, frozen=True):
    """Calls will come by this connection."""


class Leave(msgspec.Struct, frozen=True):
    """Connect anew; this connection may go on until the gateway closes it."""


class Break(msgspec.Struct, frozen=True):
    """Close this connection and connect anew."""

    reason: str


class Refused(msgspec.Struct, frozen=True):
    """The gateway does not take the apps; it says why, and then closes."""

    reason: str


class Called(msgspec.Struct, frozen=True):
    """Begin this call when what was to be sent before, its acknowledgement, has left (`Work.acknowledged`)."""

    request: GatewayExecutorRequestData


class Cancelled(msgspec.Struct, frozen=True):
    """The call is somebody else's by now: give it up."""

    request_id: str


Output = Send | Ready | Leave | Break | Refused | Called | Cancelled


class Work:
    """Calls in hand and replies that are not acknowledged, whatever becomes of connections."""

    def __init__(self) -> None:
        self.extend_ms = EXTEND_MS
        self._calls: dict[str, GatewayExecutorRequestData] = {}
        self._begun: set[str] = set()
        self._replies: dict[str, tuple[SDKResponse, int]] = {}
        self._bytes = 0
        self._extended_ms = 0

    @property
    def is_idle(self) -> bool:
        """Whether no call is in hand, and every reply acknowledged."""
        return not self._calls and not self._replies

    @property
    def replies(self) -> list[SDKResponse]:
        """The replies that are not acknowledged, oldest first."""
        return [reply for reply, _ in self._replies.values()]

    def take(self, request: GatewayExecutorRequestData) -> bool:
        """A call has come. Says whether it is to be begun: one that has begun already goes on under the new lease."""
        self._calls[request.request_id] = request
        return request.request_id not in self._begun

    def acknowledged(self, request: GatewayExecutorRequestData, *, sent: bool) -> bool:
        """The acknowledgement of a call has left, or could not be sent. Says whether user code begins now.

        The server gives a call that it has seen no acknowledgement of to another worker, and counts it as never begun. So nothing
        begins before: a step that kills its process would else go from worker to worker without end.
        """
        held = self._calls.get(request.request_id)
        if held is None or request.request_id in self._begun:
            return False
        if sent:
            self._begun.add(request.request_id)
        elif held is request:
            del self._calls[request.request_id]
        return sent

    def end(self, request_id: str) -> None:
        """The call gives no reply."""
        self._drop(request_id)

    def _drop(self, request_id: str) -> bool:
        """Forget a call. Says whether it was in hand."""
        self._begun.discard(request_id)
        return self._calls.pop(request_id, None) is not None

    def reply(self, response: SDKResponse, now_ms: int) -> SDKResponse | None:
        """A call has given its reply. `None` where it was given up meanwhile, so that nobody wants it."""
        if not self._drop(response.request_id):
            return None
        self._replies[response.request_id] = (response, now_ms)
        self._bytes += len(response.body)
        while self._bytes > REPLIES_BYTES_MAX and len(self._replies) > 1:
            self.recorded(next(iter(self._replies)))
        return response

    def recorded(self, request_id: str) -> None:
        """The server has the reply."""
        kept = self._replies.pop(request_id, None)
        if kept is not None:
            self._bytes -= len(kept[0].body)

    def sent(self, request_id: str, now_ms: int) -> None:
        """The reply was sent once more."""
        if request_id in self._replies:
            self._replies[request_id] = (self._replies[request_id][0], now_ms)

    def stale(self, now_ms: int) -> list[SDKResponse]:
        """The replies that have waited too long for their acknowledgement."""
        return [reply for reply, sent_ms in self._replies.values() if now_ms - sent_ms >= REPLY_MS]

    def extended(self, ack: WorkerRequestExtendLeaseAckData) -> bool:
        """A lease goes on. False: it is over, and the call is to be given up."""
        request = self._calls.get(ack.request_id)
        if request is None:
            return True
        if not ack.new_lease_id:
            self._drop(ack.request_id)
            return False
        self._calls[ack.request_id] = msgspec.structs.replace(request, lease_id=ack.new_lease_id)
        return True

    def due(self, now_ms: int) -> list[bytes]:
        """The frames that extend the leases, where it is time for that."""
        if now_ms - self._extended_ms < self.extend_ms:
            return []
        return self.extensions(now_ms)

    def extensions(self, now_ms: int) -> list[bytes]:
        """The frames that extend the leases of all calls that have begun: an extension says that one has."""
        self._extended_ms = now_ms
        return [
            frame(Kind.WORKER_REQUEST_EXTEND_LEASE, WorkerRequestExtendLeaseData(**_echo(call), lease_id=call.lease_id))
            for call in self._calls.values()
            if call.request_id in self._begun
        ]


class Connection:
    """One connection. Each method gives what is to be done, in order."""

    def __init__(self, work: Work, introduction: WorkerConnectRequestData, now_ms: int) -> None:
        self._work, self._introduction = work, introduction
        self.state = State.HELLO
        self._since_ms = now_ms
        self._heartbeat_ms = HEARTBEAT_MS
        self._beat_ms = now_ms
        self._unanswered = 0

    @property
    def takes_frames(self) -> bool:
        """Whether replies and extensions may be sent by it."""
        return self.state in (State.ACTIVE, State.CLOSING)

    def pause(self) -> list[Output]:
        """Ask for no more calls."""
        return [Send(frame(Kind.WORKER_PAUSE))] if self.state is State.ACTIVE else []

    def tick(self, now_ms: int) -> list[Output]:
        """Time passes."""
        if self.state in (State.HELLO, State.SYNCING) and now_ms - self._since_ms >= READY_MAX_MS:
            return self._break(f"the gateway was not ready within {READY_MAX_MS // 1000} s")
        if not self.takes_frames or now_ms - self._beat_ms < self._heartbeat_ms:
            return []
        if self._unanswered >= SILENT_BEATS:
            return self._break(f"the gateway did not answer {SILENT_BEATS} heartbeats")
        self._unanswered += 1
        self._beat_ms = now_ms
        return [Send(frame(Kind.WORKER_HEARTBEAT))]

    def receive(self, raw: bytes | str, now_ms: int) -> list[Output]:
        """A frame of the gateway's."""
        try:
            if isinstance(raw, str):
                raise ProtocolError("frames are binary")
            message = ConnectMessage.decode(raw)
            if self.state is State.BROKEN:
                return []
            return self._take(message, now_ms)
        except ProtocolError as error:
            return self._break(f"the gateway sent what makes no sense: {error}")

    def _take(self, message: ConnectMessage, now_ms: int) -> list[Output]:
        payload, work = message.payload, self._work
        match message.kind:
            case Kind.GATEWAY_HELLO if self.state is State.HELLO:
                self.state = State.SYNCING
                return [Send(frame(Kind.WORKER_CONNECT, self._introduction))]
            case Kind.GATEWAY_CONNECTION_READY if self.state is State.SYNCING:
                return self._ready(GatewayConnectionReadyData.decode(payload), now_ms)
            case Kind.SYNC_FAILED:
                failure = SyncFailure.decode(payload)
                return [Refused(failure.message or failure.code)]
            case Kind.GATEWAY_HEARTBEAT:
                self._unanswered = 0
                return []
            case Kind.GATEWAY_EXECUTOR_REQUEST:
                request = GatewayExecutorRequestData.decode(payload)
                ack: list[Output] = [Send(frame(Kind.WORKER_REQUEST_ACK, WorkerRequestAckData(**_echo(request))))]
                return [*ack, Called(request)] if work.take(request) else ack
            case Kind.WORKER_REQUEST_EXTEND_LEASE_ACK:
                extended = WorkerRequestExtendLeaseAckData.decode(payload)
                return [] if work.extended(extended) else [Cancelled(extended.request_id)]
            case Kind.WORKER_REPLY_ACK:
                work.recorded(WorkerReplyAckData.decode(payload).request_id)
                return []
            case Kind.GATEWAY_CLOSING if self.state is not State.CLOSING:
                self.state = State.CLOSING
                return [Leave()]
            case _:
                return []

    def _ready(self, told: GatewayConnectionReadyData, now_ms: int) -> list[Output]:
        self.state = State.ACTIVE
        self._heartbeat_ms = parse_duration_ms(told.heartbeat_interval) if told.heartbeat_interval else HEARTBEAT_MS
        self._work.extend_ms = parse_duration_ms(told.extend_lease_interval) if told.extend_lease_interval else EXTEND_MS
        self._beat_ms = now_ms
        # What another connection has left behind: the gateway learns at once that it is not lost.
        outputs: list[Output] = [Ready(), *map(Send, self._work.extensions(now_ms))]
        for reply in self._work.replies:
            self._work.sent(reply.request_id, now_ms)
            outputs.append(Send(frame(Kind.WORKER_REPLY, reply)))
        return outputs

    def _break(self, reason: str) -> list[Output]:
        self.state = State.BROKEN
        return [Break(reason)]


def _echo(request: GatewayExecutorRequestData) -> dict[str, Any]:
    """What a worker says again of a call."""
    names = ("request_id", "account_id", "env_id", "app_id", "function_slug", "step_id", "system_trace_ctx", "user_trace_ctx", "run_id")
    return {name: getattr(request, name) for name in names}
