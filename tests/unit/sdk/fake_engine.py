"""A server of one run, in memory: makes calls of an executor until the run ends, by the protocol's rules (inngest-protocol §4.6)."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import msgspec

from stepwell.errors import Superseded
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint, Failed, Lost, Ops, Returned
from stepwell.protocol.ops import Op
from stepwell.sdk.app import App
from stepwell.sdk.replay import Executor

CALLS_MAX = 400


class FakeEngine:
    """Drives one run. `calls` lists what was asked and answered, `finished` the user ids of steps in order."""

    def __init__(
        self,
        app: App,
        function: str,
        *,
        checkpoints: bool = True,
        data: Any = None,
        executor: Executor | None = None,
        forgets: bool = False,
        run_id: str = "01JRUN",
        replies: dict[str, Any] | None = None,
    ) -> None:
        self.app, self.slug, self.checkpoints, self.forgets, self.run_id = app, f"{app.name}-{function}", checkpoints, forgets, run_id
        self.executor = executor or Executor(app)
        self.max_attempts = app.functions[function].retries + 1
        self.event = json.dumps({"name": "t/e", "id": "e1", "data": data or {}, "ts": 1, "user": {}}).encode()
        self.replies = replies or {}
        self.inputs: dict[str, bytes] = {}
        self.memos: dict[str, bytes] = {}
        self.ops: dict[str, Op] = {}
        self.calls: list[tuple[str, Answer]] = []
        self.finished: list[str] = []
        self.checkpointed: list[str] = []
        self.superseded = False
        self.refuse: BaseException | None = None
        self.plan = False
        self._pending: set[str] = set()
        self._joined = False
        self._known: set[str] = set()
        self._reset: set[str] = set()
        self._fences = itertools.count(1)
        self._jobs: asyncio.Queue[tuple[str, str, int]] = asyncio.Queue()
        self._end: asyncio.Future[Answer] | None = None

    async def run(self, timeout_s: float = 5) -> Any:
        """Advance the run to its end: its result, or `Failed` as it was answered."""
        async with asyncio.timeout(timeout_s):
            self._end = asyncio.get_running_loop().create_future()
            tasks: set[asyncio.Task[None]] = set()
            self._jobs.put_nowait(("start", "step", 0))
            try:
                while not self._end.done():
                    job = asyncio.ensure_future(self._jobs.get())
                    waited: set[asyncio.Future[Any]] = {job, self._end, *tasks}
                    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                    for task in [task for task in tasks if task.done()]:
                        tasks.discard(task)
                        task.result()
                    if job.done():
                        tasks.add(asyncio.ensure_future(self._call(*job.result())))
                    else:
                        job.cancel()
                answer = self._end.result()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                await self.executor.close()
        return json.loads(answer.data) if isinstance(answer, Returned) else answer

    def request(self, item: str, step_id: str, attempt: int) -> CallRequest:
        """A call request as the server makes it now."""
        return CallRequest(
            run_id=self.run_id,
            function_id=self.slug,
            function_uuid="u",
            app_id=self.app.name,
            url="",
            step_id=step_id,
            attempt=attempt,
            max_attempts=self.max_attempts,
            request_version=2,
            stack=tuple(self.memos),
            disable_immediate_execution=self.plan,
            item_id=item,
            fence=next(self._fences),
            request_id="r",
            events=(self.event,),
            steps={**self.inputs, **self.memos},
        )

    async def _call(self, item: str, step_id: str, attempt: int) -> None:
        assert self._end is not None
        assert len(self.calls) < CALLS_MAX, "the run goes round in circles"
        # Replayed: each call goes to another process, so to say.
        executor = Executor(self.app) if self.forgets else self.executor
        answer = await executor.call(self.request(item, step_id, attempt), self._checkpoint if self.checkpoints else None)
        if self.forgets:
            await executor.close()
        if item in self._reset:
            # An accepted checkpoint gives the item its full attempts again.
            self._reset.discard(item)
            attempt = 0
        self.calls.append((step_id if step_id == "step" else self.name(step_id), answer))
        match answer:
            case Returned():
                self._ends(answer)
            case Failed():
                if answer.retriable and attempt + 1 < self.max_attempts:
                    self._jobs.put_nowait((item, step_id, attempt + 1))
                else:
                    self._ends(answer)
            case Lost():
                self._jobs.put_nowait((item, step_id, attempt))
            case Ops():
                self._take(answer, item, step_id, attempt)

    def _take(self, answer: Ops, item: str, step_id: str, attempt: int) -> None:
        if len(answer.ops) > 1:
            self.plan = True
            self._joined = any(op.op == "StepPlanned" for op in answer.ops)
            if self._joined:
                self._pending = {op.id for op in answer.ops if op.id not in self.memos}
        for op in answer.ops:
            self.ops[op.id] = op
            match op.op:
                case "StepPlanned":
                    if op.id not in self._known:
                        self._known.add(op.id)
                        self._jobs.put_nowait((f"{op.id}-plan", op.id, 0))
                case "Sleep":
                    if op.id not in self._known:
                        self._known.add(op.id)
                        self.asleep(op)
                case "WaitForEvent" | "WaitForSignal" | "InvokeFunction" | "Gateway" | "AIGateway":
                    if op.id not in self._known:
                        self._known.add(op.id)
                        asyncio.get_running_loop().call_later(0.002, self._finish, op, self._reply(op))
                case "StepRun":
                    self._finish(op, b'{"data":%s}' % (op.data or b"null"))
                case "StepFailed":
                    self._finish(op, b'{"error":%s}' % (op.error or b"{}"))
                case "StepError":
                    if attempt + 1 < self.max_attempts:
                        self._jobs.put_nowait((item, step_id, attempt + 1))
                    else:
                        self._finish(op, b'{"error":%s}' % (op.error or b"{}"))
                case other:
                    raise AssertionError(f"op {other}")

    def asleep(self, op: Op) -> None:
        """A sleep takes no time here."""
        asyncio.get_running_loop().call_later(0.002, self._finish, op, b"null")

    def _reply(self, op: Op) -> bytes:
        """What a step that the server does ends with: what `replies` says for its id, else its timeout."""
        if op.user_id in self.replies:
            return json.dumps(self.replies[op.user_id]).encode()
        if op.op.startswith("Wait"):
            return b"null"
        return b'{"error":{"message":"too late","name":"Timeout"}}'

    def _finish(self, op: Op, memo: bytes) -> None:
        if op.id in self.memos:
            return
        self.memos[op.id] = memo
        self.finished.append(op.user_id or op.display_name)
        self._pending.discard(op.id)
        if not self._joined or b'"race"' in (op.opts or b""):
            self._jobs.put_nowait((op.id, "step", 0))
        elif not self._pending:
            self.plan = self._joined = False
            self._jobs.put_nowait((f"{op.id}-discover", "step", 0))

    def _ends(self, answer: Answer) -> None:
        assert self._end is not None
        if not self._end.done():
            self._end.set_result(answer)

    async def _checkpoint(self, checkpoint: Checkpoint) -> None:
        await asyncio.sleep(0)
        if self.superseded:
            raise Superseded("the lease is over")
        if self.refuse is not None:
            refuse, self.refuse = self.refuse, None
            raise refuse
        self._reset.add(checkpoint.item_id)
        for op in checkpoint.ops:
            assert op.op == "StepRun"
            self.ops[op.id] = op
            self.memos[op.id] = b'{"data":%s}' % (op.data or b"null")
            self.finished.append(op.user_id)
            self.checkpointed.append(op.user_id)

    def name(self, step_id: str) -> str:
        """The user's id of a step."""
        op = self.ops.get(step_id)
        return step_id if op is None else op.user_id or op.display_name

    def shapes(self) -> list[str]:
        """The calls in short: `step:StepPlanned a,StepPlanned b`."""
        told = []
        for step, answer in self.calls:
            if isinstance(answer, Ops):
                told.append(f"{step}:" + ",".join(f"{op.op} {op.user_id}" for op in answer.ops))
            else:
                told.append(f"{step}:{type(answer).__name__}")
        return told


def error_of(answer: object) -> dict[str, Any]:
    """The error object of a `Failed`."""
    assert isinstance(answer, Failed), answer
    error: dict[str, Any] = msgspec.json.decode(answer.error)
    return error
