"""Ticks of Cloudflare's cron lines against what the syntax means, asked of every minute and every day by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import ProtocolError
from stepwell.protocol.cloudflare_cron import CloudflareCron

MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()  # noqa: SIM905
DAYS = "SUN MON TUE WED THU FRI SAT".split()  # noqa: SIM905
MINUTE = timedelta(minutes=1)


def fits(text: str, value: int, low: int, high: int, names: list[str]) -> bool:
    """Whether a number is one that `text` names: a walk from the first number on, round the end where the range goes round it."""

    def number(word: str) -> int:
        return names.index(word.upper()) + low if word.upper() in names else int(word)

    body, _, step = text.partition("/")
    first, _, last = body.partition("-")
    begin = low if first in "*?" else number(first)
    end = high if first in "*?" or (step and not last) else number(last or first)
    at = begin
    offset = 0
    while True:
        if at == value:
            return offset % int(step or 1) == 0
        if at == end:
            return False
        at, offset = (low if at == high else at + 1), offset + 1


def is_weekday_near(moment: datetime, wanted: int) -> bool:
    """Whether a day is the one from Monday to Friday of its month that is nearest to a day of it."""
    month = [moment.replace(day=1) + timedelta(days=n) for n in range(31)]
    month = [day for day in month if day.month == moment.month]
    if wanted > len(month):
        return False
    working = [day.day for day in month if day.isoweekday() <= 5]
    return min(working, key=lambda day: abs(day - wanted)) == moment.day


def day_fits(text: str, moment: datetime) -> bool:
    last = (moment.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    for part in text.upper().split(","):
        if part == "LW":
            found = is_weekday_near(moment, last.day)
        elif part.startswith("L"):
            found = moment.day == last.day - int(part[2:] or 0)
        elif part.endswith("W"):
            found = is_weekday_near(moment, int(part[:-1]))
        else:
            found = fits(part, moment.day, 1, 31, [])
        if found:
            return True
    return False


def weekday_fits(text: str, moment: datetime) -> bool:
    weekday = moment.isoweekday() % 7 + 1
    for part in text.upper().split(","):
        if part == "L":
            found = weekday == 7
        elif part.endswith("L"):
            found = fits(part[:-1], weekday, 1, 7, DAYS) and (moment + timedelta(days=7)).month != moment.month
        elif "#" in part:
            day, nth = part.split("#")
            found = fits(day, weekday, 1, 7, DAYS) and (moment.day - 1) // 7 + 1 == int(nth)
        else:
            found = fits(part, weekday, 1, 7, DAYS)
        if found:
            return True
    return False


def matches(line: str, moment: datetime) -> bool:
    """The definition: whether a minute is a tick."""
    minute, hour, day, month, weekday = line.split()
    if not any(fits(part, moment.minute, 0, 59, []) for part in minute.split(",")):
        return False
    if not any(fits(part, moment.hour, 0, 23, []) for part in hour.split(",")):
        return False
    if not any(fits(part, moment.month, 1, 12, MONTHS) for part in month.split(",")):
        return False
    restricted = [fit(text, moment) for text, fit in ((day, day_fits), (weekday, weekday_fits)) if text not in ("*", "?")]
    return any(restricted) or not restricted


def numbers(low: int, high: int, names: list[str] = []) -> st.SearchStrategy[str]:  # noqa: B006
    number = st.integers(low, high).map(str) | (st.sampled_from(names) if names else st.nothing())
    step = st.integers(1, high - low + 1).map(lambda n: f"/{n}")
    ranged = st.builds("{}-{}".format, number, number)
    return number | ranged | st.builds("{}{}".format, number | ranged | st.just("*"), step)


def listed(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(part, min_size=1, max_size=3).map(",".join)


def field(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(["*", "*", "?"]) | listed(part)


def lines(minutes: st.SearchStrategy[str], hours: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    day = numbers(1, 31) | st.sampled_from(["L", "LW", "L-1", "L-3", "L-30"]) | st.integers(1, 31).map("{}W".format)
    named = st.integers(1, 7).map(str) | st.sampled_from([*DAYS, "fri", "Mon"])
    weekday = numbers(1, 7, DAYS) | st.just("L") | named.map("{}L".format) | st.builds("{}#{}".format, named, st.integers(1, 5))
    return st.tuples(minutes, hours, field(day), field(numbers(1, 12, MONTHS)), field(weekday)).map(" ".join)


moments = st.integers(0, 40 * 365).map(lambda days: datetime(1999, 12, 1, tzinfo=UTC) + timedelta(days=days))


def ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


@settings(max_examples=150, deadline=None)
@given(lines(field(numbers(0, 59)), field(numbers(0, 23))), moments, st.integers(0, 1439))
def test_ticks_of_two_days_are_the_minutes_that_match(line: str, day: datetime, minute: int) -> None:
    """All of them in order, and no other; backwards the same."""
    begin = day + minute * MINUTE
    span = [begin + n * MINUTE for n in range(2 * 1440)]
    expected = [ms(moment) for moment in span if matches(line, moment)]
    try:
        cron = CloudflareCron(line)
    except ProtocolError as error:
        assert "never comes" in str(error) and expected == []
        return
    found, at = [], ms(begin) - 1
    while (tick := cron.next_ms(at)) is not None and tick <= ms(span[-1]):
        found.append(tick)
        at = tick
    assert found == expected
    assert cron.last_ms(ms(span[-1]) + 59_999) == (expected[-1] if expected else cron.last_ms(ms(begin) - 1))
    for tick in expected[:50]:
        assert cron.last_ms(tick) == tick and cron.next_ms(tick - 1) == tick


@settings(max_examples=150, deadline=None)
@given(lines(st.just("30"), st.just("6")), moments)
def test_ticks_of_two_years_are_the_days_that_match(line: str, begin: datetime) -> None:
    """Lines that tick once a day, over months of every length."""
    span = [begin.replace(hour=6, minute=30) + timedelta(days=n) for n in range(2 * 366)]
    expected = [ms(moment) for moment in span if matches(line, moment)]
    try:
        cron = CloudflareCron(line)
    except ProtocolError as error:
        assert "never comes" in str(error) and expected == []
        return
    found, at = [], ms(begin)
    while (tick := cron.next_ms(at)) is not None and tick <= ms(span[-1]):
        found.append(tick)
        at = tick
    assert found == expected


@given(st.text(max_size=40) | st.text(st.sampled_from("0123456789*,-/?LW# MONSATjan"), max_size=40))
def test_no_text_makes_it_raise_but_in_words(text: str) -> None:
    """What is no line is refused with a sentence."""
    try:
        CloudflareCron(text)
    except ProtocolError as error:
        assert str(error).startswith("cron ")
