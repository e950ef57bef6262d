"""A function of an app: what the server is told of it, how it is started, what data it takes and what it returns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json
from stepwell.protocol.config import FunctionConfig
from stepwell.protocol.config_reader import read_function
from stepwell.sdk.options import Trigger
from stepwell.sdk.serializer import ANY, Codec, codec_of, hint_of, result_codec
from stepwell.sdk.threads import in_thread, is_async

if TYPE_CHECKING:
    from stepwell.sdk.app import App
    from stepwell.sdk.session import Session

R = TypeVar("R")


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
        on_failure_of: Function[Any] | None = None,
    ) -> None:
        self.app, self.handler, self.id, self.name = app, handler, id, name
        self.triggers, self.retries, self.settings = triggers, retries, settings
        self.on_failure_of = on_failure_of
        self.slug = f"{app.name}-{id}"
        self.is_async = is_async(handler)
        functools.update_wrapper(self, handler)

    def __call__(self, ctx: Any) -> Any:
        return self.handler(ctx)

    @functools.cached_property
    def result(self) -> Codec:
        """The codec of what it returns."""
        return result_codec(self.handler)

    @functools.cached_property
    def data(self) -> Codec:
        """The codec of its events' data: from `Context[…]`, else from the one Event class among the triggers."""
        from stepwell.sdk.context import BaseContext

        parameter = next(iter(inspect.signature(self.handler).parameters), "")
        hint = hint_of(self.handler, parameter)
        origin = getattr(hint, "__origin__", None)
        if isinstance(origin, type) and issubclass(origin, BaseContext):
            return codec_of(hint.__args__[0])
        if self.on_failure_of is not None:
            return self.on_failure_of.data
        schemas = {trigger.schema for trigger in self.triggers}
        return codec_of(schemas.pop() or Any) if len(schemas) == 1 else ANY

    async def start(self, session: Session, events: tuple[Json, ...]) -> Any:
        """Run the function, for a session. Events that do not fit its annotation are refused before it begins, for good."""
        from stepwell.sdk import context

        ctx: Any
        if self.on_failure_of is not None:
            ctx = (context.FailureContext if self.is_async else context.SyncFailureContext)(session, events, self.data)
        else:
            ctx = (context.Context if self.is_async else context.SyncContext)(session, events, self.data)
        for event in ctx.events:
            event.check()
        if self.is_async:
            return await cast(Callable[[Any], Awaitable[Any]], self.handler)(ctx)
        session.in_thread = True
        return await in_thread(functools.partial(self.handler, ctx))

    def config(self, url: str = "") -> FunctionConfig:
        """What the server is told of it; `url` is the app's, "" for an app that is not called over HTTP."""
        return read_function(self.wire(url))

    def wire(self, url: str) -> dict[str, Any]:
        """The same as a register body has it."""
        runtime = {"type": "http", "url": f"{url}?fnId={self.slug}&stepId=step"} if url else {}
        step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": self.retries}}
        triggers = [trigger.wire(f"function {self.id!r}: trigger") for trigger in self.triggers]
        return {"id": self.slug, "name": self.name, "triggers": triggers, "steps": {"step": step}, **self.settings}

    def __repr__(self) -> str:
        return f"<function {self.slug}>"


def payload_of(function: object, data: object, what: str) -> tuple[str, Json]:
    """A function's slug and the JSON of data for it. Raises `UsageError` for data that it would not take, with the field's path."""
    if isinstance(function, Function):
        slug, codec = function.slug, function.data
    elif isinstance(function, str) and "-" in function.strip("-"):
        slug, codec = function, ANY
    else:
        raise UsageError(f'{what}: {function!r} is no function: give the function itself, or its app and id, like "shop-charge"')
    body = b"{}" if data is None else codec_of(type(data)).encode(data)
    if body[:1] != b"{":
        raise UsageError(f"{what}: the data for {slug!r} is {data!r}; it must be an object: a dict, a dataclass, a model")
    if codec is not ANY:
        try:
            codec.decode(body)
        except UsageError as error:
            raise UsageError(f"{what}: the data for {slug!r}: {error}") from error
    return slug, body
