"""When what a run has asked for is complete: nothing new for some passes of the event loop. And patience with what takes longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PASSES = 8
"""Passes of the event loop without a new request, after which what was asked for in parallel is taken to be complete."""
HOLD_MAX_S = 10.0
"""How long a sleep (or, without checkpoints, a plan) is held back while another branch waits for something else."""
POLL_S = (0.005, 0.02, 0.1, 0.25)
"""When to look again meanwhile; the last one repeats."""


class Quiet:
    """Calls `settle` once nothing has been touched for as many passes of the event loop as `passes` says."""

    def __init__(self, loop: asyncio.AbstractEventLoop, passes: Callable[[], int], settle: Callable[[], None]) -> None:
        self._loop, self._passes, self._settle = loop, passes, settle
        self._spinning = self._stopped = False
        self.touches = 0

    def touch(self) -> None:
        """Something has changed."""
        self.touches += 1
        if not self._spinning and not self._stopped:
            self._spinning = True
            self._loop.call_soon(self._spin, self.touches, self._passes())

    def stop(self) -> None:
        """Call no more."""
        self._stopped = True

    def _spin(self, touches: int, passes: int) -> None:
        if touches != self.touches:
            self._loop.call_soon(self._spin, self.touches, self._passes())
        elif passes > 0:
            self._loop.call_soon(self._spin, touches, passes - 1)
        else:
            self._spinning = False
            if not self._stopped:
                self._settle()


class Patience:
    """How long to go on waiting for a branch that does something else than steps; looks again meanwhile, by `again`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, again: Callable[[], None]) -> None:
        self._loop, self._again = loop, again
        self._since: float | None = None
        self._polls = 0
        self._poll: asyncio.TimerHandle | None = None

    def lasts(self, limited: bool) -> bool:
        """Whether to wait on. Without something to tell there is no limit: the function is at work."""
        now = self._loop.time()
        if self._since is None:
            self._since, self._polls = now, 0
        if limited and now - self._since > HOLD_MAX_S:
            return False
        self.stop()
        self._poll = self._loop.call_later(POLL_S[min(self._polls, len(POLL_S) - 1)], self._again)
        self._polls += 1
        return True

    def renew(self) -> None:
        """What was waited for has come, or something else has been told."""
        self._since, self._polls = None, 0

    def stop(self) -> None:
        """Look no more."""
        if self._poll is not None:
            self._poll.cancel()
