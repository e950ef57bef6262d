"""An app: functions declared by decorators, sending events, starting runs, and an engine in this process for those who want it."""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.answers import SDK_NAME
from stepwell.protocol.codec import Json, text
from stepwell.protocol.config import RETRIES_DEFAULT, Registration
from stepwell.protocol.registration import registration
from stepwell.sdk import VERSION, client
from stepwell.sdk.actors.activation import Kind, settled
from stepwell.sdk.actors.actor import Actor, ActorClass
from stepwell.sdk.durations import Duration, When
from stepwell.sdk.event import Event
from stepwell.sdk.function import Function, payload_of
from stepwell.sdk.kv import Kv
from stepwell.sdk.options import (
    AnyTrigger,
    Batch,
    Cancel,
    Catchup,
    Concurrency,
    Debounce,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    Trigger,
    cron,
    retries_of,
    settings_wire,
    triggers_of,
)
from stepwell.sdk.queues import Queue
from stepwell.sdk.runs import RunHandle, SyncRunHandle, checked_id
from stepwell.sdk.sql import Database
from stepwell.sdk.step import Step
from stepwell.sdk.way import Way

if TYPE_CHECKING:
    from stepwell.sdk.replay import Executor

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F")
A = TypeVar("A", bound=Actor)

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


SDK = f"{SDK_NAME}:v{VERSION}"

Background = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Work of an app's own in each of its child processes: it goes on until the event is set, and then comes to its end."""


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
        signing_key_fallback: str | None = None,
    ) -> None:
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise UsageError(f'App({name!r}): a name has letters, digits and -_. only, like App("shop")')
        self.name = name
        self.url = url
        self.event_key = event_key
        self.signing_key = signing_key
        self.signing_key_fallback = signing_key_fallback
        self.functions: dict[str, Function[Any]] = {}
        self.actors: dict[str, Kind] = {}
        self._engine: Way | None = None
        self._background: Background | None = None

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
        options.pop("on_failure_of", None)
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
        on_failure_of: Function[Any] | None = None,
        **settings: Any,
    ) -> Function[Any]:
        if not callable(handler) or isinstance(handler, Function):
            raise UsageError(f"@app.function stands on a function that takes the context, not on {handler!r}")
        id = id if id is not None else handler.__name__.strip("_").replace("_", "-")
        self._check_id(id)
        unknown = sorted(set(settings) - _SETTINGS)
        if unknown:
            raise UsageError(f"function {id!r}: there is no option {unknown[0]!r}; there are {', '.join(sorted(_OPTIONS))}")
        function: Function[Any] = Function(
            self,
            handler,
            id=id,
            name=_name_of(name, id),
            triggers=triggers_of(trigger, f"function {id!r}: trigger"),
            retries=retries_of(retries, f"function {id!r}"),
            settings=settings_wire(id, **{setting: settings.get(setting) for setting in _SETTINGS}),
            on_failure_of=on_failure_of,
        )
        try:
            function.config()
        except ProtocolError as error:
            raise UsageError(str(error)) from None
        self.add(function)
        if on_failure is not None:
            failed = Trigger(event="inngest/function.failed", where=f"event.data.function_id == '{function.slug}'")
            self._declare(
                on_failure, trigger=failed, id=f"{id}-failure", name=f"{function.name} (failure)", retries=1, on_failure_of=function
            )
        return function

    def add(self, function: Function[Any]) -> None:
        """Take in a function that is made. Raises `UsageError` for an id that is none, or is there."""
        self._check_id(function.id)
        self.functions[function.id] = function

    def _check_id(self, id: object) -> None:
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise UsageError(f'function {id!r}: an id has letters, digits and -_. only; set one with id="…"')
        if id in self.functions:
            raise UsageError(f'function {id!r} is there twice in app {self.name!r}: give one another id with id="…"')

    def queue(
        self,
        name: str,
        *,
        max_batch_size: int | None = None,
        max_batch_timeout: Duration | None = None,
        max_retries: int | None = None,
        retry_delay: Duration | None = None,
        max_concurrency: int | None = None,
        dead_letter: str | Queue | None = None,
        retention: Duration | None = None,
        delivery_delay: Duration | None = None,
    ) -> Queue:
        """A queue of this name: the same one for every app of the server.

        `delivery_delay` is for what is sent here; all else says how this app's consumer takes its messages: in batches of so many
        (10), or after so long (5 s); again so often (3), after so long; so many batches at a time (250); then to the dead-letter queue.
        """
        settings = {
            "max_batch_size": max_batch_size,
            "max_batch_timeout": max_batch_timeout,
            "max_retries": max_retries,
            "retry_delay": retry_delay,
            "max_concurrency": max_concurrency,
            "dead_letter": dead_letter,
            "retention": retention,
        }
        return Queue(self, name, settings, delivery_delay)

    def kv(self, name: str) -> Kv:
        """A key-value namespace of this name: the same one for every app of the server."""
        return Kv(self, name)

    def sql(self, name: str) -> Database:
        """A SQL database of this name: `await app.sql("jobs").prepare("SELECT * FROM jobs WHERE id = ?").bind(1).first()`."""
        return Database(self, name)

    def cron(
        self,
        line: str,
        *,
        tz: str | None = None,
        jitter: Duration | None = None,
        catchup: Catchup | None = None,
        **options: Any,
    ) -> _Declares:
        """Declare a function that runs on a schedule: `@app.cron("*/5 * * * *")`. It takes the options of `function`, but for `trigger`."""
        if "trigger" in options:
            raise UsageError(f"@app.cron({line!r}) is a trigger: for several, write @app.function(trigger=[stepwell.cron({line!r}), …])")
        declares: _Declares = self.function(trigger=cron(line, tz=tz, jitter=jitter, catchup=catchup), **options)
        return declares

    @overload
    def step(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    @overload
    def step(
        self, *, id: str | None = None, retries: int | None = None, timeout: Duration | None = None, effect: bool = False
    ) -> Callable[[Callable[P, R]], Step[P, R]]: ...

    def step(  # type: ignore[misc]
        self,
        fn: Any = None,
        /,
        *,
        id: str | None = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        effect: bool = False,
    ) -> Any:
        """Make a function a step wherever a run calls it: `@app.step` or `@app.step(retries=2, timeout="30s")`."""

        def declare(plain: Callable[..., Any]) -> Step[..., Any]:
            return Step(self, plain, id or plain.__name__.strip("_").replace("_", "-"), retries, timeout, effect)

        return declare if fn is None else declare(fn)

    @overload
    def actor(self, cls: type[A], /) -> type[A]: ...
    @overload
    def actor(self, *, id: str | None = None) -> Callable[[type[A]], type[A]]: ...

    def actor(self, cls: Any = None, /, *, id: str | None = None) -> Any:  # type: ignore[misc]
        """Declare a class of actors: `@app.actor`. Their kind is called as the class, or `id`; it names what they have stored."""

        def declare(cls: Any) -> Any:
            if not isinstance(cls, type) or not issubclass(cls, Actor) or cls is Actor:
                raise UsageError(f"@app.actor stands on a class with the base stepwell.Actor, not on {cls!r}")
            told = id if id is not None else cls.__name__
            if not isinstance(told, str) or not _ID.fullmatch(told):
                raise UsageError(f'actor {told!r}: an id has letters, digits and -_. only; set one with id="…"')
            if told in self.actors:
                raise UsageError(f'actor {told!r} is there twice in app {self.name!r}: give one another id with id="…"')
            cls._actor_class = kind = ActorClass(self, cls, told)
            self.actors[told] = kind
            return cls

        return declare if cls is None else declare(cls)

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
        return self.wait_for(lambda: self.send_body(body))

    async def send_body(self, body: Json) -> list[str]:
        """Send events as JSON: one, or an array of them."""
        await settled()
        return await self.way.send(body)

    @property
    def way(self) -> Way:
        """How the app reaches its engine: in this process or its parent's, where it has one there; else the server, over HTTP."""
        return self._engine if self._engine is not None else self._remote

    @functools.cached_property
    def _remote(self) -> Way:
        from stepwell.sdk.remote import Remote

        return Remote(self)

    def wait_for(self, ask: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Await a request from code that is not async."""
        return client.blocking(self, ask)

    # Starting.

    @overload
    async def start(self, function: Function[F], data: Any = None, *, id: str | None = None) -> RunHandle[F]: ...
    @overload
    async def start(self, function: str, data: Any = None, *, id: str | None = None) -> RunHandle[Any]: ...

    async def start(self, function: Any, data: Any = None, *, id: str | None = None) -> RunHandle[Any]:
        """Start one function, of this app or another (`"shop-charge"`: its app and id), whatever its triggers say.

        The run is durable when this returns. An `id` starts it once in 24 hours: after that it gives the handle of the run that is there.
        Data that the function would refuse raises `UsageError` here.
        """
        slug, body = payload_of(function, data, "start")
        told = checked_id(id)
        event = b'{"data":' + body + (b"}" if told is None else b',"id":' + text(told) + b"}")
        await settled()
        run_id = await self.way.start(slug, event)
        if isinstance(function, Function):
            return RunHandle(self, run_id, function.result, function.data)
        return RunHandle(self, run_id)

    @overload
    def start_sync(self, function: Function[F], data: Any = None, *, id: str | None = None) -> SyncRunHandle[F]: ...
    @overload
    def start_sync(self, function: str, data: Any = None, *, id: str | None = None) -> SyncRunHandle[Any]: ...

    def start_sync(self, function: Any, data: Any = None, *, id: str | None = None) -> SyncRunHandle[Any]:
        """As `start`, from code that is not async."""
        return SyncRunHandle(self.wait_for(lambda: self.start(function, data, id=id)))

    # Running.

    def engine(self, *, db: str | os.PathLike[str] | None = "stepwell.db", **options: Any) -> AbstractAsyncContextManager[Any]:
        """The engine in this process, over a database file: `async with app.engine(db="stepwell.db"): …`; `None` keeps all in memory."""
        found = list(importlib.metadata.entry_points(group="stepwell.embedded", name="engine"))
        make = found[0].load() if found else importlib.import_module("stepwell.embedded").engine
        return cast(AbstractAsyncContextManager[Any], make(self, db=None if db is None else os.fspath(db), **options))

    def __repr__(self) -> str:
        return f"<app {self.name}>"


def _name_of(name: object, id: str) -> str:
    if name is not None and (not isinstance(name, str) or not name):
        raise UsageError(f"function {id!r}: name is {name!r}; it must be a text for people to read")
    return name or id


_SETTINGS = frozenset(
    ["concurrency", "throttle", "rate_limit", "debounce", "batch", "singleton", "timeouts", "cancel_on", "idempotency", "priority"]
)
_OPTIONS = _SETTINGS | {"trigger", "id", "name", "retries", "on_failure"}
