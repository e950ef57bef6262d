"""Due timers: the near ones in memory, the others in the store's index until they are near.

Wall time may jump and the machine may sleep: the keeper never waits longer than a moment before it looks at the clock again, and the
decision itself checks that a timer is due.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from stepwell.runtime.clock import Clock
from stepwell.store.base import Reader

HORIZON_MS = 5_000
"""Timers due within this are kept in memory."""

NEAR_MAX = 10_000
"""Timers in memory at most; the horizon comes nearer where there are more."""

LOOK_MS = 1_000
"""How long the keeper waits at most."""


class Timekeeper:
    """Calls `fire(timer_id)` when a timer is due; once, until the timer is set again."""

    def __init__(self, reader: Reader, clock: Clock, fire: Callable[[str], None]) -> None:
        self._reader, self._clock, self._fire = reader, clock, fire
        self._near: list[tuple[int, str]] = []
        self._due: dict[str, int] = {}
        self._fired: set[str] = set()
        self._horizon_ms = 0
        self._wake = asyncio.Event()

    def set(self, timer_id: str, due_ms: int) -> None:
        """A timer was written: near ones are kept, far ones found when their time comes nearer."""
        self._fired.discard(timer_id)
        if due_ms <= self._horizon_ms and len(self._near) < NEAR_MAX:
            self._add(timer_id, due_ms)
            self._wake.set()
        else:
            self._horizon_ms = min(self._horizon_ms, due_ms - 1) if due_ms <= self._horizon_ms else self._horizon_ms

    def settled(self, timer_id: str) -> None:
        """The timer's input was decided: if the timer is still there, it may fire again."""
        self._fired.discard(timer_id)

    def _add(self, timer_id: str, due_ms: int) -> None:
        if self._due.get(timer_id) != due_ms:
            self._due[timer_id] = due_ms
            heapq.heappush(self._near, (due_ms, timer_id))

    async def keep(self) -> None:
        """Look until cancelled."""
        while True:
            self._wake.clear()
            now_ms = self._clock.now_ms()
            self._fire_due(now_ms)
            if now_ms + HORIZON_MS / 2 > self._horizon_ms or self._horizon_ms > now_ms + 2 * HORIZON_MS:
                await self._look_ahead(now_ms)
                self._fire_due(self._clock.now_ms())
            wait_ms = LOOK_MS if not self._near else min(LOOK_MS, max(0, self._near[0][0] - self._clock.now_ms()))
            if wait_ms <= 0:
                await asyncio.sleep(0)
                continue
            handle = asyncio.get_running_loop().call_later(wait_ms / 1000, self._wake.set)
            await self._wake.wait()
            handle.cancel()

    async def _look_ahead(self, now_ms: int) -> None:
        """Read what is due within the horizon; more than fits brings the horizon nearer."""
        until_ms = now_ms + HORIZON_MS
        self._horizon_ms = until_ms  # what is written from now on is told by `set`
        found = await self._reader.due_timers(until_ms, NEAR_MAX)
        for timer_id, due_ms in found:
            if timer_id not in self._fired:
                self._add(timer_id, due_ms)
        if len(found) == NEAR_MAX:
            self._horizon_ms = min(self._horizon_ms, found[-1][1])

    def _fire_due(self, now_ms: int) -> None:
        while self._near and self._near[0][0] <= now_ms:
            due_ms, timer_id = heapq.heappop(self._near)
            if self._due.get(timer_id) == due_ms:
                del self._due[timer_id]
                self._fired.add(timer_id)
                self._fire(timer_id)
