"""One actor in memory: its instance, its turns, and what it may do at the same time.

A **turn** is one call or one alarm. There are two ways to let them in. By turns (`stepwell.Actor`): one at a time, in order of
arrival. By gates (`DurableObject`): the next one enters whenever the object waits for something that is not its storage. In both, a
call back into an actor of the same chain of calls is let in, for the one that waits for it holds the place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol, TypeVar

from stepwell.errors import Unwind
from stepwell.protocol.actors import (
    RETRIES_MAX,
    ActorAlarmed,
    ActorAnswered,
    ActorCalled,
    ActorFailure,
    ActorOpened,
    ActorReset,
    FromActors,
)
from stepwell.sdk.actors.failure import failure_of
from stepwell.sdk.actors.file import FileMemory
from stepwell.sdk.actors.memory import Link, Memory

T = TypeVar("T")

current: ContextVar[Turn | None] = ContextVar("stepwell_turn", default=None)
"""The turn that this code belongs to."""


class Kind(Protocol):
    """A class of actors, as an activation sees it. `gates`: turns enter by gates."""

    id: str
    sql: bool
    gates: bool

    def make(self, activation: Activation) -> Any:
        """The instance. What it raises resets the activation."""
        ...

    async def started(self, instance: Any) -> None:
        """Before the first turn."""
        ...

    async def invoke(self, instance: Any, method: str, args: bytes) -> bytes:
        """Call a method."""
        ...

    async def alarm(self, instance: Any, scheduled_ms: int, retry_count: int) -> None:
        """The alarm goes off."""
        ...


class Turn:
    """A call or an alarm, waiting or begun."""

    __slots__ = ("activation", "call_id", "chain", "id", "message", "task")

    def __init__(self, activation: Activation, message: ActorCalled | ActorAlarmed | None) -> None:
        self.activation, self.message = activation, message
        self.call_id = 0 if message is None else message.call_id
        self.id = f"{activation.id}.{activation.fence}.{self.call_id}"
        self.chain = message.chain if isinstance(message, ActorCalled) else ()
        self.task: asyncio.Task[None] | None = None

    @property
    def onward(self) -> tuple[str, ...]:
        """The chain of a call that this turn makes."""
        return (*self.chain, self.id)


class Aborted(Unwind):
    """The activation has ended itself."""


class Activation:
    """An actor here. `emit` tells the server; `on_end` is told when there is less to do, `on_over` when it has ended itself."""

    def __init__(
        self,
        opened: ActorOpened,
        kind: Kind,
        link: Link,
        *,
        emit: Callable[[FromActors], None],
        now_ms: Callable[[], int],
        on_end: Callable[[Activation], None],
        on_over: Callable[[Activation], None],
    ) -> None:
        self.id, self.name, self.fence, self.kind = opened.activation, opened.name, opened.fence, kind
        self.memory: Memory | FileMemory
        if opened.path:
            self.memory = FileMemory(opened.path, opened.fence, link, now_ms=now_ms, on_failed=self._on_failed)
        else:
            self.memory = Memory(opened.snapshot, link, self._on_open)
        self.now_ms = now_ms
        self._emit, self._on_end, self._on_over = emit, on_end, on_over
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Turn] = deque()
        self._running: dict[str, Turn] = {}
        self._background: set[asyncio.Future[Any]] = set()
        self._blocks = 0
        self._started = False
        self._next_is_near = False
        self.over = False
        self.instance: Any = None
        first = Turn(self, None)
        self._running[first.id] = first
        first.task = self._loop.create_task(self._start(first))

    # What is let in.

    @property
    def is_idle(self) -> bool:
        """Whether nothing is going on."""
        return not self._running and not self._queue and not self._background and not self._blocks and not self.memory.waits

    def deliver(self, message: ActorCalled | ActorAlarmed) -> None:
        """A call or an alarm has come."""
        turn = Turn(self, message)
        if (turn.chain and self._is_called_back(turn)) or (not self._queue and self._may_enter()):
            self._begin(turn)
        else:
            self._queue.append(turn)

    def _is_called_back(self, turn: Turn) -> bool:
        """Whether a turn that is under way here waits for this one."""
        return self.instance is not None and any(running in turn.chain for running in self._running)

    def _may_enter(self) -> bool:
        if not self._started:
            return False
        if not self.kind.gates:
            return not self._running
        return not self._blocks and not self.memory.waits and not self._next_is_near

    def _next(self) -> None:
        self._next_is_near = False
        if self._queue and self._may_enter() and not self.over:
            self._begin(self._queue.popleft())

    def _next_soon(self) -> None:
        if not self._next_is_near:
            self._next_is_near = True
            self._loop.call_soon(self._next)

    def _on_failed(self, error: BaseException) -> None:
        """A unit could not be stored: the next activation begins with what is stored."""
        self.reset(failure_of(error, reset=True))

    def _on_open(self) -> None:
        """A wait for the storage is over."""
        if self.kind.gates and self._queue:
            self._next_soon()

    def _begin(self, turn: Turn) -> None:
        self._running[turn.id] = turn
        turn.task = self._loop.create_task(self._run(turn))
        if self.kind.gates:
            # The next one enters after this one's first step, when it may have begun to wait for the storage.
            self._next_soon()

    # Turns.

    async def _start(self, turn: Turn) -> None:
        current.set(turn)
        try:
            await self.memory.open()
            self.instance = self.kind.make(self)
            await self.kind.started(self.instance)
            while self._blocks:
                await asyncio.wait(list(self._background), return_when=asyncio.FIRST_COMPLETED)
        except (Aborted, asyncio.CancelledError):
            return
        except Exception as error:
            self.reset(failure_of(error, reset=True))
            return
        if not self.over:
            self._started = True
            self.memory.flush()
            self._ended(turn)

    async def _run(self, turn: Turn) -> None:
        current.set(turn)
        result, failure = b"", None
        message = turn.message
        try:
            if isinstance(message, ActorAlarmed):
                failure = await self._alarm(message)
            elif message is not None:
                result = await self.kind.invoke(self.instance, message.method, message.args)
        except asyncio.CancelledError as error:
            failure = failure_of(error)
        except Unwind:
            # It was reset, or is over: nobody waits for this turn any more.
            failure = None if self.over else ActorFailure(name="ActorLost", message="the turn was taken down")
        except Exception as error:
            failure = failure_of(error)
        if self.over:
            return
        self.memory.flush()
        if isinstance(self.memory, FileMemory):
            # The server holds answers until what it was told is stored; of this file it knows nothing.
            await self.memory.durable()
            if self.over:
                return
        self._emit(ActorAnswered(activation=self.id, call_id=turn.call_id, result=result, failure=failure))
        self._ended(turn)

    async def _alarm(self, message: ActorAlarmed) -> ActorFailure | None:
        """The alarm goes off. A file says for itself whether it is due."""
        of_file = isinstance(self.memory, FileMemory)
        due_ms = self.memory.alarm_due(self.now_ms() if of_file else message.scheduled_ms)
        if due_ms is None:
            return None
        failure = None
        try:
            await self.kind.alarm(self.instance, due_ms, message.retry_count)
        except Exception as error:
            failure = failure_of(error)
        if not self.over:
            self.memory.alarm_ended(again=failure is not None and message.retry_count < RETRIES_MAX)
        return failure

    def _ended(self, turn: Turn) -> None:
        self._running.pop(turn.id, None)
        if self.kind.gates:
            self._next_soon()
        else:
            self._next()
        self._on_end(self)

    # What an object may do.

    def abort(self, reason: object = None) -> NoReturn:
        """Reset the activation: calls that are under way fail, what is not told is not written, the next call finds a new instance."""
        if isinstance(reason, BaseException):
            told = f"{type(reason).__name__}: {reason}"
        else:
            told = "the actor was reset by its own code" if reason is None else str(reason)
        self.reset(ActorFailure(name="Error", message=told, reset=True))
        raise Aborted(told)

    def reset(self, failure: ActorFailure) -> None:
        """End it: calls that are here fail."""
        if self.over:
            return
        self.over = True
        self.memory.close()
        for turn in (*self._running.values(), *self._queue):
            if turn.message is not None:
                self._emit(ActorAnswered(activation=self.id, call_id=turn.call_id, failure=failure))
        self._emit(ActorReset(activation=self.id))
        self._cancel()
        self._on_over(self)

    def close(self) -> None:
        """The server has let go of it."""
        self.over = True
        self.memory.close()
        self._cancel()

    def _cancel(self) -> None:
        inside = asyncio.current_task() if asyncio._get_running_loop() is not None else None
        for task in (*(turn.task for turn in self._running.values()), *self._background):
            if task is not None and task is not inside:
                task.cancel()
        self._queue.clear()

    async def block_concurrency_while(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Let nothing else in until `fn` has ended. What it raises resets the activation."""
        self._blocks += 1
        try:
            return await fn()
        except Exception as error:
            self.reset(failure_of(error, reset=True))
            raise
        finally:
            self._blocks -= 1
            if self.kind.gates:
                self._next_soon()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing else in meanwhile, whatever becomes of it."""
        self._blocks += 1
        try:
            yield
        finally:
            self._blocks -= 1
            if self.kind.gates:
                self._next_soon()

    def block_while(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """As `block_concurrency_while`, from code that cannot await: a constructor. The first turn waits for it."""

        async def run() -> T:
            return await work

        task = self._loop.create_task(self.block_concurrency_while(run))
        self._blocks += 1
        self.wait_until(task)

        def ended(_: asyncio.Task[T]) -> None:
            self._blocks -= 1
            self._next_soon()

        task.add_done_callback(ended)
        return task

    def wait_until(self, work: Awaitable[Any]) -> None:
        """Do something that no turn waits for; the actor stays in memory until it is done."""
        future = asyncio.ensure_future(work)
        self._background.add(future)
        future.add_done_callback(self._background_ended)

    def _background_ended(self, future: asyncio.Future[Any]) -> None:
        self._background.discard(future)
        if not future.cancelled():
            future.exception()
        if not self.over:
            self.memory.flush()
            self._on_end(self)


async def settled() -> None:
    """Before something leaves: what the actor that this code runs in has written so far is durable."""
    turn = current.get()
    if turn is not None and not turn.activation.over:
        await turn.activation.memory.durable()
