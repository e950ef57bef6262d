"""One call of a handler: its `ctx`, the work it leaves to `waitUntil`, its limits of time."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from stepwell.workers.limits import HandlerLimits, LimitExceeded, Meter, meter
from stepwell.workers.rpc import Record

GRACE_S = 5.0
"""How long a handler that is stopped may clean up."""
log = logging.getLogger("stepwell.workers")
current: ContextVar[Invocation | None] = ContextVar("stepwell_invocation", default=None)


class ExecutionContext:
    """The `ctx` of a handler."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self.props = Record()

    def waitUntil(self, other: Awaitable[Any]) -> None:
        """Have work done beyond the handler's return. What it raises fails a batch and a tick, and is logged for a request."""
        self._invocation.wait_until(other)

    def passThroughOnException(self) -> None:
        """Nothing stands behind a Worker here to pass a request on to."""


class Invocation:
    """A call of a handler, to the end of what it leaves to `waitUntil`."""

    def __init__(self, what: str, limits: HandlerLimits, wait_until_s: float | None) -> None:
        self.what, self.ctx = what, ExecutionContext(self)
        self._meter, self._wait_until_s = Meter(what, limits), wait_until_s
        self._waited: set[asyncio.Future[Any]] = set()
        self._context = copy_context()
        self._context.run(current.set, self)
        self._context.run(meter.set, self._meter)
        self.error: BaseException | None = None
        """What the first of the works that failed raised."""

    def wait_until(self, work: Awaitable[Any]) -> None:
        """Take on work. Raises `TypeError` for what cannot be awaited."""
        if not inspect.isawaitable(work):
            raise TypeError(f"waitUntil({work!r}): give what can be awaited, such as the coroutine of a call: waitUntil(work())")
        if isinstance(work, asyncio.Future):
            future: asyncio.Future[Any] = work
        else:
            future = self._start(work, self._context.copy())
        if future not in self._waited:
            self._waited.add(future)
            future.add_done_callback(self._on_done)

    def _on_done(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None and self.error is None:
            self.error = error

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What the handler returns. Raises what it raises, and `LimitExceeded` where its time is over."""
        task = self._start(work, self._context)
        try:
            await asyncio.wait({task}, timeout=self._meter.left_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            return task.result()
        error = self._meter.out_of_time()
        await _stop({task})
        raise error

    def _start(self, work: Awaitable[Any], context: Context) -> asyncio.Task[Any]:
        # Called inside the context as well, where what makes tasks finds the meter.
        return context.run(asyncio.get_running_loop().create_task, _kept(work), context=context)

    async def finish(self) -> None:
        """Returns when all work is done. Raises what the first of it that failed raised, `LimitExceeded` where it took too long."""
        loop = asyncio.get_running_loop()
        deadline = None if self._wait_until_s is None else loop.time() + self._wait_until_s
        while left := {future for future in self._waited if not future.done()}:
            timeout = None if deadline is None else deadline - loop.time()
            if timeout is not None and timeout <= 0:
                await _stop(left)
                raise LimitExceeded(
                    f"{self.what}: what was left to waitUntil() was not done {self._wait_until_s:g} s after the handler had ended, and was "
                    "cancelled: send long work to a queue or a workflow"
                )
            await asyncio.wait(left, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self.error is not None:
            raise self.error


def wait_until(work: Awaitable[Any]) -> None:
    """`ctx.waitUntil` of the handler that this code belongs to."""
    invocation = current.get()
    if invocation is None:
        raise RuntimeError("wait_until() belongs to a handler: call it from code that one runs")
    invocation.wait_until(work)


async def _kept(work: Awaitable[Any]) -> Any:
    """The work's result. One that wants to end the process has failed, and only itself."""
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(f"sys.exit({error.code!r}) ends no Worker: return, or raise an exception") from error


async def _stop(futures: set[Any]) -> None:
    for future in futures:
        future.add_done_callback(_seen)
        future.cancel()
    if futures:
        await asyncio.wait(futures, timeout=GRACE_S)


def _seen(future: asyncio.Future[Any]) -> None:
    """Look at the exception of what was stopped, so that asyncio does not tell it once more."""
    if not future.cancelled():
        future.exception()
