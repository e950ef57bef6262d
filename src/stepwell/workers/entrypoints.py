"""A Worker's handlers: which there are in its main module, and how each is called.

A request, a tick and a batch each get an instance of the entrypoint's class, an `ctx` that remembers what is left to `waitUntil`, and the
limits of their kind. What comes of a batch the server settles; nothing here knows a queue.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from stepwell.errors import UsageError
from stepwell.protocol.queues import Outcome
from stepwell.sdk.failure import failure_of
from stepwell.workers.bases import DurableObject, WorkerEntrypoint, WorkflowEntrypoint
from stepwell.workers.batch import MessageBatch
from stepwell.workers.env import bind, env
from stepwell.workers.invocation import Invocation
from stepwell.workers.limits import NO_LIMITS, HandlerLimits, LimitExceeded, Limits
from stepwell.workers.rpc import python_from_rpc, python_to_rpc
from stepwell.workers.web.request import Request
from stepwell.workers.web.response import FetchResponse

log = logging.getLogger("stepwell.workers")
T = TypeVar("T")
OnError = Callable[[BaseException], object]
HANDLERS = ("fetch", "scheduled", "queue")
RESERVED = frozenset(("fetch", "scheduled", "queue", "alarm", "tail", "trace", "test", "email", "connect", "dup", "constructor"))
"""Names that other Workers cannot call as methods: they are handlers, or belong to the platform."""


class ScheduledController:
    """What a `scheduled` handler gets."""

    type = "scheduled"

    def __init__(self, cron: str, time_ms: int) -> None:
        self.cron, self.scheduledTime = cron, time_ms
        self.asks_no_retry = False

    def noRetry(self) -> None:
        """A failure of this tick is not to be tried again."""
        self.asks_no_retry = True


class Worker:
    """The handlers of a main module, over bindings."""

    def __init__(self, main: ModuleType, bindings: Mapping[str, Any] | None = None, limits: Limits = NO_LIMITS) -> None:
        self.main, self.limits = main, limits
        self.entrypoints = _classes(main, WorkerEntrypoint)
        self.objects = _classes(main, DurableObject)
        self.workflows = _classes(main, WorkflowEntrypoint)
        self._finishing: set[asyncio.Task[None]] = set()
        bind(bindings or {})
        if not self.entrypoints and not self._old_handlers and not self.objects and not self.workflows:
            raise UsageError(
                f"{main.__file__} has no entrypoint: write class Default(WorkerEntrypoint) with a fetch, scheduled or queue method in it"
            )

    @property
    def handlers(self) -> frozenset[str]:
        """Which of `fetch`, `scheduled` and `queue` the default entrypoint has."""
        default = self.entrypoints.get("Default")
        if default is not None:
            return frozenset(name for name in HANDLERS if callable(getattr(default, name, None)))
        return frozenset(self._old_handlers)

    @property
    def _old_handlers(self) -> dict[str, Callable[..., Any]]:
        """`on_fetch`, `on_scheduled`, `on_queue` of the module."""
        found = {name: getattr(self.main, f"on_{name}", None) for name in HANDLERS}
        return {name: handler for name, handler in found.items() if callable(handler)}

    # Requests.

    async def call_fetch(self, request: Request, entrypoint: str = "Default", props: Mapping[str, Any] | None = None) -> FetchResponse:
        """The response to a request. Raises what the handler raises. What is left to `waitUntil` goes on behind it."""
        invocation = self._invocation(f"fetch of {request.method} {request.url}", self.limits.fetch, props)
        try:
            response = await invocation.run(self._handled("fetch", entrypoint, invocation, request))
            if not isinstance(response, FetchResponse):
                raise TypeError(
                    f"fetch returned {_shown(response)}; it must return a Response, like Response('text') or Response.json(data)"
                )
        finally:
            self._leave(invocation)
        return response

    def _leave(self, invocation: Invocation) -> None:
        """Let the work that is left be done, and tell when it fails."""
        task = asyncio.get_running_loop().create_task(_finished(invocation))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def drain(self) -> None:
        """Returns when nothing is left of the requests that have been answered."""
        while self._finishing:
            await asyncio.wait(self._finishing)

    # Ticks.

    async def call_scheduled(self, cron: str, time_ms: int | None = None, on_error: OnError | None = None) -> dict[str, Any]:
        """What came of a tick: `{"outcome": "ok" or "exception", "noRetry": bool}`, when all that it left is done.

        `on_error` is given what the handler, or what it left, has raised.
        """
        controller = ScheduledController(cron, time.time_ns() // 1_000_000 if time_ms is None else time_ms)
        if "scheduled" not in self.handlers:
            log.error("The cron trigger %r has nobody to call: write a scheduled handler, or remove the trigger", cron)
            return {"outcome": "exception", "noRetry": True}
        invocation = self._invocation(f"scheduled({cron!r})", self.limits.scheduled)
        outcome = await self._outcome(invocation, "scheduled", controller, on_error)
        return {"outcome": outcome, "noRetry": controller.asks_no_retry}

    # Batches.

    async def call_queue(self, batch: MessageBatch) -> Outcome:
        """What comes of a batch, when all that its handler left is done: a late `retry()` counts, and so does an error."""
        raised: list[BaseException] = []
        if "queue" not in self.handlers:
            log.error("The queue %r has nobody to call: write a queue handler, or remove its consumer", batch.queue)
            raised.append(RuntimeError("there is no queue handler"))
        else:
            await self._outcome(self._invocation(f"queue({batch.queue!r})", self.limits.queue), "queue", batch, raised.append)
        return batch.decisions.outcome(failure_of(raised[0]).error if raised else None)

    async def _outcome(self, invocation: Invocation, name: str, argument: Any, on_error: OnError | None) -> str:
        outcome = "ok"
        for work in (invocation.run(self._handled(name, "Default", invocation, argument)), invocation.finish()):
            try:
                await work
            except (Exception, LimitExceeded) as error:
                outcome = "exception"
                _tell(invocation, error)
                if on_error is not None:
                    on_error(error)
        return outcome

    # Calls between Workers.

    async def call_method(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        entrypoint: str = "Default",
        props: Mapping[str, Any] | None = None,
    ) -> Any:
        """What a public method of an entrypoint returns. Arguments and result are copied. Raises what it raises."""
        cls = self._class(entrypoint)
        if name.startswith("_") or name in RESERVED or not callable(getattr(cls, name, None)) or hasattr(WorkerEntrypoint, name):
            raise TypeError(f"Method {name} does not exist")
        invocation = self._invocation(f"{entrypoint}.{name}()", self.limits.fetch, props)
        sent = [python_from_rpc(python_to_rpc(argument)) for argument in args]
        named = {key: python_from_rpc(python_to_rpc(argument)) for key, argument in (kwargs or {}).items()}

        async def call() -> Any:
            return await _settled(getattr(cls(invocation.ctx, env), name)(*sent, **named))

        try:
            return python_to_rpc(await invocation.run(call()))
        finally:
            self._leave(invocation)

    # How a handler is called.

    def _invocation(self, what: str, limits: HandlerLimits, props: Mapping[str, Any] | None = None) -> Invocation:
        invocation = Invocation(what, limits, self.limits.wait_until_s)
        invocation.ctx.props.update(python_from_rpc(dict(props or {})))
        return invocation

    async def _handled(self, name: str, entrypoint: str, invocation: Invocation, argument: Any) -> Any:
        arguments = (argument, env, invocation.ctx)
        if entrypoint == "Default" and "Default" not in self.entrypoints:
            handler = self._old_handlers.get(name)
            if handler is None:
                raise TypeError(f"Method {name} does not exist")
            return await _settled(handler(*accepted(handler, arguments)))
        made = self._class(entrypoint)(invocation.ctx, env)
        method = getattr(made, name, None)
        if not callable(method):
            raise TypeError(f"Method {name} does not exist")
        return await _settled(method(*accepted(method, arguments)))

    def _class(self, entrypoint: str) -> type[WorkerEntrypoint]:
        found = self.entrypoints.get(entrypoint)
        if found is None:
            there = ", ".join(sorted(self.entrypoints)) or "none"
            raise TypeError(f"the Worker has no entrypoint {entrypoint!r}; there are: {there}")
        return found


def _classes(main: ModuleType, base: type[T]) -> dict[str, type[T]]:
    """The public classes of a module that derive from a base; of one with `__all__`, those that it names."""
    names = getattr(main, "__all__", None) or [name for name in vars(main) if not name.startswith("_")]
    found = {name: getattr(main, name, None) for name in names}
    return {name: one for name, one in found.items() if isinstance(one, type) and issubclass(one, base) and one is not base}


def accepted(handler: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """As many of the arguments as the handler takes."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return arguments
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return arguments
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return arguments[: len(places)]


async def _settled(result: Any) -> Any:
    """The result of a handler, async or not."""
    return await result if inspect.isawaitable(result) else result


async def _finished(invocation: Invocation) -> None:
    try:
        await invocation.finish()
    except (Exception, LimitExceeded) as error:
        _tell(invocation, error)


def _tell(invocation: Invocation, error: BaseException) -> None:
    if isinstance(error, LimitExceeded):
        log.error("%s", error)
    else:
        log.error("%s failed: %s: %s", invocation.what, type(error).__name__, error, exc_info=error)


def _shown(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
