"""Durations and dates: what the protocol's time strings mean, and that nothing is ever early."""

from __future__ import annotations

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.durations import DURATION_MAX_MS, format_date, format_duration, parse_date_ms, parse_due_ms, parse_duration_ms

NOW_MS = 1_735_689_600_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1h30m", 5_400_000),
        ("90s", 90_000),
        ("1.5s", 1_500),
        (".5s", 500),
        ("5.s", 5_000),
        ("7d", 604_800_000),
        ("1w", 604_800_000),
        ("100ms", 100),
        ("1us", 1),
        ("1µs", 1),
        ("1μs", 1),
        ("1ns", 1),
        ("1000001ns", 2),
        ("0s", 0),
        ("0", 0),
        ("2w3d4h5m6s7ms", 1_483_506_007),
        ("1.1h", 3_960_000),
    ],
)
def test_durations(text: str, ms: int) -> None:
    """Every unit, concatenated and with fractions; a started millisecond counts whole."""
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "5", "s", "1h 3m", " 1s", "1s ", "-1s", "1e3s", "1.1.1s", "1x", "１s", "1" * 70 + "s", "."])
def test_what_is_no_duration(text: str) -> None:
    """Is refused with a sentence that shows the form."""
    with pytest.raises(ProtocolError, match=r"is not a duration: write it like \"30s\""):
        parse_duration_ms(text)


def test_a_hundred_years_are_enough() -> None:
    """A longer duration is refused, so that no due time overflows."""
    assert parse_duration_ms(f"{DURATION_MAX_MS}ms") == DURATION_MAX_MS
    with pytest.raises(ProtocolError, match="hundred years"):
        parse_duration_ms(f"{DURATION_MAX_MS + 1}ms")


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (1_500, "1500ms"), (90_000, "1m30s"), (5_400_000, "1h30m"), (604_800_000, "7d"), (90_061_000, "1d1h1m1s")],
)
def test_durations_are_written_shortest(ms: int, text: str) -> None:
    """And read back the same."""
    assert format_duration(ms) == text
    assert parse_duration_ms(text) == ms


def test_days_can_be_left_out() -> None:
    """For readers of Go's durations."""
    assert format_duration(90_061_000, days=False) == "25h1m1s"


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2025-01-01T00:00:00Z", NOW_MS),
        ("2025-01-01T00:00:00.000Z", NOW_MS),
        ("2025-01-01T01:00:00+01:00", NOW_MS),
        ("2025-01-01 00:00:00", NOW_MS),
        ("2025-01-01", NOW_MS),
        ("2025-01-01T00:00:00.0001Z", NOW_MS + 1),
        ("2025-01-01T00:00:00.123456789Z", NOW_MS + 124),
        ("Wed, 01 Jan 2025 00:00:00 GMT", NOW_MS),
        ("Wednesday, 01-Jan-25 00:00:00 GMT", NOW_MS),
        ("Wed Jan  1 00:00:00 2025", NOW_MS),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
    ],
)
def test_dates(text: str, ms: int) -> None:
    """RFC 3339 and the three forms of HTTP; without a zone it is UTC; a started millisecond counts whole."""
    assert parse_date_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "soon", "1h30m15s500ms", "1735689600", "Mon, 01 Jan 99999999999 00:00:00 GMT", "2025-13-01", "x" * 100]
)
def test_what_is_no_date(text: str) -> None:
    """Is None, for it may be something else."""
    assert parse_date_ms(text) is None


def test_dates_are_written_as_rfc_3339() -> None:
    """With milliseconds only where there are some."""
    assert format_date(NOW_MS) == "2025-01-01T00:00:00Z"
    assert format_date(NOW_MS + 5) == "2025-01-01T00:00:00.005Z"


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", 90_000),
        ("2025-01-01T00:00:05Z", 5_000),
        ("2024-01-01T00:00:05Z", 0),
        ("", 0),
        ("-5s", 0),
        ("100000000ms", 100_000_000),
        (" 1s ", 1_000),
    ],
)
def test_due_times(text: str, ms: int) -> None:
    """A date or a duration; nothing and what is past is now."""
    assert parse_due_ms(text, NOW_MS) == NOW_MS + ms


def test_a_due_time_that_is_neither() -> None:
    """Is refused."""
    with pytest.raises(ProtocolError):
        parse_due_ms("tomorrow morning", NOW_MS)
