"""Cron lines: what is taken, what it is turned into, what is refused with which sentence."""

from __future__ import annotations

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.cron import Cron, check_cron, parse_cron


@pytest.mark.parametrize(
    ("text", "zone", "line"),
    [
        ("* * * * *", "UTC", "* * * * *"),
        ("*/5 0 1 1 0", "UTC", "*/5 0 1 1 0"),
        ("0 8 * * MON-FRI", "UTC", "0 8 * * 1-5"),
        ("0 8 * * mon,wed", "UTC", "0 8 * * 1,3"),
        ("0 0 ? JAN-MAR/2 ?", "UTC", "0 0 * 1-3/2 *"),
        ("TZ=Europe/Berlin 0 8 * * *", "Europe/Berlin", "0 8 * * *"),
        ("CRON_TZ=America/New_York  0  8 * * 7", "America/New_York", "0 8 * * 7"),
        ("5/15 * * * *", "UTC", "5-59/15 * * * *"),
        ("59/15 * * * *", "UTC", "59 * * * *"),
        ("0 0 * * 5/1", "UTC", "0 0 * * 5-6/1"),
        ("1,2-4,*/10 0 L * *".replace("L", "31"), "UTC", "1,2-4,*/10 0 31 * *"),
        ("05 08 * * *", "UTC", "5 8 * * *"),
        ("3-3 * * * *", "UTC", "3 * * * *"),
        ("\t0 0 * * *", "UTC", "0 0 * * *"),
    ],
)
def test_lines(text: str, zone: str, line: str) -> None:
    """Names become numbers, `?` becomes `*`, a step from a number becomes one over a range."""
    assert parse_cron(text) == Cron(zone, line)
    check_cron(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 * * * * *", "6 fields"),
        ("@daily", "write @daily and its like out"),
        ("TZ=Europe/Berlin", "1 fields"),
        ("TZ=Mars/Olympus * * * * *", "unknown time zone 'Mars/Olympus'"),
        ("TZ=../etc/passwd * * * * *", "unknown time zone"),
        ("TZ=/etc * * * * *", "unknown time zone"),
        ("TZ=Europe * * * * *", "unknown time zone"),
        ("60 * * * *", "minute '60' is not between 0 and 59"),
        ("* 24 * * *", "hour '24' is not between 0 and 23"),
        ("* * 0 * *", "day of month '0' is not between 1 and 31"),
        ("* * * 13 *", "month '13' is not between 1 and 12, or JAN to DEC"),
        ("* * * * 8", "day of week '8' is not between 0 and 7, or SUN to SAT"),
        ("* * * MON *", "month 'MON' is not between"),
        ("MON * * * *", "minute 'MON' is not between"),
        ("5-1 * * * *", "ends before it begins"),
        ("*/0 * * * *", "a step of 0"),
        ("* * L * *", "is no number, range"),
        ("*-5 * * * *", "is no number, range"),
        ("1,,2 * * * *", "is no number, range"),
        ("-1 * * * *", "is no number, range"),
        ("１ * * * *", "is no number, range"),
    ],
)
def test_what_is_no_line(text: str, sentence: str) -> None:
    """The sentence names the field and what it may be."""
    with pytest.raises(ProtocolError, match="cron") as caught:
        parse_cron(text)
    assert sentence in str(caught.value)
