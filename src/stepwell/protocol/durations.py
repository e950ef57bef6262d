"""Durations as the protocol writes them: concatenated decimals with units, `1h30m`, `7d`."""

from __future__ import annotations

import re

from stepwell.errors import ProtocolError

_UNIT_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_UNIT_NS |= {"d": 24 * _UNIT_NS["h"], "w": 168 * _UNIT_NS["h"]}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)")


def parse_duration_ms(text: str) -> int:
    """Milliseconds, a started one counted whole. Raises `ProtocolError` naming the text."""
    total = 0.0
    position = 0
    for part in _PART.finditer(text):
        if part.start() != position:
            break
        total += float(part[1]) * _UNIT_NS[part[2]]
        position = part.end()
    if not text or position != len(text):
        raise ProtocolError(f'{text!r} is not a duration: write it like "30s", "1h30m" or "7d"')
    return -int(-total // 10**6)


def format_duration(ms: int) -> str:
    """The shortest exact form in the units that every SDK reads: `1h30m`, `90s` as `1m30s`, `1500ms`."""
    if ms % 1000:
        return f"{ms}ms"
    seconds = ms // 1000
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
