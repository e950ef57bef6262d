"""Cron lines as Cloudflare writes them: five fields in UTC, days of the week from 1 for Sunday, with L, W and #.

It reads a line and reckons its ticks. It knows no clock and nothing of functions; `cron.py` says by which mark a trigger has such a line.
"""

from __future__ import annotations

import re
from calendar import monthrange, timegm
from collections.abc import Callable, Iterator
from datetime import date, timedelta

import msgspec

from stepwell.errors import ProtocolError

MONTH_NAMES = tuple("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split())  # noqa: SIM905
DAY_NAMES = tuple("SUN MON TUE WED THU FRI SAT".split())  # noqa: SIM905
SATURDAY = 7
YEARS_MAX = 50
"""How far a tick may be away: a fifth Monday in February, say, may take 40 years to come where a century is no leap year."""

_MINUTE_MS, _DAY_MS = 60_000, 86_400_000
_RANGE = re.compile(r"(\*|[0-9]{1,2}|[A-Z]{3})(?:-([0-9]{1,2}|[A-Z]{3}))?(?:/([0-9]{1,2}))?")
_WEEKDAY_NEAR = re.compile(r"([0-9]{1,2})W")
_BEFORE_LAST = re.compile(r"L-([0-9]{1,2})")
_LAST_OF_MONTH = re.compile(r"([1-7]|[A-Z]{3})L")
_NTH_OF_MONTH = re.compile(r"([1-7]|[A-Z]{3})#([1-5])")

Days = Callable[[int, int], Iterator[int]]
"""The days of a month, by year and month, that a part of a line names."""


class _Field(msgspec.Struct, frozen=True):
    """A field: its name, its bounds, and the names that stand for numbers from the lower bound on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_MINUTE, _HOUR = _Field("minute", 0, 59), _Field("hour", 0, 23)
_DAY, _MONTH = _Field("day of month", 1, 31), _Field("month", 1, 12, MONTH_NAMES)
_WEEKDAY = _Field("day of week", 1, 7, DAY_NAMES)


class CloudflareCron:
    """A line's ticks, each at the beginning of a minute in UTC. Raises `ProtocolError` naming the field that is wrong."""

    def __init__(self, text: str) -> None:
        fields = text.upper().replace("?", "*").split()
        if len(fields) != 5:
            raise ProtocolError(f"cron {text!r} has {len(fields)} fields: it needs minute, hour, day of month, month, day of week")
        self.line = text
        minute, hour, day, month, weekday = fields
        self._minutes = sorted(_numbers(_MINUTE, minute, text))
        self._hours = sorted(_numbers(_HOUR, hour, text))
        self._months = _numbers(_MONTH, month, text)
        by_day = [] if day == "*" else [_day(part, text) for part in day.split(",")]
        by_weekday = [] if weekday == "*" else [_weekday(part, text) for part in weekday.split(",")]
        # Where both fields are restricted, a day that either names will do.
        self._rules: list[Days] = [*by_day, *by_weekday] or [_every_day]
        if self.next_ms(0) is None:
            raise ProtocolError(f"cron {text!r} never comes: none of its months has such a day")

    def next_ms(self, after_ms: int) -> int | None:
        """The first tick later than a time, in milliseconds since the epoch; `None` where there is none."""
        begin_ms = (after_ms // _MINUTE_MS + 1) * _MINUTE_MS
        first = date(1970, 1, 1) + timedelta(days=begin_ms // _DAY_MS)
        for day_ms in self._days_from(first):
            for minute in self._minutes_of_day():
                if day_ms + minute * _MINUTE_MS >= begin_ms:
                    return day_ms + minute * _MINUTE_MS
        return None

    def last_ms(self, until_ms: int) -> int | None:
        """The latest tick that is not later than a time; `None` where there is none."""
        last = date(1970, 1, 1) + timedelta(days=until_ms // _DAY_MS)
        for day_ms in self._days_until(last):
            found = [minute for minute in self._minutes_of_day() if day_ms + minute * _MINUTE_MS <= until_ms]
            if found:
                return day_ms + found[-1] * _MINUTE_MS
        return None

    def _minutes_of_day(self) -> Iterator[int]:
        return (hour * 60 + minute for hour in self._hours for minute in self._minutes)

    def _days_from(self, first: date) -> Iterator[int]:
        for months in range(YEARS_MAX * 12 + 1):
            year, month = _month_after(first, months)
            yield from (_midnight_ms(year, month, day) for day in self._days(year, month) if months or day >= first.day)

    def _days_until(self, last: date) -> Iterator[int]:
        for months in range(YEARS_MAX * 12 + 1):
            year, month = _month_after(last, -months)
            yield from (_midnight_ms(year, month, day) for day in reversed(self._days(year, month)) if months or day <= last.day)

    def _days(self, year: int, month: int) -> list[int]:
        if month not in self._months:
            return []
        return sorted({day for rule in self._rules for day in rule(year, month)})


def _month_after(day: date, months: int) -> tuple[int, int]:
    total = day.year * 12 + day.month - 1 + months
    return total // 12, total % 12 + 1


def _midnight_ms(year: int, month: int, day: int) -> int:
    return timegm((year, month, day, 0, 0, 0)) * 1000


# Fields of numbers.


def _numbers(field: _Field, text: str, line: str) -> set[int]:
    return {number for part in text.split(",") for number in _range(field, part, line)}


def _range(field: _Field, part: str, line: str) -> set[int]:
    """The numbers of `*`, `n`, `a-b` (which goes round where it ends before it begins) and each of these with a step."""
    match = _RANGE.fullmatch(part)
    if match is None or (match[1] == "*" and match[2] is not None):
        raise ProtocolError(f"cron {line!r}: the {field.name} {part!r} {_forms(field)}")
    first, last, step = match[1], match[2], int(match[3] or 1)
    if not 1 <= step <= field.high - field.low + 1:
        raise ProtocolError(f"cron {line!r}: the step of the {field.name} {part!r} is not between 1 and {field.high - field.low + 1}")
    low = field.low if first == "*" else _number(field, first, line)
    if last is not None:
        high = _number(field, last, line)
    else:
        high = field.high if first == "*" or match[3] is not None else low
    size = field.high - field.low + 1
    span = (high - low) % size if high < low else high - low
    return {(low - field.low + offset) % size + field.low for offset in range(0, span + 1, step)}


def _number(field: _Field, written: str, line: str) -> int:
    if written in field.names:
        return field.names.index(written) + field.low
    if not written.isdecimal() or not field.low <= int(written) <= field.high:
        names = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
        counted = "; Cloudflare counts the days of the week from 1 for Sunday to 7" if field is _WEEKDAY else ""
        raise ProtocolError(f"cron {line!r}: the {field.name} {written!r} is not between {field.low} and {field.high}{names}{counted}")
    return int(written)


def _forms(field: _Field) -> str:
    more = {"day of month": ", L, L-3, LW, 15W", "day of week": ", L, 6L, MON#2"}.get(field.name, "")
    return f"is none of: a number, a range (1-5), a step (*/10){more}, a list of these (1,15)"


# Fields of days.


def _every_day(year: int, month: int) -> Iterator[int]:
    yield from range(1, monthrange(year, month)[1] + 1)


def _day(part: str, line: str) -> Days:
    """A part of the field for days of the month: `L`, `L-3` (three days before the last), `LW`, `15W`, or numbers."""
    if part == "L":
        return _before_last(0)
    if part == "LW":
        return _weekday_near(None)
    if match := _BEFORE_LAST.fullmatch(part):
        before = int(match[1])
        if not 1 <= before <= 30:
            raise ProtocolError(f"cron {line!r}: the day of month {part!r} lies {before} days before the last; it may be 1 to 30")
        return _before_last(before)
    if match := _WEEKDAY_NEAR.fullmatch(part):
        return _weekday_near(_number(_DAY, match[1], line))
    numbers = _range(_DAY, part, line)

    def days(year: int, month: int) -> Iterator[int]:
        return (day for day in _every_day(year, month) if day in numbers)

    return days


def _before_last(before: int) -> Days:
    def days(year: int, month: int) -> Iterator[int]:
        last = monthrange(year, month)[1]
        if before < last:
            yield last - before

    return days


def _weekday_near(day: int | None) -> Days:
    """The day from Monday to Friday that is nearest to a day, in the same month; `None`: to the last one."""

    def days(year: int, month: int) -> Iterator[int]:
        last = monthrange(year, month)[1]
        wanted = last if day is None else day
        if wanted > last:
            return
        weekday = date(year, month, wanted).weekday()
        if weekday == 5:
            wanted += -1 if wanted > 1 else 2
        elif weekday == 6:
            wanted += 1 if wanted < last else -2
        yield wanted

    return days


def _weekday(part: str, line: str) -> Days:
    """A part of the field for days of the week: `L` (Saturday), `6L` (the month's last Friday), `MON#2`, or numbers."""
    if match := _LAST_OF_MONTH.fullmatch(part):
        wanted = _number(_WEEKDAY, match[1], line)
        return lambda year, month: iter(_on_weekday(year, month, {wanted})[-1:])
    if match := _NTH_OF_MONTH.fullmatch(part):
        wanted, nth = _number(_WEEKDAY, match[1], line), int(match[2])
        return lambda year, month: iter(_on_weekday(year, month, {wanted})[nth - 1 : nth])
    numbers = {SATURDAY} if part == "L" else _range(_WEEKDAY, part, line)
    return lambda year, month: iter(_on_weekday(year, month, numbers))


def _on_weekday(year: int, month: int, numbers: set[int]) -> list[int]:
    """The days of a month that fall on some days of the week, 1 being Sunday."""
    return [day for day in _every_day(year, month) if date(year, month, day).isoweekday() % 7 + 1 in numbers]
