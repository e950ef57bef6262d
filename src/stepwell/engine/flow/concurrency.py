"""Concurrency: how many calls, or whole runs, of one value of a key there may be at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.keys import WEIGHT, WEIGHT_MAX, evaluated, of_event, prefix
from stepwell.protocol.functions import Concurrency


class Limit(msgspec.Struct, frozen=True):
    """A limit of a function. `prefix` begins the ids of its counters, `key` gives what follows; `weight` gives a value's weight."""

    prefix: str
    limit: int
    key: Expression | None
    weight: Expression | None = None

    def counter(self, event: Mapping[str, Any], now_ms: int) -> str:
        """The counter of the value that the event has."""
        return of_event(self.prefix, self.key, event, now_ms)

    def weight_key(self, event: Mapping[str, Any], now_ms: int) -> str | None:
        """The key that says the weight, where it is not 1. A value that is no whole number from 1 to 100 is taken as the nearest."""
        if self.weight is None:
            return None
        value = evaluated(self.weight, event, now_ms)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        weight = min(max(int(value), 1), WEIGHT_MAX)
        return None if weight == 1 else f"{WEIGHT}{weight}"


def compile_limit(function_id: str, setting: Concurrency) -> Limit:
    """A function's setting as claims judge it."""
    owner = {"fn": function_id, "env": "env", "account": "account"}[setting.scope]
    kind = f"run/{setting.scope}" if setting.per == "run" else setting.scope
    return Limit(
        prefix=prefix(kind, owner, setting.key),
        limit=setting.limit,
        key=None if setting.key is None else compile_expression(setting.key),
        weight=None if setting.weight is None else compile_expression(setting.weight),
    )
