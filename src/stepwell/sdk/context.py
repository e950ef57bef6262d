"""What a function is given: its event, its run, its steps, its logger."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from stepwell.errors import StepError
from stepwell.protocol.codec import Json
from stepwell.sdk.event import ReceivedEvent
from stepwell.sdk.request import scope
from stepwell.sdk.serializer import Codec
from stepwell.sdk.session import Session
from stepwell.sdk.tools import StepTools, SyncStepTools

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from stepwell.sdk.function import Function

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")


class BaseContext(Generic[T]):
    """What both kinds of context hold."""

    def __init__(self, session: Session, events: tuple[Json, ...], codec: Codec) -> None:
        self._session, self._raw, self._codec = session, events, codec
        self._events: list[ReceivedEvent[T]] | None = None
        self._log: RunLogger | None = None

    @property
    def event(self) -> ReceivedEvent[T]:
        """The event that started the run; of a batch, the first."""
        return self.events[0]

    @property
    def events(self) -> list[ReceivedEvent[T]]:
        """All events of the run: several for a batch."""
        if self._events is None:
            self._events = [ReceivedEvent(raw, self._codec) for raw in self._raw]
        return self._events

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._session.run_id

    @property
    def function_id(self) -> str:
        """The function's id, without the app's name."""
        return self._session.function.id

    @property
    def attempt(self) -> int:
        """How often this has failed before: 0 in the first try. Inside a step it is the step's."""
        inside = scope.get()
        return self._session.attempt if inside is None else inside.attempt

    @property
    def max_attempts(self) -> int:
        """How often it is tried at most: `retries + 1`."""
        return self._session.max_attempts

    @property
    def is_replay(self) -> bool:
        """Whether the code that runs now has run before, in an earlier call of this run."""
        return self._session.is_replay

    @property
    def idempotency_key(self) -> str:
        """A key for services that take one: inside a step, always the same for this step of this run; else, for this run."""
        inside = scope.get()
        return self._session.run_id if inside is None else f"{self._session.run_id}:{inside.hash}"

    @property
    def log(self) -> RunLogger:
        """A logger with the run's ids that is silent while code is replayed."""
        if self._log is None:
            self._log = RunLogger(self._session)
        return self._log


class Context(BaseContext[T]):
    """The context of an `async def` function. `Context[OrderPaid]` gives `ctx.event.data` its type."""

    def __init__(self, session: Session, events: tuple[Json, ...], codec: Codec) -> None:
        super().__init__(session, events, codec)
        self.step = StepTools(session)


class SyncContext(BaseContext[T]):
    """The context of a plain `def` function, which runs in a thread of its own; its steps block it."""

    def __init__(self, session: Session, events: tuple[Json, ...], codec: Codec) -> None:
        super().__init__(session, events, codec)
        self.step = SyncStepTools(StepTools(session))


class _FailedRun(msgspec.Struct):
    """The data of `inngest/function.failed` (inngest-protocol §6.2)."""

    run_id: str = ""
    event: msgspec.Raw = msgspec.Raw(b"{}")
    events: list[msgspec.Raw] = []
    error: dict[str, Any] = {}


_failed_run = msgspec.json.Decoder(_FailedRun)


class _Failure(BaseContext[T]):
    """What a function's `on_failure` is given: its events are those of the run that failed."""

    def __init__(self, session: Session, events: tuple[Json, ...], codec: Codec) -> None:
        told = _failed_run.decode(bytes(ReceivedEvent[Any](events[0]).raw))
        super().__init__(session, tuple(bytes(event) for event in told.events or [told.event]), codec)
        self.failed_run_id: str = told.run_id
        """The run that failed."""
        name, message, stack = told.error.get("name"), told.error.get("message"), told.error.get("stack")
        self.error = StepError(str(name or "Error"), str(message or ""), stack if isinstance(stack, str) else None)
        """What it failed with: `.name`, `.message`, `.stack`."""


class FailureContext(_Failure[T], Context[T]):
    """The context of an `async def` that stands in `on_failure=`: `ctx.event` is the failed run's, `ctx.error` what it failed with."""


class SyncFailureContext(_Failure[T], SyncContext[T]):
    """The context of a plain `def` that stands in `on_failure=`."""


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds run, function and step to each record, and drops what was logged before."""

    def __init__(self, session: Session) -> None:
        function: Function[Any] = session.function
        super().__init__(logging.getLogger(f"stepwell.{function.app.name}.{function.id}"), {})
        self._session = session

    def isEnabledFor(self, level: int) -> bool:
        return not self._session.is_replay and self.logger.isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        inside = scope.get()
        ids = {"run_id": self._session.run_id, "function_id": self._session.function.id, "step_id": inside.id if inside else None}
        kwargs["extra"] = {**ids, **(kwargs.get("extra") or {})}
        return msg, kwargs
