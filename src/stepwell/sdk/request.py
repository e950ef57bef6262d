"""A step that a function has asked for, the call it runs under, and the forms both have on the wire."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from enum import Enum
from typing import Any

import msgspec

from stepwell.errors import StepError, UsageError
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint
from stepwell.protocol.codec import Json
from stepwell.protocol.failures import error_json
from stepwell.protocol.ids import step_hash
from stepwell.protocol.ops import Op
from stepwell.sdk.failure import Failure
from stepwell.sdk.serializer import ANY

CheckpointFn = Callable[[Checkpoint], Awaitable[None]]

scope: ContextVar[Scope | None] = ContextVar("stepwell_step", default=None)
"""The step that this code belongs to."""

_hash = functools.lru_cache(maxsize=16384)(step_hash)


class Scope:
    """A step that is being run, for the code inside."""

    __slots__ = ("attempt", "hash", "id")

    def __init__(self, id: str, hash: str, attempt: int) -> None:
        self.id, self.hash, self.attempt = id, hash, attempt


class State(Enum):
    """Where a request stands."""

    NEW = 0
    RUNNING = 1
    TOLD = 2  # planned, asleep, or finished and answered: the next word is the server's


class Call:
    """A call in hand."""

    __slots__ = ("attempt", "checkpoint", "future", "request")

    def __init__(self, request: CallRequest, checkpoint: CheckpointFn | None, future: asyncio.Future[Answer]) -> None:
        self.request, self.checkpoint, self.future, self.attempt = request, checkpoint, future, request.attempt

    def answer(self, answer: Answer) -> None:
        """Give the answer; only the first counts."""
        if not self.future.done():
            self.future.set_result(answer)


Verdict = Call | Json
"""What a request waits for: a call to run under, or its memo."""


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What a step wants of the server, in place of running a function: an op, told as it is here.

    `left_ms` is for a sleep of a duration, which is told as what is left of it; `long`: the coroutine is not worth keeping for it.
    """

    op: str
    name: str = ""
    opts: Json | None = None
    left_ms: int | None = None
    long: bool = False


class Request:
    """A step that the function has asked for and has no result of yet: a function to run (`fn`), or an `errand`.

    `direct`: its task has nothing else to do. `read` makes its result of what is stored, `edit` gives its function another input.
    """

    __slots__ = (
        "asked",
        "codec",
        "direct",
        "edit",
        "errand",
        "fn",
        "future",
        "hash",
        "id",
        "index",
        "opts",
        "read",
        "retries",
        "state",
        "task",
        "timeout_s",
    )

    def __init__(self, id: str, index: int) -> None:
        self.id, self.index = id, index
        self.hash = _hash(id, index)
        self.state = State.NEW
        self.future: asyncio.Future[Verdict] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.fn: Callable[[], Coroutine[Any, Any, Any]] | None = None
        self.codec = ANY
        self.direct = False
        self.edit: Callable[[Json], None] | None = None
        self.errand: Errand | None = None
        self.asked = 0.0
        self.read: Callable[[Request, Json], Any] = decode_memo
        self.opts: Json | None = None
        self.retries: int | None = None
        self.timeout_s: float | None = None

    def ran(self, data: Json, began: float, ended: float, race: bool) -> Op:
        """The op of its result."""
        return Op(
            op="StepRun",
            id=self.hash,
            name=self.id,
            display_name=self.id,
            opts=self._opts(race),
            data=data,
            user_id=self.id,
            index=self.index,
            started_ms=int(began * 1000),
            duration_ms=int((ended - began) * 1000),
        )

    def failed(self, failure: Failure, final: bool, race: bool) -> Op:
        """The op of its failure."""
        return Op(
            op="StepFailed" if final else "StepError",
            id=self.hash,
            name=self.id,
            display_name=self.id,
            opts=self._opts(race),
            error=failure.error,
            user_id=self.id,
            index=self.index,
        )

    def told(self, now: float, race: bool) -> Op:
        """The op that leaves it to the server: to plan it, to wait, to do what it is asked for. `now` is the loop's time."""
        op, name = "StepPlanned", self.id
        if self.errand is not None:
            op, name = self.errand.op, self.errand.name or self.id
            if self.errand.left_ms is not None:
                name = f"{max(0, self.errand.left_ms - int((now - self.asked) * 1000))}ms"
        return Op(op=op, id=self.hash, name=name, display_name=self.id, opts=self._opts(race), user_id=self.id, index=self.index)

    def _opts(self, race: bool) -> Json | None:
        """`race`: when it is done the run is to be called at once, and not when its whole group is (§5.8)."""
        opts = self.opts if self.errand is None else self.errand.opts
        if not race:
            return opts
        return b'{"parallelMode":"race"}' if opts is None else b'{"parallelMode":"race",' + opts[1:]

    def is_long(self, in_thread: bool) -> bool:
        """Whether the coroutine, or the thread of a plain function, is not worth keeping for it."""
        return self.errand is not None and (self.errand.long or (in_thread and self.errand.left_ms is None))

    async def run(self) -> Any:
        """Run the step's function, within its limit of time where it has one."""
        assert self.fn is not None
        if self.timeout_s is None:
            return await self.fn()
        limit = asyncio.timeout(self.timeout_s)
        try:
            async with limit:
                return await self.fn()
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"step {self.id!r} took longer than {self.timeout_s:g} s") from None
            raise


class _Memo(msgspec.Struct):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _MemoError(msgspec.Struct):
    name: str = "Error"
    message: str = ""
    stack: str | None = None


_memo = msgspec.json.Decoder(_Memo)


def decode_memo(request: Request, memo: Json, marked: bool = True) -> Any:
    """A stored result: `{"data":…}`, or `{"error":…}`, which is raised as `StepError`. `marked`: it may hold marked floats."""
    if memo.startswith(b'{"data":'):
        wrapped = _memo.decode(memo)
        assert not isinstance(wrapped.data, msgspec.UnsetType)
        try:
            return request.codec.decode(bytes(wrapped.data), marked=marked)
        except UsageError as error:
            raise UsageError(f"the stored result of step {request.id!r}: {error}") from error
    if memo.lstrip()[:1] != b"{":
        return request.codec.decode(bytes(memo), marked=marked)
    wrapped = _memo.decode(memo)
    if not isinstance(wrapped.error, msgspec.UnsetType):
        told = msgspec.json.decode(wrapped.error, type=_MemoError)
        raise StepError(told.name, told.message, told.stack, request.id)
    if not isinstance(wrapped.data, msgspec.UnsetType):
        return request.codec.decode(bytes(wrapped.data), marked=marked)
    return request.codec.decode(bytes(memo), marked=marked)


def vanished(step: str, function: str) -> Op:
    """The op of a targeted call whose step the function does not ask for: nobody will wait for it."""
    message = f"Function {function!r} does not ask for this step any more; it was planned by an earlier call, perhaps of other code."
    return Op(op="StepFailed", id=step, name=step, display_name=step, error=error_json("StepNotFound", message))
