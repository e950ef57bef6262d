"""Throttle: run starts over time, by the generic cell rate algorithm. What comes too soon waits in its lane, in order; nothing is lost.

A key's state is one number, the theoretical arrival time (`Rate.until_us`): when the next start would be on time, had all come evenly.
A start may be early by as much as the burst allows. Microseconds, since a period may not divide evenly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.keys import of_event, prefix
from stepwell.engine.model import Rate
from stepwell.protocol.functions import Throttle


class ThrottleRule(msgspec.Struct, frozen=True):
    """A function's throttle: `interval_us` between starts, of which `capacity` may come at once."""

    prefix: str
    interval_us: int
    capacity: int
    key: Expression | None

    def counter(self, event: Mapping[str, Any], now_ms: int) -> str:
        """The counter of the value that the event has."""
        return of_event(self.prefix, self.key, event, now_ms)

    def next_ms(self, rate: Rate | None, now_ms: int, ahead: int = 0) -> int:
        """When one more start is admitted, with so many others `ahead` of it; a started millisecond counts whole."""
        until_us = max(0 if rate is None else rate.until_us, now_ms * 1000)
        return max(now_ms, -(-(until_us + (ahead + 1 - self.capacity) * self.interval_us) // 1000))

    def room(self, rate: Rate | None, now_ms: int) -> int:
        """How many starts are admitted now."""
        late_us = 0 if rate is None else max(0, rate.until_us - now_ms * 1000)
        return max(0, self.capacity - -(-late_us // self.interval_us))

    def taken(self, rate: Rate | None, counter_id: str, now_ms: int) -> Rate:
        """The state after one more start."""
        until_us = max(0 if rate is None else rate.until_us, now_ms * 1000) + self.interval_us
        return Rate(id=counter_id, used=0, until_us=until_us)


def compile_throttle(function_id: str, setting: Throttle) -> ThrottleRule:
    """`limit` and `burst` at once, then one more each `period / limit` (§11.3)."""
    return ThrottleRule(
        prefix=prefix("throttle", function_id, setting.key),
        interval_us=-(-setting.period_ms * 1000 // setting.limit),
        capacity=setting.limit + setting.burst,
        key=None if setting.key is None else compile_expression(setting.key),
    )
