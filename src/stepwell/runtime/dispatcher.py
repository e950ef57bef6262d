"""Claims work where there is room, makes the calls, and reports their answers.

It holds no durable state: what it claims is leased to its node, and what it has in hand is compared now and then with what is
leased, so that a lost publish brings no item to a standstill.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Any

from stepwell.drivers.base import NotTaken, Rooms
from stepwell.engine.calls import CheckpointReply
from stepwell.engine.commands import Call
from stepwell.engine.inputs import AnyInput, Ask, CallAnswered, CallsReturned, Claim, Claimed, StepsCheckpointed
from stepwell.engine.model import Item, Run
from stepwell.engine.registry import Registry
from stepwell.errors import RunPaused, Superseded
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint, failed
from stepwell.protocol.ids import ulid
from stepwell.runtime.bodies import Bodies
from stepwell.runtime.clock import Clock
from stepwell.runtime.requests import Requests
from stepwell.runtime.shares import Shares
from stepwell.store.base import Reader

CALLS_MAX = 256
"""Calls that are out at a time, through one driver."""
ROOM_ASKED_MAX = 256
"""Items that one claim asks for at most where an app's own room is what counts."""
LOOK_MAX = 2 * CALLS_MAX
"""Functions with work that one claim chooses from: those that were woken first. However many wait, a claim costs the same."""

CheckpointFn = Callable[[Checkpoint], Awaitable[None]]
MakeCall = Callable[[CallRequest, CheckpointFn], Awaitable[Answer]]
Submit = Callable[[AnyInput], "asyncio.Future[Any]"]

Pool = tuple[str, str | None]
"""Whose room a function's calls take: its driver's, or that of its app at the driver."""


class Dispatcher:
    """Calls through drivers, known by the name that an app's row gives.

    `rooms` are those of drivers whose apps take only so many calls: functions of an app without room are not asked for, and their items
    stay queued, until the driver tells of more.
    """

    def __init__(
        self,
        *,
        submit: Submit,
        registry: Callable[[], Registry],
        drivers: Mapping[str, MakeCall],
        bodies: Bodies,
        reader: Reader,
        clock: Clock,
        holder: str,
        requests: Requests,
        calls_max: int = CALLS_MAX,
        rooms: Mapping[str, Rooms] | None = None,
    ) -> None:
        self._requests = requests
        self._rooms = dict(rooms or {})
        self._full: dict[str, dict[str, None]] = {}
        self._coming: dict[str, int] = {}
        for room in self._rooms.values():
            room.on_room(self._has_room)
        self._submit, self._registry, self._drivers = submit, registry, drivers
        self._bodies, self._reader, self._clock, self._holder, self._calls_max = bodies, reader, clock, holder, calls_max
        self._awake: dict[Pool, dict[str, None]] = {}
        self._shares: dict[Pool, Shares] = {}
        self._claiming = False
        self._open = True
        self._in_hand: dict[str, int] = {}
        self._out: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._missing: set[tuple[str, int]] = set()

    @property
    def calls_out(self) -> int:
        """How many calls are out."""
        return len(self._in_hand)

    def wake(self, function_id: str) -> None:
        """A function may have ready items."""
        self._woken(function_id)
        self._claim()

    def close(self) -> None:
        """Claim no more."""
        self._open = False

    async def idle(self) -> None:
        """Returns when no call is out."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Cut off the calls that are out; their items come back with the node's next epoch."""
        self.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _claim(self) -> None:
        if self._claiming or not self._open or not self._awake:
            return
        asks = self._asks()
        if not asks:
            return
        self._claiming = True
        future = self._submit(Claim(self._holder, tuple(ask for of_pool in asks.values() for ask in of_pool)))
        future.add_done_callback(lambda told: self._claimed(asks, told))

    def _woken(self, function_id: str) -> None:
        if (pool := self._pool_of(function_id)) is not None:
            self._awake.setdefault(pool, {})[function_id] = None

    def _pool_of(self, function_id: str) -> Pool | None:
        """`None` where nobody can be asked for the function."""
        function = self._registry().functions.get(function_id)
        if function is None or function.driver not in self._drivers:
            return None
        return function.driver, function.row.app_name if function.driver in self._rooms else None

    def _asks(self) -> dict[Pool, list[Ask]]:
        """The functions that were woken, those served least first, each with its share of its pool's room."""
        asks: dict[Pool, list[Ask]] = {}
        for pool in list(self._awake):
            awake = self._awake[pool]
            room = self._room_of(pool)
            if room <= 0:
                if pool[1] is not None:
                    # Its app takes no more: it is looked at again when the driver tells of room.
                    self._full.setdefault(pool[1], {}).update(self._awake.pop(pool))
                continue
            ids = []
            for function_id in list(islice(awake, LOOK_MAX)):
                if self._pool_of(function_id) == pool:
                    ids.append(function_id)
                else:
                    # A sync has moved it, or taken it away, since it was woken.
                    del awake[function_id]
                    self._woken(function_id)
            if ids:
                asks[pool] = self._shares.setdefault(pool, Shares()).ask(ids, room, self._weight_of)
                for ask in asks[pool]:
                    del awake[ask.function_id]
            if not awake:
                del self._awake[pool]
        return asks

    def _weight_of(self, function_id: str) -> int:
        function = self._registry().functions.get(function_id)
        return 1 if function is None else function.weight

    def _room_of(self, pool: Pool) -> int:
        driver, app = pool
        if app is None:
            return self._calls_max - self._out.get(driver, 0)
        return min(ROOM_ASKED_MAX, self._rooms[driver].room(app) - self._coming.get(app, 0))

    def _has_room(self, app: str) -> None:
        """A driver tells that an app takes more calls."""
        waiting = self._full.pop(app, None)
        if waiting is not None:
            for function_id in waiting:
                self._woken(function_id)
            self._claim()

    def _claimed(self, asks: Mapping[Pool, list[Ask]], future: asyncio.Future[Any]) -> None:
        self._claiming = False
        if future.cancelled():
            return
        if future.exception() is not None:
            # The claim raised: its functions are asked again when something wakes them, and by the regular comparison.
            return
        claimed: Claimed = future.result()
        for pool, of_pool in asks.items():
            self._shares[pool].note(of_pool, claimed, self._weight_of)
        for function_id in claimed.more:
            self._woken(function_id)
        self._claim()

    def send(self, call: Call) -> None:
        """A lease was committed: make its call."""
        item = call.item
        self._in_hand[item.id] = item.fence
        driver = self._driver_of(item)
        self._out[driver] = self._out.get(driver, 0) + 1
        if driver in self._rooms:
            app = self._registry().functions[item.function_id].row.app_name
            self._coming[app] = self._coming.get(app, 0) + 1
        self._idle.clear()
        task = asyncio.create_task(self._call(item, call.run, driver))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _driver_of(self, item: Item) -> str:
        return self._registry().functions[item.function_id].driver

    async def _call(self, item: Item, run: Run, driver: str) -> None:
        on_commit: Callable[[], None] | None = None
        rooms, request, recorded = self._rooms.get(driver), None, False
        try:
            try:
                try:
                    request, make = await self._request(item, run), self._drivers[driver]
                finally:
                    if rooms is not None:
                        self._arrived(item)
                if self._requests.concerns(item):
                    answer, on_commit = await self._requests.call(request, lambda told: make(told, self._checkpoint))
                else:
                    answer = await make(request, self._checkpoint)
            except Superseded:
                return
            except NotTaken as reason:
                await self._submit(CallsReturned(((item.id, item.fence),), str(reason)))
                return
            except Exception as error:
                # A driver's own failure counts as a failed attempt: visible on the run, and tried again.
                answer = failed(type(error).__name__, str(error), traceback.format_exc())
            await self._submit(CallAnswered(run.id, item.id, item.fence, answer, driver))
            if on_commit is not None:
                on_commit()
            recorded = True
        finally:
            if rooms is not None and request is not None:
                rooms.settled(request.request_id, recorded=recorded)
            if self._in_hand.get(item.id) == item.fence:
                del self._in_hand[item.id]
            self._out[driver] -= 1
            if not self._in_hand:
                self._idle.set()
            self._claim()

    def _arrived(self, item: Item) -> None:
        """A call that was claimed is about to be made: from now on the driver counts it."""
        app = self._registry().functions[item.function_id].row.app_name
        self._coming[app] -= 1
        if self._requests.concerns(item):
            # It takes no room of the app's, after all.
            asyncio.get_running_loop().call_soon(self._has_room, app)

    async def _checkpoint(self, checkpoint: Checkpoint) -> None:
        reply: CheckpointReply = await self._submit(StepsCheckpointed(checkpoint))
        if not reply.accepted:
            raise Superseded(f"run {checkpoint.run_id} has gone on without this call, or has ended")
        if reply.held:
            raise RunPaused(f"run {checkpoint.run_id} is paused: this call ends with the steps that it has told")

    async def _request(self, item: Item, run: Run) -> CallRequest:
        bodies = await self._bodies.of(run)
        function = self._registry().functions[item.function_id]
        return CallRequest(
            run_id=run.id,
            function_id=function.id,
            function_uuid=function.row.uuid,
            app_id=function.row.app_name,
            url=function.config.url,
            step_id=item.step_id,
            attempt=item.attempt,
            max_attempts=function.max_attempts,
            request_version=run.request_version,
            stack=tuple(bodies.stack),
            disable_immediate_execution=run.force_plan,
            item_id=item.id,
            fence=item.fence,
            request_id=ulid(self._clock.now_ms(), self._clock.entropy(10)),
            events=bodies.events,
            steps=bodies.sent(),
            defers=dict(bodies.defers),
        )

    async def compare(self) -> None:
        """Return the items that are leased to this node but have no call in hand, seen so twice in a row."""
        held = set(await self._reader.held_items(self._holder))
        missing = {(item_id, fence) for item_id, fence in held if self._in_hand.get(item_id) != fence}
        lost = sorted(missing & self._missing)[:100]
        self._missing = missing
        if lost:
            await self._submit(CallsReturned(tuple(lost), "the node had no call for it in hand"))
        for function_id in await self._reader.functions_with_work():
            self.wake(function_id)
