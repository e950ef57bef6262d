"""The same tools for functions that are a plain `def`: each call blocks the function's thread until its result is there."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from stepwell.sdk.durations import Duration, When
from stepwell.sdk.event import Event, ReceivedEvent
from stepwell.sdk.threads import await_in
from stepwell.sdk.tools.fetch import FetchResponse
from stepwell.sdk.tools.steps import StepTools
from stepwell.sdk.tools.waits import OnConflict, Signal

if TYPE_CHECKING:
    from stepwell.sdk.ai import Model
    from stepwell.sdk.function import Function

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Event)


class SyncStepTools:
    """The steps of a run whose function is a plain `def`."""

    __slots__ = ("_tools",)

    def __init__(self, tools: StepTools) -> None:
        self._tools = tools

    def _wait(self, ask: Callable[[], Coroutine[Any, Any, R]]) -> R:
        return await_in(self._tools._session.loop, ask)

    def options(self, *, retries: int | None = None, timeout: Duration | None = None, effect: bool = False) -> SyncStepTools:
        """As `StepTools.options`."""
        return SyncStepTools(self._tools.options(retries=retries, timeout=timeout, effect=effect))

    @overload
    def run(self, id: str, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `StepTools.run`."""
        return self._wait(lambda: self._tools.run(id, fn, *args, **kwargs))

    def sleep(self, id: str, duration: Duration) -> None:
        """As `StepTools.sleep`."""
        self._wait(lambda: self._tools.sleep(id, duration))

    def sleep_until(self, id: str, when: When) -> None:
        """As `StepTools.sleep_until`."""
        self._wait(lambda: self._tools.sleep_until(id, when))

    @overload
    def wait_for_event(self, id: str, event: type[E], *, timeout: Duration, where: str | None = None) -> ReceivedEvent[E] | None: ...
    @overload
    def wait_for_event(self, id: str, event: str, *, timeout: Duration, where: str | None = None) -> ReceivedEvent[Any] | None: ...

    def wait_for_event(self, id: str, event: Any, *, timeout: Duration, where: str | None = None) -> ReceivedEvent[Any] | None:
        """As `StepTools.wait_for_event`."""
        return self._wait(lambda: self._tools.wait_for_event(id, event, timeout=timeout, where=where))

    def wait_for_signal(self, id: str, name: str, *, timeout: Duration, on_conflict: OnConflict = "fail") -> Signal[Any] | None:
        """As `StepTools.wait_for_signal`."""
        return self._wait(lambda: self._tools.wait_for_signal(id, name, timeout=timeout, on_conflict=on_conflict))

    def send_event(self, id: str, *events: Event | dict[str, Any]) -> list[str]:
        """As `StepTools.send_event`."""
        return self._wait(lambda: self._tools.send_event(id, *events))

    def send_signal(self, id: str, name: str, data: Any = None) -> str | None:
        """As `StepTools.send_signal`."""
        return self._wait(lambda: self._tools.send_signal(id, name, data))

    @overload
    def invoke(self, id: str, function: Function[R], data: Any = None, *, timeout: Duration | None = None) -> R: ...
    @overload
    def invoke(self, id: str, function: str, data: Any = None, *, timeout: Duration | None = None) -> Any: ...

    def invoke(self, id: str, function: Any, data: Any = None, *, timeout: Duration | None = None) -> Any:
        """As `StepTools.invoke`."""
        return self._wait(lambda: self._tools.invoke(id, function, data, timeout=timeout))

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
    ) -> FetchResponse:
        """As `StepTools.fetch`."""
        return self._wait(lambda: self._tools.fetch(id, url, method=method, headers=headers, params=params, body=body, json=json))

    @property
    def ai(self) -> SyncAiTools:
        """As `StepTools.ai`."""
        return SyncAiTools(self._tools)

    def publish(self, topic: str, data: Any, *, channel: str | None = None) -> None:
        """As `StepTools.publish`."""
        self._wait(lambda: self._tools.publish(topic, data, channel=channel))


class SyncAiTools:
    """`ctx.step.ai` of a plain function."""

    __slots__ = ("_tools",)

    def __init__(self, tools: StepTools) -> None:
        self._tools = tools

    def infer(self, id: str, model: Model, body: Mapping[str, Any], *, publish: str | None = None) -> Any:
        """As `AiTools.infer`."""
        return await_in(self._tools._session.loop, lambda: self._tools.ai.infer(id, model, body, publish=publish))
