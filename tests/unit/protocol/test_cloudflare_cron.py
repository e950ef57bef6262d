"""Cron lines of Cloudflare's: each sign by an example with its dates, and what is refused with which sentence."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.cloudflare_cron import CloudflareCron
from stepwell.protocol.cron import Cron, parse_cron

THURSDAY = datetime(2026, 1, 1, tzinfo=UTC)


def ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def ticks(line: str, count: int, after: datetime = THURSDAY) -> list[str]:
    """The next ticks, as they are read."""
    cron, at, found = CloudflareCron(line), ms(after) - 1, []
    for _ in range(count):
        tick = cron.next_ms(at)
        assert tick is not None
        at = tick
        found.append(f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M %a}")
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("* * * * *", ["2026-01-01 00:00 Thu", "2026-01-01 00:01 Thu"]),
        ("*/30 * * * *", ["2026-01-01 00:00 Thu", "2026-01-01 00:30 Thu", "2026-01-01 01:00 Thu"]),
        ("45 * * * *", ["2026-01-01 00:45 Thu", "2026-01-01 01:45 Thu"]),
        ("50/4 3 * * *", ["2026-01-01 03:50 Thu", "2026-01-01 03:54 Thu", "2026-01-01 03:58 Thu", "2026-01-02 03:50 Fri"]),
        ("0 17 * * sun", ["2026-01-04 17:00 Sun", "2026-01-11 17:00 Sun"]),
        ("0 17 * * 1", ["2026-01-04 17:00 Sun", "2026-01-11 17:00 Sun"]),
        ("0 0 * * 7", ["2026-01-03 00:00 Sat"]),
        ("10 7 * * mon-fri", ["2026-01-01 07:10 Thu", "2026-01-02 07:10 Fri", "2026-01-05 07:10 Mon"]),
        ("10 7 * * 2-6", ["2026-01-01 07:10 Thu", "2026-01-02 07:10 Fri", "2026-01-05 07:10 Mon"]),
        ("0 0 * * fri-mon", ["2026-01-02 00:00 Fri", "2026-01-03 00:00 Sat", "2026-01-04 00:00 Sun", "2026-01-05 00:00 Mon"]),
        ("0 22-1 1 * *", ["2026-01-01 00:00 Thu", "2026-01-01 01:00 Thu", "2026-01-01 22:00 Thu", "2026-01-01 23:00 Thu"]),
        ("0 15 1 * *", ["2026-01-01 15:00 Thu", "2026-02-01 15:00 Sun"]),
        ("0 0 1 FEB,nov *", ["2026-02-01 00:00 Sun", "2026-11-01 00:00 Sun"]),
        ("0 18 * * 6L", ["2026-01-30 18:00 Fri", "2026-02-27 18:00 Fri"]),
        ("0 18 * * friL", ["2026-01-30 18:00 Fri", "2026-02-27 18:00 Fri"]),
        ("0 18 * * L", ["2026-01-03 18:00 Sat", "2026-01-10 18:00 Sat"]),
        ("0 0 * * MON#2", ["2026-01-12 00:00 Mon", "2026-02-09 00:00 Mon"]),
        ("0 0 * * 5#5", ["2026-01-29 00:00 Thu", "2026-04-30 00:00 Thu"]),
        ("0 0 * 2 2#5", ["2044-02-29 00:00 Mon", "2072-02-29 00:00 Mon", "2112-02-29 00:00 Mon"]),
        ("0 0 L * *", ["2026-01-31 00:00 Sat", "2026-02-28 00:00 Sat", "2026-03-31 00:00 Tue"]),
        ("0 0 L-3 * *", ["2026-01-28 00:00 Wed", "2026-02-25 00:00 Wed"]),
        ("0 0 L-30 * *", ["2026-01-01 00:00 Thu", "2026-03-01 00:00 Sun"]),
        ("59 23 LW * *", ["2026-01-30 23:59 Fri", "2026-02-27 23:59 Fri", "2026-03-31 23:59 Tue"]),
        # The nearest day from Monday to Friday stays in its month: the 1st is a Sunday in February, the 31st a Saturday in January.
        ("0 0 1W * *", ["2026-01-01 00:00 Thu", "2026-02-02 00:00 Mon", "2026-03-02 00:00 Mon"]),
        ("0 0 31W * *", ["2026-01-30 00:00 Fri", "2026-03-31 00:00 Tue", "2026-05-29 00:00 Fri"]),
        ("0 0 17W 1 *", ["2026-01-16 00:00 Fri"]),
        ("0 0 18W 1 *", ["2026-01-19 00:00 Mon"]),
        ("0 0 29W 2 *", ["2028-02-29 00:00 Tue", "2032-02-27 00:00 Fri"]),
        ("0 0 15,L * *", ["2026-01-15 00:00 Thu", "2026-01-31 00:00 Sat", "2026-02-15 00:00 Sun"]),
        # Both fields of days restricted: either may match.
        ("0 0 13 * FRI", ["2026-01-02 00:00 Fri", "2026-01-09 00:00 Fri", "2026-01-13 00:00 Tue", "2026-01-16 00:00 Fri"]),
        ("0 0 13 * *", ["2026-01-13 00:00 Tue", "2026-02-13 00:00 Fri"]),
        ("0 0 13 * ?", ["2026-01-13 00:00 Tue", "2026-02-13 00:00 Fri"]),
        ("0 0 ? * FRI", ["2026-01-02 00:00 Fri", "2026-01-09 00:00 Fri"]),
        ("0 0 29 2 *", ["2028-02-29 00:00 Tue", "2032-02-29 00:00 Sun"]),
    ],
)
def test_lines(line: str, expected: list[str]) -> None:
    """The ticks from the beginning of 2026, a Thursday."""
    assert ticks(line, len(expected)) == expected


def test_a_tick_is_later_than_its_time_and_the_last_one_is_not() -> None:
    """To the millisecond."""
    cron, noon = CloudflareCron("0 12 * * *"), ms(datetime(2026, 7, 30, 12, tzinfo=UTC))
    day = 86_400_000
    assert (cron.next_ms(noon - 1), cron.next_ms(noon), cron.next_ms(noon + 1)) == (noon, noon + day, noon + day)
    assert (cron.last_ms(noon - 1), cron.last_ms(noon), cron.last_ms(noon + 59_999)) == (noon - day, noon, noon)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("60 * * * *", "minute '60' is not between 0 and 59"),
        ("* 24 * * *", "hour '24' is not between 0 and 23"),
        ("* * 0 * *", "day of month '0' is not between 1 and 31"),
        ("* * 32W * *", "day of month '32' is not between 1 and 31"),
        ("* * * 13 *", "month '13' is not between 1 and 12, or JAN to DEC"),
        ("* * * * 0", "day of week '0' is not between 1 and 7, or SUN to SAT; Cloudflare counts"),
        ("* * * * XYZL", "day of week 'XYZ' is not between"),
        ("* * * * MONDAY", "is none of: a number, a range (1-5), a step (*/10), L, 6L, MON#2, a list of these"),
        ("* * * * FOO#2", "day of week 'FOO' is not between"),
        ("* * * * MON#6", "day of week 'MON#6' is none of"),
        ("* * L-31 * *", "lies 31 days before the last"),
        ("L * * * *", "minute 'L' is none of: a number, a range (1-5), a step (*/10), a list of these (1,15)"),
        ("* * W * *", "day of month 'W' is none of: a number, a range (1-5), a step (*/10), L, L-3, LW, 15W"),
        ("*/0 * * * *", "the step of the minute '*/0' is not between 1 and 60"),
        ("*/61 * * * *", "the step of the minute '*/61' is not between 1 and 60"),
        ("*-5 * * * *", "minute '*-5' is none of"),
        ("1,,2 * * * *", "minute '' is none of"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
    ],
)
def test_what_is_no_line(line: str, sentence: str) -> None:
    """The sentence names the field and what it may be."""
    with pytest.raises(ProtocolError, match="cron") as caught:
        CloudflareCron(line)
    assert sentence in str(caught.value)


def test_a_trigger_tells_such_a_line_by_its_mark() -> None:
    """The mark stands before the line, which stays as it was written; a time zone does not go with it."""
    assert parse_cron("CLOUDFLARE 0 18 * * 6l") == Cron("UTC", "0 18 * * 6l", is_cloudflares=True)
    for text, sentence in (
        ("CLOUDFLARE 0 18 * * 0", "day of week '0'"),
        ("TZ=Europe/Berlin CLOUDFLARE 0 18 * * 6L", "leave TZ=Europe/Berlin away"),
        ("0 18 * * 6L", "'6L' is no number"),
    ):
        with pytest.raises(ProtocolError, match="cron") as caught:
            parse_cron(text)
        assert sentence in str(caught.value)
