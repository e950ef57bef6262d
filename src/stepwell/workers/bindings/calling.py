"""How methods of bindings are called: they begin at once, awaited or not, and take options as keywords or as a last dict."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Begun(Coroutine[Any, Any, R]):
    """A coroutine whose work is under way already, as the work behind a promise is."""

    def __init__(self, work: Coroutine[Any, Any, R]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)
        self._waiting: Generator[Any, Any, R] | None = None

    def send(self, value: Any) -> Any:
        """Go on waiting."""
        if self._waiting is None:
            self._waiting = self._task.__await__()
        return self._waiting.send(value)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        """End the waiting; a cancelled wait cancels the work, as it does for any task."""
        if self._waiting is None:
            self._waiting = self._task.__await__()
        return self._waiting.throw(kind if value is None else value)

    def close(self) -> None:
        """Wait no more; the work goes on."""
        if self._waiting is not None:
            self._waiting.close()

    def __await__(self) -> Generator[Any, Any, R]:
        return self._task.__await__()


def begins(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Begun[R]]:
    """A method whose work begins when it is called."""

    @functools.wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> Begun[R]:
        return Begun(method(*args, **kwargs))

    return called


def options_of(given: Any, named: dict[str, Any]) -> dict[str, Any]:
    """The options of a call. Raises `TypeError` for a last argument that holds none."""
    if given is None:
        return named
    if not isinstance(given, dict):
        raise TypeError(f"options are {given!r:.60}; give keywords, or a dict")
    return {**given, **named}


def number_of(value: Any) -> float:
    """What JavaScript makes a number of; NaN where it is none."""
    if value is None:
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def shown_number(value: float) -> str:
    """A number as JavaScript writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
