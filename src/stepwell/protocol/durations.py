"""Durations (`1h30m`, `7d`) and dates as the protocol writes them, to and from milliseconds. What is in between counts as later."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from stepwell.errors import ProtocolError

DURATION_MAX_MS = 100 * 366 * 24 * 3600 * 1000
"""A hundred years: no longer duration is meant, and a sum with today's date stays a date."""
TEXT_CHARS_MAX = 64
DATE_CHARS_MIN = 10
"""From this length on, a text that may be either is tried as a date first (§5.2)."""

_UNIT_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_UNIT_NS |= {"d": 24 * _UNIT_NS["h"], "w": 168 * _UNIT_NS["h"]}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h|d|w)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration_ms(text: str) -> int:
    """Milliseconds, a started one counted whole. Raises `ProtocolError` naming the text."""
    if text == "0":
        return 0
    total_ns = position = 0
    if len(text) <= TEXT_CHARS_MAX:
        while (part := _PART.match(text, position)) is not None and (part[1] or part[2]):
            unit_ns, fraction = _UNIT_NS[part[3]], part[2] or ""
            total_ns += int(part[1] or "0") * unit_ns + int(fraction or "0") * unit_ns // 10 ** len(fraction)
            position = part.end()
    if not text or position != len(text):
        raise ProtocolError(f'{text[:TEXT_CHARS_MAX]!r} is not a duration: write it like "30s", "1h30m" or "7d"')
    ms = -(-total_ns // 10**6)
    if ms > DURATION_MAX_MS:
        raise ProtocolError(f"{text!r} is longer than a hundred years")
    return ms


def format_duration(ms: int, *, days: bool = True) -> str:
    """The shortest exact form: `1h30m`, `90s` as `1m30s`, `1500ms`. Without `days` for readers that know no such unit."""
    if ms % 1000:
        return f"{ms}ms"
    seconds = ms // 1000
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if unit == "d" and not days:
            continue
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_date_ms(text: str) -> int | None:
    """A date of RFC 3339 or HTTP, a started millisecond counted whole; `None` for something else. Without a zone it is UTC."""
    if len(text) > TEXT_CHARS_MAX:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    since = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86400 + since.seconds) * 1000 + -(-since.microseconds // 1000)


def format_date(ms: int) -> str:
    """A time as RFC 3339 in UTC, with milliseconds only where there are some."""
    text = (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds" if ms % 1000 else "seconds")
    return text.removesuffix("+00:00") + "Z"


def parse_due_ms(text: str, now_ms: int) -> int:
    """When that is: a date, or a duration from now; nothing, and what is past, is now. Raises `ProtocolError` naming the text."""
    text = text.strip()
    if not text or text.startswith("-"):
        # JavaScript's SDK writes less than a second as nothing; Go writes what is past with a sign.
        return now_ms
    due_ms = parse_date_ms(text) if len(text) >= DATE_CHARS_MIN else None
    return max(now_ms, now_ms + parse_duration_ms(text) if due_ms is None else due_ms)
