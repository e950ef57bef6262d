"""A clock that the simulation turns, and coroutines that never really wait."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
START_MS = 1_750_000_000_000


class VirtualClock:
    """Time stands still until it is turned; entropy comes from the seed."""

    def __init__(self, chance: random.Random) -> None:
        self.ms = START_MS
        self._chance = chance

    def now_ms(self) -> int:
        """The virtual time."""
        return self.ms

    def elapsed_ms(self) -> float:
        """Deciding takes no time here."""
        return 0.0

    def entropy(self, size: int) -> bytes:
        """Bytes of the seed's."""
        return self._chance.randbytes(size)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over the memory store, which never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("the coroutine waits for something")
