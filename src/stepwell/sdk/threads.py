"""The threads that plain functions run in, and which functions are plain."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from stepwell.errors import UsageError

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


def await_in(loop: asyncio.AbstractEventLoop, ask: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Await a step in the run's event loop, from a thread of the run."""

    async def perform() -> R:
        return await ask()

    if asyncio._get_running_loop() is not None:
        raise UsageError("a step of a plain function blocks its thread: it cannot be called where an event loop runs")
    return asyncio.run_coroutine_threadsafe(perform(), loop).result()
