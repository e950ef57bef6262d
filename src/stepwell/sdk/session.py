"""One run's coroutine, alive in this process: what it asks for, what it is given, and how its calls are answered.

The function runs in a task of its own, which may outlive a call: a parked session waits for the run's next call. What the function
does with steps comes down to this:

* A step asked for is a `Request`. One that is memoised returns at once. The others are collected until nothing new has been asked
  for during a few passes of the event loop: what is started together is asked for together, however `gather` and `TaskGroup` nest.
* **One** new step is run at once, in the task that asked for it; with checkpoints it is made durable and the function goes on.
  **Several** are answered as a plan; each then comes back as a targeted call, which is handed to the task that waits for it.
* While some branch waits for something else than a step, no call is ended by a plan: new steps run side by side in this call, and
  a sleep is told only when nothing else is under way, or after `HOLD_MAX_S`.
* A planned step is told as a race where its branch has more to do than this step: branches go on independently of each other. Steps
  that are gathered directly are joined, which saves a call each.
* A sleep, a plan, a failed step, the function's end: these end the call. Steps asked for while no call is there wait for the next.

The ids of steps depend on users' ids and their repetitions only, never on timing.
"""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from stepwell.errors import Parked, ProtocolError, Superseded, Unwind, UsageError
from stepwell.protocol.calls import Answer, Checkpoint, Failed, Lost, Ops, Returned
from stepwell.protocol.codec import Json
from stepwell.protocol.failures import error_json
from stepwell.protocol.ops import STEP_OUTPUT_BYTES_MAX, Op
from stepwell.sdk.failure import Failure, failure_of, step_failure
from stepwell.sdk.request import Call, Request, Scope, State, Verdict, decode_memo, scope, vanished
from stepwell.sdk.waiting import joined_tasks, waits_elsewhere, wants_any

if TYPE_CHECKING:
    from stepwell.sdk.app import Function

REQUEST_VERSION = 2
PASSES = 8
"""Passes of the event loop without a new request, after which what was asked for in parallel is taken to be complete."""
HOLD_MAX_S = 10.0
"""How long a sleep (or, without checkpoints, a plan) is held back while another branch waits for something else."""
POLL_S = (0.005, 0.02, 0.1, 0.25)
"""When to look again meanwhile; the last one repeats."""
CLEANUP_MAX_S = 10.0
"""How long a coroutine that is taken down may clean up before it is cancelled."""
current: ContextVar[Session | None] = ContextVar("stepwell_session", default=None)
"""The run that this code belongs to."""


@types.coroutine
def _pass() -> Generator[None, None, None]:
    """One pass of the event loop."""
    yield


class Session:
    """One run's coroutine and the calls that drive it."""

    def __init__(self, function: Function[Any], run_id: str, on_idle: Callable[[Session], None]) -> None:
        self.function, self.run_id, self._on_idle = function, run_id, on_idle
        self.loop = asyncio.get_running_loop()
        self.discovery: Call | None = None
        self.targets: dict[str, Call] = {}
        self.running: dict[str, Call] = {}
        self.memos: dict[str, Json] = {}
        self.open: dict[str, Request] = {}
        self.closing: BaseException | None = None
        self.ended = False
        self.attempt = 0
        self.max_attempts = 1
        self.draining = False
        self._asked: set[str] = set()
        self._counts: dict[str, int] = {}
        self._unstarted: dict[str, tuple[Request, Coroutine[Any, Any, Any]]] = {}
        self._askers: set[asyncio.Task[Any]] = set()
        self._failures: list[tuple[Request, Ops]] = []
        self._left = 0
        self._seq = 0
        self._spinning = False
        self._hold_from: float | None = None
        self._polls = 0
        self._poll: asyncio.TimerHandle | None = None
        self._main: asyncio.Task[Any] | None = None
        self.in_thread = False

    # What the executor does with it.

    def take(self, call: Call) -> None:
        """A call of this run: start the function, or go on with it."""
        request = call.request
        fresh = self._main is None
        if request.steps:
            self.memos.update(request.steps)
        if request.step_id != "step":
            self._target(call)
        elif self.discovery is None:
            self.discovery = call
            self.attempt, self.max_attempts = request.attempt, request.max_attempts
        else:
            # Another branch's discovery: what it brings is taken in, what it leads to is told by the call that is there.
            call.answer(Ops(ops=(), request_version=REQUEST_VERSION))
        if fresh:
            self.max_attempts, self._left = request.max_attempts, len(self.memos)
            context = copy_context()
            context.run(current.set, self)
            self._main = self.loop.create_task(self.function.start(self, request.events), context=context)
            self._main.add_done_callback(self._on_end)
            if self.targets:
                self._touch()
        else:
            self._deliver()
            self._touch()

    @property
    def calls(self) -> list[Call]:
        """The calls that are not answered yet."""
        calls = [*self.targets.values(), *self.running.values(), self.discovery]
        return [call for call in calls if call is not None and not call.future.done()]

    @property
    def keeps(self) -> bool:
        """Whether the coroutine is worth keeping until the next call: not when all it waits for is long sleeps."""
        if self.ended:
            return False
        if self._main is not None and self._main.done():
            return True
        return not self.open or not all(request.is_long_sleep for request in self.open.values())

    def has_item(self, item_id: str) -> bool:
        """Whether a call of this item is in hand."""
        return any(call.request.item_id == item_id for call in self.calls)

    def abandon(self, call: Call) -> None:
        """Nobody waits for the call any more: take the coroutine down, for its step must not end unseen."""
        self.close(Superseded("the call was abandoned"))

    def close(self, why: Unwind) -> None:
        """Take the coroutine down: what it has open in `finally` runs, no further step does. Its calls are lost."""
        if self.closing is not None:
            return
        self.closing = why
        for call in self.calls:
            call.answer(Lost(reason=str(why)))
        self.targets.clear()
        self.discovery = None
        if self._poll is not None:
            self._poll.cancel()
        told = False
        for request in self.open.values():
            if request.future is not None and not request.future.done():
                request.future.set_exception(type(why)(*why.args))
                told = True
            elif request.hash in self.running and request.task is not None and request.task is not asyncio.current_task():
                request.task.cancel()
        for task in self._askers | (set() if self._main is None else joined_tasks(self._main)):
            task.add_done_callback(_retrieve)
        if self._main is not None and not self._main.done():
            self.loop.call_soon(self._unwind, PASSES, told)

    def _unwind(self, passes: int, told: bool) -> None:
        """See that the coroutine comes down: cancel what waits for no step. What was told cleans up, and has time for it."""
        alive = [task for task in (self._main, *self._askers) if task is not None and not task.done()]
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
        tasks = [task for task in (self._main, *self._askers) if task is not None and not task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    # What the function does with it.

    @property
    def is_replay(self) -> bool:
        """Whether the code that runs now has run before: results that were stored are still to be taken up."""
        return self._left > 0

    def ask(self, request: Request) -> Coroutine[Any, Any, Any]:
        """A step of the function, to be awaited. Ids are settled here, in the order of asking."""
        coroutine = self._perform(request)
        self._unstarted[request.hash] = (request, coroutine)
        return coroutine

    def request(self, id: str) -> Request:
        """A new request, where the function may ask now. Raises `UsageError` where it may not."""
        inside = scope.get()
        if inside is not None:
            raise UsageError(
                f"step {id!r} was called inside step {inside.id!r}: a step cannot hold steps; "
                "call it after the other one, or call the plain function"
            )
        if self.closing is None and (self._main is None or self._main.done()):
            raise UsageError(f"step {id!r} was called after function {self.function.id!r} had ended: await all steps inside the function")
        if not isinstance(id, str) or not id:
            raise UsageError(f"a step's id must be a string that is not empty, not {id!r}")
        index = self._counts.get(id, 0)
        self._counts[id] = index + 1
        request = Request(id, index)
        if request.hash in self._asked:
            raise UsageError(f"step {id!r} (repetition {index}) has the same id as another step: do not end step ids in :1, :2, …")
        self._asked.add(request.hash)
        return request

    async def _perform(self, request: Request) -> Any:
        started = self._unstarted.pop(request.hash, None)
        if self.closing is not None:
            if (asker := asyncio.current_task()) is not None:
                asker.add_done_callback(_retrieve)
            raise type(self.closing)(*self.closing.args)
        memo = self.memos.get(request.hash)
        if memo is not None:
            return self._consume(request, memo)
        self._left = 0
        self.open[request.hash] = request
        task = request.task = asyncio.current_task()
        self._seq += 1
        try:
            request.direct = started is not None and task is not None and task.get_coro() is started[1]
            del started
            call = self.targets.pop(request.hash, None)
            if call is not None:
                self._begin(request, call)
            elif task is self._main and not self._branched():
                # What was started together with this step gets the time to ask as well.
                seq = self._seq
                await _pass()
                if seq == self._seq and len(self.open) == 1 and self._may_start(request):
                    call = self.discovery
                    assert call is not None
                    self._begin(request, call)
            elif task is not None:
                self._askers.add(task)
            while True:
                if call is None:
                    memo = self.memos.get(request.hash)
                    if memo is not None:
                        return self._consume(request, memo)
                    if self.closing is not None:
                        raise type(self.closing)(*self.closing.args)
                    verdict = await self._verdict(request)
                    if not isinstance(verdict, Call):
                        return self._consume(request, verdict)
                    call = verdict
                done, value = await self._execute(request, call)
                if done:
                    return value
                call = None
        finally:
            self.open.pop(request.hash, None)
            if self.open or self.targets or self._failures:
                self._touch()

    async def _verdict(self, request: Request) -> Verdict:
        """The call to run the step under, or its memo; whichever the server sends."""
        call = self.targets.pop(request.hash, None)
        if call is not None:
            self._begin(request, call)
            return call
        request.future = self.loop.create_future()
        self._touch()
        try:
            return await request.future
        finally:
            request.future = None

    def _consume(self, request: Request, memo: Json) -> Any:
        """The result that is stored for a step; raises `StepError` where it failed for good."""
        if self._left:
            self._left -= 1
        if request.sleep is not None:
            return None
        return decode_memo(request, memo)

    # Running a step.

    def _begin(self, request: Request, call: Call) -> None:
        request.state = State.RUNNING
        self.running[request.hash] = call

    async def _execute(self, request: Request, call: Call) -> tuple[bool, Any]:
        """Run the step under a call, in the task that asked. Says whether it is durable, and then its value."""
        assert request.fn is not None
        targeted = call is not self.discovery
        failure: Failure | None = None
        token = scope.set(Scope(request.id, request.hash, call.attempt))
        try:
            began = time.time()
            try:
                value = await request.run()
                data = request.codec.encode(value, mark=True)
                if len(data) > STEP_OUTPUT_BYTES_MAX:
                    raise UsageError(_too_large(f"step {request.id!r}", len(data)))
                value = request.codec.decode(data, marked=True)
            except (Exception, SystemExit) as error:
                failure = step_failure(error)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                failure = step_failure(error)
        except BaseException:
            del self.running[request.hash]
            if targeted and self.closing is None:
                self._target(call)
            raise
        finally:
            scope.reset(token)
        try:
            if failure is not None:
                self._fail(request, call, failure, targeted)
                return False, None
            op = request.ran(data, began, time.time(), targeted and self._races(request))
            if targeted or call.checkpoint is None:
                self._told(request, call, Ops(ops=(op,), request_version=REQUEST_VERSION))
                return False, None
            return await self._make_durable(request, call, op), value
        finally:
            self.running.pop(request.hash, None)

    async def _make_durable(self, request: Request, call: Call, op: Op) -> bool:
        """Checkpoint the step. Says whether it is durable; if not, its call has been answered with it."""
        assert call.checkpoint is not None
        sent = call.request
        try:
            await call.checkpoint(Checkpoint(run_id=sent.run_id, item_id=sent.item_id, fence=sent.fence, ops=(op,)))
        except Superseded as error:
            self.close(error)
            raise
        except ProtocolError as error:
            name = error.code or type(error).__name__
            call.answer(Failed(error=error_json(name, str(error)), retriable=False))
            self.close(Superseded(str(error)))
            raise Superseded(str(error)) from error
        except Exception:
            # Not stored, but done: the answer tells of it once more, and the function goes on when it is in its memos.
            self._told(request, call, Ops(ops=(op,), request_version=REQUEST_VERSION))
            return False
        call.attempt = self.attempt = 0
        return True

    def _fail(self, request: Request, call: Call, failure: Failure, targeted: bool) -> None:
        """A step has failed: the call ends with it, when no other step runs in this call."""
        tries = call.request.max_attempts if request.retries is None else min(request.retries + 1, call.request.max_attempts)
        final = not failure.retriable or call.attempt + 1 >= tries
        op = request.failed(failure, final, targeted and self._races(request))
        answer = Ops(
            ops=(op,),
            request_version=REQUEST_VERSION,
            no_retry=True if not failure.retriable else None,
            retry_after_ms=None if final else failure.retry_after_ms,
        )
        if targeted:
            self._told(request, call, answer)
            return
        self._failures.append((request, answer))
        if len(self.running) > 1:
            request.state = State.TOLD
        else:
            del self.running[request.hash]
            self._answer_failures()

    def _answer_failures(self) -> None:
        """End the call with the failed step; of several, a final one. The others run again with the next call."""
        failures, self._failures = self._failures, []
        failures.sort(key=lambda failed: failed[1].ops[0].op != "StepFailed")
        for request, _ in failures[1:]:
            request.state = State.NEW
        request, answer = failures[0]
        assert self.discovery is not None
        self._told(request, self.discovery, answer)
        if answer.ops[0].op == "StepError":
            # The job is made again: as a targeted call, or as a discovery, which starts what is new.
            request.state = State.NEW

    def _told(self, request: Request, call: Call, answer: Ops) -> None:
        request.state = State.TOLD
        self.running.pop(request.hash, None)
        self._answer(call, answer)

    # Settling what was asked for.

    def _branched(self) -> bool:
        """Whether other tasks than the function's own have asked for steps and are alive."""
        if self._askers:
            self._askers = {task for task in self._askers if not task.done()}
        return bool(self._askers)

    def _may_start(self, request: Request) -> bool:
        """Whether a single new step may be run in the call that is there."""
        call = self.discovery
        if call is None or request.fn is None or self.closing is not None:
            return False
        if self.draining:
            self.close(Parked("the process is being stopped"))
            return False
        return not call.request.disable_immediate_execution and not self._failures and not self.targets

    def _deliver(self) -> None:
        """Hand over the memos that have come to those who wait for them."""
        for request in list(self.open.values()):
            memo = self.memos.get(request.hash)
            if memo is not None and request.future is not None and not request.future.done():
                request.future.set_result(memo)

    def _target(self, call: Call) -> None:
        """A targeted call: to the task that waits for it, else kept until the function asks."""
        step = call.request.step_id
        request = self.open.get(step)
        if request is not None and request.future is not None and not request.future.done() and request.fn is not None:
            self._begin(request, call)
            request.future.set_result(call)
        else:
            self.targets[step] = call
            if self._main is not None:
                self._touch()

    def _touch(self) -> None:
        """Something has changed: settle when it has become quiet."""
        self._seq += 1
        if not self._spinning and self.closing is None:
            self._spinning = True
            self.loop.call_soon(self._spin, self._seq, PASSES if self._askers else 1)

    def _spin(self, seq: int, passes: int) -> None:
        if seq != self._seq:
            self.loop.call_soon(self._spin, self._seq, PASSES if self._askers else 1)
        elif passes > 0:
            self.loop.call_soon(self._spin, seq, passes - 1)
        else:
            self._spinning = False
            if self.closing is None:
                self._settle()

    def _settle(self) -> None:
        """It is quiet: decide what becomes of the calls in hand."""
        if self._main is not None and self._main.done():
            self._finish()
            return
        if self.targets and not self.running and not self._held():
            self._miss_targets()
        call = self.discovery
        if call is None:
            return
        if self._failures:
            if not self.running:
                self._answer_failures()
            return
        new = [request for request in self.open.values() if request.state is State.NEW and request.future and not request.future.done()]
        steps = [request for request in new if request.fn is not None]
        immediate = not call.request.disable_immediate_execution
        if self.draining and not self.running:
            self.close(Parked("the process is being stopped"))
        elif steps and immediate and self._starts_here(steps, new, call):
            self._hold_from = None
            for request in steps:
                self._begin(request, call)
                assert request.future is not None
                request.future.set_result(call)
        elif self.open and not self.running and not self._held():
            self._answer(call, Ops(ops=tuple(self._tell(request) for request in new), request_version=REQUEST_VERSION))

    def _starts_here(self, steps: list[Request], new: list[Request], call: Call) -> bool:
        """Whether the new steps run in this call: a single one; or, with checkpoints, several beside what cannot be interrupted."""
        if len(new) == 1 and not self.running:
            return True
        return call.checkpoint is not None and (bool(self.running) or self._elsewhere())

    def _elsewhere(self) -> bool:
        if self.in_thread or self._main is None:
            return not self.open
        return waits_elsewhere(self._main, {request.task for request in self.open.values()})

    def _held(self) -> bool:
        """Whether to go on waiting for a branch that does something else than steps; if so, looks again later."""
        if not self._elsewhere():
            self._hold_from, self._polls = None, 0
            return False
        now = self.loop.time()
        if self._hold_from is None:
            self._hold_from, self._polls = now, 0
        # With nothing asked for there is nothing to tell, and no limit: the function is at work.
        if self.open and now - self._hold_from > HOLD_MAX_S:
            return False
        if self._poll is not None:
            self._poll.cancel()
        self._poll = self.loop.call_later(POLL_S[min(self._polls, len(POLL_S) - 1)], self._touch)
        self._polls += 1
        return True

    def _tell(self, request: Request) -> Op:
        """Leave a request to the server."""
        request.state = State.TOLD
        return request.told(self.loop.time(), len(self.open) > 1 and self._races(request))

    def _races(self, request: Request) -> bool:
        """Whether somebody goes on when this step is done, without waiting for those beside it."""
        return not request.direct or (self._main is not None and wants_any(self._main))

    def _miss_targets(self) -> None:
        """The function does not ask for these steps any more: its code has changed, or it went another way. Nobody will wait for them."""
        targets, self.targets = self.targets, {}
        for step, call in targets.items():
            self._answer(call, Ops(ops=(vanished(step, self.function.id),), request_version=REQUEST_VERSION))

    def _answer(self, call: Call, answer: Answer) -> None:
        if call is self.discovery:
            self.discovery = None
        self._hold_from = None
        call.answer(answer)
        if not self.calls:
            self._on_idle(self)

    # The end.

    def _on_end(self, main: asyncio.Task[Any]) -> None:
        if self.closing is not None:
            if not main.cancelled():
                main.exception()
            return
        if self.open or self._unstarted or self.targets or self.running:
            # Steps that the function has cancelled get the time to go.
            self._askers = {task for task in self._askers if not task.done()}
            self._touch()
        else:
            self._finish()

    def _finish(self) -> None:
        """The function has ended: tell so, now or with the next discovery."""
        assert self._main is not None
        if self.running and self.discovery is None:
            return
        if self.targets:
            self._miss_targets()
        call = self.discovery
        if call is None:
            return
        answer = self._result(self._main)
        self.ended = True
        for _, coroutine in self._unstarted.values():
            coroutine.close()
        self._unstarted.clear()
        self._answer(call, answer)
        if self.open:
            self.close(Parked(f"function {self.function.id!r} has ended"))

    def _result(self, main: asyncio.Task[Any]) -> Answer:
        error: BaseException | None = asyncio.CancelledError("the function was cancelled") if main.cancelled() else main.exception()
        if error is None:
            left = [request.id for request in self.open.values() if request.fn is not None and request.state is not State.TOLD]
            left += [request.id for request, _ in self._unstarted.values()]
            if left:
                error = UsageError(f"function {self.function.id!r} ended while step {left[0]!r} was not finished: await every step")
            else:
                try:
                    data = self.function.result.encode(main.result())
                    if len(data) <= STEP_OUTPUT_BYTES_MAX:
                        return Returned(data=data)
                    error = UsageError(_too_large(f"function {self.function.id!r}", len(data)))
                except UsageError as refused:
                    error = UsageError(f"the result of function {self.function.id!r}: {refused}")
        failure = failure_of(error)
        return Failed(error=failure.error, retriable=failure.retriable, retry_after_ms=failure.retry_after_ms)


def _too_large(what: str, size: int) -> str:
    return f"the result of {what} has {size} bytes; at most {STEP_OUTPUT_BYTES_MAX} are stored: put it elsewhere, and return its address"


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at a task's exception, so that asyncio does not report it as never seen."""
    if not task.cancelled():
        task.exception()
