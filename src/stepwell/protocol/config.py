"""Function configurations as decisions read them and tables store them: durations in milliseconds, defaults filled in."""

from __future__ import annotations

from typing import Literal

import msgspec

from stepwell.protocol.codec import Json
from stepwell.protocol.queues import Consumer, event_name

TRIGGERS_MAX = 10
CONCURRENCY_MAX = 2
CANCEL_MAX = 5
RETRIES_MAX = 20
RETRIES_DEFAULT = 4
"""Tries after the first one."""
BATCH_SIZE_MAX = 100
NAME_CHARS_MAX = 255
EXPRESSION_CHARS_MAX = 4096
DAY_MS = 24 * 3600 * 1000
PRIORITY_MAX_S = 43200
PERIOD_MIN_MS = 1_000
"""Of a throttle, a rate limit, a debounce and its timeout, a batch's timeout."""
RATE_LIMIT_PERIOD_MAX_MS = DAY_MS
DEBOUNCE_PERIOD_MAX_MS = 7 * DAY_MS
JITTER_MIN_MS = 1_000
JITTER_MAX_MS = 300_000


class _Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every setting is."""


class Trigger(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """An event name (or pattern) with an optional expression; a queue, whose messages start runs or are delivered in batches; or a cron
    line with an optional jitter and making up of missed ticks.
    """

    event: str | None = None
    expression: str | None = None
    queue: str | None = None
    cron: str | None = None
    jitter_ms: int | None = None
    catchup: Literal["last", "all"] | None = None

    @property
    def event_name(self) -> str | None:
        """The name of the events that it wants, a queue's too; `None` for a cron line."""
        return event_name(self.queue) if self.queue is not None else self.event


class Concurrency(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """A limit of calls (`per` step) or of whole runs (`per` run). Limit 0: unlimited. `weight`: how much of the share a value has."""

    limit: int
    key: str | None = None
    scope: Literal["fn", "env", "account"] = "fn"
    per: Literal["step", "run"] = "step"
    weight: str | None = None


class Throttle(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """Run starts per period; the others wait."""

    limit: int
    period_ms: int
    burst: int = 0
    key: str | None = None


class RateLimit(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """Runs per period; the others are dropped."""

    limit: int
    period_ms: int
    key: str | None = None


class Debounce(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """Runs once, a period after the last event, at the latest `timeout_ms` after the first."""

    period_ms: int
    key: str | None = None
    timeout_ms: int | None = None


class Batch(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """Runs with several events. `where` says which events are batched."""

    max_size: int
    timeout_ms: int
    key: str | None = None
    where: str | None = None


class Cancel(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """An event that ends runs. `timeout` says until when it may: a duration or a date, as given."""

    event: str
    where: str | None = None
    timeout: str | None = None


class Singleton(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """One run at a time: the new one is skipped, or the old one cancelled."""

    mode: Literal["skip", "cancel"]
    key: str | None = None


class Timeouts(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """How long a run may wait for its start, and take from there."""

    start_ms: int | None = None
    finish_ms: int | None = None


class FunctionConfig(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """A function: `id` is the composite slug, `url` where its calls go (empty: not over HTTP).

    `idempotency` stands for a rate limit of one run per value and day, and goes before `rate_limit` (§3.4). With a `consumer` it is not
    run: the batches of the queue that triggers it are delivered to it.
    """

    id: str
    name: str
    triggers: tuple[Trigger, ...] = ()
    url: str = ""
    retries: int = RETRIES_DEFAULT
    concurrency: tuple[Concurrency, ...] = ()
    throttle: Throttle | None = None
    rate_limit: RateLimit | None = None
    idempotency: str | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    priority: str | None = None
    cancel: tuple[Cancel, ...] = ()
    singleton: Singleton | None = None
    timeouts: Timeouts | None = None
    consumer: Consumer | None = None


class Override(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """What a person has changed of a function since its sync: limits by their place, its throttle, its weight among others.

    The next sync says otherwise, unless it is pinned.
    """

    limits: dict[str, int] = {}
    throttle: Throttle | None = None
    weight: int | None = None
    pinned: bool = False


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """An app and its functions, as it registers itself. `checksum` is of what was told, whatever its order."""

    app_name: str
    url: str
    sdk: str
    framework: str
    app_version: str
    functions: tuple[FunctionConfig, ...]
    checksum: str


_stored = msgspec.json.Decoder(FunctionConfig)
_override = msgspec.json.Decoder(Override)
_encoder = msgspec.json.Encoder(order="sorted")


def config_json(config: FunctionConfig) -> Json:
    """The configuration as it is stored: canonical, what is at its default left out."""
    return _encoder.encode(config)


def config_from_json(stored: Json) -> FunctionConfig:
    """A stored configuration."""
    return _stored.decode(stored)


def override_json(override: Override) -> Json:
    """An override as it is stored."""
    return _encoder.encode(override)


def override_from_json(stored: Json) -> Override:
    """A stored override."""
    return _override.decode(stored)


def overridden(config: FunctionConfig, override: Override) -> FunctionConfig:
    """The configuration with what a person has changed. `limits` names a limit by its place, from 0; one beyond the others is new."""
    limits = list(config.concurrency)
    for place, limit in sorted(override.limits.items(), key=lambda item: int(item[0])):
        if int(place) < len(limits):
            limits[int(place)] = msgspec.structs.replace(limits[int(place)], limit=limit)
        else:
            limits.append(Concurrency(limit=limit))
    throttle = override.throttle if override.throttle is not None else config.throttle
    return msgspec.structs.replace(config, concurrency=tuple(limits), throttle=throttle)
