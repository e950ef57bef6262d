"""A class of objects as a binding, and the stubs that it gives: calls of an object, wherever it lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepwell.errors import ActorError
from stepwell.protocol.actors import CHAIN_MAX, ActorFailed
from stepwell.sdk.actors.activation import current, settled
from stepwell.sdk.actors.failure import exception_of
from stepwell.workers import wire
from stepwell.workers.bindings.calling import at_once, paid
from stepwell.workers.errors import BindingError
from stepwell.workers.objects.ids import Names, ObjectId
from stepwell.workers.rpc import python_from_rpc, python_to_rpc
from stepwell.workers.web.request import Request
from stepwell.workers.web.response import FetchResponse

if TYPE_CHECKING:
    from stepwell.sdk.app import App

FETCH = "fetch"


class ObjectNamespace:
    """The objects of a class; `kind` is what the server calls it."""

    def __init__(self, app: App, kind: str) -> None:
        self._app, self._kind, self._names = app, kind, Names(app, kind)

    def idFromName(self, name: str) -> ObjectId:
        """The id of a name."""
        return self._names.named(str(name))

    def newUniqueId(self, options: Any = None, **named: Any) -> ObjectId:
        """The id of a new object. There are no jurisdictions here."""
        return self._names.random()

    def idFromString(self, id: str) -> ObjectId:
        """An id from its digits."""
        return self._names.of_digits(str(id))

    def get(self, id: ObjectId, options: Any = None, **named: Any) -> ObjectStub:
        """A stub of an id's object. Making it touches nothing."""
        if not isinstance(id, ObjectId):
            raise TypeError(f"get({id!r:.60}): give an id, as idFromName, idFromString and newUniqueId make it; or use getByName")
        return ObjectStub(self._app, self._kind, self._names, id)

    def getByName(self, name: str, options: Any = None, **named: Any) -> ObjectStub:
        """A stub of a name's object."""
        return self.get(self.idFromName(name))

    def jurisdiction(self, name: Any = None) -> ObjectNamespace:
        """The same namespace: all objects live here."""
        return self

    def __repr__(self) -> str:
        return f"<Durable Objects of {self._kind}>"


class ObjectStub:
    """An object, from outside. One that has seen its object reset stays broken: another stub finds the new one."""

    def __init__(self, app: App, kind: str, names: Names, id: ObjectId) -> None:
        self._app, self._kind, self._names, self.id, self.name = app, kind, names, id, id.name
        self._broken: Exception | None = None

    @at_once
    async def fetch(self, resource: Request | str, **options: Any) -> FetchResponse:
        """The response of the object's `fetch`."""
        request = Request(resource, **options) if options or not isinstance(resource, Request) else resource
        response: FetchResponse = await self._call(FETCH, [request], {})
        return response

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        @at_once
        async def method(*args: Any, **kwargs: Any) -> Any:
            sent = [python_to_rpc(argument) for argument in args]
            return python_from_rpc(await self._call(name, sent, {key: python_to_rpc(one) for key, one in kwargs.items()}))

        return method

    async def _call(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if self._broken is not None:
            raise self._broken
        body = await wire.encode(wire.Call("", method, list(args), kwargs))
        turn = current.get()
        chain = () if turn is None else turn.onward
        if len(chain) > CHAIN_MAX:
            raise BindingError(f"{len(chain)} Durable Objects call each other in a chain; at most {CHAIN_MAX} may")
        if turn is not None:
            await settled()
        await paid()
        name = await self._names.actor_of(self.id)
        try:
            answer = await self._app.way.call_actor(self._kind, name, method, body, chain)
        except ActorFailed as failed:
            error = _raised(exception_of(failed.failure))
            if failed.failure.reset:
                self._broken = error
            raise error from None
        return wire.decode_outcome(answer)

    def __repr__(self) -> str:
        return f"<stub of {self.id!r}>"


def _raised(error: ActorError) -> ActorError:
    """The error with the name that it has there, as far as that is one."""
    if type(error) is ActorError and error.name.isidentifier():
        error.__class__ = type(error.name, (ActorError,), {})
    vars(error)["remote"] = True
    if error.reset:
        vars(error)["durableObjectReset"] = True
    return error
