"""Sleeps: the run's coroutine is kept for a short one, and replayed after a longer one."""

from __future__ import annotations

from datetime import UTC, datetime

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json
from stepwell.protocol.ops import WAIT_MAX_MS
from stepwell.sdk.durations import Duration, When, duration_ms, time_ms
from stepwell.sdk.request import Errand, Request, decode_memo

PARK_SLEEP_MAX_MS = 1000
"""A coroutine whose sleeps are no longer than this stays; it is closed for longer ones, and replayed."""


def sleeping(request: Request, duration: Duration, now: float) -> Request:
    """The request ends after a duration from now, by the loop's time."""
    ms = duration_ms(duration, f"step {request.id!r}: the sleep's duration")
    if ms > WAIT_MAX_MS:
        raise UsageError(f"step {request.id!r}: a sleep of {duration!r} is longer than 366 days, the most there is: sleep several times")
    request.asked = now
    request.errand = Errand(op="Sleep", left_ms=ms, long=ms > PARK_SLEEP_MAX_MS)
    request.read = _over
    return request


def sleeping_until(request: Request, when: When) -> Request:
    """The request ends at a point in time; at once, where it has passed."""
    request.errand = Errand(op="Sleep", name=iso(time_ms(when, f"step {request.id!r}: when")), long=True)
    request.read = _over
    return request


def _over(request: Request, memo: Json) -> None:
    if b'"error"' in memo:
        decode_memo(request, memo)


def iso(ms: int) -> str:
    """A time in ISO form, UTC, with milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
