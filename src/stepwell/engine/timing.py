"""When a retry is due: the backoff table of the protocol (§4.8), with jitter that is a hash of identity."""

from __future__ import annotations

import hashlib

from stepwell.engine.registry import Settings

BACKOFF_MS = tuple(seconds * 1000 for seconds in (15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200))
"""The base delay after the attempt that just failed; the last one serves all further attempts."""

JITTER_MS = 30_000
"""The longest jitter on top."""


def backoff_ms(settings: Settings, item_id: str, attempt: int) -> int:
    """How long after a failed attempt (0-based) the next one is due. The same item and attempt always give the same delay."""
    if settings.retry_interval_ms is not None:
        return settings.retry_interval_ms
    base = BACKOFF_MS[min(attempt, len(BACKOFF_MS) - 1)]
    return base + jitter(f"{item_id}/{attempt}", JITTER_MS)


def jitter(identity: str, below_ms: int) -> int:
    """A number in [0, below_ms), spread evenly over identities."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big") % below_ms
