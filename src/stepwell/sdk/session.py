"""One run's coroutine, alive in this process: its start, the calls that reach it, the way it is taken down, its end.

The function runs in a task of its own, which may outlive a call: a parked session waits for the run's next call. What it asks for, and
what becomes of that, is its `Agenda`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from stepwell.errors import Parked, Superseded, Unwind, UsageError
from stepwell.protocol.answers import Ops
from stepwell.protocol.calls import DISCOVERY, Answer, Failed, Lost, Returned
from stepwell.protocol.ops import STEP_OUTPUT_BYTES_MAX
from stepwell.sdk.agenda import Agenda, retrieve
from stepwell.sdk.failure import failure_of
from stepwell.sdk.performing import REQUEST_VERSION, too_large
from stepwell.sdk.quiet import PASSES
from stepwell.sdk.request import Call, Request, State
from stepwell.sdk.waiting import joined_tasks

if TYPE_CHECKING:
    from stepwell.sdk.function import Function

CLEANUP_MAX_S = 10.0
"""How long a coroutine that is taken down may clean up before it is cancelled."""
current: ContextVar[Session | None] = ContextVar("stepwell_session", default=None)
"""The run that this code belongs to."""


class Session:
    """One run's coroutine and the calls that drive it."""

    def __init__(self, function: Function[Any], run_id: str, on_idle: Callable[[Session], None]) -> None:
        self.function, self.run_id, self._on_idle = function, run_id, on_idle
        self.loop = asyncio.get_running_loop()
        self.main: asyncio.Task[Any] | None = None
        self.closing: BaseException | None = None
        self.ended = self.draining = self.in_thread = False
        self.attempt, self.max_attempts = 0, 1
        self.agenda = Agenda(self)

    # What the executor does with it.

    def take(self, call: Call) -> None:
        """A call of this run: start the function, or go on with it."""
        request, agenda = call.request, self.agenda
        agenda.learn(request.steps)
        if request.step_id != DISCOVERY:
            agenda.target(call)
        elif agenda.discovery is None:
            agenda.discovery = call
            self.attempt, self.max_attempts = request.attempt, request.max_attempts
        else:
            # Another branch's discovery: what it brings is taken in, what it leads to is told by the call that is there.
            call.answer(Ops(ops=(), request_version=REQUEST_VERSION))
        if self.main is not None:
            agenda.deliver()
            agenda.touch()
            return
        self.max_attempts = request.max_attempts
        agenda.expect_replay()
        context = copy_context()
        context.run(current.set, self)
        self.main = self.loop.create_task(self.function.start(self, request.events), context=context)
        self.main.add_done_callback(self._on_end)
        if agenda.targets:
            agenda.touch()

    @property
    def keeps(self) -> bool:
        """Whether the coroutine is worth keeping until the next call: not when all it waits for is long.

        A plain function holds a thread, of which there are few: it is kept for its own steps and short sleeps only.
        """
        if self.ended:
            return False
        if self.main is not None and self.main.done():
            return True
        return not self.agenda.open or not all(request.is_long(self.in_thread) for request in self.agenda.open.values())

    def has_item(self, item_id: str) -> bool:
        """Whether a call of this item is in hand."""
        return any(call.request.item_id == item_id for call in self.agenda.calls)

    def abandon(self, call: Call) -> None:
        """Nobody waits for the call any more: take the coroutine down, for its step must not end unseen."""
        self.close(Superseded("the call was abandoned"))

    def answered(self) -> None:
        """A call has been answered."""
        if not self.agenda.calls:
            self._on_idle(self)

    # Taking it down.

    def close(self, why: Unwind) -> None:
        """Take the coroutine down: what it has open in `finally` runs, no further step does. Its calls are lost."""
        if self.closing is not None:
            return
        self.closing = why
        told = self.agenda.close(why)
        for task in self.agenda.askers | (set() if self.main is None else joined_tasks(self.main)):
            task.add_done_callback(retrieve)
        if self.main is not None and not self.main.done():
            self.loop.call_soon(self._unwind, PASSES, told)

    def lose_calls(self, why: str) -> None:
        """Nothing comes of the calls in hand."""
        for call in self.agenda.calls:
            call.answer(Lost(reason=why))

    def _unwind(self, passes: int, told: bool) -> None:
        """See that the coroutine comes down: cancel what waits for no step. What was told cleans up, and has time for it."""
        alive = self._alive()
        if not alive:
            return
        if passes > 0:
            self.loop.call_soon(self._unwind, passes - 1, told)
        elif told:
            self.loop.call_later(CLEANUP_MAX_S, self._unwind, 0, False)
        else:
            for task in alive:
                task.cancel()

    async def wait_closed(self) -> None:
        """Returns when the coroutine is down."""
        tasks = self._alive()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _alive(self) -> list[asyncio.Task[Any]]:
        return [task for task in (self.main, *self.agenda.askers) if task is not None and not task.done()]

    # What the function does with it.

    @property
    def is_replay(self) -> bool:
        """Whether the code that runs now has run before: results that were stored are still to be taken up."""
        return self.agenda.replays

    def request(self, id: str) -> Request:
        """A new request, where the function may ask now. Raises `UsageError` where it may not."""
        return self.agenda.request(id)

    def ask(self, request: Request) -> Coroutine[Any, Any, Any]:
        """A step of the function, to be awaited. Ids are settled here, in the order of asking."""
        return self.agenda.ask(request)

    # The end.

    def _on_end(self, main: asyncio.Task[Any]) -> None:
        agenda = self.agenda
        if self.closing is not None:
            retrieve(main)
        elif agenda.open or agenda.unstarted or agenda.targets or agenda.running:
            # Steps that the function has cancelled get the time to go.
            agenda.forget_done_askers()
            agenda.touch()
        else:
            self.finish()

    def finish(self) -> None:
        """The function has ended: tell so, now or with the next discovery."""
        assert self.main is not None
        agenda = self.agenda
        if agenda.running and agenda.discovery is None:
            return
        agenda.miss_targets()
        call = agenda.discovery
        if call is None:
            return
        answer = self._result(self.main)
        self.ended = True
        for _, coroutine in agenda.unstarted.values():
            coroutine.close()
        agenda.unstarted.clear()
        agenda.answer(call, answer)
        if agenda.open:
            self.close(Parked(f"function {self.function.id!r} has ended"))

    def _result(self, main: asyncio.Task[Any]) -> Answer:
        error: BaseException | None = asyncio.CancelledError("the function was cancelled") if main.cancelled() else main.exception()
        if error is None:
            agenda = self.agenda
            left = [request.id for request in agenda.open.values() if request.fn is not None and request.state is not State.TOLD]
            left += [request.id for request, _ in agenda.unstarted.values()]
            if left:
                error = UsageError(f"function {self.function.id!r} ended while step {left[0]!r} was not finished: await every step")
            else:
                try:
                    data = self.function.result.encode(main.result())
                    if len(data) <= STEP_OUTPUT_BYTES_MAX:
                        return Returned(data=data)
                    error = UsageError(too_large(f"function {self.function.id!r}", len(data)))
                except UsageError as refused:
                    error = UsageError(f"the result of function {self.function.id!r}: {refused}")
        failure = failure_of(error)
        return Failed(error=failure.error, retriable=failure.retriable, retry_after_ms=failure.retry_after_ms)
