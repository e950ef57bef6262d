"""How a workflow's step is tried: its retries, the pauses between them, its limit of time. And durations as workflows write them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any, Literal, NoReturn, get_args

import msgspec

from stepwell.protocol.config import RETRIES_MAX
from stepwell.workers.rpc import Record

Backoff = Literal["constant", "linear", "exponential"]
RETRIES, DELAY_MS, TIMEOUT_MS = 5, 1_000, 600_000
NAME_CHARS_MAX = 256

_UNITS_MS = {
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 7 * 86_400_000,
    "month": 30 * 86_400_000,
    "year": 365 * 86_400_000,
}
_DURATION = re.compile(rf"([0-9]+(?:\.[0-9]+)?) ({'|'.join(_UNITS_MS)})s?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def duration_ms(value: object) -> int | None:
    """Milliseconds of a number of them, or of a text like `"10 minutes"`; `None` for what is no duration."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return round(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else round(float(match[1]) * _UNITS_MS[match[2]])


class StepConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A step's settings, whole. `delay` may be a function of what is known of the failure."""

    limit: int = RETRIES
    delay: Any = DELAY_MS
    backoff: Backoff = "exponential"
    timeout_ms: int = TIMEOUT_MS

    async def pause_ms(self, attempt: int, context: Record, error: Exception) -> int:
        """How long to wait after the try of a number, counted from 1."""
        if callable(self.delay):
            asked = self.delay({"ctx": context, "error": error})
            asked = await asked if inspect.isawaitable(asked) else asked
            delay_ms = duration_ms(asked)
            if delay_ms is None or delay_ms < 0:
                raise ValueError(f"retries.delay gave {asked!r} for step {context.step.name!r}; {_FORMS}")
            return delay_ms
        delay_ms = duration_ms(self.delay) or 0
        match self.backoff:
            case "constant":
                return delay_ms
            case "linear":
                return delay_ms * attempt
            case "exponential":
                return delay_ms << (attempt - 1)

    @property
    def shown(self) -> Record:
        """As the step's function finds it in its context."""
        return Record(retries=Record(limit=self.limit, delay=self.delay, backoff=self.backoff), timeout=self.timeout_ms)


_FORMS = 'a duration is a number of milliseconds, or a text like "5 seconds", "1 minute", "2 hours"'
_Delay = int | float | str | Callable[..., Any]


def read_config(step: str, given: Any) -> StepConfig:
    """The settings of a step, those that are not given being the usual ones. Raises `ValueError` naming the step and the fix."""
    if given is None:
        return StepConfig()
    if not isinstance(given, dict):
        _refuse(step, f"it is {given!r}, and must be a dict")
    _check_keys(step, given, ("retries", "timeout"), "it")
    found: dict[str, Any] = {}
    if given.get("retries") is not None:
        retries = given["retries"]
        if not isinstance(retries, dict):
            _refuse(step, f"retries is {retries!r}, and must be a dict")
        _check_keys(step, retries, ("limit", "delay", "backoff"), "retries")
        if "limit" not in retries or "delay" not in retries:
            _refuse(step, "retries needs both limit and delay")
        found |= {"limit": _limit(step, retries["limit"]), "delay": _delay(step, retries["delay"])}
        if retries.get("backoff") is not None:
            if retries["backoff"] not in get_args(Backoff):
                _refuse(step, f"retries.backoff is {retries['backoff']!r}, and must be one of {', '.join(get_args(Backoff))}")
            found["backoff"] = retries["backoff"]
    if given.get("timeout") is not None:
        timeout_ms = duration_ms(given["timeout"])
        if timeout_ms is None or timeout_ms <= 0:
            _refuse(step, f"timeout is {given['timeout']!r}; {_FORMS}, of more than nothing")
        found["timeout_ms"] = timeout_ms
    return StepConfig(**found)


def _limit(step: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        _refuse(step, f"retries.limit is {value!r}, and must be a number of at least 0")
    if value > RETRIES_MAX:
        _refuse(step, f"retries.limit is {value!r}, and may be {RETRIES_MAX} at most here")
    return int(value)


def _delay(step: str, value: Any) -> _Delay:
    if callable(value):
        return value  # type: ignore[no-any-return]
    delay_ms = duration_ms(value)
    if delay_ms is None or delay_ms < 0:
        _refuse(step, f"retries.delay is {value!r}; {_FORMS}")
    assert isinstance(value, int | float | str)
    return value


def _check_keys(step: str, given: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    unknown = [key for key in given if key not in known]
    if unknown:
        _refuse(step, f"{what} has the key {unknown[0]!r}, and there are {', '.join(known)}")


def _refuse(step: str, why: str) -> NoReturn:
    raise ValueError(f'Step config for "{step}" is in a invalid format. {why[0].upper()}{why[1:]}.')


def checked_name(name: object) -> str:
    """A step's name. Raises `ValueError` for one that is none."""
    if not isinstance(name, str) or len(name) > NAME_CHARS_MAX or _CONTROL.search(name):
        raise ValueError(f'Step name "{name}" exceeds max length ({NAME_CHARS_MAX} chars) or invalid characters found')
    return name


def duration_of(value: object, what: str) -> int:
    """Milliseconds of a duration. Raises `ValueError` for what is none."""
    found = duration_ms(value)
    if found is None:
        raise ValueError(f"{what} is {value!r}; {_FORMS}")
    return found
