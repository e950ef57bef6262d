"""Durations and times as users write them: `timedelta` or `"1h30m"`, `datetime` or an ISO string. Bare numbers are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.durations import parse_duration_ms
from stepwell.protocol.ops import parse_date_ms

Duration = timedelta | str
"""`timedelta(seconds=30)` or `"30s"`, `"1h30m"`, `"7d"`."""

When = datetime | str
"""A `datetime` or a date in ISO form; without a zone it is UTC."""


def duration_ms(value: object, what: str) -> int:
    """Milliseconds of a duration. Raises `UsageError` that names `what`, the value and the forms that are taken."""
    if isinstance(value, timedelta):
        ms = round(value / timedelta(milliseconds=1))
    elif isinstance(value, str):
        try:
            ms = parse_duration_ms(value)
        except ProtocolError:
            raise UsageError(f"{what} is {value!r}, which is no duration: {_FORMS}") from None
    else:
        raise UsageError(f"{what} is {value!r}, which does not say its unit: {_FORMS}")
    if ms < 0:
        raise UsageError(f"{what} is {value!r}; a duration cannot be negative")
    return ms


_FORMS = 'write it like "30s", "1h30m" or "7d", or as timedelta(seconds=30)'


def time_ms(value: object, what: str) -> int:
    """Milliseconds since the epoch of a point in time. Raises `UsageError` that names `what` and the value."""
    if isinstance(value, datetime):
        date = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        since = date - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86400 + since.seconds) * 1000 + -(-since.microseconds // 1000)
    ms = parse_date_ms(value) if isinstance(value, str) else None
    if ms is None:
        raise UsageError(f'{what} is {value!r}: write it as a datetime, or in ISO form like "2030-01-31T08:00:00Z"')
    return ms
