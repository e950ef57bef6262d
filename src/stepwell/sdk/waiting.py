"""What the tasks of a run wait for: steps only, or something else as well, such as a socket.

A call may only be ended (to sleep, or to plan parallel steps) when nothing of the run is under way but steps. asyncio does not say
what a task waits for, but it can be followed from the function's own task through what it joins: `gather`, `TaskGroup`, `wait`,
`wait_for`, a task. What ends at locks and queues waits for another branch of the same function. Whatever else it ends at counts as
something else: the session then lets it go on for a limited time, so a wrong guess costs time and never a standstill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_COORDINATION = ("asyncio/locks.py", "asyncio/queues.py")


def waits_elsewhere(task: asyncio.Future[Any], asking: set[asyncio.Task[Any] | None]) -> bool:
    """Whether the task, or one that it joins, waits for something that is neither a step (`asking` do) nor another branch."""
    return _elsewhere(task, asking, set())


def joined_tasks(task: asyncio.Future[Any], found: set[asyncio.Task[Any]] | None = None) -> set[asyncio.Task[Any]]:
    """The task and all that it waits for by joining them, at any depth."""
    found = set() if found is None else found
    if task in found:
        return found
    inner: Iterable[Any] = getattr(task, "_children", None) or ()
    if isinstance(task, asyncio.Task):
        found.add(task)
        waiter = getattr(task, "_fut_waiter", None)
        inner = [*([] if waiter is None else [waiter]), *(_joined(task.get_coro()) or ())]
    for one in inner:
        if isinstance(one, asyncio.Task) or hasattr(one, "_children"):
            joined_tasks(one, found)
    return found


def wants_any(task: asyncio.Task[Any]) -> bool:
    """Whether the task waits for the first of several: `wait(…, FIRST_COMPLETED)`, `as_completed`."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        code, frame = getattr(coroutine, "cr_code", None), getattr(coroutine, "cr_frame", None)
        if code is not None and frame is not None and code.co_filename.endswith("asyncio/tasks.py"):
            first = frame.f_locals.get("return_when", asyncio.ALL_COMPLETED) != asyncio.ALL_COMPLETED
            if first or code.co_name == "_wait_for_one":
                return True
        coroutine = getattr(coroutine, "cr_await", None)
    return False


def _elsewhere(future: asyncio.Future[Any], asking: set[asyncio.Task[Any] | None], seen: set[int]) -> bool:
    if id(future) in seen or future.done() or future in asking:
        return False
    seen.add(id(future))
    children = getattr(future, "_children", None)
    if children is not None:
        return _any(children, asking, seen)
    if not isinstance(future, asyncio.Task):
        return True
    waiter = getattr(future, "_fut_waiter", None)
    if waiter is None:
        return True
    if isinstance(waiter, asyncio.Task) or hasattr(waiter, "_children"):
        # Where that is done, the task is about to go on, and nobody knows yet to what.
        return waiter.done() or _elsewhere(waiter, asking, seen)
    joined = _joined(future.get_coro())
    return joined is None or (joined != () and _any(joined, asking, seen))


def _any(futures: Iterable[Any], asking: set[asyncio.Task[Any] | None], seen: set[int]) -> bool:
    alive = [future for future in futures if not future.done()]
    # With all of them done, the task that joined them is about to go on.
    return not alive or any(_elsewhere(future, asking, seen) for future in alive)


def _joined(coroutine: Any) -> Iterable[Any] | None:
    """The futures that the innermost joining coroutine waits for; none of them at a lock or queue; `None`: it joins nothing."""
    found: Iterable[Any] | None = None
    while coroutine is not None:
        code, frame = getattr(coroutine, "cr_code", None), getattr(coroutine, "cr_frame", None)
        if code is not None and frame is not None:
            if code.co_filename.endswith(_COORDINATION):
                found = ()
            elif code.co_name == "__aexit__":
                tasks = getattr(frame.f_locals.get("self"), "_tasks", None)
                found = tuple(tasks) if tasks else found
            elif code.co_filename.endswith("asyncio/tasks.py"):
                if code.co_name == "_wait":
                    found = tuple(frame.f_locals.get("fs", ()))
                elif code.co_name == "wait_for":
                    found = (frame.f_locals["fut"],)
        coroutine = getattr(coroutine, "cr_await", None)
    return found
