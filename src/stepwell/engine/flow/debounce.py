"""Debounce: one run with the last event, when none has come for a while, or when the first has waited long enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.keys import of_event
from stepwell.engine.model import EventRow, Hold
from stepwell.protocol.functions import Debounce


class DebounceRule(msgspec.Struct, frozen=True):
    """A function's debounce. `timeout_ms`: how long the first event waits at most."""

    function_id: str
    period_ms: int
    timeout_ms: int | None
    key: Expression | None

    def hold_id(self, event: Mapping[str, Any], now_ms: int) -> str:
        """The hold of the value that the event has."""
        return of_event(f"debounce/{self.function_id}/", self.key, event, now_ms)

    def kept(self, hold: Hold | None, hold_id: str, event: EventRow, now_ms: int) -> Hold:
        """The hold with one more event: the later one stays, and waits anew. One that is older than the stored one changes nothing."""
        if hold is not None and event.ts < hold.ts:
            return hold
        first_ms = now_ms if hold is None else hold.first_ms
        due_ms = now_ms + self.period_ms
        if self.timeout_ms is not None:
            due_ms = min(due_ms, first_ms + self.timeout_ms)
        return Hold(
            id=hold_id,
            function_id=self.function_id,
            events=(event.id,),
            keys=(),
            first_ms=first_ms,
            due_ms=due_ms,
            ts=event.ts,
            size=len(event.data),
        )


def compile_debounce(function_id: str, setting: Debounce) -> DebounceRule:
    """The rule of a setting."""
    key = None if setting.key is None else compile_expression(setting.key)
    return DebounceRule(function_id, setting.period_ms, setting.timeout_ms, key)
