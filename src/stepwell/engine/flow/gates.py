"""What an event says to a function's settings: every key and number, evaluated once, when a run is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.batch import BatchRule, compile_batch
from stepwell.engine.flow.concurrency import Limit, compile_limit
from stepwell.engine.flow.debounce import DebounceRule, compile_debounce
from stepwell.engine.flow.keys import RUN, THROTTLE, WEIGHT
from stepwell.engine.flow.priority import priority_ms
from stepwell.engine.flow.rate_limit import RateRule, compile_rate_limit
from stepwell.engine.flow.singleton import SingletonRule, compile_singleton
from stepwell.engine.flow.throttle import ThrottleRule, compile_throttle
from stepwell.protocol.functions import FunctionConfig


class Gates(msgspec.Struct, frozen=True):
    """The run's keys, by how much it goes ahead, and the rows that it has to pass: a rate, an open batch or debounce, a name."""

    keys: tuple[str, ...] = ()
    ahead_ms: int = 0
    rate: str | None = None
    batch: str | None = None
    debounce: str | None = None
    name: str | None = None


OPEN = Gates()
"""Nothing stands in the way."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """A function's flow-control settings, compiled."""

    limits: tuple[Limit, ...] = ()
    throttle: ThrottleRule | None = None
    rate_limit: RateRule | None = None
    debounce: DebounceRule | None = None
    batch: BatchRule | None = None
    singleton: SingletonRule | None = None
    priority: Expression | None = None

    @property
    def keyed(self) -> bool:
        """Whether runs get keys, so that their items wait in lanes."""
        return bool(self.limits) or self.throttle is not None

    @property
    def shape(self) -> tuple[str, ...]:
        """What a run's keys come from: with other ones, an event's lane is another one."""
        throttle = () if self.throttle is None else (self.throttle.prefix,)
        weights = (WEIGHT + limit.weight.text for limit in self.limits if limit.weight is not None)
        return (*throttle, *(limit.prefix for limit in self.limits), *weights)

    @property
    def has_many_lanes(self) -> bool:
        """Whether a key has an expression, so that each of its values has a lane."""
        return any(limit.key is not None for limit in self.limits) or (self.throttle is not None and self.throttle.key is not None)

    @property
    def calls_max(self) -> int | None:
        """The most calls that one lane can have out; `None`: there is no limit of calls."""
        return min((limit.limit for limit in self.limits if not limit.prefix.startswith(RUN)), default=None)

    def limit_of(self, key: str) -> int | None:
        """The limit of calls or runs that a stored key stands under today; `None` where its setting is gone and it gates no more."""
        for limit in self.limits:
            if key.startswith(limit.prefix):
                return limit.limit
        return None

    def throttle_of(self, key: str) -> ThrottleRule | None:
        """The throttle that a stored key stands under today."""
        throttle = self.throttle
        return throttle if throttle is not None and key.startswith(THROTTLE) and key.startswith(throttle.prefix) else None

    def keys(self, event: Mapping[str, Any], now_ms: int) -> tuple[str, ...]:
        """What gates a run's claims: its start over time, then whole runs, then calls (§11.2)."""
        if not self.keyed:
            return ()
        keys = [] if self.throttle is None else [self.throttle.counter(event, now_ms)]
        keys += [limit.counter(event, now_ms) for limit in self.limits]
        for limit in self.limits:
            if limit.weight is not None and (weight := limit.weight_key(event, now_ms)) is not None:
                return (*keys, weight)
        return tuple(keys)

    def gates(self, event: Mapping[str, Any], now_ms: int) -> Gates:
        """What the event says to every setting."""
        batch = None if self.batch is None else self.batch.hold_id(event, now_ms)
        return Gates(
            keys=self.keys(event, now_ms),
            ahead_ms=priority_ms(self.priority, event, now_ms),
            # A batched event skips the rate limit (§11.2).
            rate=None if self.rate_limit is None or batch is not None else self.rate_limit.counter(event, now_ms),
            batch=batch,
            debounce=None if self.debounce is None else self.debounce.hold_id(event, now_ms),
            name=None if self.singleton is None else self.singleton.name(event, now_ms),
        )


NO_RULES = Rules()


def compile_rules(function_id: str, config: FunctionConfig) -> Rules:
    """The settings of a configuration. A limit of 0 is none."""
    limits: dict[str, Limit] = {}
    for setting in sorted(config.concurrency, key=lambda setting: setting.per == "step"):
        limit = compile_limit(function_id, setting)
        # Two limits of the same key are one counter, and the smaller one holds.
        if setting.limit > 0 and (limit.prefix not in limits or limit.limit < limits[limit.prefix].limit):
            limits[limit.prefix] = limit
    return Rules(
        limits=tuple(limits.values()),
        throttle=None if config.throttle is None else compile_throttle(function_id, config.throttle),
        rate_limit=compile_rate_limit(function_id, config.rate_limit, config.idempotency),
        debounce=None if config.debounce is None else compile_debounce(function_id, config.debounce),
        batch=None if config.batch is None else compile_batch(function_id, config.batch),
        singleton=None if config.singleton is None else compile_singleton(function_id, config.singleton),
        priority=None if config.priority is None else compile_expression(config.priority),
    )
