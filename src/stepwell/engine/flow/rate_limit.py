"""Rate limit: so many runs in a window of time; the events beyond start none. And the idempotency key, which is one run a day.

A window begins with the first run that it admits and lasts a period: within it there are `limit` runs, never one more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.keys import evaluated, of_value, prefix
from stepwell.engine.model import Rate
from stepwell.protocol.functions import DAY_MS, RateLimit


class RateRule(msgspec.Struct, frozen=True):
    """A function's rate limit. `name` is the setting's, for the reason that a skipped run is given."""

    name: str
    prefix: str
    limit: int
    period_ms: int
    key: Expression | None

    def counter(self, event: Mapping[str, Any], now_ms: int) -> str | None:
        """The counter of the value that the event has; `None` for the value false, to which no limit applies (§10)."""
        if self.key is None:
            return self.prefix
        value = evaluated(self.key, event, now_ms)
        return None if value is False else of_value(self.prefix, value)

    def taken(self, rate: Rate | None, counter_id: str, now_ms: int) -> Rate | None:
        """The state after one more run; `None` where the window is full."""
        if rate is None or rate.until_us <= now_ms * 1000:
            return Rate(id=counter_id, used=1, until_us=(now_ms + self.period_ms) * 1000)
        return None if rate.used >= self.limit else msgspec.structs.replace(rate, used=rate.used + 1)


def compile_rate_limit(function_id: str, setting: RateLimit | None, idempotency: str | None) -> RateRule | None:
    """The rule; an idempotency key takes the place of a rate limit (§3.4)."""
    if idempotency is not None:
        return RateRule("idempotency", prefix("once", function_id, idempotency), 1, DAY_MS, compile_expression(idempotency))
    if setting is None:
        return None
    key = None if setting.key is None else compile_expression(setting.key)
    return RateRule("rate limit", prefix("rate", function_id, setting.key), setting.limit, setting.period_ms, key)
