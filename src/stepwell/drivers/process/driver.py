"""Calls to user code in child processes: which child gets a call, what becomes of it when the child dies, falls silent or is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from stepwell.drivers.actors import ActorHost, ActorHouse
from stepwell.drivers.base import CheckpointFn
from stepwell.drivers.process.child import ApiFn, CallInHand, ChildFailed, ChildProcess, SendFn
from stepwell.drivers.process.lock import await_no_children
from stepwell.drivers.process.surroundings import PLAIN, Surroundings
from stepwell.errors import ProtocolError, StoreUnavailable, UsageError
from stepwell.protocol.calls import Answer, CallRequest, Lost, Ops
from stepwell.protocol.codec import Json

BEAT_S = 1.0
"""How often a child is asked whether it is there; one that is silent for so long gets no new calls until it answers."""
START_MAX_S = 60.0
"""How long an app may take to be imported."""
RELOAD_S = 5.0
"""How long steps in hand may go on in the old children after a reload."""
RESPAWN_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits before a child that died is replaced; the last one serves all further deaths in a row."""
STEADY_S = 30.0
"""A child that has lived so long has not died in a row."""
HOMES_MAX = 10_000
"""Runs whose child is remembered, since their coroutine may be parked there."""


class ProcessDriver:
    """The children of one app. Start it, call it, reload it, stop it, all from one event loop's thread.

    `on_send` stores the events that children send, `on_api` answers what else they ask of the server; `on_registration` is given the
    register body when the app is first ready and whenever it has changed, and may be async; `on_problem` is given what keeps an app
    from being imported, as text. `house` gives what knows where actors live.
    """

    def __init__(
        self,
        target: str,
        *,
        children: int = 2,
        lock_path: Path | str | None = None,
        on_send: SendFn | None = None,
        on_api: ApiFn | None = None,
        on_registration: Callable[[Json], object] | None = None,
        on_problem: Callable[[str], object] | None = None,
        surroundings: Surroundings = PLAIN,
        house: Callable[[], ActorHouse] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        if children < 1:
            raise UsageError(f"children is {children}; at least one is needed")
        self._target, self._count, self._lock_path = target, children, None if lock_path is None else Path(lock_path)
        self._on_send, self._on_api = on_send or _no_events, on_api or _no_api
        self._on_registration, self._on_problem, self._say = on_registration, on_problem, say
        self._surroundings = surroundings
        self._house = house
        self._children: list[ChildProcess] = []
        self._old: set[ChildProcess] = set()
        self._homes: dict[str, ChildProcess] = {}
        self._waiting: deque[CallInHand] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._registration: Json | None = None
        self._deaths = 0
        self._stopping = False
        self._reloading = asyncio.Lock()

    @property
    def registration(self) -> Json | None:
        """The app's register body; `None` before its first child is ready."""
        return self._registration

    @property
    def pids(self) -> list[int]:
        """The children that take calls, or will."""
        return [child.pid for child in self._children]

    # Life.

    async def start(self) -> None:
        """Start the children. Raises `UsageError` with the reason where the app cannot be imported."""
        if self._lock_path is not None:
            await await_no_children(self._lock_path, self._say)
        try:
            self._children = await self._spawn(self._target)
        except ChildFailed as failed:
            raise UsageError(str(failed)) from None
        await self._register()
        self._watch_all()
        self._task(self._beat())

    async def reload(self, target: str | None = None) -> bool:
        """Replace the children by new ones, of the changed code or another target. Says whether that was done.

        The new ones are started first; where they cannot import the app the old ones go on, and `on_problem` is told. Calls in the
        old ones may finish their steps for some seconds and are then made again in the new ones.
        """
        async with self._reloading:
            try:
                fresh = await self._spawn(target or self._target)
            except ChildFailed as failed:
                if self._on_problem is not None:
                    self._on_problem(str(failed))
                return False
            self._target = target or self._target
            old, self._children = self._children, fresh
            self._deaths = 0
            self._homes.clear()
            self._watch_all()
            self._old.update(old)
            for child in old:
                self._task(self._retire(child, RELOAD_S))
            await self._register()
            self._place_waiting()
            return True

    async def stop(self, deadline_s: float = 10.0) -> None:
        """Drain the children, for so long at most; kill those that are left. Calls that are not finished are lost."""
        self._stopping = True
        for call in self._waiting:
            call.answer(Lost(reason="the server is being stopped"))
        self._waiting.clear()
        alive = [*self._children, *self._old]
        await asyncio.gather(*(self._retire(child, deadline_s) for child in alive))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _spawn(self, target: str) -> list[ChildProcess]:
        """New children that are ready. Raises `ChildFailed` where one is not; then none of them is left."""
        children = [self._child() for _ in range(self._count)]
        results = await asyncio.gather(*(self._started(child, target) for child in children), return_exceptions=True)
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is None:
            return children
        for child in children:
            child.kill()
            if child.pid:
                await child.ended.wait()
        raise failed

    def _child(self) -> ChildProcess:
        house = None if self._house is None else self._house()
        return ChildProcess(
            on_send=self._on_send, on_api=self._on_api, on_change=self._place_waiting, surroundings=self._surroundings, house=house
        )

    async def _started(self, child: ChildProcess, target: str) -> None:
        """Start it and wait until it is ready. Raises `ChildFailed`; the child is then being killed."""
        try:
            await child.start(target, self._lock_path)
            async with asyncio.timeout(START_MAX_S):
                await asyncio.shield(child.ready)
        except TimeoutError:
            child.kill()
            raise ChildFailed(f"{target} was not imported within {START_MAX_S:g} s") from None
        except BaseException:
            child.kill()
            raise

    async def _register(self) -> None:
        """Tell of the app's functions, where they are not what was told before."""
        if self._house is not None:
            self._house().serve(self._children[0].actors, self._hosts)
        registration = self._children[0].ready.result()
        if registration == self._registration:
            return
        self._registration = registration
        if self._on_registration is not None:
            told = self._on_registration(registration)
            if inspect.isawaitable(told):
                await told

    def _hosts(self) -> Sequence[ActorHost]:
        """Where this app's actors may live."""
        return self._children

    async def _retire(self, child: ChildProcess, deadline_s: float) -> None:
        child.drain(deadline_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await child.ended.wait()
        child.kill()
        await child.ended.wait()
        self._old.discard(child)

    # Deaths.

    def _watch_all(self) -> None:
        for child in self._children:
            self._task(self._keep(child))

    async def _keep(self, child: ChildProcess) -> None:
        """Replace the child when it dies, until it or the driver is retired."""
        loop = asyncio.get_running_loop()
        while True:
            born = loop.time()
            await child.ended.wait()
            if self._stopping or child not in self._children:
                return
            self._say(f"child {child.pid} {child.how}; its calls are made again")
            self._deaths = 0 if loop.time() - born > STEADY_S else self._deaths + 1
            while True:
                await asyncio.sleep(RESPAWN_S[min(max(self._deaths, 1), len(RESPAWN_S)) - 1])
                if self._stopping or child not in self._children:
                    return
                fresh = self._child()
                try:
                    await self._started(fresh, self._target)
                    break
                except ChildFailed as failed:
                    self._deaths += 1
                    if self._on_problem is not None:
                        self._on_problem(str(failed))
            if self._stopping or child not in self._children:
                # Reloaded meanwhile.
                fresh.kill()
                return
            self._children[self._children.index(child)] = fresh
            child = fresh
            await self._register()
            self._place_waiting()

    async def _beat(self) -> None:
        """Find the children that are silent; calls that they have not seen yet go to others."""
        while True:
            await asyncio.sleep(BEAT_S)
            for child in [*self._children, *self._old]:
                if child.ready.done() and not child.ended.is_set():
                    self._waiting.extend(child.beat())
            self._place_waiting()

    # Calls.

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Advance the run in the child where its coroutine is parked, else in the one with the fewest calls in hand.

        While no child takes calls, the call waits for one.
        """
        if self._stopping:
            return Lost(reason="the server is being stopped")
        call = CallInHand(request, checkpoint, asyncio.get_running_loop().create_future())
        self._place(call)
        try:
            answer = await call.future
        except asyncio.CancelledError:
            self._withdraw(call)
            raise
        if not isinstance(answer, Ops):
            self._homes.pop(request.run_id, None)
        return answer

    def _place(self, call: CallInHand) -> None:
        child = self._homes.get(call.request.run_id)
        if child is None or not child.takes_calls:
            child = min((child for child in self._children if child.takes_calls), key=lambda child: len(child.calls), default=None)
        if child is None:
            self._waiting.append(call)
            return
        self._homes.pop(call.request.run_id, None)
        self._homes[call.request.run_id] = child
        if len(self._homes) > HOMES_MAX:
            del self._homes[next(iter(self._homes))]
        child.give(call)

    def _place_waiting(self) -> None:
        if self._house is not None:
            self._house().changed()
        for _ in range(len(self._waiting)):
            call = self._waiting.popleft()
            if call.future.done():
                continue
            try:
                self._place(call)
            except ProtocolError as error:
                call.future.set_exception(error)

    def _withdraw(self, call: CallInHand) -> None:
        if call in self._waiting:
            self._waiting.remove(call)
        for child in (*self._children, *self._old):
            child.abandon(call)

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _no_events(body: Json, seed: str) -> list[str]:
    raise StoreUnavailable("this server takes no events from its children")


async def _no_api(method: str, path: str, body: bytes) -> tuple[int, bytes]:
    raise StoreUnavailable("this server answers no requests of its children")
