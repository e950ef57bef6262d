"""Function configurations as apps tell them, and the register body around them (inngest-protocol §3).

A body is decoded to plain dicts first: keys are matched by lower case, nulls dropped, unknown keys ignored. What is known is
checked, and an error names the function, the field, the value and the fix.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, decode
from stepwell.protocol.durations import parse_duration_ms

TRIGGERS_MAX = 10
CONCURRENCY_MAX = 2
CANCEL_MAX = 5
RETRIES_MAX = 20
RETRIES_DEFAULT = 4
NAME_CHARS_MAX = 255
FUNCTIONS_MAX = 1000
DAY_MS = 24 * 3600 * 1000
PRIORITY_MAX_S = 43200


class _Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every setting is."""


class Trigger(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """An event name (or pattern) with an optional expression; or a cron line with an optional jitter."""

    event: str | None = None
    expression: str | None = None
    cron: str | None = None
    jitter_ms: int | None = None


class Concurrency(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """A limit of calls (`per` step) or of whole runs (`per` run). Limit 0: unlimited."""

    limit: int
    key: str | None = None
    scope: Literal["fn", "env", "account"] = "fn"
    per: Literal["step", "run"] = "step"


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
    """Runs once, a period after the last event."""

    period_ms: int
    key: str | None = None
    timeout_ms: int | None = None


class Batch(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """Runs with several events."""

    max_size: int
    timeout_ms: int
    key: str | None = None
    where: str | None = None


class Cancel(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """An event that ends runs. `timeout` is a duration or a date, as given."""

    event: str
    where: str | None = None
    timeout: str | None = None


class Singleton(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """One run at a time."""

    mode: Literal["skip", "cancel"]
    key: str | None = None


class Timeouts(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """How long a run may wait for its start, and take from there."""

    start_ms: int | None = None
    finish_ms: int | None = None


class FunctionConfig(_Config, frozen=True, kw_only=True, omit_defaults=True):
    """A function: `id` is the composite slug, `url` where its calls go (empty: not over HTTP)."""

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


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """An app and its functions, as it registers itself. `checksum` is of what was told."""

    app_name: str
    url: str
    sdk: str
    framework: str
    app_version: str
    functions: tuple[FunctionConfig, ...]
    checksum: str


_stored = msgspec.json.Decoder(FunctionConfig)


def config_json(config: FunctionConfig) -> Json:
    """The configuration as it is stored."""
    return msgspec.json.encode(config)


def config_from_json(text: Json) -> FunctionConfig:
    """A stored configuration."""
    return _stored.decode(text)


def parse_registration(body: bytes) -> Registration:
    """The registration of a register body. Raises `ProtocolError` (400) naming what is wrong."""
    fields = _folded(decode(body))
    if not isinstance(fields, dict):
        raise ProtocolError("the register body must be a JSON object")
    app_name = _str(fields.get("appname"), "appName")
    if not app_name:
        raise ProtocolError("appName is missing: an app is known by its name")
    functions = fields.get("functions") or []
    if not isinstance(functions, list):
        raise ProtocolError("functions must be an array")
    if len(functions) > FUNCTIONS_MAX:
        raise ProtocolError(f"{len(functions)} functions; at most {FUNCTIONS_MAX} are taken")
    configs = tuple(parse_function(function) for function in functions)
    ids = [config.id for config in configs]
    doubled = next((slug for slug in ids if ids.count(slug) > 1), None)
    if doubled is not None:
        raise ProtocolError(f"two functions have the id {doubled!r}: give one of them another")
    told = canonical([decode(config_json(config)) for config in configs])
    version = _str(fields.get("appversion"), "appVersion")
    return Registration(
        app_name=app_name,
        url=_str(fields.get("url"), "url"),
        sdk=_str(fields.get("sdk"), "sdk"),
        framework=_str(fields.get("framework"), "framework"),
        app_version=version,
        functions=configs,
        checksum=hashlib.sha256(told + version.encode()).hexdigest(),
    )


def _folded(value: Any) -> Any:
    """Keys in lower case and without underscores' meaning changed, nulls dropped, at every level."""
    if isinstance(value, dict):
        return {key.lower(): _folded(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_folded(item) for item in value]
    return value


def parse_function(value: Any) -> FunctionConfig:
    """One function of a register body, keys folded to lower case."""
    fields = _folded(value)
    if not isinstance(fields, dict):
        raise ProtocolError(f"a function must be an object, not {value!r}")
    slug = _str(fields.get("id"), "functions[].id")
    if not slug:
        raise ProtocolError("functions[].id is missing")
    try:
        return _function(slug, fields)
    except ProtocolError as error:
        raise ProtocolError(f"function {slug!r}: {error}") from None


def _function(slug: str, fields: dict[str, Any]) -> FunctionConfig:
    name = _str(fields.get("name"), "name")
    if not name:
        raise ProtocolError("name is empty: give the function a name")
    steps = _dict(fields.get("steps") or {}, "steps")
    if len(steps) > 1:
        raise ProtocolError(f"steps must have exactly one entry, not {len(steps)}")
    step = _dict(next(iter(steps.values()), {}), "steps.step")
    runtime = _dict(step.get("runtime") or {}, "steps.step.runtime")
    url = _str(runtime.get("url"), "steps.step.runtime.url")
    if url and "://" not in url:
        raise ProtocolError(f"steps.step.runtime.url {url!r} must be absolute, like http://localhost:3000/api/inngest")
    throttle, rate_limit = fields.get("throttle"), fields.get("ratelimit")
    config = FunctionConfig(
        id=slug,
        name=name,
        triggers=_triggers(fields.get("triggers") or []),
        url=url,
        retries=_retries(fields, step),
        concurrency=_concurrency(fields.get("concurrency")),
        throttle=None if throttle is None else _throttle(_dict(throttle, "throttle")),
        rate_limit=None if rate_limit is None else _rate_limit(_dict(rate_limit, "rateLimit")),
        idempotency=_expr(fields.get("idempotency"), "idempotency"),
        debounce=_debounce(fields.get("debounce")),
        batch=_batch(fields.get("batchevents")),
        priority=_expr(_dict(fields.get("priority") or {}, "priority").get("run"), "priority.run"),
        cancel=_cancel(fields.get("cancel") or []),
        singleton=_singleton(fields.get("singleton")),
        timeouts=_timeouts(fields.get("timeouts")),
    )
    if config.batch is not None:
        for setting in ("cancel", "debounce", "singleton", "priority"):
            if getattr(config, setting):
                raise ProtocolError(f"batchEvents cannot be combined with {setting}: remove one of them")
    return config


def _retries(fields: dict[str, Any], step: dict[str, Any]) -> int:
    retries = step.get("retries", fields.get("retries"))
    if isinstance(retries, dict):
        retries = retries.get("attempts")
    if retries is None:
        return RETRIES_DEFAULT
    return min(_int(retries, "retries.attempts", at_least=0), RETRIES_MAX)


def _triggers(value: Any) -> tuple[Trigger, ...]:
    triggers = [_trigger(_dict(item, "triggers[]")) for item in _list(value, "triggers")]
    if len(triggers) > TRIGGERS_MAX:
        raise ProtocolError(f"{len(triggers)} triggers; at most {TRIGGERS_MAX} are taken")
    for i, trigger in enumerate(triggers):
        same = [
            other
            for other in triggers[:i]
            if (other.event, other.expression, other.cron) == (trigger.event, trigger.expression, trigger.cron)
        ]
        if same:
            raise ProtocolError(f"the trigger {trigger.event or trigger.cron!r} is there twice: remove one")
    return tuple(triggers)


def _trigger(fields: dict[str, Any]) -> Trigger:
    event, cron = _str(fields.get("event"), "triggers[].event"), _str(fields.get("cron"), "triggers[].cron")
    if bool(event) == bool(cron):
        raise ProtocolError("a trigger has either an event or a cron")
    if len(event or cron) > NAME_CHARS_MAX:
        raise ProtocolError(f"a trigger's event or cron has more than {NAME_CHARS_MAX} characters")
    if cron:
        check_cron(cron)
        jitter = fields.get("jitter")
        return Trigger(cron=cron, jitter_ms=None if jitter is None else _duration(jitter, "jitter", 1_000, 300_000))
    if "*" in event[:-1] or (event.endswith("*") and event[-2:-1] not in ("/", ".")):
        raise ProtocolError(f"event {event!r}: a `*` may only stand at the end, directly behind `/` or `.`")
    return Trigger(event=event, expression=_expr(fields.get("expression"), "triggers[].expression"))


def check_cron(text: str) -> None:
    """Raise `ProtocolError` for what is no cron line: five fields, perhaps behind `TZ=Area/City `."""
    head, _, rest = text.partition(" ")
    line = rest if head.startswith(("TZ=", "CRON_TZ=")) else text
    if len(line.split()) != 5:
        raise ProtocolError(f"cron {text!r} must have five fields: minute, hour, day of month, month, day of week")
    if not all(letter.isalnum() or letter in " \t*/,-?#" for letter in line):
        raise ProtocolError(f"cron {text!r} holds a letter that no cron line has")


def _concurrency(value: Any) -> tuple[Concurrency, ...]:
    if value is None:
        return ()
    if isinstance(value, dict) and ("fn" in value or "step" in value) and "limit" not in value:
        per_run = [_one_limit(item, "run") for item in _list(value.get("fn") or [], "concurrency.fn")]
        per_step = [_one_limit(item, "step") for item in _list(value.get("step") or [], "concurrency.step")]
        if len(per_run) > 1:
            raise ProtocolError("concurrency.fn takes one limit")
        limits = per_run + per_step
    else:
        limits = [_one_limit(item, "step") for item in (value if isinstance(value, list) else [value])]
    if len([limit for limit in limits if limit.per == "step"]) > CONCURRENCY_MAX:
        raise ProtocolError(f"{len(limits)} concurrency limits; at most {CONCURRENCY_MAX} are taken")
    return tuple(limits)


def _one_limit(value: Any, per: Literal["step", "run"]) -> Concurrency:
    fields = {"limit": value} if isinstance(value, int) and not isinstance(value, bool) else _dict(value, "concurrency")
    scope = fields.get("scope", "fn")
    if scope not in ("fn", "env", "account"):
        raise ProtocolError(f"concurrency.scope {scope!r} is none of fn, env, account")
    key = _expr(fields.get("key"), "concurrency.key")
    if scope != "fn" and key is None:
        raise ProtocolError(f"concurrency.scope {scope!r} needs a key")
    return Concurrency(limit=_int(fields.get("limit", 0), "concurrency.limit", at_least=0), key=key, scope=scope, per=per)


def _throttle(fields: dict[str, Any]) -> Throttle:
    return Throttle(
        limit=max(1, _int(fields.get("limit", 1), "throttle.limit", at_least=0)),
        period_ms=_duration(fields.get("period"), "throttle.period", 1_000, None),
        burst=_int(fields.get("burst", 0), "throttle.burst", at_least=0),
        key=_expr(fields.get("key"), "throttle.key"),
    )


def _rate_limit(fields: dict[str, Any]) -> RateLimit:
    return RateLimit(
        limit=_int(fields.get("limit"), "rateLimit.limit", at_least=1),
        period_ms=_duration(fields.get("period"), "rateLimit.period", 1_000, DAY_MS),
        key=_expr(fields.get("key"), "rateLimit.key"),
    )


def _debounce(value: Any) -> Debounce | None:
    if value is None:
        return None
    fields = _dict(value, "debounce")
    timeout = fields.get("timeout")
    return Debounce(
        period_ms=_duration(fields.get("period"), "debounce.period", 1_000, 7 * DAY_MS),
        key=_expr(fields.get("key"), "debounce.key"),
        timeout_ms=None if timeout is None else _duration(timeout, "debounce.timeout", 1_000, None),
    )


def _batch(value: Any) -> Batch | None:
    if value is None:
        return None
    fields = _dict(value, "batchEvents")
    return Batch(
        max_size=_int(fields.get("maxsize"), "batchEvents.maxSize", at_least=2, at_most=100),
        timeout_ms=_duration(fields.get("timeout"), "batchEvents.timeout", 1_000, None),
        key=_expr(fields.get("key"), "batchEvents.key"),
        where=_expr(fields.get("if"), "batchEvents.if"),
    )


def _cancel(value: Any) -> tuple[Cancel, ...]:
    rules = []
    for item in _list(value, "cancel"):
        fields = _dict(item, "cancel[]")
        event = _str(fields.get("event"), "cancel[].event")
        if not event:
            raise ProtocolError("cancel[].event is missing")
        timeout = fields.get("timeout")
        where = _expr(fields.get("if"), "cancel[].if")
        rules.append(Cancel(event=event, where=where, timeout=None if timeout is None else _str(timeout, "cancel[].timeout")))
    if len(rules) > CANCEL_MAX:
        raise ProtocolError(f"{len(rules)} cancel rules; at most {CANCEL_MAX} are taken")
    return tuple(rules)


def _singleton(value: Any) -> Singleton | None:
    if value is None:
        return None
    fields = _dict(value, "singleton")
    mode = fields.get("mode", "skip")
    if mode not in ("skip", "cancel"):
        raise ProtocolError(f"singleton.mode {mode!r} is neither skip nor cancel")
    return Singleton(mode=mode, key=_expr(fields.get("key"), "singleton.key"))


def _timeouts(value: Any) -> Timeouts | None:
    if value is None:
        return None
    fields = _dict(value, "timeouts")
    start, finish = fields.get("start"), fields.get("finish")
    return Timeouts(
        start_ms=None if start is None else _duration(start, "timeouts.start", 0, None),
        finish_ms=None if finish is None else _duration(finish, "timeouts.finish", 0, None),
    )


def _dict(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{field} must be an object, not {value!r}")
    return value


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError(f"{field} must be an array, not {value!r}")
    return value


def _str(value: Any, field: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ProtocolError(f"{field} must be a string, not {value!r}")
    return value


def _expr(value: Any, field: str) -> str | None:
    return _str(value, field) or None


def _int(value: Any, field: str, *, at_least: int, at_most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProtocolError(f"{field} must be a whole number, not {value!r}")
    if value < at_least or (at_most is not None and value > at_most):
        bounds = f"at least {at_least}" if at_most is None else f"between {at_least} and {at_most}"
        raise ProtocolError(f"{field} is {value}; it must be {bounds}")
    return value


def _duration(value: Any, field: str, at_least_ms: int, at_most_ms: int | None) -> int:
    if not isinstance(value, str):
        raise ProtocolError(f'{field} must be a duration like "30s" or "1h30m", not {value!r}')
    ms = parse_duration_ms(value)
    if ms < at_least_ms or (at_most_ms is not None and ms > at_most_ms):
        bounds = f"at least {at_least_ms} ms" + ("" if at_most_ms is None else f" and at most {at_most_ms} ms")
        raise ProtocolError(f"{field} is {value!r}; it must be {bounds}")
    return ms
