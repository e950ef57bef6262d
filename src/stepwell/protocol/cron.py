"""Cron lines as the protocol takes them (inngest-protocol §3.4): five fields, perhaps behind a time zone, or Cloudflare's behind a mark.

It checks and normalises the text; which ticks follow is the engine's to compute.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from stepwell.errors import ProtocolError
from stepwell.protocol.cloudflare_cron import CloudflareCron

CLOUDFLARE = "CLOUDFLARE "
"""The mark of a line in Cloudflare's syntax, which counts days of the week otherwise and has L, W and #: `CLOUDFLARE 0 18 * * 6L`."""
UTC_ZONE = "UTC"
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)", re.DOTALL)
_RANGE = re.compile(r"(\*|\?|[0-9]{1,2}|[A-Z]{3})(?:-([0-9]{1,2}|[A-Z]{3}))?(?:/([0-9]{1,2}))?")


class _Field(msgspec.Struct, frozen=True):
    """One field of a line: its name, bounds, and the names that stand for numbers from the lower bound on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, tuple("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split())),  # noqa: SIM905
    _Field("day of week", 0, 7, tuple("SUN MON TUE WED THU FRI SAT".split())),  # noqa: SIM905
)


class Cron(msgspec.Struct, frozen=True):
    """A checked line: the zone's name, and five fields with `*`, numbers, ranges, steps over ranges and lists, nothing else.

    One in Cloudflare's syntax is as it was written, always in UTC.
    """

    zone: str
    line: str
    is_cloudflares: bool = False


def parse_cron(text: str) -> Cron:
    """The parts of a cron line, `?` written as `*`, names as numbers. Raises `ProtocolError` naming the field that is wrong."""
    if text.startswith(CLOUDFLARE):
        line = text.removeprefix(CLOUDFLARE).strip()
        CloudflareCron(line)
        return Cron(UTC_ZONE, line, is_cloudflares=True)
    match = _ZONE.fullmatch(text.strip())
    zone, line = (match[1], match[2]) if match is not None else (UTC_ZONE, text)
    _check_zone(zone, text)
    if line.startswith(CLOUDFLARE):
        raise ProtocolError(f"cron {text!r}: lines in Cloudflare's syntax are in UTC: leave TZ={zone} away")
    fields = line.upper().split()
    if len(fields) != len(_FIELDS):
        hint = "; write @daily and its like out" if line.strip().startswith("@") else ""
        raise ProtocolError(f"cron {text!r} has {len(fields)} fields: it needs minute, hour, day of month, month, day of week{hint}")
    cron = Cron(zone, " ".join(_normal(field, part, text) for field, part in zip(_FIELDS, fields, strict=True)))
    try:
        CronSim(cron.line, _ANY_TIME)
    except CronSimError as error:
        raise ProtocolError(f"cron {text!r} never comes: {error}") from None
    return cron


def check_cron(text: str) -> None:
    """Raise `ProtocolError` for what is no cron line."""
    parse_cron(text)


def _check_zone(zone: str, text: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        # KeyError is what ZoneInfoNotFoundError is; the others come of texts that are no file name, or a folder's.
        raise ProtocolError(f"cron {text!r} has the unknown time zone {zone!r}: write one like TZ=Europe/Berlin") from None


def _normal(field: _Field, part: str, text: str) -> str:
    return ",".join(_range(field, item, text) for item in part.split(","))


def _range(field: _Field, item: str, text: str) -> str:
    match = _RANGE.fullmatch(item)
    if match is None or (match[1] in "*?" and match[2] is not None):
        raise ProtocolError(f"cron {text!r}: the {field.name} {item!r} is no number, range (1-5), step (*/10) or list of these (1,15)")
    first, last, step = match[1], match[2], match[3]
    if first in "*?":
        shown = "*"
    else:
        low = _number(field, first, text)
        high = low if last is None else _number(field, last, text)
        if step is not None and last is None:
            high = field.high if field.name != "day of week" else 6
        if high < low:
            raise ProtocolError(f"cron {text!r}: the {field.name} {item!r} ends before it begins")
        shown = str(low) if high == low else f"{low}-{high}"
    if step is None:
        return shown
    if int(step) == 0:
        raise ProtocolError(f"cron {text!r}: the {field.name} {item!r} has a step of 0")
    return f"{shown}/{int(step)}" if shown == "*" or "-" in shown else shown


def _number(field: _Field, written: str, text: str) -> int:
    if written in field.names:
        return field.names.index(written) + field.low
    if not written.isdecimal() or not field.low <= int(written) <= field.high:
        names = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise ProtocolError(f"cron {text!r}: the {field.name} {written!r} is not between {field.low} and {field.high}{names}")
    return int(written)
