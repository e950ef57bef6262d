"""What a measurement gives."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Result:
    """A figure with its unit."""

    name: str
    value: float
    unit: str


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
