"""The step tools that a function finds in `ctx.step`, and the `@app.step` decorator's object."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json
from stepwell.sdk.durations import Duration, When, duration_ms, time_ms
from stepwell.sdk.event import Event, outgoing_of
from stepwell.sdk.options import retries_of
from stepwell.sdk.request import scope
from stepwell.sdk.serializer import codec_of, result_codec
from stepwell.sdk.session import Session, current

if TYPE_CHECKING:
    from stepwell.sdk.app import App

P = ParamSpec("P")
R = TypeVar("R")

THREADS_MAX = 64
"""Plain functions that run at a time, as steps or as whole functions."""

_threads: concurrent.futures.ThreadPoolExecutor | None = None
_CORO = inspect.CO_COROUTINE


def threads() -> concurrent.futures.ThreadPoolExecutor:
    """The threads that plain functions run in, made when first needed."""
    global _threads
    if _threads is None:
        _threads = concurrent.futures.ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="stepwell")
    return _threads


def forget_threads() -> None:
    """After a fork: the parent's threads are not there."""
    global _threads
    _threads = None


async def in_thread(fn: Callable[[], R]) -> R:
    """Run a plain function in a thread, with the context variables of here."""
    return await asyncio.get_running_loop().run_in_executor(threads(), copy_context().run, fn)


def is_async(fn: Any) -> bool:
    """Whether calling it gives a coroutine."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _CORO) or inspect.iscoroutinefunction(fn)
    # An object with `async def __call__` counts as well.
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


async def _run_plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await in_thread(functools.partial(fn, *args, **kwargs))
    return await result if inspect.isawaitable(result) else result


class StepTools:
    """The steps of one run. Each is durable: once finished it does not run again, however often the function is called."""

    __slots__ = ("_retries", "_session", "_timeout_ms")

    def __init__(self, session: Session, retries: int | None = None, timeout_ms: int | None = None) -> None:
        self._session, self._retries, self._timeout_ms = session, retries, timeout_ms

    def options(self, *, retries: int | None = None, timeout: Duration | None = None) -> StepTools:
        """The same tools with options for the next step: fewer retries than the function has, a limit of time."""
        function = self._session.function
        where = f"function {function.id!r}: step.options"
        if retries is not None and retries_of(retries, where) > function.retries:
            raise UsageError(
                f"{where}: retries is {retries}, but the function has retries={function.retries}, "
                "which is the most a step can have: raise the function's"
            )
        timeout_ms = None if timeout is None else duration_ms(timeout, f"{where}: timeout")
        return StepTools(self._session, retries, timeout_ms)

    @overload
    def run(self, id: str, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def run(self, id: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...

    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run a function as a step, and give its stored result. A plain function runs in a thread.

        Raises `StepError` when it has failed for good.
        """
        plain = getattr(fn, "_stepwell_plain", fn)
        request = self._session.request(id)
        if is_async(plain):
            request.fn = functools.partial(plain, *args, **kwargs)
        else:
            request.fn = functools.partial(_run_plain, plain, args, kwargs)
        request.codec = result_codec(plain)
        request.retries = self._retries
        if self._timeout_ms is not None:
            request.timeout_s = self._timeout_ms / 1000
        return self._session.ask(request)

    def sleep(self, id: str, duration: Duration) -> Coroutine[Any, Any, None]:
        """Go on after a duration. Nothing of the run is held meanwhile."""
        request = self._session.request(id)
        request.sleep = duration_ms(duration, f"step {id!r}: the sleep's duration")
        request.sleep_from = self._session.loop.time()
        return self._session.ask(request)

    def sleep_until(self, id: str, when: When) -> Coroutine[Any, Any, None]:
        """Go on at a point in time; at once, where it has passed."""
        request = self._session.request(id)
        request.sleep = iso(time_ms(when, f"step {id!r}: when"))
        return self._session.ask(request)

    def send_event(self, id: str, *events: Event | dict[str, Any]) -> Coroutine[Any, Any, list[str]]:
        """Send events, once. Gives their ids."""
        if not events:
            raise UsageError(f"step {id!r} sends no event: give at least one")
        request = self._session.request(id)
        # Ids that are the same for each try, so that a try whose answer was lost starts nothing twice.
        own = f"{self._session.run_id}-{request.hash[:12]}"
        bodies: Json = b"[" + b",".join(outgoing_of(event, f"{own}-{n}") for n, event in enumerate(events)) + b"]"
        request.fn = functools.partial(self._session.function.app.send_body, bodies)
        request.codec = codec_of(list[str])
        request.opts = b'{"type":"step.sendEvent"}'
        return self._session.ask(request)


class SyncStepTools:
    """The steps of a run whose function is a plain `def`: each call blocks the function's thread until its result is there."""

    __slots__ = ("_tools",)

    def __init__(self, tools: StepTools) -> None:
        self._tools = tools

    def options(self, *, retries: int | None = None, timeout: Duration | None = None) -> SyncStepTools:
        """As `StepTools.options`."""
        return SyncStepTools(self._tools.options(retries=retries, timeout=timeout))

    @overload
    def run(self, id: str, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `StepTools.run`."""
        return blocking(self._tools._session, lambda: self._tools.run(id, fn, *args, **kwargs))

    def sleep(self, id: str, duration: Duration) -> None:
        """As `StepTools.sleep`."""
        blocking(self._tools._session, lambda: self._tools.sleep(id, duration))

    def sleep_until(self, id: str, when: When) -> None:
        """As `StepTools.sleep_until`."""
        blocking(self._tools._session, lambda: self._tools.sleep_until(id, when))

    def send_event(self, id: str, *events: Event | dict[str, Any]) -> list[str]:
        """As `StepTools.send_event`."""
        return blocking(self._tools._session, lambda: self._tools.send_event(id, *events))


def blocking(session: Session, ask: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Await a step from a thread of the run."""

    async def perform() -> R:
        return await ask()

    if asyncio._get_running_loop() is not None:
        raise UsageError("a step of a plain function blocks its thread: it cannot be called where an event loop runs")
    return asyncio.run_coroutine_threadsafe(perform(), session.loop).result()


class Step(Generic[P, R]):
    """A function made a step by `@app.step`: inside a run, calling it is a step; outside, a plain call.

    `plain` is the function as it was written.
    """

    def __init__(self, app: App, fn: Callable[P, R], id: str, retries: int | None, timeout: Duration | None) -> None:
        self.app, self.id, self.plain, self._retries, self._timeout = app, id, fn, retries, timeout
        self._stepwell_plain = fn
        functools.update_wrapper(self, fn)
        if retries is not None:
            retries_of(retries, f"step {id!r}")
        if timeout is not None:
            duration_ms(timeout, f"step {id!r}: timeout")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        session = current.get()
        if session is None:
            return self.plain(*args, **kwargs)
        inside = scope.get()
        if inside is not None:
            raise UsageError(
                f"step {self.id!r} was called inside step {inside.id!r}: a step cannot hold steps; "
                f"call the function itself, {self.__name__}.plain(…)"  # type: ignore[attr-defined]
            )
        tools = StepTools(session)
        if self._retries is not None or self._timeout is not None:
            tools = tools.options(retries=self._retries, timeout=self._timeout)
        if is_async(self.plain):
            return tools.run(self.id, self.plain, *args, **kwargs)  # type: ignore[return-value]
        if asyncio._get_running_loop() is not None:
            raise UsageError(
                f"step {self.id!r} is a plain function and would block the event loop: "
                f"write it as async def, or await ctx.step.run({self.id!r}, …)"
            )
        return blocking(session, lambda: tools.run(self.id, self.plain, *args, **kwargs))


def iso(ms: int) -> str:
    """A time in ISO form, UTC, with milliseconds."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
