"""How long a gateway waits for what."""

from __future__ import annotations

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.durations import format_duration

LEASE_MS_DEFAULT = 30_000
LEASE_MS_MIN = 2_000


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """All of it hangs on `lease_ms`: how long a call is taken to go on without a word of its worker.

    A worker extends its leases `extends_a_lease` times in that time. One whose connection broke has `return_ms` to come back and
    extend them, or to bring the answer. `silence_ms` is three of a worker's heartbeats, which public SDKs send every 10 s.
    """

    lease_ms: int = LEASE_MS_DEFAULT
    hello_ms: int = 5_000
    ack_ms: int = 3_000
    heartbeat_ms: int = 10_000
    silence_ms: int = 30_000
    extends_a_lease: int = 6
    group_ms: int = 60_000

    @property
    def extend_ms(self) -> int:
        """How often a worker says that it is still at a call: in whole seconds, for there are SDKs that read nothing else."""
        return max(1_000, self.lease_ms // self.extends_a_lease // 1000 * 1000)

    @property
    def doubt_ms(self) -> int:
        """How long a worker with calls in hand may say nothing before it gets no more."""
        return min(self.lease_ms, 2 * self.extend_ms + self.extend_ms // 2)

    @property
    def return_ms(self) -> int:
        """How long a call waits for a worker whose connection broke: SDKs come back after 5 s, and then extend in their turn."""
        return min(self.lease_ms, 10_000 + self.extend_ms)

    @property
    def heartbeat_text(self) -> str:
        """For the worker."""
        return format_duration(self.heartbeat_ms, days=False)

    @property
    def extend_text(self) -> str:
        """For the worker; never minutes, which Python's SDK does not read."""
        return f"{self.extend_ms // 1000}s"


def timing_of(lease_s: float | None) -> Timing:
    """The timing of an operator's `--connect-lease`. Raises `UsageError`."""
    if lease_s is None:
        return Timing()
    if lease_s * 1000 < LEASE_MS_MIN:
        raise UsageError(f"--connect-lease is {lease_s:g}; it must be {LEASE_MS_MIN / 1000:g} seconds or more")
    return Timing(lease_ms=int(lease_s * 1000))
