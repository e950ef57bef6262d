"""Advances runs for calls: finds the run's coroutine where one is parked, else starts the function and replays it.

One executor serves all drivers. With checkpoints (in-process, child process) a coroutine stays alive between calls where that is
worth it; without (HTTP) each call starts the function anew and ends after one step, as the protocol has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from stepwell.errors import Parked, Superseded
from stepwell.protocol.answers import failed
from stepwell.protocol.calls import Answer, CallRequest, Failed, Lost
from stepwell.sdk.app import App
from stepwell.sdk.function import Function
from stepwell.sdk.request import Call, CheckpointFn
from stepwell.sdk.session import Session

PARKED_MAX = 1000
"""Coroutines kept between calls; beyond it the one that has waited longest is closed, and its run replayed when it goes on."""
PARK_MAX_S = 60.0
"""How long a coroutine is kept without a call."""


class Executor:
    """Runs the functions of some apps. `call` is what a driver needs; `close` takes all coroutines down."""

    def __init__(self, *apps: App, parked_max: int = PARKED_MAX, park_max_s: float = PARK_MAX_S) -> None:
        self._functions: dict[str, Function[object]] = {function.slug: function for app in apps for function in app.functions.values()}
        self._apps = apps
        self._sessions: dict[str, Session] = {}
        self._parked: dict[str, float] = {}
        self._parked_max, self._park_max_s = parked_max, park_max_s
        self._sweep: asyncio.TimerHandle | None = None
        self._draining = False

    async def call(self, request: CallRequest, checkpoint: CheckpointFn | None = None, *, parks: bool = True) -> Answer:
        """Advance the run and give the answer. Without `checkpoint` the call ends after one step.

        `parks`: with `checkpoint`, the coroutine may stay here for the run's next call, which comes to this process.
        """
        function = self._function(request.function_id)
        if function is None:
            return _unknown(request.function_id, self._functions)
        if self._draining:
            return Lost(reason="the process is being stopped")
        call = Call(request, checkpoint, asyncio.get_running_loop().create_future())
        parks = parks and checkpoint is not None
        session = self._session(function, request) if parks else Session(function, request.run_id, _close_answered)
        session.take(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            session.abandon(call)
            if parks:
                self._drop(request.run_id, "the call was abandoned")
            raise

    def holds(self, run_id: str) -> bool:
        """Whether a coroutine of this run is alive here."""
        return run_id in self._sessions

    @property
    def parked(self) -> int:
        """How many coroutines are alive without a call."""
        return len(self._parked)

    async def forget(self, run_id: str) -> None:
        """The run has ended, or goes on elsewhere: take its coroutine down. Returns when it is."""
        session = self._sessions.get(run_id)
        if session is not None:
            self._drop(run_id, f"run {run_id} has ended")
            await session.wait_closed()

    def drain(self) -> None:
        """Take no more calls; end those in hand at their next step, as lost."""
        self._draining = True
        for run_id in list(self._parked):
            self._drop(run_id, "the process is being stopped")
        for session in self._sessions.values():
            session.draining = True

    async def close(self) -> None:
        """Take all coroutines down and wait until they are."""
        self._draining = True
        if self._sweep is not None:
            self._sweep.cancel()
        sessions, self._sessions = list(self._sessions.values()), {}
        self._parked.clear()
        for session in sessions:
            session.close(Superseded("the process is being stopped"))
        await asyncio.gather(*(session.wait_closed() for session in sessions))

    def _function(self, slug: str) -> Function[object] | None:
        function = self._functions.get(slug)
        if function is None:
            # Declared after the executor was made, in a notebook say.
            self._functions = {function.slug: function for app in self._apps for function in app.functions.values()}
            function = self._functions.get(slug)
        return function

    def _session(self, function: Function[object], request: CallRequest) -> Session:
        """The run's live session, if it can go on; else a new one."""
        run_id = request.run_id
        self._parked.pop(run_id, None)
        session = self._sessions.get(run_id)
        if session is not None and session.has_item(request.item_id):
            # The same item under a new lease: what the old call does counts no more.
            session.close(Superseded(f"run {run_id} has been given to another call"))
        if session is None or session.closing is not None or session.ended or session.function is not function:
            session = self._sessions[run_id] = Session(function, run_id, self._on_idle)
        return session

    def _on_idle(self, session: Session) -> None:
        """A session has no call in hand."""
        run_id = session.run_id
        if self._sessions.get(run_id) is not session:
            return
        if not session.keeps or self._draining:
            self._drop(run_id, f"run {run_id} is asleep")
            return
        now = session.loop.time()
        self._parked[run_id] = now
        if len(self._parked) > self._parked_max:
            self._drop(next(iter(self._parked)), "too many runs are parked")
        if self._sweep is None:
            self._sweep = session.loop.call_later(self._park_max_s, self._sweep_old, session.loop)

    def _sweep_old(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweep = None
        for run_id, since in list(self._parked.items()):
            if since + self._park_max_s > loop.time():
                self._sweep = loop.call_at(since + self._park_max_s, self._sweep_old, loop)
                return
            self._drop(run_id, "its call has not come for long")

    def _drop(self, run_id: str, why: str) -> None:
        self._parked.pop(run_id, None)
        session = self._sessions.pop(run_id, None)
        if session is not None and not session.ended:
            session.close(Parked(why))


def _close_answered(session: Session) -> None:
    session.close(Parked("the call is answered"))


def _unknown(slug: str, known: Iterable[str]) -> Failed:
    there = ", ".join(sorted(known)) or "none"
    message = f"There is no function {slug!r} here; there are: {there}. Has it been removed or renamed?"
    return failed("FunctionNotFound", message)
