"""How long a handler may take, by the clock and of the processor, and what cuts off one that takes longer.

The processor's time is summed up over the steps of all tasks that a handler starts. Code that gives nothing up in between is interrupted
by a signal, so a loop without end ends too. Nothing of this is set up while no limit is set.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any

import msgspec

CPU_CHECK_S = 0.05
"""How often the processor's time is looked at while code runs on without a break."""


class HandlerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one kind of handler, in seconds; `None` is none."""

    wall_s: float | None = None
    cpu_s: float | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a Worker's handlers, and of what they leave to `waitUntil`."""

    fetch: HandlerLimits = HandlerLimits()
    scheduled: HandlerLimits = HandlerLimits()
    queue: HandlerLimits = HandlerLimits()
    alarm: HandlerLimits = HandlerLimits()
    wait_until_s: float | None = None

    @property
    def has_cpu(self) -> bool:
        """Whether the processor's time counts anywhere."""
        return any(one.cpu_s is not None for one in (self.fetch, self.scheduled, self.queue, self.alarm))


NO_LIMITS = Limits()
WALL_S, CPU_S, WAIT_UNTIL_S = 900.0, 30.0, 30.0


def cloudflares(cpu_ms: int | None = None) -> Limits:
    """Those of Cloudflare's platform; `cpu_ms` is what the wrangler file sets."""
    cpu_s = CPU_S if cpu_ms is None else cpu_ms / 1000
    long = HandlerLimits(wall_s=WALL_S, cpu_s=cpu_s)
    return Limits(fetch=HandlerLimits(cpu_s=cpu_s), scheduled=long, queue=long, alarm=long, wait_until_s=WAIT_UNTIL_S)


class LimitExceeded(BaseException):
    """A handler has taken longer than it may. Not an `Exception`, so that a handler does not catch it by accident."""


meter: ContextVar[Meter | None] = ContextVar("stepwell_meter", default=None)
"""What the code that runs now is counted on."""
_stepping: Meter | None = None
"""What the step that this thread is in is counted on: the signals ask."""


class Meter:
    """The time that one call of a handler has used."""

    def __init__(self, what: str, limits: HandlerLimits) -> None:
        self.what, self._limits = what, limits
        self.cpu_s = 0.0
        self._deadline = None if limits.wall_s is None else time.monotonic() + limits.wall_s
        self._since = 0.0
        self.exceeded: LimitExceeded | None = None

    @property
    def counts(self) -> bool:
        """Whether there is anything to count."""
        return self._limits.cpu_s is not None or self._limits.wall_s is not None

    @property
    def left_s(self) -> float | None:
        """What is left by the clock."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def out_of_time(self) -> LimitExceeded:
        """The error of a handler that has used up its time by the clock."""
        return self._exceed(f"took longer than {self._limits.wall_s:g} s and was stopped: split the work, or raise its limit")

    def begin(self) -> None:
        """A step begins. Raises `LimitExceeded` where nothing is left."""
        global _stepping
        if self.exceeded is not None:
            raise LimitExceeded(*self.exceeded.args)
        self._since = time.thread_time()
        if threading.current_thread() is threading.main_thread():
            _stepping = self
            left_s = self.left_s
            if left_s is not None:
                signal.setitimer(signal.ITIMER_REAL, max(left_s, 0.001))

    def end(self) -> None:
        """The step is over. Raises `LimitExceeded` where it took too long."""
        global _stepping
        if _stepping is self:
            _stepping = None
            if self._deadline is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
        self.cpu_s += time.thread_time() - self._since
        if self.exceeded is None:
            self._check(0.0)

    def tick(self) -> None:
        """A signal in the midst of a step."""
        if self.exceeded is None:
            self._check(time.thread_time() - self._since)

    def _check(self, running_s: float) -> None:
        if self._limits.cpu_s is not None and self.cpu_s + running_s > self._limits.cpu_s:
            raise self._exceed(
                f"used more than {self._limits.cpu_s:g} s of the processor and was stopped: raise limits.cpu_ms in the wrangler file"
            )
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise self.out_of_time()

    def _exceed(self, why: str) -> LimitExceeded:
        if self.exceeded is None:
            self.exceeded = LimitExceeded(f"{self.what} {why}")
        return self.exceeded


class _Metered(Coroutine[Any, Any, Any]):
    """A coroutine each step of which is counted."""

    def __init__(self, inner: Coroutine[Any, Any, Any], counted_on: Meter) -> None:
        self._inner, self._meter = inner, counted_on
        self.__name__ = getattr(inner, "__name__", type(inner).__name__)
        self.__qualname__ = getattr(inner, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        error = kind if value is None else value
        return self._step(self._inner.throw, error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def _step(self, go: Callable[[Any], Any], value: Any) -> Any:
        try:
            self._meter.begin()
        except LimitExceeded as error:
            return self._inner.throw(error)
        try:
            result = go(value)
        except BaseException:
            self._meter.end()
            raise
        try:
            self._meter.end()
        except LimitExceeded as error:
            return self._inner.throw(error)
        return result


def metered(work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """The work, counted on the meter of the code that starts it, where that counts."""
    counted_on = meter.get()
    return work if counted_on is None or not counted_on.counts else _Metered(work, counted_on)


def count_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Count what a handler's tasks do, those that it starts itself among them, and interrupt code that runs on for too long."""

    def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(metered(work), loop=loop, **options)

    loop.set_task_factory(make)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGPROF, _on_signal)
        signal.signal(signal.SIGALRM, _on_signal)
        signal.setitimer(signal.ITIMER_PROF, CPU_CHECK_S, CPU_CHECK_S)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _stepping is not None:
        _stepping.tick()
