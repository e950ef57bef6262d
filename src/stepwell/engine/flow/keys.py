"""The keys of a run: counter ids that say what gates it, and by their first part what kind of gate that is.

`fn/…`, `env/…`, `account/…`: calls of this value at a time. `run/…`: runs of this value, from start to end. `throttle/…`: starts of
this value over time. `weight/3` gates nothing: it says how much of its function's share the lane has.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from stepwell.engine.digests import digest
from stepwell.engine.expression import Expression, key_text
from stepwell.errors import EvaluationError

KEY_CHARS_MAX = 256
"""Characters of a key's value that stand in an id; a longer one is hashed."""

RUN, THROTTLE, WEIGHT, DRAIN, HELD = "run/", "throttle/", "weight/", "drain/", "held/"
OWN = ("fn/", "run/fn/", THROTTLE)
"""What the keys begin with that no other function has."""

WEIGHT_MAX = 100


def prefix(kind: str, owner: str, expression: str | None) -> str:
    """What the ids of a setting's counters begin with. The expression is kept apart from the value that follows it."""
    return f"{kind}/{owner}/{(expression or '').replace('%', '%25').replace('/', '%2F')}/"


def evaluated(key: Expression, event: Mapping[str, Any], now_ms: int) -> Any:
    """The value of a key for an event; null where the event has nothing that it can work on."""
    try:
        return key.evaluate({"event": event}, now_ms=now_ms)
    except EvaluationError:
        return None


def of_value(prefix: str, value: Any) -> str:
    """The id that a key's value has under a prefix."""
    text = key_text(value)
    return prefix + (text if len(text) <= KEY_CHARS_MAX else digest(text))


def of_event(prefix: str, key: Expression | None, event: Mapping[str, Any], now_ms: int) -> str:
    """The id that an event has under a prefix; a setting without a key has one only."""
    return prefix if key is None else of_value(prefix, evaluated(key, event, now_ms))


def held_lane(run_id: str) -> str:
    """The lane in which the items of a paused run wait. It has no row, and no claim looks into it."""
    return HELD + run_id


def gates_starts_only(key: str) -> bool:
    """Whether the key keeps back runs that have not begun, and lets those go on that have."""
    return key.startswith((RUN, THROTTLE, DRAIN))


@lru_cache(maxsize=65536)
def of_calls(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that each leased call holds."""
    return tuple(key for key in keys if not key.startswith((RUN, THROTTLE, WEIGHT)))


@lru_cache(maxsize=65536)
def of_runs(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that the run holds from its start to its end."""
    return tuple(key for key in keys if key.startswith(RUN))


@lru_cache(maxsize=65536)
def of_throttles(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that the run's start takes a place of."""
    return tuple(key for key in keys if key.startswith(THROTTLE))


@lru_cache(maxsize=65536)
def counted(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that have a counter of what holds them."""
    return tuple(key for key in keys if not key.startswith((THROTTLE, WEIGHT)))


@lru_cache(maxsize=65536)
def gating(keys: tuple[str, ...]) -> tuple[str, ...]:
    """All keys that may refuse."""
    return tuple(key for key in keys if not key.startswith(WEIGHT))


@lru_cache(maxsize=65536)
def weight_of(keys: tuple[str, ...]) -> int:
    """The lane's weight among its function's; 1 where nothing says it."""
    return next((int(key.removeprefix(WEIGHT)) for key in keys if key.startswith(WEIGHT)), 1)
