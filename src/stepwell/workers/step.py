"""The `step` of a workflow, made of the step tools of our own functions.

`@step.do(…)` makes a function a step of the run, with retries and a limit of time of its own; what a step's function takes are results of
other steps: those that `depends` lists, or, in the newer way, those whose names its parameters have. A step that several depend on is run
once.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from stepwell.errors import NonRetriableError, RetryAfterError, StepError
from stepwell.protocol.answers import RETRY_AFTER_MAX_MS
from stepwell.sdk.context import Context
from stepwell.sdk.threads import in_thread, is_async
from stepwell.workers.errors import NonRetryableError, WorkflowTimeoutError
from stepwell.workers.mailbox import signal_of
from stepwell.workers.rpc import Record
from stepwell.workers.step_config import StepConfig, checked_name, duration_of, read_config
from stepwell.workers.values import packed, unpacked

EVENT_TIMEOUT = "24 hours"
_RESTORED: dict[str, type[Exception]] = {
    "NonRetryableError": NonRetryableError,
    "TypeError": TypeError,
    "ValueError": ValueError,
    "WorkflowTimeoutError": WorkflowTimeoutError,
}
"""Errors of steps that come back as what they were; all others are a `StepError` with name and message."""


class Step(Protocol):
    """What `@step.do` makes of a function."""

    _step_name: str

    def __call__(self) -> Coroutine[Any, Any, Any]:
        """Run the step, or give its stored result."""
        ...


class WorkflowStep:
    """The steps of an instance."""

    do: Callable[..., Callable[[Callable[..., Any]], Step]]

    def __init__(self, ctx: Context[Any], workflow: str, instance: str, started_ms: int, *, implicit: bool) -> None:
        self._ctx, self._workflow, self._instance, self._started_ms = ctx, workflow, instance, started_ms
        self.do = self._do_implicit if implicit else self._do_legacy
        self._steps: dict[str, Step] = {}
        self._results: dict[Step, Any] = {}
        self._in_flight: dict[Step, asyncio.Future[Any]] = {}
        self._counts: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    # Steps that run code.

    def _do_legacy(
        self, name: str, depends: Sequence[Any] | None = None, concurrent: bool = False, config: dict[str, Any] | None = None
    ) -> Callable[[Callable[..., Any]], Step]:
        """`@step.do("name", depends=[other])`: the function takes the results of other steps, in their order, and `ctx`."""
        return self._decorator(name, lambda fn: _listed(fn, depends), concurrent, config)

    def _do_implicit(
        self, name: str | None = None, *, concurrent: bool = False, config: dict[str, Any] | None = None
    ) -> Callable[[Callable[..., Any]], Step]:
        """`@step.do()`: the function takes the results of the steps that its parameters are named after, and `ctx`."""
        return self._decorator(name, self._parameters, concurrent, config)

    def _decorator(
        self,
        name: str | None,
        dependencies: Callable[[Callable[..., Any]], list[Step | None]],
        concurrent: bool,
        config: dict[str, Any] | None,
    ) -> Callable[[Callable[..., Any]], Step]:
        def decorate(fn: Callable[..., Any]) -> Step:
            step_name = fn.__name__ if name is None else name

            async def step() -> Any:
                arguments = await self._gathered(dependencies(fn), concurrent)
                return await self._run(made, step_name, fn, arguments, config)

            made: Any = step
            made.__name__, made.__doc__, made._step_name = fn.__name__, fn.__doc__, step_name
            self._steps[step_name] = made
            return made  # type: ignore[no-any-return]

        return decorate

    def _parameters(self, fn: Callable[..., Any]) -> list[Step | None]:
        found: list[Step | None] = []
        for parameter in inspect.signature(fn).parameters.values():
            if parameter.name in self._steps:
                found.append(self._steps[parameter.name])
            elif parameter.name == "ctx":
                found.append(None)
            else:
                raise TypeError(f"Received unexpected parameter {parameter.name}")
        return found

    async def _gathered(self, dependencies: list[Step | None], concurrent: bool) -> list[Any]:
        """The results of other steps; in the place of the step's context stands `_CONTEXT`."""
        if concurrent:
            return list(await asyncio.gather(*(self._result(one) for one in dependencies)))
        return [await self._result(one) for one in dependencies]

    async def _result(self, dependency: Step | None) -> Any:
        if dependency is None:
            return _CONTEXT
        if dependency in self._results:
            return self._results[dependency]
        if dependency in self._in_flight:
            return await _given(self._in_flight[dependency])
        return await dependency()

    async def _run(self, step: Step, name: str, fn: Callable[..., Any], arguments: list[Any], given: dict[str, Any] | None) -> Any:
        checked_name(name)
        config = read_config(name, given)
        count = self._counts[name] = self._counts.get(name, 0) + 1
        attempt = functools.partial(self._attempt, Record(name=name, count=count), config, fn, arguments)
        asked = self._ctx.step.options(retries=config.limit).run(_id(name), attempt)
        # A task that has nothing else to do is joined to those beside it; where more follows, the run goes on as soon as it is done.
        asking = asyncio.current_task()
        direct = not arguments and asking is not None and _is_step(asking)
        task = self._in_flight[step] = asyncio.ensure_future(asked if direct else _awaited(asked))
        try:
            result = self._results[step] = await _given(task)
        finally:
            self._in_flight.pop(step, None)
        return result

    async def _attempt(self, step: Record, config: StepConfig, fn: Callable[..., Any], arguments: list[Any]) -> Any:
        """One try, inside the step. Its error says whether another one follows, and when."""
        attempt = self._ctx.attempt + 1
        context = Record(step=step, attempt=attempt, config=config.shown)
        limit = asyncio.timeout(config.timeout_ms / 1000)
        try:
            try:
                async with limit:
                    return packed(await _called(fn, [context if one is _CONTEXT else one for one in arguments]))
            except TimeoutError as error:
                if limit.expired():
                    raise WorkflowTimeoutError(f"Execution timed out after {config.timeout_ms}ms") from error
                raise
        except NonRetryableError as error:
            raise final(error) from error
        except Exception as error:
            if attempt > config.limit:
                raise
            pause_ms = min(await config.pause_ms(attempt, context, error), RETRY_AFTER_MAX_MS)
            raise _again(error, pause_ms) from error

    # Waiting.

    async def sleep(self, name: str, duration: int | float | str) -> None:
        """Go on after a number of milliseconds, or `"10 minutes"`."""
        ms = duration_of(duration, f'the duration of step.sleep("{checked_name(name)}")')
        if ms > 0:
            await self._ctx.step.sleep(_id(name), timedelta(milliseconds=ms))

    async def sleep_until(self, name: str, timestamp: datetime | str | int | float) -> None:
        """Go on at a time. Raises `ValueError` for one before the instance's beginning."""
        at_ms = _time_ms(timestamp, f'the time of step.sleep_until("{checked_name(name)}")')
        # Whether a time has passed is asked again whenever the run is replayed; whether it lay before the run is always answered alike.
        if at_ms < self._started_ms:
            raise ValueError("You can't sleep until a time in the past, time-traveler")
        await self._ctx.step.sleep_until(_id(name), datetime.fromtimestamp(at_ms / 1000, UTC))

    async def wait_for_event(self, name: str, event_type: str, /, timeout: int | float | str = EVENT_TIMEOUT) -> Record:
        """The next event of a type that is sent to the instance, or was sent before and is not taken yet.

        Raises `WorkflowTimeoutError` when its time is over first.
        """
        ms = duration_of(timeout, f'the timeout of step.wait_for_event("{checked_name(name)}")')
        # Of several waits for one type, who asked first is given the first event; the time of the next begins when its turn comes.
        async with self._turns.setdefault(event_type, asyncio.Lock()):
            signal = signal_of(self._workflow, self._instance, event_type)
            timeout_of = timedelta(milliseconds=max(ms, 1))
            found = await self._ctx.step.wait_for_signal(_id(name), signal, timeout=timeout_of, on_conflict="replace")
        if found is None:
            raise WorkflowTimeoutError(f"Execution timed out after {ms}ms")
        event: Record = unpacked(found.data)
        return event


_CONTEXT: Any = object()


def _listed(fn: Callable[..., Any], depends: Sequence[Any] | None) -> list[Step | None]:
    parameters = list(inspect.signature(fn).parameters)
    others = [name for name in parameters if name != "ctx"]
    if depends is None and others:
        raise TypeError(f"Step has {len(others)} non-ctx parameter(s) but no 'depends' list provided")
    if depends is not None and len(depends) != len(others):
        raise TypeError(f"Step declares {len(others)} non-ctx parameter(s) but 'depends' has {len(depends)} item(s)")
    left = list(depends or ())
    found: list[Step | None] = []
    for name in parameters:
        dependency = None if name == "ctx" else left.pop(0)
        if name != "ctx" and not hasattr(dependency, "_step_name"):
            raise TypeError(f"'depends' entry for parameter {name!r} is not a function decorated with step.do")
        found.append(dependency)
    return found


def _is_step(task: asyncio.Task[Any]) -> bool:
    """Whether a task is a call of a step and nothing else."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename == __file__ and code.co_qualname.endswith("decorate.<locals>.step")


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


async def _given(task: asyncio.Future[Any]) -> Any:
    """A step's result. Raises its error, as what it was where that can be."""
    try:
        return unpacked(await task)
    except StepError as error:
        kind = _RESTORED.get(error.name)
        if kind is None:
            raise
        raise kind(error.message) from error


async def _called(fn: Callable[..., Any], arguments: list[Any]) -> Any:
    if is_async(fn):
        return await fn(*arguments)
    result = await in_thread(functools.partial(fn, *arguments))
    return await result if inspect.isawaitable(result) else result


def _again(error: Exception, pause_ms: int) -> RetryAfterError:
    """An error under its own name, after which the step is tried again so much later."""
    kind = type(type(error).__name__, (RetryAfterError,), {})
    again: RetryAfterError = kind(str(error), timedelta(milliseconds=pause_ms))
    return again


def final(error: Exception, name: str | None = None, message: str | None = None) -> NonRetriableError:
    """An error under its own name, or another, after which nothing is tried again."""
    told = error.name if isinstance(error, StepError) else type(error).__name__
    kind = type(name or told, (NonRetriableError,), {})
    made: NonRetriableError = kind(str(error) if message is None else message)
    return made


def _id(name: str) -> str:
    """The step's id: a name may be empty, an id may not."""
    return name or "step"


def _time_ms(value: Any, what: str) -> int:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return round(value)
    try:
        return round(datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp() * 1000)
    except ValueError:
        raise ValueError(f'{what} is {value!r}; it must be a datetime, or a text like "2030-01-31T08:00:00Z"') from None
