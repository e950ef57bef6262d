"""The calls in workers' hands: who has each, since when, and until when it is taken to go on. A machine without I/O.

A call is given to a connection under a lease. The worker acknowledges it, extends the lease while it is at it (each time under a new
lease id), and replies. What goes wrong is found here: no acknowledgement in time (another connection gets the call), a lease that is
not extended, a broken connection whose worker does not come back in time (the call is lost).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from stepwell.drivers.connect.timing import Timing
from stepwell.protocol.connect import Reason


class Lease(msgspec.Struct, kw_only=True):
    """A call in hand. `earlier_id` is the lease id before the last extension, whose acknowledgement may not have arrived."""

    request_id: str
    app: str
    connection_id: str
    instance_id: str
    lease_id: str
    until_ms: int
    ack_by_ms: int | None
    earlier_id: str | None = None
    return_by_ms: int | None = None
    tried: tuple[str, ...] = ()


class Overdue(msgspec.Struct, frozen=True):
    """What time has brought to light. Not `lost`: it was not acknowledged, and another connection may have it."""

    lease: Lease
    lost: bool
    reason: str = ""


class Leases:
    """The book of leases. `new_id` makes lease ids."""

    def __init__(self, timing: Timing, new_id: Callable[[], str]) -> None:
        self._timing, self._new_id = timing, new_id
        self._by_request: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._by_request)

    def get(self, request_id: str) -> Lease | None:
        """The lease of a call that is in hand."""
        return self._by_request.get(request_id)

    def give(self, request_id: str, app: str, connection_id: str, instance_id: str, now_ms: int) -> Lease:
        """A connection gets a call: the first time, or instead of another."""
        before = self._by_request.get(request_id)
        lease = Lease(
            request_id=request_id,
            app=app,
            connection_id=connection_id,
            instance_id=instance_id,
            lease_id=self._new_id(),
            until_ms=now_ms + self._timing.lease_ms,
            ack_by_ms=now_ms + self._timing.ack_ms,
            tried=(*(before.tried if before is not None else ()), connection_id),
        )
        self._by_request[request_id] = lease
        return lease

    def end(self, request_id: str) -> Lease | None:
        """The call is over: answered, lost, or given up."""
        return self._by_request.pop(request_id, None)

    def acked(self, request_id: str, connection_id: str) -> None:
        """The worker has begun it."""
        lease = self._by_request.get(request_id)
        if lease is not None and lease.connection_id == connection_id:
            lease.ack_by_ms = None

    def extend(self, request_id: str, lease_id: str, connection_id: str, instance_id: str, now_ms: int) -> Lease | None:
        """The worker is at it. `None`: its lease is over or was never its own. A worker that came back holds it by its new connection."""
        lease = self._by_request.get(request_id)
        if lease is None or lease.instance_id != instance_id or lease_id not in (lease.lease_id, lease.earlier_id) or not lease_id:
            return None
        if now_ms >= lease.until_ms:
            return None
        lease.earlier_id, lease.lease_id = lease_id, self._new_id()
        lease.until_ms = now_ms + self._timing.lease_ms
        lease.ack_by_ms = lease.return_by_ms = None
        lease.connection_id = connection_id
        return lease

    def of(self, connection_id: str) -> list[Lease]:
        """What a connection has in hand."""
        return [lease for lease in self._by_request.values() if lease.connection_id == connection_id]

    def broken(self, connection_id: str, now_ms: int, *, for_good: bool) -> list[Overdue]:
        """A connection is gone. What it had not acknowledged goes to others; the rest waits for the worker, unless it said goodbye."""
        overdue = []
        for lease in self.of(connection_id):
            if lease.ack_by_ms is not None:
                overdue.append(Overdue(lease, lost=False))
            elif for_good:
                overdue.append(Overdue(lease, True, _lost(lease, "was shut down")))
            else:
                lease.return_by_ms = now_ms + self._timing.return_ms
        return overdue

    def due(self, now_ms: int) -> list[Overdue]:
        """What has taken too long."""
        overdue = []
        for lease in self._by_request.values():
            if lease.ack_by_ms is not None:
                if now_ms >= min(lease.ack_by_ms, lease.until_ms):
                    overdue.append(Overdue(lease, lost=False))
            elif now_ms >= lease.until_ms:
                overdue.append(Overdue(lease, True, _lost(lease, f"did not extend its lease for {self._timing.lease_ms / 1000:g} s")))
            elif lease.return_by_ms is not None and now_ms >= lease.return_by_ms:
                gone = f"broke its connection and did not come back for {self._timing.return_ms / 1000:g} s"
                overdue.append(Overdue(lease, True, _lost(lease, gone)))
        return overdue


def _lost(lease: Lease, what: str) -> str:
    return f"worker {lease.instance_id} {what} ({Reason.STOPPED_RESPONDING})"
