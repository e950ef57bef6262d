"""Functions made steps by `@app.step`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from stepwell.errors import UsageError
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.options import retries_of
from stepwell.sdk.request import scope
from stepwell.sdk.session import current
from stepwell.sdk.threads import await_in, is_async
from stepwell.sdk.tools import StepTools

if TYPE_CHECKING:
    from stepwell.sdk.app import App

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A function made a step by `@app.step`: inside a run, calling it is a step; outside, a plain call.

    `plain` is the function as it was written.
    """

    def __init__(self, app: App, fn: Callable[P, R], id: str, retries: int | None, timeout: Duration | None, effect: bool) -> None:
        self.app, self.id, self.plain, self._retries, self._timeout, self._effect = app, id, fn, retries, timeout, effect
        self._stepwell_plain = fn
        functools.update_wrapper(self, fn)
        if retries is not None:
            retries_of(retries, f"step {id!r}")
        if timeout is not None:
            duration_ms(timeout, f"step {id!r}: timeout")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        session = current.get()
        if session is None:
            return self.plain(*args, **kwargs)
        inside = scope.get()
        if inside is not None:
            raise UsageError(
                f"step {self.id!r} was called inside step {inside.id!r}: a step cannot hold steps; "
                f"call the function itself, {self.__name__}.plain(…)"  # type: ignore[attr-defined]
            )
        tools = StepTools(session)
        if self._retries is not None or self._timeout is not None or self._effect:
            tools = tools.options(retries=self._retries, timeout=self._timeout, effect=self._effect)
        if is_async(self.plain):
            return tools.run(self.id, self.plain, *args, **kwargs)  # type: ignore[return-value]
        if asyncio._get_running_loop() is not None:
            raise UsageError(
                f"step {self.id!r} is a plain function and would block the event loop: "
                f"write it as async def, or await ctx.step.run({self.id!r}, …)"
            )
        ask: Callable[[], Any] = lambda: tools.run(self.id, self.plain, *args, **kwargs)  # noqa: E731
        result: R = await_in(session.loop, ask)
        return result
