"""The classes that a Worker's own derive from, and the mark of handlers in the older style."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stepwell.workers.env import Env

F = TypeVar("F", bound=Callable[..., Any])


class WorkerEntrypoint:
    """A way into a Worker: `fetch`, `scheduled` and `queue` are its handlers, other public methods may be called by other Workers."""

    def __init__(self, ctx: Any, env: Env) -> None:
        self.ctx, self.env = ctx, env


class DurableObject:
    """An object of which there is one by each id, with storage and an alarm."""

    def __init__(self, ctx: Any, env: Env) -> None:
        self.ctx, self.env = ctx, env


class WorkflowEntrypoint:
    """A workflow: `run(self, event, step)` is durable by its steps."""

    def __init__(self, ctx: Any, env: Env) -> None:
        self.ctx, self.env = ctx, env


class DurableObjectAbort(BaseException):
    """Leaves the code of an object that has aborted itself."""


def handler(func: F) -> F:
    """Marks `on_fetch`, `on_scheduled` and `on_queue` as handlers. They are given Python objects with or without it."""
    return func
