"""A class of Durable Objects as a kind of actors: how an object is made, called, and woken by its alarm."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from stepwell.sdk.actors.activation import Activation
from stepwell.workers import wire
from stepwell.workers.bases import DurableObject
from stepwell.workers.bindings.calling import paid
from stepwell.workers.entrypoints import accepted
from stepwell.workers.env import env
from stepwell.workers.invocation import Invocation
from stepwell.workers.limits import HandlerLimits, Limits
from stepwell.workers.objects.ids import Names
from stepwell.workers.objects.namespace import FETCH
from stepwell.workers.objects.state import ObjectState
from stepwell.workers.rpc import Record, python_from_rpc, python_to_rpc
from stepwell.workers.web.response import FetchResponse

NO_METHODS = frozenset(dir(DurableObject)) | {"ctx", "env"}


class ObjectKind:
    """A class; `id` is what the server calls it. Calls enter by gates."""

    gates = True

    def __init__(self, id: str, cls: type[DurableObject], names: Names, *, sql: bool, clears_alarm: bool, limits: Limits) -> None:
        self.id, self.sql = id, sql
        self._cls, self._names, self._clears_alarm, self._limits = cls, names, clears_alarm, limits

    def make(self, activation: Activation) -> Any:
        """The object: its constructor runs here."""
        has_alarm = callable(getattr(self._cls, "alarm", None))
        state = ObjectState(
            activation, self._names.of_actor(activation.name), sql=self.sql, has_alarm=has_alarm, clears_alarm=self._clears_alarm
        )
        return self._cls(state, env)

    async def started(self, instance: Any) -> None:
        """Nothing more: the constructor was all."""

    async def invoke(self, instance: Any, method: str, args: bytes) -> bytes:
        """Call a method, or `fetch`."""
        call = wire.decode_call(args)

        async def work() -> Any:
            if method == FETCH:
                return await self._fetched(instance, call.args[0])
            return python_to_rpc(await self._called(instance, method, call))

        value = await self._limited(f"{self._cls.__name__}.{method}", self._limits.fetch, work)
        await paid()
        return await wire.encode(wire.Outcome(value))

    async def _fetched(self, instance: Any, request: Any) -> FetchResponse:
        handler = getattr(instance, FETCH, None)
        if not callable(handler):
            raise TypeError("Handler does not export a fetch() function.")
        response = await _awaited(handler(request))
        if not isinstance(response, FetchResponse):
            raise TypeError(f"fetch returned {type(response).__name__}; it must return a Response")
        return response

    async def _called(self, instance: Any, method: str, call: wire.Call) -> Any:
        if method == "alarm":
            raise TypeError("'alarm' is a reserved method and cannot be called over RPC.")
        found = inspect.getattr_static(self._cls, method, None)
        if found is None or method in NO_METHODS or method.startswith("__"):
            raise TypeError(f'The RPC receiver does not implement the method "{method}".')
        attribute = getattr(instance, method)
        if not callable(attribute):
            return attribute
        args = [python_from_rpc(argument) for argument in call.args]
        return await _awaited(attribute(*args, **{name: python_from_rpc(argument) for name, argument in call.kwargs.items()}))

    async def alarm(self, instance: Any, scheduled_ms: int, retry_count: int) -> None:
        """Call its alarm."""
        handler = getattr(instance, "alarm", None)
        if not callable(handler):
            raise TypeError(f"{self._cls.__name__} has no alarm any more")
        info = Record(scheduledTime=scheduled_ms, retryCount=retry_count, isRetry=retry_count > 0)

        async def work() -> Any:
            return await _awaited(handler(*accepted(handler, (info,))))

        await self._limited(f"{self._cls.__name__}.alarm", self._limits.alarm, work)

    async def _limited(self, what: str, limits: HandlerLimits, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The work, in the turn's own task where nothing limits it: there it has its place in the order of turns."""
        if limits == HandlerLimits():
            return await work()
        return await Invocation(what, limits, None).run(work())


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
