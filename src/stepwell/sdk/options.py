"""The settings of a function as users write them, checked and turned into their wire form (inngest-protocol §3.4).

Each setting is a small frozen class whose `wire(where)` checks its values; `where` names function and option, so that an error at
import names function, option, value and fix. Expressions are checked by the server, which has the evaluator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.config import BATCH_SIZE_MAX, CANCEL_MAX, CONCURRENCY_MAX, DAY_MS, NAME_CHARS_MAX, RETRIES_MAX, TRIGGERS_MAX
from stepwell.protocol.cron import check_cron
from stepwell.protocol.durations import format_duration
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.event import Event, name_of

Wire = dict[str, Any]
Catchup = Literal["last", "all"]
"""Which of the ticks of a schedule that were missed are made up."""


@dataclass(frozen=True)
class Trigger:
    """What starts runs; made by `on` and `cron`."""

    event: str | None = None
    where: str | None = None
    cron: str | None = None
    jitter: Duration | None = None
    catchup: Catchup | None = None
    schema: type[Event] | None = None
    queue: str | None = None

    def wire(self, where: str) -> Wire:
        """The trigger's wire form."""
        if self.queue is not None:
            return {"queue": self.queue}
        if self.cron is not None:
            wire: Wire = {"cron": self.cron}
            try:
                check_cron(self.cron)
            except ProtocolError as error:
                raise UsageError(f"{where}: {error}") from None
            if self.jitter is not None:
                wire["jitter"] = _period(self.jitter, f"{where}: jitter of cron {self.cron!r}", 1_000, 300_000)
            if self.catchup is not None:
                _one_of(self.catchup, f"{where}: catchup of cron {self.cron!r}", ("last", "all"))
                wire["catchup"] = self.catchup
            return wire
        name = self.event or ""
        if not name or len(name) > NAME_CHARS_MAX:
            raise UsageError(f"{where}: the event name {name!r} must have 1 to {NAME_CHARS_MAX} characters")
        if "*" in name[:-1] or (name.endswith("*") and name[-2:-1] not in ("/", ".")):
            raise UsageError(f'{where}: {name!r} is no pattern: a * may only stand at the end, behind / or ., like "shop/*"')
        return {"event": name, **_expr({"expression": self.where}, where)}


def on(event: str | type[Event], *, where: str | None = None) -> Trigger:
    """A trigger: an event, perhaps with a condition such as `"event.data.total_cents > 10000"`."""
    if isinstance(event, type):
        return Trigger(event=name_of(event), where=where, schema=event)
    return Trigger(event=event, where=where)


def cron(line: str, *, tz: str | None = None, jitter: Duration | None = None, catchup: Catchup | None = None) -> Trigger:
    """A trigger: a schedule of five fields, such as `"0 8 * * MON-FRI"`, in a time zone (UTC where none is given).

    `jitter` delays each tick by less than that. Ticks that were missed while no server ran are not made up, unless `catchup` asks for
    the `"last"` of them, or `"all"`.
    """
    if not isinstance(line, str):
        raise UsageError(f'cron({line!r}): a schedule is a text of five fields, like "0 8 * * MON-FRI"')
    return Trigger(cron=f"TZ={tz} {line}" if tz else line, jitter=jitter, catchup=catchup)


@runtime_checkable
class AsTrigger(Protocol):
    """What may stand as a trigger itself: a queue."""

    def as_trigger(self) -> Trigger:
        """The trigger that it stands for."""
        ...


AnyTrigger = str | type[Event] | Trigger | AsTrigger


def triggers_of(value: Any, where: str) -> tuple[Trigger, ...]:
    """The triggers of a `trigger=`: one, a list of them, or none (for functions that are only invoked)."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        triggers = tuple(trigger for item in value for trigger in triggers_of(item, where))
        if len(triggers) > TRIGGERS_MAX:
            raise UsageError(f"{where}: {len(triggers)} triggers; at most {TRIGGERS_MAX} are taken")
        doubled = next((one for i, one in enumerate(triggers) if one in triggers[:i]), None)
        if doubled is not None:
            raise UsageError(f"{where}: {doubled.event or doubled.cron or doubled.queue!r} is there twice: remove one")
        return triggers
    if isinstance(value, Trigger):
        return (value,)
    if isinstance(value, AsTrigger):
        return (value.as_trigger(),)
    if isinstance(value, str) or (isinstance(value, type) and issubclass(value, Event)):
        return (on(value),)
    raise UsageError(
        f"{where}: {value!r} is no trigger: give an event name, an Event class, a queue, stepwell.on(…), stepwell.cron(…) or a list"
    )


@dataclass(frozen=True)
class Concurrency:
    """At most `limit` calls (or whole runs, `per="run"`) at a time, for each value of `key`.

    `weight`: how much of the function's share a value gets beside the others, as an expression from 1 to 100.
    """

    limit: int
    key: str | None = None
    scope: Literal["fn", "env", "account"] = "fn"
    per: Literal["step", "run"] = "step"
    weight: str | None = None

    def wire(self, where: str) -> Wire:
        """The limit's wire form, without `per`."""
        _whole(self.limit, f"{where}: limit", 1)
        _one_of(self.scope, f"{where}: scope", ("fn", "env", "account"))
        _one_of(self.per, f"{where}: per", ("step", "run"))
        if self.scope != "fn" and not self.key:
            raise UsageError(f'{where}: scope={self.scope!r} needs a key, such as key="event.data.tenant"')
        if self.weight is not None and not self.key:
            raise UsageError(f"{where}: weight={self.weight!r} needs a key: it weighs the key's values against each other")
        return {"limit": self.limit, "scope": self.scope, **_expr({"key": self.key, "weight": self.weight}, where)}


@dataclass(frozen=True)
class Throttle:
    """At most `limit` run starts `per` period; the others wait."""

    limit: int
    per: Duration
    burst: int = 0
    key: str | None = None

    def wire(self, where: str) -> Wire:
        """The setting's wire form."""
        _whole(self.limit, f"{where}: limit", 1)
        _whole(self.burst, f"{where}: burst", 0)
        period = _period(self.per, f"{where}: per", 1_000, None)
        return {"limit": self.limit, "period": period, "burst": self.burst, **_expr({"key": self.key}, where)}


@dataclass(frozen=True)
class RateLimit:
    """At most `limit` runs `per` period; the other events start none."""

    limit: int
    per: Duration
    key: str | None = None

    def wire(self, where: str) -> Wire:
        """The setting's wire form."""
        _whole(self.limit, f"{where}: limit", 1)
        return {"limit": self.limit, "period": _period(self.per, f"{where}: per", 1_000, DAY_MS), **_expr({"key": self.key}, where)}


@dataclass(frozen=True)
class Debounce:
    """One run with the last event, when none has come for `period`; after `timeout` at the latest."""

    period: Duration
    key: str | None = None
    timeout: Duration | None = None

    def wire(self, where: str) -> Wire:
        """The setting's wire form."""
        wire: Wire = {"period": _period(self.period, f"{where}: period", 1_000, 7 * DAY_MS), **_expr({"key": self.key}, where)}
        if self.timeout is not None:
            wire["timeout"] = _period(self.timeout, f"{where}: timeout", 1_000, None)
        return wire


@dataclass(frozen=True)
class Batch:
    """One run for up to `size` events, started when it is full or after `timeout`."""

    size: int
    timeout: Duration
    key: str | None = None
    where: str | None = None

    def wire(self, where: str) -> Wire:
        """The setting's wire form."""
        _whole(self.size, f"{where}: size", 2, BATCH_SIZE_MAX)
        timeout = _period(self.timeout, f"{where}: timeout", 1_000, None)
        return {"maxSize": self.size, "timeout": timeout, **_expr({"key": self.key, "if": self.where}, where)}


@dataclass(frozen=True)
class Singleton:
    """One run at a time: a further event is skipped, or cancels the run that is there."""

    mode: Literal["skip", "cancel"]
    key: str | None = None

    def wire(self, where: str) -> Wire:
        """The setting's wire form."""
        _one_of(self.mode, f"{where}: mode", ("skip", "cancel"))
        return {"mode": self.mode, **_expr({"key": self.key}, where)}


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long a run may wait for its start, and take from there; it is cancelled then."""

    start: Duration | None = None
    finish: Duration | None = None

    def wire(self, where: str) -> Wire:
        """The setting's wire form."""
        given = {"start": self.start, "finish": self.finish}
        return {name: _period(value, f"{where}: {name}", 1, None) for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Cancel:
    """An event that cancels runs; made by `cancel`."""

    event: str
    where: str | None = None
    timeout: Duration | None = None

    def wire(self, where: str) -> Wire:
        """The setting's wire form."""
        if not isinstance(self.event, str) or not self.event:
            raise UsageError(f"{where}: the event {self.event!r} must be a name or an Event class")
        wire: Wire = {"event": self.event, **_expr({"if": self.where}, where)}
        if self.timeout is not None:
            wire["timeout"] = _period(self.timeout, f"{where}: timeout", 1, None)
        return wire


def cancel(event: str | type[Event], *, where: str | None = None, timeout: Duration | None = None) -> Cancel:
    """For `cancel_on`: the event ends runs for which `where` holds, e.g. `"async.data.order_id == event.data.order_id"`."""
    return Cancel(event=name_of(event) if isinstance(event, type) else event, where=where, timeout=timeout)


def settings_wire(
    function: str,
    *,
    concurrency: Concurrency | int | Sequence[Concurrency] | None,
    throttle: Throttle | None,
    rate_limit: RateLimit | None,
    debounce: Debounce | None,
    batch: Batch | None,
    singleton: Singleton | None,
    timeouts: Timeouts | None,
    cancel_on: Sequence[Cancel] | None,
    idempotency: str | None,
    priority: str | None,
) -> Wire:
    """The wire form of a function's settings. Raises `UsageError` for the first that is wrong."""
    wire: Wire = {}
    kinds: list[tuple[str, str, Any, type[Any]]] = [
        ("throttle", "throttle", throttle, Throttle),
        ("rate_limit", "rateLimit", rate_limit, RateLimit),
        ("debounce", "debounce", debounce, Debounce),
        ("batch", "batchEvents", batch, Batch),
        ("singleton", "singleton", singleton, Singleton),
        ("timeouts", "timeouts", timeouts, Timeouts),
    ]
    for option, key, value, kind in kinds:
        if value is not None:
            where = f"function {function!r}: {option}"
            if not isinstance(value, kind):
                raise UsageError(f"{where} is {value!r}; it must be a stepwell.{kind.__name__}(…)")
            wire[key] = value.wire(where)
    if concurrency is not None:
        wire["concurrency"] = _concurrency(concurrency, f"function {function!r}: concurrency")
    if cancel_on is not None:
        wire["cancel"] = _cancel_on(cancel_on, f"function {function!r}: cancel_on")
    wire |= _expr({"idempotency": idempotency}, f"function {function!r}")
    if priority is not None:
        wire["priority"] = _expr({"run": priority}, f"function {function!r}: priority")
    if batch is not None:
        for option, other in (("cancel_on", cancel_on), ("debounce", debounce), ("singleton", singleton), ("priority", priority)):
            if other:
                raise UsageError(f"function {function!r}: batch cannot be combined with {option}: remove one of them")
    return wire


def retries_of(retries: object, where: str) -> int:
    """A `retries=`: how often a failed step or function is tried again."""
    _whole(retries, f"{where}: retries", 0, RETRIES_MAX)
    assert isinstance(retries, int)
    return retries


def _concurrency(value: Any, where: str) -> Wire:
    limits = [Concurrency(limit) if isinstance(limit, int) else limit for limit in (value if isinstance(value, list | tuple) else [value])]
    for limit in limits:
        if not isinstance(limit, Concurrency):
            raise UsageError(f"{where} is {limit!r}; it must be a number, a stepwell.Concurrency(…), or a list of two")
    if len(limits) > CONCURRENCY_MAX:
        raise UsageError(f"{where} has {len(limits)} limits; at most {CONCURRENCY_MAX} are taken")
    per_run = [limit.wire(where) for limit in limits if limit.per == "run"]
    if len(per_run) > 1:
        raise UsageError(f'{where} has two limits with per="run"; one is taken')
    return {"fn": per_run, "step": [limit.wire(where) for limit in limits if limit.per != "run"]}


def _cancel_on(value: Any, where: str) -> list[Wire]:
    rules = value if isinstance(value, list | tuple) else [value]
    if len(rules) > CANCEL_MAX:
        raise UsageError(f"{where} has {len(rules)} events; at most {CANCEL_MAX} are taken")
    for rule in rules:
        if not isinstance(rule, Cancel):
            raise UsageError(f'{where} holds {rule!r}; it must hold stepwell.cancel("event/name", where=…)')
    return [rule.wire(where) for rule in rules]


def _expr(given: dict[str, str | None], where: str) -> Wire:
    for name, value in given.items():
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise UsageError(f'{where}: {name} is {value!r}; it must be an expression over the event, like "event.data.tenant"')
    return {name: value for name, value in given.items() if value is not None}


def _period(value: object, what: str, at_least_ms: int, at_most_ms: int | None) -> str:
    ms = duration_ms(value, what)
    if ms < at_least_ms or (at_most_ms is not None and ms > at_most_ms):
        bounds = f"at least {format_duration(at_least_ms)}" + ("" if at_most_ms is None else f" and at most {format_duration(at_most_ms)}")
        raise UsageError(f"{what} is {value!r}; it must be {bounds}")
    return format_duration(ms)


def _whole(value: object, what: str, at_least: int, at_most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least or (at_most is not None and value > at_most):
        bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise UsageError(f"{what} is {value!r}; it must be a whole number {bounds}")


def _one_of(value: object, what: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{what} is {value!r}; it must be one of {', '.join(map(repr, choices))}")
