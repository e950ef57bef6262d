"""An app: functions declared by decorators, sending events, and an engine in this process for those who want it."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.answers import SDK_NAME
from stepwell.protocol.codec import Json
from stepwell.protocol.config import RETRIES_DEFAULT, FunctionConfig, Registration
from stepwell.protocol.config_reader import read_function
from stepwell.protocol.registration import registration
from stepwell.sdk import VERSION, client
from stepwell.sdk.context import BaseContext, Context, SyncContext
from stepwell.sdk.durations import Duration, When
from stepwell.sdk.event import Event
from stepwell.sdk.options import (
    AnyTrigger,
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    Trigger,
    retries_of,
    settings_wire,
    triggers_of,
)
from stepwell.sdk.serializer import codec_of, hint_of, result_codec
from stepwell.sdk.session import Session
from stepwell.sdk.step import Step, in_thread, is_async

if TYPE_CHECKING:
    from stepwell.sdk.replay import Executor

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F")

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


SDK = f"{SDK_NAME}:v{VERSION}"


class EngineHook(Protocol):
    """What an engine in this process sets on the app: `app._engine`. `loop`, where there is one, serves `send_sync`."""

    async def send(self, events_body: Json) -> list[str]:
        """Store events, the body being an event or an array of them; gives their ids when they are durable."""


class Function(Generic[R]):
    """A function of an app. Calling it calls the plain function, which tests of its parts may want."""

    def __init__(
        self,
        app: App,
        handler: Callable[[Any], Awaitable[R]] | Callable[[Any], R],
        *,
        id: str,
        name: str,
        triggers: tuple[Trigger, ...],
        retries: int,
        settings: dict[str, Any],
    ) -> None:
        self.app, self.handler, self.id, self.name = app, handler, id, name
        self.triggers, self.retries, self.settings = triggers, retries, settings
        self.slug = f"{app.name}-{id}"
        self.is_async = is_async(handler)
        functools.update_wrapper(self, handler)

    def __call__(self, ctx: Any) -> Any:
        return self.handler(ctx)

    @functools.cached_property
    def result(self) -> Any:
        """The codec of what it returns."""
        return result_codec(self.handler)

    @functools.cached_property
    def _data(self) -> Any:
        """The codec of its events' data: from `Context[…]`, else from the one Event class among the triggers."""
        parameter = next(iter(inspect.signature(self.handler).parameters), "")
        hint = hint_of(self.handler, parameter)
        origin = getattr(hint, "__origin__", None)
        if isinstance(origin, type) and issubclass(origin, BaseContext):
            return codec_of(hint.__args__[0])
        schemas = {trigger.schema for trigger in self.triggers}
        return codec_of(schemas.pop() or Any) if len(schemas) == 1 else codec_of(Any)

    async def start(self, session: Session, events: tuple[Json, ...]) -> Any:
        """Run the function, for a session."""
        if self.is_async:
            handler = cast(Callable[[Any], Awaitable[Any]], self.handler)
            return await handler(Context(session, events, self._data))
        session.in_thread = True
        return await in_thread(functools.partial(self.handler, SyncContext(session, events, self._data)))

    def config(self, url: str = "") -> FunctionConfig:
        """What the server is told of it; `url` is the app's, "" for an app that is not called over HTTP."""
        runtime = {"type": "http", "url": f"{url}?fnId={self.slug}&stepId=step"} if url else {}
        step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": self.retries}}
        triggers = [trigger.wire(f"function {self.id!r}: trigger") for trigger in self.triggers]
        return read_function({"id": self.slug, "name": self.name, "triggers": triggers, "steps": {"step": step}, **self.settings})

    def __repr__(self) -> str:
        return f"<function {self.slug}>"


class _Declares(Protocol):
    """What `@app.function(…)` gives: the decorator itself."""

    @overload
    def __call__(self, fn: Callable[[Any], Coroutine[Any, Any, F]], /) -> Function[F]: ...
    @overload
    def __call__(self, fn: Callable[[Any], F], /) -> Function[F]: ...


class App:
    """A named set of functions. Keys and the server's address come from the environment where they are not given."""

    def __init__(
        self,
        name: str,
        url: str | None = None,
        event_key: str | None = None,
        signing_key: str | None = None,
    ) -> None:
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise UsageError(f'App({name!r}): a name has letters, digits and -_. only, like App("shop")')
        self.name = name
        self.url = url
        self.event_key = event_key
        self.signing_key = signing_key
        self.functions: dict[str, Function[Any]] = {}
        self._engine: EngineHook | None = None

    # Declaring.

    @overload
    def function(self, fn: Callable[[Any], Coroutine[Any, Any, F]], /) -> Function[F]: ...
    @overload
    def function(self, fn: Callable[[Any], F], /) -> Function[F]: ...
    @overload
    def function(
        self,
        *,
        trigger: AnyTrigger | Sequence[AnyTrigger] | None = None,
        id: str | None = None,
        name: str | None = None,
        retries: int = RETRIES_DEFAULT,
        concurrency: Concurrency | int | Sequence[Concurrency] | None = None,
        throttle: Throttle | None = None,
        rate_limit: RateLimit | None = None,
        debounce: Debounce | None = None,
        batch: Batch | None = None,
        singleton: Singleton | None = None,
        timeouts: Timeouts | None = None,
        cancel_on: Sequence[Cancel] | None = None,
        idempotency: str | None = None,
        priority: str | None = None,
        on_failure: Callable[[Any], Any] | None = None,
    ) -> _Declares: ...

    def function(self, fn: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]
        """Declare a function: `@app.function(trigger="shop/order.paid")`. A wrong option raises `UsageError` here, at import."""
        if fn is not None:
            return self._declare(fn, **options)
        return lambda handler: self._declare(handler, **options)

    def _declare(
        self,
        handler: Callable[[Any], Any],
        *,
        trigger: Any = None,
        id: str | None = None,
        name: str | None = None,
        retries: int = RETRIES_DEFAULT,
        on_failure: Callable[[Any], Any] | None = None,
        **settings: Any,
    ) -> Function[Any]:
        if not callable(handler) or isinstance(handler, Function):
            raise UsageError(f"@app.function stands on a function that takes the context, not on {handler!r}")
        id = id if id is not None else handler.__name__.strip("_").replace("_", "-")
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise UsageError(f'function {id!r}: an id has letters, digits and -_. only; set one with id="…"')
        if id in self.functions:
            raise UsageError(f'function {id!r} is there twice in app {self.name!r}: give one another id with id="…"')
        unknown = sorted(set(settings) - _SETTINGS)
        if unknown:
            raise UsageError(f"function {id!r}: there is no option {unknown[0]!r}; there are {', '.join(sorted(_OPTIONS))}")
        function: Function[Any] = Function(
            self,
            handler,
            id=id,
            name=name or id,
            triggers=triggers_of(trigger, f"function {id!r}: trigger"),
            retries=retries_of(retries, f"function {id!r}"),
            settings=settings_wire(id, **{setting: settings.get(setting) for setting in _SETTINGS}),
        )
        try:
            function.config()
        except ProtocolError as error:
            raise UsageError(str(error)) from None
        self.functions[id] = function
        if on_failure is not None:
            failed = Trigger(event="inngest/function.failed", where=f"event.data.function_id == '{function.slug}'")
            self._declare(on_failure, trigger=failed, id=f"{id}-failure", name=f"{function.name} (failure)", retries=1)
        return function

    @overload
    def step(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    @overload
    def step(
        self, *, id: str | None = None, retries: int | None = None, timeout: Duration | None = None
    ) -> Callable[[Callable[P, R]], Step[P, R]]: ...

    def step(  # type: ignore[misc]
        self, fn: Any = None, /, *, id: str | None = None, retries: int | None = None, timeout: Duration | None = None
    ) -> Any:
        """Make a function a step wherever a run calls it: `@app.step` or `@app.step(retries=2, timeout="30s")`."""

        def declare(plain: Callable[..., Any]) -> Step[..., Any]:
            return Step(self, plain, id or plain.__name__.strip("_").replace("_", "-"), retries, timeout)

        return declare if fn is None else declare(fn)

    @functools.cached_property
    def executor(self) -> Executor:
        """What runs the functions, for drivers in this process."""
        from stepwell.sdk.replay import Executor

        return Executor(self)

    def registration(self, url: str = "", framework: str = "") -> Registration:
        """What a server is told of the app; `url` is where its calls go, "" where that is not over HTTP."""
        configs = [function.config(url) for function in self.functions.values()]
        return registration(app_name=self.name, url=url, sdk=SDK, framework=framework, functions=configs)

    # Sending.

    async def send(
        self,
        event: str | Event | Sequence[Event | dict[str, Any]],
        data: Any = None,
        *,
        id: str | None = None,
        at: When | None = None,
        after: Duration | None = None,
    ) -> list[str]:
        """Send an event, or many in one request. Gives their ids when they are durable.

        `id` makes it start its functions once in 24 hours; `at` or `after` delay the start.
        """
        return await self.send_body(client.body_of(event, data, id=id, at=at, after=after))

    def send_sync(
        self,
        event: str | Event | Sequence[Event | dict[str, Any]],
        data: Any = None,
        *,
        id: str | None = None,
        at: When | None = None,
        after: Duration | None = None,
    ) -> list[str]:
        """As `send`, from code that is not async."""
        body = client.body_of(event, data, id=id, at=at, after=after)
        return client.blocking(self, body)

    async def send_body(self, body: Json) -> list[str]:
        """Send events as JSON: one, or an array of them."""
        return await client.send(self, body)

    # Running.

    def engine(self, *, db: str | os.PathLike[str] | None = "stepwell.db", **options: Any) -> AbstractAsyncContextManager[Any]:
        """The engine in this process, over a database file: `async with app.engine(db="stepwell.db"): …`; `None` keeps all in memory."""
        found = list(importlib.metadata.entry_points(group="stepwell.embedded", name="engine"))
        make = found[0].load() if found else importlib.import_module("stepwell.embedded").engine
        return cast(AbstractAsyncContextManager[Any], make(self, db=None if db is None else os.fspath(db), **options))

    def __repr__(self) -> str:
        return f"<app {self.name}>"


_SETTINGS = frozenset(
    ["concurrency", "throttle", "rate_limit", "debounce", "batch", "singleton", "timeouts", "cancel_on", "idempotency", "priority"]
)
_OPTIONS = _SETTINGS | {"trigger", "id", "name", "retries", "on_failure"}
