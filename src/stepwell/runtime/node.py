"""A node: the heartbeat with its queue, and the loops that feed it. Start it, submit inputs, drain it, stop it.

Inputs that arrive while a commit is in flight share the next one. Sources take turns: answers and checkpoints first, then
requests, claims, and, while others wait, at most a quarter of a group for due timers.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from stepwell.drivers.base import Rooms
from stepwell.engine.commands import Call, Keep, RegistryChanged, Reply, RunEnded, TimerSet, Wake
from stepwell.engine.flow.why import Why
from stepwell.engine.inputs import (
    CHANGES_REGISTRY,
    AnyInput,
    CallAnswered,
    CallsReturned,
    Claim,
    EventsAccepted,
    EventsReceived,
    HolderRenewed,
    InputSetAside,
    NodeStarted,
    StepsCheckpointed,
    SyncStepsTold,
    TimerDue,
)
from stepwell.engine.inputs_primitives import BatchAnswered, DeliveriesReturned, QueueClaimed
from stepwell.engine.model import Run
from stepwell.engine.registry import Registry, RunLimits, Settings
from stepwell.errors import StoreUnavailable
from stepwell.primitives.actor import AlarmFired
from stepwell.primitives.queue import QueueStirred
from stepwell.primitives.queue_claims import Deliver
from stepwell.protocol.events import Event
from stepwell.protocol.ids import ulid
from stepwell.runtime import questions
from stepwell.runtime.actors import Actors
from stepwell.runtime.backlog import Backlog
from stepwell.runtime.bodies import Bodies
from stepwell.runtime.clock import Clock, SystemClock
from stepwell.runtime.deliveries import BatchEnded, Deliveries, Told
from stepwell.runtime.dispatcher import CALLS_MAX, Dispatcher, MakeCall
from stepwell.runtime.heart import Beat, Heart, known
from stepwell.runtime.queue_totals import QueueTotals
from stepwell.runtime.realtime import Realtime
from stepwell.runtime.requests import Perform, Requests
from stepwell.runtime.timekeeper import Timekeeper
from stepwell.store.base import Reader, Store
from stepwell.store.databases import Databases

GROUP_MAX = 256
"""Inputs in one group."""

TIMERS_TURN = 4
"""Of so many inputs in a group one is a due timer, while others wait."""

EVENTS_PER_INPUT = 100
"""Events in one input; longer arrays are cut."""

RENEW_S = 10.0
"""How often the node says that it lives, and compares what it holds with what it has in hand."""

RETRY_S = (0.05, 0.2, 1.0, 2.0, 5.0)
"""Waits between tries while the store does not answer; the last one serves all further tries."""

Entry = tuple[AnyInput, "asyncio.Future[Any]"]


class Node:
    """One node over one store.

    `drivers` maps the names that apps' rows give (`http`, `local`, `process`) to what makes a call, `perform` makes the HTTP requests
    that steps ask the server for; `rooms`, by the same names, are of the drivers whose apps take only so many calls. `node_id` names
    the node for leases; its epoch begins with `start`.
    """

    def __init__(
        self,
        store: Store,
        *,
        drivers: Mapping[str, MakeCall] | None = None,
        clock: Clock | None = None,
        settings: Settings | None = None,
        node_id: str = "node",
        calls_max: int = CALLS_MAX,
        on_run_ended: Callable[[str], None] | None = None,
        perform: Perform | None = None,
        queued_max: int | None = None,
        queued_per_function_max: int | None = None,
        rooms: Mapping[str, Rooms] | None = None,
        on_settled: Told | None = None,
    ) -> None:
        self._on_settled = on_settled
        self.queue_totals = QueueTotals()
        self.clock = clock or SystemClock()
        self._store = store
        self._heart = Heart(store, self.clock, settings)
        self.realtime = Realtime(self.clock, self.new_id, lambda: self._heart.registry)
        self._step_requests = Requests(perform, self.realtime)
        self._drivers: dict[str, MakeCall] = dict(drivers or {})
        self._rooms = rooms
        self._on_run_ended = on_run_ended
        self._node_id = node_id
        self.holder = f"{node_id}/{self.new_id()}"
        self._answers: deque[Entry] = deque()
        self._requests: deque[Entry] = deque()
        self._claims: deque[Entry] = deque()
        self._timers: deque[Entry] = deque()
        self._arrived = asyncio.Event()
        self.actors = Actors(self.submit, lambda: self.reader, self.holder)
        self._watchers: set[asyncio.Queue[str]] = set()
        self._ended: dict[str, list[asyncio.Future[None]]] = {}
        self._root: asyncio.Task[None] | None = None
        self._calls_max = calls_max
        self._stopping = False
        self.backlog = Backlog(lambda: self.reader, lambda: self.registry, total_max=queued_max, function_max=queued_per_function_max)

    # Life.

    async def start(self) -> None:
        """Open the store, begin an epoch, and go on with whatever the store has ready or due."""
        await self._store.open()
        reader = self._store.reader
        self.bodies = Bodies(reader)
        self._dispatcher = Dispatcher(
            submit=self.submit,
            registry=lambda: self._heart.registry,
            drivers=self._drivers,
            bodies=self.bodies,
            reader=reader,
            clock=self.clock,
            holder=self.holder,
            requests=self._step_requests,
            calls_max=self._calls_max,
            rooms=self._rooms,
        )
        self._deliveries = Deliveries(
            submit=self.submit,
            registry=lambda: self._heart.registry,
            drivers=self._drivers,
            reader=reader,
            clock=self.clock,
            holder=self.holder,
            rooms=self._rooms,
            on_settled=self._batch_ended,
        )
        self._timekeeper = Timekeeper(reader, self.clock, self._fire)
        await self._heart.reload()
        others = tuple(holder.id for holder in await reader.holders())
        self._root = asyncio.create_task(self._run(), name="node")
        await self.submit(NodeStarted(self._node_id, self.holder, others))
        for function_id in await reader.functions_with_work():
            self._dispatcher.wake(function_id)
        self._deliveries.stir_all()

    async def _run(self) -> None:
        """The node's loops: all end when the heartbeat does, or when one of them fails."""
        try:
            async with asyncio.TaskGroup() as group:
                feeders = [
                    group.create_task(self._timekeeper.keep(), name="timekeeper"),
                    group.create_task(self._live(), name="renewal"),
                    group.create_task(self.backlog.watch(), name="backlog"),
                ]
                await self._beat()
                for feeder in feeders:
                    feeder.cancel()
        finally:
            self._fail_all(StoreUnavailable("the node has stopped"))

    def failed(self) -> asyncio.Future[None]:
        """Done when the node's loops have ended, which they do only at `stop`, or by a failure."""
        assert self._root is not None
        return self._root

    async def drain(self, deadline_s: float) -> bool:
        """Claim no more and wait for the calls that are out, so long at most. Says whether all came back."""
        self._dispatcher.close()
        self._deliveries.close()
        try:
            async with asyncio.timeout(deadline_s):
                await self._dispatcher.idle()
                await self._deliveries.idle()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Cut off what is out, commit what was submitted, and let go of the store."""
        if self._root is None:
            return
        await self._dispatcher.stop()
        await self.actors.stop()
        await self._deliveries.stop()
        self._stopping = True
        self._arrived.set()
        root, self._root = self._root, None
        try:
            await root
        finally:
            await self._store.close()

    # What others use.

    @property
    def registry(self) -> Registry:
        """Apps and functions as of the last sync."""
        return self._heart.registry

    @property
    def reader(self) -> Reader:
        """Queries."""
        return self._store.reader

    @property
    def databases(self) -> Databases:
        """Users' own databases."""
        return self._store.databases

    @property
    def calls_out(self) -> int:
        """How many calls are out."""
        return self._dispatcher.calls_out

    @property
    def deliveries_out(self) -> Mapping[str, int]:
        """How many batches are out, by their queue."""
        return self._deliveries.deliveries_out

    def new_id(self) -> str:
        """A fresh ULID."""
        return ulid(self.clock.now_ms(), self.clock.entropy(10))

    def add_driver(self, name: str, call: MakeCall) -> None:
        """Reach the apps whose rows say so through this driver."""
        self._drivers[name] = call

    async def limit(self, function_id: str, **limits: int | None) -> None:
        """Set `steps_max` or `state_bytes_max` for the runs of one function, until the node stops; `None` takes that back."""
        settings = self.registry.settings
        of_function = msgspec.structs.replace(settings.limits.get(function_id, RunLimits()), **limits)
        await self._heart.set(msgspec.structs.replace(settings, limits={**settings.limits, function_id: of_function}))

    def submit(self, input: AnyInput) -> asyncio.Future[Any]:
        """Queue an input. The future is done when it is committed: with its reply, or the error it is refused with."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._stopping:
            future.set_exception(StoreUnavailable("the node has stopped"))
            return future
        match input:
            case CallAnswered() | StepsCheckpointed() | SyncStepsTold() | CallsReturned() | BatchAnswered() | DeliveriesReturned():
                self._answers.append((input, future))
            case Claim() | QueueClaimed():
                self._claims.append((input, future))
            case TimerDue():
                self._timers.append((input, future))
            case _:
                self._requests.append((input, future))
        self._arrived.set()
        return future

    async def send(self, events: tuple[Event, ...], *, fresh: bool) -> tuple[str, ...]:
        """Store and route events; returns their internal ids when all are durable. A long array is several inputs.

        Those that are not `fresh` have ids that their sender has made.
        """
        cuts = [events[i : i + EVENTS_PER_INPUT] for i in range(0, len(events), EVENTS_PER_INPUT)]
        if len(cuts) == 1:
            accepted: EventsAccepted = await self.submit(EventsReceived(events, fresh, not fresh))
            return accepted.ids
        replies: list[EventsAccepted] = await asyncio.gather(*(self.submit(EventsReceived(cut, fresh, not fresh)) for cut in cuts))
        return tuple(event_id for reply in replies for event_id in reply.ids)

    async def watch(self) -> AsyncIterator[str]:
        """The ids of runs as they change; a slow reader misses repetitions, not runs."""
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1000)
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    async def why(self, run_id: str) -> Why:
        """What a run waits for. Raises `NotFound`."""
        return await questions.why(self.reader, self._heart, self.clock, run_id)

    def run_end(self, run_id: str) -> asyncio.Future[None]:
        """Done when the run ends, if it has not ended before this was asked."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.setdefault(run_id, []).append(future)
        future.add_done_callback(lambda future: self._gave_up(run_id, future))
        return future

    async def ended_run(self, run_id: str, wait_s: float) -> Run | None:
        """A run as it stands when it has ended, or after so long at most; `None` where there is none."""
        ending = self.run_end(run_id)
        try:
            run = await self.reader.run(run_id)
            if run is not None and run.ended_ms is None and wait_s > 0:
                await asyncio.wait([ending], timeout=wait_s)
                run = await self.reader.run(run_id)
            return run
        finally:
            ending.cancel()

    def _gave_up(self, run_id: str, future: asyncio.Future[None]) -> None:
        """Somebody waits no longer for the end of a run that may be far off."""
        waiters = self._ended.get(run_id)
        if waiters is not None and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._ended[run_id]

    # The heartbeat.

    async def _beat(self) -> None:
        tries = 0
        while True:
            group = self._take()
            if not group:
                if self._stopping:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            try:
                beat = await self._heart.handle([input for input, _ in group])
            except StoreUnavailable:
                # The outcome is unknown: the same inputs again, which recognise what was committed.
                self._requeue([(known(input), future) for input, future in group])
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1
                if self._stopping and tries > len(RETRY_S):
                    self._fail_all(StoreUnavailable("the store does not answer"))
                    return
                continue
            tries = 0
            self._requeue(group[len(beat.decided) :])
            await self._publish(group, beat)

    def _take(self) -> list[Entry]:
        """The next group, by turns. Due timers stand among the others, since a group that takes too long is cut at its end."""
        group: list[Entry] = []
        timers, due = self._timers, 0
        for source in (self._answers, self._requests, self._claims):
            while source and len(group) < GROUP_MAX:
                entry = source.popleft()
                group.append(entry)
                if isinstance(entry[0], CHANGES_REGISTRY):
                    # What follows is decided with the functions as they are then.
                    return group
                if timers and len(group) % TIMERS_TURN == TIMERS_TURN - 1:
                    group.append(timers.popleft())
                    due += 1
        room = GROUP_MAX // TIMERS_TURN - due if group else GROUP_MAX
        while timers and room > 0 and len(group) < GROUP_MAX:
            group.append(timers.popleft())
            room -= 1
        return group

    def _requeue(self, entries: list[Entry]) -> None:
        for entry in reversed(entries):
            match entry[0]:
                case CallAnswered() | StepsCheckpointed() | SyncStepsTold() | CallsReturned() | BatchAnswered() | DeliveriesReturned():
                    self._answers.appendleft(entry)
                case Claim() | QueueClaimed():
                    self._claims.appendleft(entry)
                case TimerDue():
                    self._timers.appendleft(entry)
                case _:
                    self._requests.appendleft(entry)

    def _fail_all(self, error: Exception) -> None:
        for source in (self._answers, self._requests, self._claims, self._timers):
            while source:
                _, future = source.popleft()
                if not future.done():
                    future.set_exception(error)

    async def _publish(self, group: list[Entry], beat: Beat) -> None:
        """What may happen now that the group is durable: answers, calls, wake-ups."""
        changes = beat.changes
        if changes is not None:
            self.bodies.note(changes)
            self.realtime.tell(changes)
            if self._watchers:
                self._tell(changes)
        if any(isinstance(effect, RegistryChanged) for decided in beat.decided for effect in decided.effects):
            # Before anybody is answered: who has heard of a sync finds its functions, whatever is asked next.
            await self._heart.reload()
        if any(isinstance(input, CHANGES_REGISTRY) for input, _ in group):
            # Also where nothing has changed: an app that tells its functions is in reach.
            self._deliveries.registered()
        for (input, future), decided in zip(group, beat.decided, strict=False):
            reply = None
            if isinstance(input, TimerDue):
                self._timekeeper.settled(input.timer_id)  # before its effects, which may set it again
            for effect in decided.effects:
                match effect:
                    case Reply():
                        reply = effect.value
                    case Call():
                        self._dispatcher.send(effect)
                    case Wake():
                        self._dispatcher.wake(effect.function_id)
                    case Keep():
                        self._step_requests.keep(effect.run_id, effect.op)
                    case TimerSet():
                        self._timekeeper.set(effect.timer_id, effect.due_ms)
                    case RunEnded():
                        self._forget(effect.run_id)
                    case AlarmFired():
                        self.actors.fire(effect)
                    case QueueStirred():
                        self._deliveries.stir(effect.queue)
                    case Deliver():
                        self._deliveries.send(effect)
            if decided.error is not None and isinstance(input, TimerDue | Claim | QueueClaimed):
                await self._set_aside(input, decided.error)
            if not future.done():
                if decided.error is None:
                    future.set_result(reply)
                else:
                    future.set_exception(decided.error)
                    if isinstance(input, TimerDue | Claim | QueueClaimed):
                        future.exception()  # nobody else is told: the row set aside tells it

    def _batch_ended(self, ended: BatchEnded) -> None:
        self.queue_totals.add(ended)
        if self._on_settled is not None:
            self._on_settled(ended)

    def _forget(self, run_id: str) -> None:
        self.bodies.forget(run_id)
        self._step_requests.forget(run_id)
        if self._on_run_ended is not None:
            self._on_run_ended(run_id)
        for waiter in self._ended.pop(run_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _tell(self, changes: Any) -> None:
        run_ids: dict[str, None] = {}
        for name, column in (("runs", "id"), ("steps", "run_id"), ("attempts", "run_id")):
            change = changes.tables.get(name)
            if change is not None:
                run_ids.update((getattr(row, column), None) for row in (*change.inserted, *change.updated))
        for queue in self._watchers:
            for run_id in run_ids:
                if not queue.full():
                    queue.put_nowait(run_id)

    async def _set_aside(self, input: TimerDue | Claim | QueueClaimed, error: BaseException) -> None:
        """An input of our own raised: keep it with its error, visibly, and take its timer away."""
        text = "".join(traceback.format_exception(error))
        timer = await self.reader.timer(input.timer_id) if isinstance(input, TimerDue) else None
        self.submit(InputSetAside(self.new_id(), msgspec.json.encode(input), text, timer))

    def _fire(self, timer_id: str) -> None:
        self._timers.append((TimerDue(timer_id, self.holder), asyncio.get_running_loop().create_future()))
        self._arrived.set()

    async def _live(self) -> None:
        """Say now and then that the node lives, and compare what it holds with what it has in hand."""
        while True:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(StoreUnavailable):
                await self.submit(HolderRenewed(self.holder))
                await self._dispatcher.compare()
                await self.actors.compare()
                await self._deliveries.compare()
