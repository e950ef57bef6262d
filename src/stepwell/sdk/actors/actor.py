"""Actors as users write them: a class, one instance for each name; and the stubs by which their methods are called from anywhere."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.actors import ARGS_BYTES_MAX, CHAIN_MAX, NAME_BYTES_MAX, ActorFailed
from stepwell.protocol.codec import text
from stepwell.sdk.actors.activation import Activation, current, settled
from stepwell.sdk.actors.failure import exception_of
from stepwell.sdk.actors.file import FileMemory
from stepwell.sdk.actors.sql import ActorSql
from stepwell.sdk.actors.storage import Storage
from stepwell.sdk.durations import Duration
from stepwell.sdk.serializer import ANY, Codec, codec_of, hint_of, result_codec
from stepwell.sdk.threads import is_async

if TYPE_CHECKING:
    from stepwell.sdk.app import App

A = TypeVar("A", bound="Actor")
T = TypeVar("T")


class AlarmInfo(msgspec.Struct, frozen=True):
    """Why an alarm goes off: its own time, and how often it has failed before."""

    scheduled_time: datetime
    retry_count: int = 0

    @property
    def is_retry(self) -> bool:
        """Whether it has failed before."""
        return self.retry_count > 0


class _ActorType(type):
    """The class of actors' classes: `Tenant["acme"]` is the stub of one."""

    def __getitem__(cls: type[A], name: str) -> A:  # type: ignore[misc]
        return Stub(cls, name)  # type: ignore[return-value]


class Actor(metaclass=_ActorType):
    """A base for actors: one instance for each name in the whole system, one turn at a time.

    `self.name` is its name, `self.storage` what it has stored; fields of its own are there while it is in memory. An `alarm(self,
    info)` makes alarms possible. `on_activate(self)` runs before the first turn. A class with `gates=True` lets other turns in while one
    waits for something that is not its storage. One with `sql=True` has `self.sql`, and all it stores in a file of its own.
    """

    _activation: Activation
    _actor_class: ClassVar[ActorClass | None] = None
    _gates: ClassVar[bool] = False
    _sql: ClassVar[bool] = False

    def __init_subclass__(cls, *, gates: bool | None = None, sql: bool | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if gates is not None:
            cls._gates = gates
        if sql is not None:
            cls._sql = sql

    async def on_activate(self) -> None:
        """The actor has come into memory: before its first turn."""

    @property
    def name(self) -> str:
        """The actor's name."""
        return self._active().name

    @property
    def storage(self) -> Storage:
        """What it has stored."""
        activation = self._active()
        return Storage(activation.memory, activation.now_ms)

    @property
    def sql(self) -> ActorSql:
        """SQL on a private SQLite database, for a class with `sql=True`."""
        memory = self._active().memory
        if not isinstance(memory, FileMemory):
            kind = type(self).__name__
            raise UsageError(f"{kind} has no SQL: write `class {kind}(stepwell.Actor, sql=True)`, for a kind that has stored nothing yet")
        return ActorSql(memory)

    async def set_alarm(self, when: Duration | datetime) -> None:
        """Have `alarm` called: after a duration (`"100ms"`), or at a time. One alarm is pending at most: it takes the place of another."""
        if getattr(type(self), "alarm", None) is None:
            raise UsageError(f"{type(self).__name__} has no alarm: write `async def alarm(self, info: stepwell.AlarmInfo) -> None`")
        await self.storage.set_alarm(when)

    async def get_alarm(self) -> datetime | None:
        """When the pending alarm is due."""
        return await self.storage.get_alarm()

    async def delete_alarm(self) -> None:
        """Take the pending alarm back."""
        await self.storage.delete_alarm()

    async def block_concurrency_while(self, fn: Callable[[], Awaitable[T]]) -> T:
        """With `gates=True`: let no other turn in until `fn` has ended. What it raises resets the actor."""
        return await self._active().block_concurrency_while(fn)

    def _active(self) -> Activation:
        activation = self.__dict__.get("_activation")
        if activation is None:
            kind = type(self).__name__
            raise UsageError(f'this {kind} was made by hand, and is no actor: use {kind}["name"], which reaches the one of that name')
        return activation  # type: ignore[no-any-return]


class Method:
    """A method that stubs call: what it takes and gives, as bytes."""

    __slots__ = ("_codecs", "_signature", "fn", "name", "result")

    def __init__(self, name: str, fn: Callable[..., Any]) -> None:
        self.name, self.fn = name, fn
        self._signature = inspect.signature(fn)
        self._codecs: dict[str, Codec] | None = None
        self.result = ANY

    def _prepared(self) -> dict[str, Codec]:
        if self._codecs is None:
            # Not earlier: annotations may name what is defined further down in the module.
            kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            plain = [one.name for one in self._signature.parameters.values() if one.kind in kinds]
            self._codecs = {one: codec_of(hint_of(self.fn, one)) for one in plain}
            self.result = result_codec(self.fn)
        return self._codecs

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """The arguments of a call. Raises `TypeError` as the call itself would, `UsageError` for what cannot be written."""
        bound = self._signature.bind(None, *args, **kwargs)
        codecs, names = self._prepared(), self._places(len(bound.args) - 1)
        given = [codecs.get(one, ANY).encode(value, mark=True) for one, value in zip(names, bound.args[1:], strict=True)]
        named = [text(one) + b":" + codecs.get(one, ANY).encode(value, mark=True) for one, value in bound.kwargs.items()]
        body = b'{"args":[' + b",".join(given) + b'],"kwargs":{' + b",".join(named) + b"}}"
        if len(body) > ARGS_BYTES_MAX:
            raise UsageError(f"the arguments of {self.name} have {len(body)} bytes; at most {ARGS_BYTES_MAX} are taken")
        return body

    def decode(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """The arguments again. Raises `UsageError` for what does not fit the annotations."""
        try:
            told = msgspec.json.decode(body, type=_Args)
        except msgspec.MsgspecError as error:
            raise UsageError(f'the arguments of {self.name} are no {{"args": […], "kwargs": {{…}}}}: {error}') from None
        codecs, names = self._prepared(), self._places(len(told.args))
        args = [codecs.get(one, ANY).decode(bytes(raw), marked=True) for one, raw in zip(names, told.args, strict=True)]
        kwargs = {one: codecs.get(one, ANY).decode(bytes(raw), marked=True) for one, raw in told.kwargs.items()}
        return args, kwargs

    def _places(self, count: int) -> list[str]:
        """The names of the first parameters; "" for those that a `*args` takes."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [one.name for one in self._signature.parameters.values() if one.kind in kinds][1 : count + 1]
        return names + [""] * (count - len(names))


class _Args(msgspec.Struct):
    args: list[msgspec.Raw] = []
    kwargs: dict[str, msgspec.Raw] = {}


class ActorClass:
    """A class of actors, declared: what an activation needs to know of it."""

    def __init__(self, app: App, cls: type[Actor], id: str) -> None:
        self.app, self.cls, self.name = app, cls, id
        self.id = f"{app.name}-{id}"
        self.sql, self.gates = cls._sql, cls._gates
        self.methods = dict(_methods(cls))
        alarm: Any = getattr(cls, "alarm", None)
        if alarm is not None and not is_async(alarm):
            raise UsageError(f"actor {id!r}: alarm must be `async def alarm(self, info)`")
        self._alarm_takes_info = alarm is not None and len(inspect.signature(alarm).parameters) > 1

    def make(self, activation: Activation) -> Any:
        """The instance; what it needs is there before its own `__init__` runs."""
        instance: Any = self.cls.__new__(self.cls)
        instance.__dict__["_activation"] = activation
        instance.__init__()
        return instance

    async def started(self, instance: Any) -> None:
        """Its own beginning."""
        await instance.on_activate()

    async def invoke(self, instance: Any, method: str, args: bytes) -> bytes:
        """Call a method of the instance."""
        found = self.methods.get(method)
        if found is None:
            raise UsageError(self.no_method(method))
        given, named = found.decode(args)
        result = await found.fn(instance, *given, **named)
        body = found.result.encode(result, mark=True)
        if len(body) > ARGS_BYTES_MAX:
            raise UsageError(f"{self.name}.{method} gave {len(body)} bytes; at most {ARGS_BYTES_MAX} are taken")
        return body

    async def alarm(self, instance: Any, scheduled_ms: int, retry_count: int) -> None:
        """Call its alarm."""
        if getattr(self.cls, "alarm", None) is None:
            raise UsageError(f"{self.name} has no alarm any more")
        if self._alarm_takes_info:
            await instance.alarm(AlarmInfo(datetime.fromtimestamp(scheduled_ms / 1000, UTC), retry_count))
        else:
            await instance.alarm()

    def no_method(self, method: str) -> str:
        """Why a method cannot be called."""
        if method == "alarm":
            return f"{self.name}.alarm is called by the actor's alarm, and not by a stub"
        if callable(getattr(self.cls, method, None)) and not method.startswith("_"):
            return f"{self.name}.{method} is no method of its own that is async: write it as `async def {method}(self, …)`"
        return f"actor {self.name!r} has no method {method!r}; it has {', '.join(sorted(self.methods)) or 'none'}"


def _methods(cls: type[Actor]) -> list[tuple[str, Method]]:
    found: dict[str, Method] = {}
    for base in reversed([base for base in cls.__mro__ if base not in Actor.__mro__]):
        for name, value in vars(base).items():
            if not name.startswith("_") and name not in ("alarm", "on_activate") and inspect.isfunction(value) and is_async(value):
                found[name] = Method(name, value)
    return list(found.items())


class Stub:
    """One actor, from outside: its methods can be awaited, wherever it lives. Making one touches nothing."""

    __slots__ = ("_class", "_name")

    def __init__(self, cls: type[Actor], name: str) -> None:
        kind = cls.__dict__.get("_actor_class")
        if kind is None:
            raise UsageError(f"{cls.__name__} belongs to no app: put @app.actor above the class")
        if not isinstance(name, str) or not name:
            raise UsageError(f'{cls.__name__}[{name!r}]: an actor\'s name is a text, like {cls.__name__}["acme"]')
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise UsageError(f"{cls.__name__}[{name!r}]: the name is no text that UTF-8 can write") from None
        if size > NAME_BYTES_MAX or "\0" in name:
            raise UsageError(f"{cls.__name__}[{name[:40]!r}…]: a name has {NAME_BYTES_MAX} bytes at most, and no NUL in it")
        self._class: ActorClass = kind
        self._name = name

    @property
    def name(self) -> str:
        """The actor's name."""
        return self._name

    def __getattr__(self, method: str) -> _Bound:
        found = self._class.methods.get(method)
        if found is None:
            raise AttributeError(self._class.no_method(method))
        return _Bound(self._class, self._name, found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stub) and (self._class, self._name) == (other._class, other._name)

    def __hash__(self) -> int:
        return hash((self._class, self._name))

    def __repr__(self) -> str:
        return f"<actor {self._class.name}[{self._name!r}]>"


class _Bound:
    """A method of one actor. It looks like the method, so that `ctx.step.run("enqueue", Tenant["acme"].enqueue, job)` is a step."""

    __slots__ = ("_actor", "_kind", "_method")

    def __init__(self, kind: ActorClass, actor: str, method: Method) -> None:
        self._kind, self._actor, self._method = kind, actor, method

    @property
    def __wrapped__(self) -> Any:
        return self._method.fn

    @property
    def __code__(self) -> Any:
        return self._method.fn.__code__

    @property
    def __annotations__(self) -> Any:  # type: ignore[override]
        return self._method.fn.__annotations__

    @property
    def __name__(self) -> str:
        return self._method.name

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        method = self._method
        body = method.encode(args, kwargs)
        turn = current.get()
        chain = () if turn is None else turn.onward
        if len(chain) > CHAIN_MAX:
            raise UsageError(f"{self!r}: {len(chain)} actors call each other in a chain; at most {CHAIN_MAX} may")
        if turn is not None:
            await settled()
        try:
            result = await self._kind.app.way.call_actor(self._kind.id, self._actor, method.name, body, chain)
        except ActorFailed as failed:
            raise exception_of(failed.failure) from None
        return method.result.decode(result, marked=True)

    def __repr__(self) -> str:
        return f"<{self._kind.name}[{self._actor!r}].{self._method.name}>"
