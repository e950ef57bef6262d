"""One worker's connection, seen from the gateway: a machine that is fed frames and times, and says what is to be done.

HELLO → (WORKER_CONNECT) → SYNCING → (its apps are synced) → CONNECTED → (WORKER_READY, where it asked for that) → READY ⇄ silent,
→ (WORKER_PAUSE, or the gateway closes) → DRAINING → CLOSED. It knows neither sockets nor what becomes of calls.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from stepwell.drivers.connect.timing import Timing
from stepwell.errors import ProtocolError
from stepwell.protocol.connect import (
    APPS_MAX,
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
from stepwell.protocol.ids import is_ulid


class State(IntEnum):
    """Where a connection stands."""

    HELLO = 0
    SYNCING = 1
    CONNECTED = 2
    READY = 3
    DRAINING = 4
    CLOSED = 5


# What is to be done.


class Send(msgspec.Struct, frozen=True):
    """Send this frame."""

    frame: bytes


class Close(msgspec.Struct, frozen=True):
    """Send what is to be sent, then close with this code and reason."""

    code: int
    reason: str


class Introduced(msgspec.Struct, frozen=True):
    """The worker has said who it is: check its tokens, sync its apps, then `accept` or `refuse` it."""

    worker: WorkerConnectRequestData


class BecameReady(msgspec.Struct, frozen=True):
    """It takes calls now."""


class Paused(msgspec.Struct, frozen=True):
    """It takes no more calls."""


class Acked(msgspec.Struct, frozen=True):
    """It has begun a call."""

    request_id: str


class Extends(msgspec.Struct, frozen=True):
    """It is still at a call."""

    told: WorkerRequestExtendLeaseData


class Replied(msgspec.Struct, frozen=True):
    """It gives an answer."""

    response: SDKResponse


Output = Send | Close | Introduced | BecameReady | Paused | Acked | Extends | Replied


class Connection:
    """The machine. Each method gives what is to be done, in order."""

    def __init__(self, timing: Timing, now_ms: int) -> None:
        self._timing = timing
        self.state = State.HELLO
        self.opened_ms = self.heard_ms = now_ms
        self.worker: WorkerConnectRequestData | None = None

    @property
    def takes_calls(self) -> bool:
        """Whether a call may be sent to it."""
        return self.state is State.READY

    @property
    def is_open(self) -> bool:
        """Whether frames go either way."""
        return self.state is not State.CLOSED

    def open(self) -> list[Output]:
        """The socket is open: greet."""
        return [Send(frame(Kind.GATEWAY_HELLO))]

    def accept(self) -> list[Output]:
        """The apps are synced."""
        if self.state is not State.SYNCING:
            return []
        assert self.worker is not None
        self.state = State.CONNECTED
        timing = self._timing
        ready = GatewayConnectionReadyData(
            heartbeat_interval=timing.heartbeat_text, extend_lease_interval=timing.extend_text, status_interval="0s"
        )
        outputs: list[Output] = [Send(frame(Kind.GATEWAY_CONNECTION_READY, ready))]
        if not self.worker.worker_manual_readiness_ack:
            self.state = State.READY
            outputs.append(BecameReady())
        return outputs

    def refuse(self, code: CloseCode, reason: str, problem: str = "") -> list[Output]:
        """The worker is not taken. `problem` tells a human what is wrong with its apps."""
        if not self.is_open:
            return []
        told: list[Output] = []
        if problem:
            told.append(Send(frame(Kind.SYNC_FAILED, SyncFailure(code=reason, message=problem))))
        return [*told, *self.close(code, reason)]

    def drain(self) -> list[Output]:
        """The gateway is about to close: the worker is to go elsewhere, and may bring what it has in hand."""
        if self.state not in (State.CONNECTED, State.READY, State.DRAINING):
            return self.close(CloseCode.GOING_AWAY, Reason.GATEWAY_CLOSING)
        self.state = State.DRAINING
        return [Send(frame(Kind.GATEWAY_CLOSING)), Paused()]

    def close(self, code: CloseCode, reason: str) -> list[Output]:
        """End it."""
        if not self.is_open:
            return []
        self.state = State.CLOSED
        return [Close(int(code), reason)]

    def lost(self) -> None:
        """The socket is gone."""
        self.state = State.CLOSED

    def tick(self, now_ms: int) -> list[Output]:
        """Time passes: a worker that does not introduce itself, or falls silent, is closed."""
        if self.state is State.HELLO and now_ms - self.opened_ms >= self._timing.hello_ms:
            return self.close(CloseCode.POLICY_VIOLATION, Reason.HELLO_TIMEOUT)
        if self.state > State.SYNCING and self.is_open and now_ms - self.heard_ms >= self._timing.silence_ms:
            return self.close(CloseCode.POLICY_VIOLATION, Reason.HEARTBEATS_MISSED)
        return []

    def receive(self, raw: bytes | None, now_ms: int) -> list[Output]:
        """A frame of the worker; `None` for one that is not binary."""
        if not self.is_open:
            return []
        self.heard_ms = now_ms
        try:
            if raw is None:
                raise ProtocolError("frames are binary")
            message = ConnectMessage.decode(raw)
        except ProtocolError:
            invalid = Reason.HELLO_INVALID_MSG if self.state is State.HELLO else Reason.INVALID_MSG
            return self.close(CloseCode.POLICY_VIOLATION, invalid)
        if self.state is State.HELLO:
            return self._hello(message)
        try:
            return self._take(message)
        except ProtocolError:
            return self.close(CloseCode.POLICY_VIOLATION, Reason.INVALID_MSG)

    def _hello(self, message: ConnectMessage) -> list[Output]:
        if message.kind != Kind.WORKER_CONNECT:
            return self.close(CloseCode.POLICY_VIOLATION, Reason.HELLO_INVALID_MSG)
        try:
            worker = WorkerConnectRequestData.decode(message.payload)
            check_worker(worker)
        except ProtocolError as error:
            return self.close(CloseCode.POLICY_VIOLATION, error.code or Reason.HELLO_INVALID_PAYLOAD)
        self.worker, self.state = worker, State.SYNCING
        return [Introduced(worker)]

    def _take(self, message: ConnectMessage) -> list[Output]:
        payload = message.payload
        match message.kind:
            case Kind.WORKER_HEARTBEAT:
                return [Send(frame(Kind.GATEWAY_HEARTBEAT))]
            case Kind.WORKER_READY:
                if self.state is not State.CONNECTED:
                    return []
                self.state = State.READY
                return [BecameReady()]
            case Kind.WORKER_PAUSE:
                return self._pause()
            case Kind.WORKER_REQUEST_ACK:
                return [Acked(WorkerRequestAckData.decode(payload).request_id)]
            case Kind.WORKER_REQUEST_EXTEND_LEASE:
                return [Extends(WorkerRequestExtendLeaseData.decode(payload))]
            case Kind.WORKER_REPLY:
                return [Replied(SDKResponse.decode(payload))]
            case Kind.WORKER_STATUS:
                return self._pause() if WorkerStatusData.decode(payload).shutdown_requested else []
            case _:
                # A frame of a newer worker, one that has no meaning from this side, or an introduction made twice.
                return []

    def _pause(self) -> list[Output]:
        if self.state not in (State.CONNECTED, State.READY):
            return []
        self.state = State.DRAINING
        return [Paused()]


def check_worker(worker: WorkerConnectRequestData) -> None:
    """Raise `ProtocolError` where a worker's introduction lacks what it must have (§9.4)."""
    if not is_ulid(worker.connection_id):
        raise ProtocolError(f"connection_id is {worker.connection_id[:40]!r}; it must be the one that /v0/connect/start gave")
    if not worker.instance_id:
        raise ProtocolError("instance_id is empty: a worker is known by it when it comes back")
    if not worker.apps:
        raise ProtocolError("there are no apps: a worker brings one at least")
    if len(worker.apps) > APPS_MAX:
        raise ProtocolError(f"there are {len(worker.apps)} apps; one connection takes at most {APPS_MAX}", code=Reason.TOO_MANY_APPS)
    names = [app.app_name for app in worker.apps]
    if len(set(names)) != len(names) or not all(names):
        raise ProtocolError(f"the apps' names are {names}; each must have a name of its own")
    if (most := worker.max_worker_concurrency) is not None and most < 0:
        raise ProtocolError(f"max_worker_concurrency is {most}; it must be 0 (no limit) or more")
