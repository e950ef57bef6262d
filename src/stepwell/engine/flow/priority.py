"""Priority: how many seconds a run is taken to be older, or younger, than it is. It orders one lane, never one tenant before another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepwell.engine.expression import Expression
from stepwell.engine.flow.keys import evaluated
from stepwell.protocol.functions import PRIORITY_MAX_S


def priority_ms(priority: Expression | None, event: Mapping[str, Any], now_ms: int) -> int:
    """The milliseconds by which a run goes ahead. What is no number counts as nothing, what is too large as the most (§10, §11.3)."""
    if priority is None:
        return 0
    value = evaluated(priority, event, now_ms)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return 0
    return int(min(max(value, -PRIORITY_MAX_S), PRIORITY_MAX_S) * 1000)
