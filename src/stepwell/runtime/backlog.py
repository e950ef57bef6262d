"""Bounds on what may wait in queues, for operators who set them: beyond them senders are told to come back later.

What waits is counted from the store once a second; what was accepted since is added. A bound is therefore a matter of a second's
events, not of a single one. Without bounds nothing is counted, and everything is accepted and queued.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from stepwell.engine.registry import Registry
from stepwell.errors import QueueFull, StoreUnavailable
from stepwell.protocol.events import Event
from stepwell.store.base import Reader

LOOK_S = 1.0
RETRY_AFTER_S = 5
"""When a sender is told to come back."""


class Backlog:
    """What waits for each function. `total_max` and `function_max` bound it; `None`: no bound."""

    def __init__(
        self,
        reader: Callable[[], Reader],
        registry: Callable[[], Registry],
        *,
        total_max: int | None = None,
        function_max: int | None = None,
    ) -> None:
        self._reader, self._registry, self._total_max, self._function_max = reader, registry, total_max, function_max
        self._waiting: dict[str, int] = {}

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self._total_max is not None or self._function_max is not None

    async def watch(self) -> None:
        """Count, until cancelled."""
        while self.is_bounded:
            with contextlib.suppress(StoreUnavailable):  # the next look counts again; until then the last count holds
                await self.count()
            await asyncio.sleep(LOOK_S)

    async def count(self) -> None:
        """Count what waits now."""
        most = max(bound for bound in (self._total_max, self._function_max, 0) if bound is not None)
        self._waiting = {depth.function_id: depth.waiting for depth in await self._reader().queue_depths(most + 1)}

    def admit(self, events: Iterable[Event]) -> None:
        """Count what the events will start. Raises `QueueFull`, and counts nothing, where that would be more than may wait."""
        if not self.is_bounded:
            return
        coming: dict[str, int] = {}
        registry = self._registry()
        for event in events:
            for function in registry.listening(event.name):
                coming[function.id] = coming.get(function.id, 0) + 1
        total = sum(self._waiting.values())
        if self._total_max is not None and coming and total + sum(coming.values()) > self._total_max:
            raise QueueFull(f"{total} runs and steps are waiting; at most {self._total_max} may (--max-queued)", RETRY_AFTER_S)
        for function_id, count in coming.items():
            waiting = self._waiting.get(function_id, 0)
            if self._function_max is not None and waiting + count > self._function_max:
                bound = f"at most {self._function_max} may (--max-queued-per-function)"
                raise QueueFull(f"{waiting} runs and steps of function {function_id!r} are waiting; {bound}", RETRY_AFTER_S)
        for function_id, count in coming.items():
            self._waiting[function_id] = self._waiting.get(function_id, 0) + count
