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


_owed: set[asyncio.Task[None]] = set()


def owe(task: asyncio.Task[None]) -> None:
    """Have nothing leave a handler before this is done: what code without await has begun."""
    _owed.add(task)
    task.add_done_callback(_owed.discard)


async def paid() -> None:
    """Before something leaves: returns when all that is owed is done."""
    while _owed:
        await asyncio.wait(_owed)


def begins(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Begun[R]]:
    """A method whose work begins when it is called."""

    @functools.wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> Begun[R]:
        work = method(*args, **kwargs)
        return Begun(_behind(work) if _owed else work)

    return called


async def _behind(work: Coroutine[Any, Any, R]) -> R:
    await paid()
    return await work


class Started(Coroutine[Any, Any, R]):
    """A coroutine whose first step has been taken where it was made: often it is its last one, and what it does is done."""

    def __init__(self, work: Coroutine[Any, Any, R]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._rest: Begun[R] | None = None
        try:
            waits_for = work.send(None)
        except StopIteration as stop:
            self._result = stop.value
        except Exception as error:
            self._error = error
        else:
            self._rest = Begun(_resumed(work, waits_for))

    def send(self, value: Any) -> Any:
        """Give the result, or wait for it."""
        if self._rest is not None:
            return self._rest.send(value)
        if self._error is not None:
            raise self._error
        raise StopIteration(self._result)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        """End the waiting."""
        if self._rest is not None:
            return self._rest.throw(kind, value, trace)
        raise kind if value is None else value

    def close(self) -> None:
        """Wait no more."""
        if self._rest is not None:
            self._rest.close()

    def __await__(self) -> Generator[Any, Any, R]:
        if self._rest is not None:
            self._result = yield from self._rest.__await__()
        elif self._error is not None:
            raise self._error
        return self._result  # type: ignore[no-any-return]


async def _resumed(work: Coroutine[Any, Any, R], waits_for: Any) -> R:
    result: R = await _Resumed(work, waits_for)
    return result


class _Resumed:
    def __init__(self, work: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._work, self._waits_for = work, waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._waits_for
        while True:
            try:
                try:
                    value = yield waits_for
                except BaseException as error:
                    waits_for = self._work.throw(error)
                else:
                    waits_for = self._work.send(value)
            except StopIteration as stop:
                return stop.value


def at_once(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Started[R]]:
    """A method that is done when it is called, as far as it need not wait."""

    @functools.wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> Started[R]:
        return Started(method(*args, **kwargs))

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
