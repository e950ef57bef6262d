"""Batch: one run for several events, when there are enough of them or the first has waited long enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.keys import of_event
from stepwell.engine.model import EventRow, Hold
from stepwell.protocol.functions import Batch

BATCH_BYTES_MAX = 10 * 1024 * 1024
"""Data of the events of one batch; one that would go beyond is started without waiting for more (§11.1)."""


class BatchRule(msgspec.Struct, frozen=True):
    """A function's batching. `where` says which events are batched: the others start a run each."""

    function_id: str
    size: int
    timeout_ms: int
    key: Expression | None
    where: Expression | None

    def hold_id(self, event: Mapping[str, Any], now_ms: int) -> str | None:
        """The open batch of the value that the event has; `None` for an event that is not batched."""
        if self.where is not None and not self.where.is_true({"event": event}, now_ms=now_ms):
            return None
        return of_event(f"batch/{self.function_id}/", self.key, event, now_ms)

    def joined(self, hold: Hold | None, hold_id: str, event: EventRow, keys: tuple[str, ...], now_ms: int) -> Hold:
        """The batch with one more event. `keys` are the first one's: the run goes by them."""
        if hold is not None:
            return msgspec.structs.replace(hold, events=(*hold.events, event.id), size=hold.size + len(event.data))
        return Hold(
            id=hold_id,
            function_id=self.function_id,
            events=(event.id,),
            keys=keys,
            first_ms=now_ms,
            due_ms=now_ms + self.timeout_ms,
            ts=event.ts,
            size=len(event.data),
        )

    def is_full(self, hold: Hold) -> bool:
        """Whether it waits for no more events."""
        return len(hold.events) >= self.size or hold.size >= BATCH_BYTES_MAX


def compile_batch(function_id: str, setting: Batch) -> BatchRule:
    """The rule of a setting."""
    key = None if setting.key is None else compile_expression(setting.key)
    where = None if setting.where is None else compile_expression(setting.where)
    return BatchRule(function_id, setting.max_size, setting.timeout_ms, key, where)
