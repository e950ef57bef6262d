"""Where time and entropy come from. Everything else is given both, so that a test can turn them."""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored, elapsed time for how long something took, and entropy for new ids."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def elapsed_ms(self) -> float:
        """Milliseconds of a clock that never goes back."""
        ...

    def entropy(self, size: int) -> bytes:
        """Random bytes."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def elapsed_ms(self) -> float:
        """Milliseconds of a clock that never goes back."""
        return time.perf_counter() * 1000

    def entropy(self, size: int) -> bytes:
        """Random bytes."""
        return os.urandom(size)
