"""Reads one function's configuration as apps tell it (inngest-protocol §3.4): checks what is known, ignores what is not.

An error names the field, its value and the fix. Keys come here in lower case and without nulls (`fold`), for SDKs differ in both.
A setting whose values are all zero or empty is absent: Go's SDK tells settings that were never made so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from stepwell.errors import ProtocolError
from stepwell.protocol.config import (
    BATCH_SIZE_MAX,
    CANCEL_MAX,
    CONCURRENCY_MAX,
    DEBOUNCE_PERIOD_MAX_MS,
    EXPRESSION_CHARS_MAX,
    JITTER_MAX_MS,
    JITTER_MIN_MS,
    NAME_CHARS_MAX,
    PERIOD_MIN_MS,
    RATE_LIMIT_PERIOD_MAX_MS,
    RETRIES_DEFAULT,
    RETRIES_MAX,
    TRIGGERS_MAX,
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    FunctionConfig,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    Trigger,
)
from stepwell.protocol.cron import parse_cron
from stepwell.protocol.durations import format_duration, parse_date_ms, parse_duration_ms
from stepwell.protocol.queues import (
    BATCH_SIZE_DEFAULT,
    BATCH_TIMEOUT_MS_MAX,
    DELAY_MS_MAX,
    EVENT_PREFIX,
    MAX_RETRIES_DEFAULT,
    MAX_RETRIES_MAX,
    RETENTION_MS_MAX,
    RETENTION_MS_MIN,
    Consumer,
    checked_name,
)
from stepwell.protocol.queues import BATCH_SIZE_MAX as BATCH_MAX
from stepwell.protocol.queues import CONCURRENCY_MAX as CONCURRENCY_OF_QUEUE_MAX

Fields = dict[str, Any]
Setting = TypeVar("Setting")
URL_SCHEMES = frozenset({"http", "https", "ws", "wss"})


def fold(value: Any) -> Any:
    """Keys in lower case, nulls dropped, at every level; of keys that differ only in case the last one counts."""
    if isinstance(value, dict):
        return {key.lower(): fold(item) for key, item in value.items() if item is not None}
    return [fold(item) for item in value] if isinstance(value, list) else value


def read_function(value: Any) -> FunctionConfig:
    """One function of a register body. Raises `ProtocolError` naming the function and what is wrong with it."""
    fields = fold(value)
    if not isinstance(fields, dict):
        raise ProtocolError(f"a function must be an object, not {value!r:.60}")
    slug = _name(fields, "id", "functions[].id")
    if not slug:
        raise ProtocolError("functions[].id is missing: a function is known by its id")
    try:
        return _function(slug, fields)
    except ProtocolError as error:
        raise ProtocolError(f"function {slug!r}: {error}") from None


def _function(slug: str, fields: Fields) -> FunctionConfig:
    name = _name(fields, "name", "name")
    if not name:
        raise ProtocolError("name is empty: give the function a name")
    step = _step(fields)
    config = FunctionConfig(
        id=slug,
        name=name,
        triggers=_triggers(_list(fields.get("triggers", []), "triggers")),
        url=_url(_dict(step.get("runtime", {}), "steps.step.runtime")),
        retries=_retries(step, fields),
        concurrency=_concurrency(fields.get("concurrency")),
        throttle=_setting(fields, "throttle", _throttle),
        rate_limit=_setting(fields, "rateLimit", _rate_limit),
        idempotency=_expression(fields, "idempotency"),
        debounce=_setting(fields, "debounce", _debounce),
        batch=_setting(fields, "batchEvents", _batch),
        priority=_setting(fields, "priority", lambda priority: _expression(priority, "run", "priority.")),
        cancel=_cancel(_list(fields.get("cancel", []), "cancel")),
        singleton=_setting(fields, "singleton", _singleton),
        timeouts=_setting(fields, "timeouts", _timeouts),
        consumer=_consumer(fields.get("consumer")),
    )
    if config.consumer is not None and [trigger.queue is not None for trigger in config.triggers] != [True]:
        raise ProtocolError("consumer needs exactly one trigger, the queue that it consumes")
    if config.consumer is not None and config.consumer.dead_letter == config.triggers[0].queue:
        raise ProtocolError(f"the dead-letter queue of queue {config.triggers[0].queue!r} cannot be itself: name another queue")
    if config.batch is not None:
        for other in ("cancel", "debounce", "singleton", "priority"):
            if getattr(config, other):
                raise ProtocolError(f"batchEvents cannot be combined with {other}: remove one of them")
    return config


def _step(fields: Fields) -> Fields:
    """The one entry of `steps`. A function that is not called over a URL may leave it out."""
    steps = _dict(fields.get("steps", {}), "steps")
    if len(steps) > 1:
        raise ProtocolError(f"steps has {len(steps)} entries; it must have one, named step")
    return _dict(next(iter(steps.values()), {}), "steps.step")


def _url(runtime: Fields) -> str:
    kind = runtime.get("type", "http")
    if kind not in ("http", "ws"):
        raise ProtocolError(f"steps.step.runtime.type {kind!r} is neither http nor ws")
    url = _text(runtime, "url", "steps.step.runtime.")
    try:
        parts = urlsplit(url)
        absolute = parts.scheme in URL_SCHEMES and parts.hostname is not None
    except ValueError:
        absolute = False
    if url and not absolute:
        raise ProtocolError(f"steps.step.runtime.url {url!r} must be absolute, like http://localhost:3000/api/inngest?fnId=…&stepId=step")
    return url


def _retries(step: Fields, fields: Fields) -> int:
    """Of the step, else of the function, else the default; more than may be is taken as what may be."""
    for where, retries in (("steps.step.retries", step.get("retries")), ("retries", fields.get("retries"))):
        if isinstance(retries, dict):
            where, retries = f"{where}.attempts", retries.get("attempts")
        if retries is not None:
            return min(_whole(retries, where, at_least=0), RETRIES_MAX)
    return RETRIES_DEFAULT


def _triggers(value: list[Any]) -> tuple[Trigger, ...]:
    if len(value) > TRIGGERS_MAX:
        raise ProtocolError(f"triggers has {len(value)} entries; at most {TRIGGERS_MAX} are taken")
    triggers: dict[tuple[str | None, str | None, str | None, str | None], Trigger] = {}
    for item in value:
        trigger = _trigger(_dict(item, "triggers[]"))
        same = (trigger.event, trigger.expression, trigger.cron, trigger.queue)
        if same in triggers:
            raise ProtocolError(f"the trigger {trigger.event or trigger.cron or trigger.queue!r} is there twice: remove one")
        triggers[same] = trigger
    return tuple(triggers.values())


def _trigger(fields: Fields) -> Trigger:
    event, cron, queue = (_name(fields, key, f"triggers[].{key}") for key in ("event", "cron", "queue"))
    if bool(event) + bool(cron) + bool(queue) != 1:
        raise ProtocolError(f"a trigger has either an event or a cron or a queue, not {fields!r:.80}")
    if queue or event.startswith(EVENT_PREFIX):
        return Trigger(queue=checked_name(queue or event.removeprefix(EVENT_PREFIX)))
    if not cron:
        return Trigger(event=check_event_pattern(event), expression=_expression(fields, "expression", "triggers[]."))
    parse_cron(cron)
    catchup = fields.get("catchup")
    if catchup not in (None, "last", "all"):
        raise ProtocolError(f"triggers[].catchup {catchup!r} is neither last nor all")
    return Trigger(cron=cron, jitter_ms=_optional_ms(fields, "jitter", "triggers[].", JITTER_MIN_MS, JITTER_MAX_MS), catchup=catchup)


def check_event_pattern(event: str) -> str:
    """The name of a trigger's event, or of several: a `*` may stand at its end, directly behind `/` or `.` (§2.5)."""
    if "*" in event[:-1] or (event.endswith("*") and event[-2:-1] not in ("/", ".")):
        raise ProtocolError(f"the event {event!r} has a * that is not at its end, directly behind / or .")
    return event


def _concurrency(value: Any) -> tuple[Concurrency, ...]:
    """A number, a limit, an array of limits; or `{"fn": [limits of runs], "step": [limits of calls]}`."""
    if value is None:
        return ()
    if isinstance(value, dict) and "limit" not in value and value.keys() & {"fn", "step"}:
        runs = [_limit(item, "concurrency.fn", "run") for item in _several(value.get("fn", []))]
        calls = [_limit(item, "concurrency.step", "step") for item in _several(value.get("step", []))]
        if len(runs) > 1:
            raise ProtocolError(f"concurrency.fn has {len(runs)} limits; it takes one")
    else:
        runs, calls = [], [_limit(item, "concurrency", "step") for item in _several(value)]
    if len(calls) > CONCURRENCY_MAX:
        raise ProtocolError(f"concurrency has {len(calls)} limits; at most {CONCURRENCY_MAX} are taken")
    return (*runs, *calls)


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value != {} else []


def _limit(value: Any, where: str, per: Literal["step", "run"]) -> Concurrency:
    fields = _dict(value, where) if not isinstance(value, int | float) else {"limit": value}
    scope: Any = fields.get("scope") or "fn"
    if scope not in ("fn", "env", "account"):
        raise ProtocolError(f"{where}.scope {scope!r} is none of fn, env, account")
    key = _expression(fields, "key", f"{where}.")
    if scope != "fn" and key is None:
        raise ProtocolError(f"{where}.scope {scope!r} needs a key, by which functions share the limit")
    limit = _whole(fields.get("limit", 0), f"{where}.limit", at_least=0)
    weight = _expression(fields, "weight", f"{where}.")
    if weight is not None and key is None:
        raise ProtocolError(f"{where}.weight needs a key: it weighs the key's values against each other")
    return Concurrency(limit=limit, key=key, scope=scope, per=per, weight=weight)


def _throttle(fields: Fields) -> Throttle:
    return Throttle(
        limit=max(1, _whole(fields.get("limit", 1), "throttle.limit", at_least=0)),
        period_ms=_ms(fields.get("period"), "throttle.period", PERIOD_MIN_MS),
        burst=_whole(fields.get("burst", 0), "throttle.burst", at_least=0),
        key=_expression(fields, "key", "throttle."),
    )


def _rate_limit(fields: Fields) -> RateLimit:
    return RateLimit(
        limit=_whole(fields.get("limit"), "rateLimit.limit", at_least=1),
        period_ms=_ms(fields.get("period"), "rateLimit.period", PERIOD_MIN_MS, RATE_LIMIT_PERIOD_MAX_MS),
        key=_expression(fields, "key", "rateLimit."),
    )


def _debounce(fields: Fields) -> Debounce:
    return Debounce(
        period_ms=_ms(fields.get("period"), "debounce.period", PERIOD_MIN_MS, DEBOUNCE_PERIOD_MAX_MS),
        key=_expression(fields, "key", "debounce."),
        timeout_ms=_optional_ms(fields, "timeout", "debounce.", PERIOD_MIN_MS),
    )


def _batch(fields: Fields) -> Batch:
    return Batch(
        max_size=_whole(fields.get("maxsize"), "batchEvents.maxSize", at_least=2, at_most=BATCH_SIZE_MAX),
        timeout_ms=_ms(fields.get("timeout"), "batchEvents.timeout", PERIOD_MIN_MS),
        key=_expression(fields, "key", "batchEvents."),
        where=_expression(fields, "if", "batchEvents."),
    )


def _cancel(value: list[Any]) -> tuple[Cancel, ...]:
    if len(value) > CANCEL_MAX:
        raise ProtocolError(f"cancel has {len(value)} entries; at most {CANCEL_MAX} are taken")
    rules = []
    for item in value:
        fields = _dict(item, "cancel[]")
        event, timeout = _name(fields, "event", "cancel[].event"), _text(fields, "timeout", "cancel[].")
        if not event:
            raise ProtocolError("cancel[].event is missing: it names the event that cancels")
        if timeout and parse_date_ms(timeout) is None:
            _ms(timeout, "cancel[].timeout", 0)
        rules.append(Cancel(event=event, where=_expression(fields, "if", "cancel[]."), timeout=timeout or None))
    return tuple(rules)


def _singleton(fields: Fields) -> Singleton:
    mode = fields.get("mode")
    if mode not in ("skip", "cancel"):
        raise ProtocolError(f"singleton.mode {mode!r} is neither skip nor cancel")
    return Singleton(mode=mode, key=_expression(fields, "key", "singleton."))


def _timeouts(fields: Fields) -> Timeouts | None:
    start_ms, finish_ms = _optional_ms(fields, "start", "timeouts.", 0), _optional_ms(fields, "finish", "timeouts.", 0)
    return None if start_ms is None and finish_ms is None else Timeouts(start_ms=start_ms, finish_ms=finish_ms)


def _consumer(value: Any) -> Consumer | None:
    """The settings of a queue's consumer; an empty object takes the defaults."""
    if value is None:
        return None
    fields = _dict(value, "consumer")
    dead_letter = _text(fields, "deadletter", "consumer.")
    return Consumer(
        max_batch_size=_whole(fields.get("maxbatchsize", BATCH_SIZE_DEFAULT), "consumer.maxBatchSize", at_least=1, at_most=BATCH_MAX),
        max_batch_timeout_ms=_ms(fields.get("maxbatchtimeout", "5s"), "consumer.maxBatchTimeout", 0, BATCH_TIMEOUT_MS_MAX),
        max_retries=_whole(fields.get("maxretries", MAX_RETRIES_DEFAULT), "consumer.maxRetries", at_least=0, at_most=MAX_RETRIES_MAX),
        retry_delay_ms=_ms(fields.get("retrydelay", "0s"), "consumer.retryDelay", 0, DELAY_MS_MAX),
        max_concurrency=_whole(
            fields.get("maxconcurrency", CONCURRENCY_OF_QUEUE_MAX), "consumer.maxConcurrency", at_least=1, at_most=CONCURRENCY_OF_QUEUE_MAX
        ),
        dead_letter=checked_name(dead_letter, "a dead-letter queue") if dead_letter else "",
        retention_ms=_optional_ms(fields, "retention", "consumer.", RETENTION_MS_MIN, RETENTION_MS_MAX),
    )


def _setting(fields: Fields, name: str, read: Callable[[Fields], Setting]) -> Setting | None:
    value = fields.get(name.lower())
    if value is None or not any(_dict(value, name).values()):
        return None
    return read(value)


def _dict(value: Any, where: str) -> Fields:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} must be an object, not {value!r:.60}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError(f"{where} must be an array, not {value!r:.60}")
    return value


def _text(fields: Fields, key: str, where: str = "") -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise ProtocolError(f"{where}{key} must be a string, not {value!r:.60}")
    return value


def _name(fields: Fields, key: str, where: str) -> str:
    value = _text(fields, key, where.removesuffix(key))
    if len(value) > NAME_CHARS_MAX:
        raise ProtocolError(f"{where} {value[:40]!r}… has {len(value)} characters; at most {NAME_CHARS_MAX} are taken")
    return value


def _expression(fields: Fields, key: str, where: str = "") -> str | None:
    value = _text(fields, key, where)
    if len(value) > EXPRESSION_CHARS_MAX:
        raise ProtocolError(f"{where}{key} has {len(value)} characters; an expression has at most {EXPRESSION_CHARS_MAX}")
    return value or None


def _whole(value: Any, where: str, *, at_least: int, at_most: int = 2**31 - 1) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProtocolError(f"{where} must be a whole number, not {value!r:.60}")
    if not at_least <= value <= at_most:
        raise ProtocolError(f"{where} is {value}; it must be between {at_least} and {at_most}")
    return value


def _ms(value: Any, where: str, at_least_ms: int, at_most_ms: int | None = None) -> int:
    if not isinstance(value, str):
        raise ProtocolError(f'{where} must be a duration like "30s" or "1h30m", not {value!r:.60}')
    try:
        ms = parse_duration_ms(value)
    except ProtocolError as error:
        raise ProtocolError(f"{where}: {error}") from None
    if ms < at_least_ms or (at_most_ms is not None and ms > at_most_ms):
        most = "" if at_most_ms is None else f" and at most {format_duration(at_most_ms)}"
        raise ProtocolError(f"{where} is {value!r}; it must be at least {format_duration(at_least_ms)}{most}")
    return ms


def _optional_ms(fields: Fields, key: str, where: str, at_least_ms: int, at_most_ms: int | None = None) -> int | None:
    value = fields.get(key)
    return None if value is None or value == "" else _ms(value, where + key, at_least_ms, at_most_ms)
