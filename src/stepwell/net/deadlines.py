"""Times by which futures must be done, with one timer for all of them.

A timer per call would cost more than the call's own bookkeeping, and time limits are long (hours) while calls are short: a timer set
for the earliest limit finds, when it fires, that nearly all calls of then are over, and is set anew for the earliest that is left.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any


class Deadlines:
    """Fails futures with `TimeoutError` when their time is over."""

    def __init__(self) -> None:
        self._due: dict[asyncio.Future[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = math.inf

    def __len__(self) -> int:
        return len(self._due)

    def set(self, future: asyncio.Future[Any], at: float) -> None:
        """The future must be done at this time of its loop; again to move the time."""
        self._due[future] = at
        if at < self._armed_for:
            self._arm(future.get_loop(), at)

    def drop(self, future: asyncio.Future[Any]) -> None:
        """Nobody waits for the future any more."""
        self._due.pop(future, None)

    def close(self) -> None:
        """Forget all of them."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed_for = None, math.inf

    def _arm(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = at
        self._timer = loop.call_at(at, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        # Clocks of loops are coarse: a timer may fire a little early by the clock that it is compared with.
        now = max(loop.time(), self._armed_for)
        self._timer, self._armed_for = None, math.inf
        earliest = math.inf
        for future, at in list(self._due.items()):
            if at <= now:
                del self._due[future]
                if not future.done():
                    future.set_exception(TimeoutError())
            elif at < earliest:
                earliest = at
        if earliest < math.inf:
            self._arm(loop, earliest)
