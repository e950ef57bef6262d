"""The step tools that an `async def` function finds in `ctx.step`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from stepwell.errors import UsageError
from stepwell.sdk.durations import Duration, When
from stepwell.sdk.event import Event, ReceivedEvent
from stepwell.sdk.request import scope
from stepwell.sdk.tools.events import publishing, sending_events, sending_signal
from stepwell.sdk.tools.fetch import FetchResponse, fetching
from stepwell.sdk.tools.infer import AiTools
from stepwell.sdk.tools.invoke import invoking
from stepwell.sdk.tools.options import NONE, StepOptions, options_of
from stepwell.sdk.tools.run import running
from stepwell.sdk.tools.sleep import sleeping, sleeping_until
from stepwell.sdk.tools.waits import OnConflict, Signal, waiting_for_event, waiting_for_signal

if TYPE_CHECKING:
    from stepwell.sdk.function import Function
    from stepwell.sdk.session import Session

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Event)


class StepTools:
    """The steps of one run. Each is durable: once finished it does not run again, however often the function is called."""

    __slots__ = ("_options", "_session")

    def __init__(self, session: Session, options: StepOptions = NONE) -> None:
        self._session, self._options = session, options

    def options(self, *, retries: int | None = None, timeout: Duration | None = None, effect: bool = False) -> StepTools:
        """The same tools with options for the next step: fewer retries than the function has, a limit of time for each try.

        `effect`: the step does something outside that is not to be done again lightly; a rerun of it asks first.
        """
        function = self._session.function
        where = f"function {function.id!r}: step.options"
        return StepTools(self._session, options_of(retries, timeout, effect, where=where, retries_max=function.retries))

    @overload
    def run(self, id: str, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def run(self, id: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...

    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run a function as a step, and give its stored result. A plain function runs in a thread.

        Raises `StepError` when it has failed for good.
        """
        if not callable(fn):
            raise UsageError(f"step {id!r} is to run {fn!r}, which is no function: give the function, and its arguments behind it")
        agenda = self._session.agenda
        return agenda.ask(running(agenda.request(id), self._options, fn, args, kwargs))

    def sleep(self, id: str, duration: Duration) -> Coroutine[Any, Any, None]:
        """Go on after a duration. Nothing of the run is held meanwhile."""
        self._options.refuse("sleep", id)
        return self._session.ask(sleeping(self._session.request(id), duration, self._session.loop.time()))

    def sleep_until(self, id: str, when: When) -> Coroutine[Any, Any, None]:
        """Go on at a point in time; at once, where it has passed."""
        self._options.refuse("sleep_until", id)
        return self._session.ask(sleeping_until(self._session.request(id), when))

    @overload
    def wait_for_event(
        self, id: str, event: type[E], *, timeout: Duration, where: str | None = None
    ) -> Coroutine[Any, Any, ReceivedEvent[E] | None]: ...
    @overload
    def wait_for_event(
        self, id: str, event: str, *, timeout: Duration, where: str | None = None
    ) -> Coroutine[Any, Any, ReceivedEvent[Any] | None]: ...

    def wait_for_event(
        self, id: str, event: str | type[Event], *, timeout: Duration, where: str | None = None
    ) -> Coroutine[Any, Any, ReceivedEvent[Any] | None]:
        """Wait for the first event of a name, or class, that comes from now on; `None` when the time is over first.

        `where` is an expression over `event`, the run's own, and `async`, the one that comes:
        `"async.data.order_id == event.data.order_id"`.
        """
        self._options.refuse("wait_for_event", id)
        return self._session.ask(waiting_for_event(self._session.request(id), event, timeout, where))

    def wait_for_signal(
        self, id: str, name: str, *, timeout: Duration, on_conflict: OnConflict = "fail"
    ) -> Coroutine[Any, Any, Signal[Any] | None]:
        """Wait for the signal of a name, which one run at a time may wait for; `None` when the time is over first.

        `on_conflict`: where another run waits for it, this one fails, or (`"replace"`) takes the name over and the other times out.
        """
        self._options.refuse("wait_for_signal", id)
        return self._session.ask(waiting_for_signal(self._session.request(id), name, timeout, on_conflict))

    def send_event(self, id: str, *events: Event | dict[str, Any]) -> Coroutine[Any, Any, list[str]]:
        """Send events, once. Gives their ids."""
        if not events:
            raise UsageError(f"step {id!r} sends no event: give at least one")
        return self._session.ask(sending_events(self._session, self._session.request(id), self._options, events))

    def send_signal(self, id: str, name: str, data: Any = None) -> Coroutine[Any, Any, str | None]:
        """Send a signal to the run that waits for its name. Gives that run's id, or `None` where none waits."""
        return self._session.ask(sending_signal(self._session, self._session.request(id), self._options, name, data))

    @overload
    def invoke(self, id: str, function: Function[R], data: Any = None, *, timeout: Duration | None = None) -> Coroutine[Any, Any, R]: ...
    @overload
    def invoke(self, id: str, function: str, data: Any = None, *, timeout: Duration | None = None) -> Coroutine[Any, Any, Any]: ...

    def invoke(
        self, id: str, function: Function[Any] | str, data: Any = None, *, timeout: Duration | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Run another function, of this app or another (`"shop-charge"`: its app and id), and give what it returns.

        Raises `InvokeError` with its error when it fails, is cancelled, or has not ended within the time; it goes on then.
        """
        self._options.refuse("invoke", id)
        return self._session.ask(invoking(self._session.request(id), function, data, timeout))

    def fetch(
        self,
        id: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        body: str | bytes | None = None,
        json: Any = None,
    ) -> Coroutine[Any, Any, FetchResponse]:
        """Have the server make an HTTP request, while nothing of the run is held here. Any status is an answer.

        Raises `StepError` when no answer came in all tries.
        """
        self._options.refuse("fetch", id)
        request = self._session.request(id)
        return self._session.ask(fetching(request, url, method=method, headers=headers, params=params, body=body, json=json))

    @property
    def ai(self) -> AiTools:
        """Asking models: `ctx.step.ai.infer(…)`."""
        return AiTools(self._session, self._options)

    def publish(self, topic: str, data: Any, *, channel: str | None = None) -> Coroutine[Any, Any, None]:
        """Publish data to those who are subscribed to a topic; the channel is the run's id where none is given.

        It is a step of its own, published once; inside a step it is part of that, and published whenever that runs.
        """
        publish = publishing(self._session, self._options, topic, data, channel)
        if scope.get() is not None:
            made: Coroutine[Any, Any, None] = publish()
            return made
        request = self._session.request(f"publish {topic}")
        request.fn = publish
        self._options.apply(request, "step.realtime.publish")
        return self._session.ask(request)
