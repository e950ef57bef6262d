"""Handles of runs: what `app.start` gives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote

from stepwell.errors import Cancelled, InvokeError, UsageError
from stepwell.protocol.codec import decode
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.event import ReceivedEvent
from stepwell.sdk.remote import refusal
from stepwell.sdk.serializer import ANY, Codec

if TYPE_CHECKING:
    from stepwell.sdk.app import App
    from stepwell.sdk.way import RunState

R = TypeVar("R")

POLL_FIRST_S, POLL_FACTOR, POLL_LAST_S = 0.02, 1.5, 2.0
"""From one question to the next at least, where a server answers at once though the run goes on."""
WAIT_S = 30.0
"""How long an engine is asked to wait for a run's end; a server waits less at a time."""


class RunHandle(Generic[R]):
    """A run that was started: `await run.output()`."""

    def __init__(self, app: App, id: str, codec: Codec = ANY, event_codec: Codec = ANY) -> None:
        self._app, self.id, self._codec, self._event_codec = app, id, codec, event_codec

    async def status(self) -> str:
        """`queued`, `running`, `waiting`, `completed`, `failed`, `cancelled` or `skipped`; `paused`, or `pausing` while its call is out.

        Over HTTP a waiting run shows as running.
        """
        state = await self._app.way.run_state(self.id)
        return state.paused or state.status

    async def output(self, timeout: Duration | None = None) -> R:
        """Wait for the run's end and give what its function returned.

        Raises `InvokeError` with the error of a run that failed, `Cancelled` for one that was cancelled or skipped, and `TimeoutError`
        when it has not ended within the time; it goes on then.
        """
        state = await self._end(timeout)
        if state.status == "completed":
            result: R = self._codec.decode(state.output or b"null")
            return result
        if state.status == "failed":
            error = decode(state.output or b"{}")
            error = error if isinstance(error, dict) else {"message": str(error)}
            stack = error.get("stack")
            raise InvokeError(str(error.get("name", "Error")), str(error.get("message", "")), stack if isinstance(stack, str) else None)
        raise Cancelled(f"run {self.id} was {state.status}")

    async def cancel(self) -> None:
        """End the run. A step that is being run goes on, and its result is dropped. Raises `RunHasEnded`."""
        await self._app.way.cancel(self.id)

    async def pause(self) -> None:
        """Have the run called no more until it is resumed. The step that is being run ends first; sleeps and waits go on meanwhile.

        Raises `RunHasEnded`; a paused run stays paused.
        """
        await set_pause(self._app, self.id, "pause")

    async def resume(self) -> None:
        """Have a paused run go on. Raises `RunHasEnded`."""
        await set_pause(self._app, self.id, "resume")

    async def events(self) -> list[ReceivedEvent[Any]]:
        """The events that the run was started with."""
        state = await self._app.way.run_state(self.id)
        return [ReceivedEvent(await self._app.way.event(event_id), self._event_codec) for event_id in state.event_ids]

    async def _end(self, timeout: Duration | None) -> RunState:
        loop = asyncio.get_running_loop()
        limit_s = None if timeout is None else duration_ms(timeout, "output: timeout") / 1000
        deadline = None if limit_s is None else loop.time() + limit_s
        pause = POLL_FIRST_S
        while True:
            asked = loop.time()
            left = WAIT_S if deadline is None else max(0.0, deadline - loop.time())
            state = await self._app.way.run_state(self.id, min(left, WAIT_S))
            if state.has_ended:
                return state
            if deadline is not None and loop.time() >= deadline:
                raise TimeoutError(f"run {self.id} is {state.status} after {limit_s:g} s; it goes on: ask again, or cancel it")
            # An engine that waited has made the pause already.
            rest = asked + pause - loop.time()
            await asyncio.sleep(max(0.0, rest if deadline is None else min(rest, deadline - loop.time())))
            pause = min(pause * POLL_FACTOR, POLL_LAST_S)

    def __repr__(self) -> str:
        return f"<run {self.id}>"


class SyncRunHandle(Generic[R]):
    """A run that was started from code that is not async: each method blocks."""

    def __init__(self, run: RunHandle[R]) -> None:
        self._run, self.id = run, run.id

    def status(self) -> str:
        """As `RunHandle.status`."""
        return self._run._app.wait_for(self._run.status)

    def output(self, timeout: Duration | None = None) -> R:
        """As `RunHandle.output`."""
        return self._run._app.wait_for(lambda: self._run.output(timeout))

    def cancel(self) -> None:
        """As `RunHandle.cancel`."""
        self._run._app.wait_for(self._run.cancel)

    def pause(self) -> None:
        """As `RunHandle.pause`."""
        self._run._app.wait_for(self._run.pause)

    def resume(self) -> None:
        """As `RunHandle.resume`."""
        self._run._app.wait_for(self._run.resume)

    def events(self) -> list[ReceivedEvent[Any]]:
        """As `RunHandle.events`."""
        return self._run._app.wait_for(self._run.events)

    def __repr__(self) -> str:
        return f"<run {self.id}>"


async def set_pause(app: App, run_id: str, what: Literal["pause", "resume"]) -> None:
    """Pause a run, or resume it. Raises `NotFound`, `RunHasEnded`."""
    path = f"/v1/runs/{quote(run_id, safe='')}/{what}"
    status, answer = await app.way.ask("POST", path)
    if status >= 300:
        raise refusal("POST", path, status, answer)


def checked_id(id: object) -> str | None:
    """The id of a start. Raises `UsageError`."""
    if id is not None and (not isinstance(id, str) or not id):
        raise UsageError(f"start: id is {id!r}; it must be a text that is not empty, the same for what is to be done once")
    return id
