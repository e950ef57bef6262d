"""What a run's function has asked for, and what becomes of it.

* A step asked for is a `Request`. One that is memoised returns at once. The others are collected until nothing new has been asked
  for during a few passes of the event loop: what is started together is asked for together, however `gather` and `TaskGroup` nest.
* **One** new step is run at once, in the task that asked for it; with checkpoints it is made durable and the function goes on.
  **Several** are answered as a plan; each then comes back as a targeted call, which is handed to the task that waits for it.
* What the server does (sleeps, waits, invocations, requests) is told to it as it is, alone or beside a plan.
* While some branch waits for something else than a step, no call is ended by a plan: new steps run side by side in this call, and
  what is for the server is told only when nothing else is under way, or after `HOLD_MAX_S`.
* A planned step is told as a race where its branch has more to do than this step: branches go on independently of each other. Steps
  that are gathered directly are joined, which saves a call each.
* What is told, a failed step, the function's end: these end the call. Steps asked for while no call is there wait for the next.

The ids of steps depend on users' ids and their repetitions only, never on timing.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any

from stepwell.errors import Parked, Unwind, UsageError
from stepwell.protocol.answers import Ops
from stepwell.protocol.calls import Answer
from stepwell.protocol.codec import Json
from stepwell.protocol.ops import REQUESTS, Op
from stepwell.sdk.performing import REQUEST_VERSION, perform
from stepwell.sdk.quiet import PASSES, Patience, Quiet
from stepwell.sdk.request import Call, Request, State, Verdict, scope, vanished
from stepwell.sdk.waiting import waits_elsewhere, wants_any

if TYPE_CHECKING:
    from stepwell.sdk.session import Session


INPUT = b'{"input":'
"""How the memo of a step begins that is to run with another input: its run is made again from there, with the input edited."""


@types.coroutine
def _pass() -> Generator[None, None, None]:
    """One pass of the event loop."""
    yield


class Agenda:
    """The open requests of a session, the calls in hand, and the memos that answer."""

    def __init__(self, session: Session) -> None:
        self.session, self._loop = session, session.loop
        self.discovery: Call | None = None
        self.targets: dict[str, Call] = {}
        self.running: dict[str, Call] = {}
        self.open: dict[str, Request] = {}
        self.unstarted: dict[str, tuple[Request, Coroutine[Any, Any, Any]]] = {}
        self.askers: set[asyncio.Task[Any]] = set()
        self._memos: dict[str, Json] = {}
        self._inputs: dict[str, Json] = {}
        self._asked: set[str] = set()
        self._counts: dict[str, int] = {}
        self._failures: list[tuple[Request, Ops]] = []
        self._left = 0
        self._quiet = Quiet(self._loop, lambda: PASSES if self.askers else 1, self._settle)
        self._patience = Patience(self._loop, self.touch)

    # Calls and memos that come.

    @property
    def calls(self) -> list[Call]:
        """The calls that are not answered yet."""
        calls = [*self.targets.values(), *self.running.values(), self.discovery]
        return [call for call in calls if call is not None and not call.future.done()]

    @property
    def replays(self) -> bool:
        """Whether stored results are still to be taken up."""
        return self._left > 0

    def learn(self, memos: Mapping[str, Json]) -> None:
        """What is stored by now, and what steps are to be given that have not run yet (§4.3)."""
        for step, memo in memos.items():
            if memo.startswith(INPUT):
                self._inputs[step] = memo
            else:
                self._memos[step] = memo

    def expect_replay(self) -> None:
        """The function begins: what is stored has happened before."""
        self._left = len(self._memos)

    def deliver(self) -> None:
        """Hand over the memos that have come to those who wait for them."""
        for request in list(self.open.values()):
            memo = self._memos.get(request.hash)
            if memo is not None and request.future is not None and not request.future.done():
                request.future.set_result(memo)

    def target(self, call: Call) -> None:
        """A targeted call: to the task that waits for it, else kept until the function asks."""
        step = call.request.step_id
        request = self.open.get(step)
        if request is not None and request.future is not None and not request.future.done() and request.fn is not None:
            self._begin(request, call)
            request.future.set_result(call)
        else:
            self.targets[step] = call
            if self.session.main is not None:
                self.touch()

    def touch(self) -> None:
        """Something has changed: settle when it has become quiet."""
        self._quiet.touch()

    def close(self, why: Unwind) -> bool:
        """Take back what is open: those who wait are told. Says whether anybody was."""
        self.session.lose_calls(str(why))
        self.targets.clear()
        self.discovery = None
        self._quiet.stop()
        self._patience.stop()
        told = False
        for request in self.open.values():
            if request.future is not None and not request.future.done():
                request.future.set_exception(type(why)(*why.args))
                told = True
            elif request.hash in self.running and request.task is not None and request.task is not asyncio.current_task():
                request.task.cancel()
        return told

    # What the function asks.

    def request(self, id: str) -> Request:
        """A new request, where the function may ask now. Raises `UsageError` where it may not."""
        inside, session = scope.get(), self.session
        if inside is not None:
            raise UsageError(
                f"step {id!r} was called inside step {inside.id!r}: a step cannot hold steps; "
                "call it after the other one, or call the plain function"
            )
        if session.closing is None and (session.main is None or session.main.done()):
            raise UsageError(
                f"step {id!r} was called after function {session.function.id!r} had ended: await all steps inside the function"
            )
        if not isinstance(id, str) or not id:
            raise UsageError(f"a step's id must be a string that is not empty, not {id!r}")
        index = self._counts.get(id, 0)
        self._counts[id] = index + 1
        request = Request(id, index)
        if request.hash in self._asked:
            raise UsageError(f"step {id!r} (repetition {index}) has the same id as another step: do not end step ids in :1, :2, …")
        self._asked.add(request.hash)
        return request

    def ask(self, request: Request) -> Coroutine[Any, Any, Any]:
        """A step of the function, to be awaited."""
        coroutine = self._answered(request)
        self.unstarted[request.hash] = (request, coroutine)
        return coroutine

    async def _answered(self, request: Request) -> Any:
        started = self.unstarted.pop(request.hash, None)
        session = self.session
        if session.closing is not None:
            if (asker := asyncio.current_task()) is not None:
                asker.add_done_callback(retrieve)
            raise type(session.closing)(*session.closing.args)
        memo = self._memos.get(request.hash)
        if memo is not None:
            return self._consume(request, memo)
        self._left = 0
        if self._inputs and request.edit is not None and (edited := self._inputs.get(request.hash)) is not None:
            request.edit(edited)
        self.open[request.hash] = request
        task = request.task = asyncio.current_task()
        self._quiet.touches += 1
        try:
            request.direct = started is not None and task is not None and task.get_coro() is started[1]
            del started
            call = self.targets.pop(request.hash, None) if request.fn is not None else None
            if call is not None:
                self._begin(request, call)
            elif task is session.main and not self._branched():
                # What was started together with this step gets the time to ask as well.
                touches = self._quiet.touches
                await _pass()
                if touches == self._quiet.touches and len(self.open) == 1 and self._may_start(request):
                    call = self.discovery
                    assert call is not None
                    self._begin(request, call)
            elif task is not None:
                self.askers.add(task)
            while True:
                if call is None:
                    memo = self._memos.get(request.hash)
                    if memo is not None:
                        return self._consume(request, memo)
                    if session.closing is not None:
                        raise type(session.closing)(*session.closing.args)
                    verdict = await self._verdict(request)
                    if not isinstance(verdict, Call):
                        return self._consume(request, verdict)
                    call = verdict
                done, value = await perform(self, request, call)
                if done:
                    return value
                call = None
        finally:
            self.open.pop(request.hash, None)
            if self.open or self.targets or self._failures:
                self.touch()

    async def _verdict(self, request: Request) -> Verdict:
        """The call to run the step under, or its memo; whichever the server sends."""
        call = self.targets.pop(request.hash, None) if request.fn is not None else None
        if call is not None:
            self._begin(request, call)
            return call
        request.future = self._loop.create_future()
        self.touch()
        try:
            return await request.future
        finally:
            request.future = None

    def _consume(self, request: Request, memo: Json) -> Any:
        """The result that is stored for a step; raises `StepError` where it failed for good."""
        if self._left:
            self._left -= 1
        return request.read(request, memo)

    # What comes of a step that is run here.

    def _begin(self, request: Request, call: Call) -> None:
        request.state = State.RUNNING
        self.running[request.hash] = call

    def give_up(self, request: Request, call: Call, targeted: bool) -> None:
        """The step was cut off in the middle: whoever asks for it next runs it."""
        del self.running[request.hash]
        if targeted and self.session.closing is None:
            self.target(call)

    def told(self, request: Request, call: Call, answer: Ops) -> None:
        """The call ends with what became of the step."""
        request.state = State.TOLD
        self.running.pop(request.hash, None)
        self.answer(call, answer)

    def failed(self, request: Request, call: Call, answer: Ops, targeted: bool) -> None:
        """A step has failed: the call ends with it, when no other step runs in this call."""
        if targeted:
            self.told(request, call, answer)
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
        self.told(request, self.discovery, answer)
        if answer.ops[0].op == "StepError":
            # The job is made again: as a targeted call, or as a discovery, which starts what is new.
            request.state = State.NEW

    # Settling what was asked for.

    def _branched(self) -> bool:
        """Whether other tasks than the function's own have asked for steps and are alive."""
        if self.askers:
            self.forget_done_askers()
        return bool(self.askers)

    def forget_done_askers(self) -> None:
        """Tasks that have ended ask for nothing more."""
        self.askers = {task for task in self.askers if not task.done()}

    def _may_start(self, request: Request) -> bool:
        """Whether a single new step may be run in the call that is there."""
        call = self.discovery
        if call is None or request.fn is None or self.session.closing is not None:
            return False
        if self.session.draining:
            self.session.close(Parked("the process is being stopped"))
            return False
        return not call.request.disable_immediate_execution and not self._failures and not self.targets

    def _settle(self) -> None:
        """It is quiet: decide what becomes of the calls in hand."""
        session = self.session
        if session.main is not None and session.main.done():
            session.finish()
            return
        if self.targets and not self.running and not self._held():
            self.miss_targets()
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
        if session.draining and not self.running:
            session.close(Parked("the process is being stopped"))
        elif steps and immediate and self._starts_here(steps, new, call):
            self._patience.renew()
            for request in steps:
                self._begin(request, call)
                assert request.future is not None
                request.future.set_result(call)
        elif self.open and not self.running and not self._held():
            self.answer(call, Ops(ops=tuple(self._tell(request) for request in new or self._told_again()), request_version=REQUEST_VERSION))

    def _told_again(self) -> list[Request]:
        """Requests that the server was to make itself: it keeps them in memory only, and asks for them once more after a restart."""
        return [request for request in self.open.values() if request.errand is not None and request.errand.op in REQUESTS]

    def _starts_here(self, steps: list[Request], new: list[Request], call: Call) -> bool:
        """Whether the new steps run in this call: a single one; or, with checkpoints, several beside what cannot be interrupted."""
        if len(new) == 1 and not self.running:
            return True
        return call.checkpoint is not None and (bool(self.running) or self._elsewhere())

    def _elsewhere(self) -> bool:
        main = self.session.main
        if self.session.in_thread or main is None:
            return not self.open
        return waits_elsewhere(main, {request.task for request in self.open.values()})

    def _held(self) -> bool:
        """Whether to go on waiting for a branch that does something else than steps; if so, looks again later."""
        if not self._elsewhere():
            self._patience.renew()
            return False
        return self._patience.lasts(limited=bool(self.open))

    def _tell(self, request: Request) -> Op:
        """Leave a request to the server."""
        request.state = State.TOLD
        return request.told(self._loop.time(), len(self.open) > 1 and self.races(request))

    def races(self, request: Request) -> bool:
        """Whether somebody goes on when this step is done, without waiting for those beside it."""
        main = self.session.main
        return not request.direct or (main is not None and wants_any(main))

    def miss_targets(self) -> None:
        """The function does not ask for these steps any more: its code has changed, or it went another way. Nobody will wait for them."""
        targets, self.targets = self.targets, {}
        for step, call in targets.items():
            self.answer(call, Ops(ops=(vanished(step, self.session.function.id),), request_version=REQUEST_VERSION))

    def answer(self, call: Call, answer: Answer) -> None:
        """End a call."""
        if call is self.discovery:
            self.discovery = None
        self._patience.renew()
        call.answer(answer)
        self.session.answered()


def retrieve(task: asyncio.Task[Any]) -> None:
    """Look at a task's exception, so that asyncio does not report it as never seen."""
    if not task.cancelled():
        task.exception()
