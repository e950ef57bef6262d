"""Drivers whose apps take only so many calls: what is beyond stays queued, without a lease, until the driver tells of room."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from stepwell.drivers.base import CheckpointFn, NotTaken
from stepwell.engine.inputs import AppSynced
from stepwell.engine.inputs_primitives import MessagesSent, NewMessage, QueueSet
from stepwell.protocol.calls import Answer, CallRequest, Returned, failed
from stepwell.protocol.events import Event
from stepwell.protocol.functions import FunctionConfig, Trigger, registration
from stepwell.protocol.queues import Consumer
from stepwell.runtime import deliveries, dispatcher
from stepwell.runtime.node import Node
from stepwell.store.memory import MemoryStore

TIMEOUT_S = 20


class Roomed:
    """A driver by hand: `rooms` is what each app takes, calls end when the test says so."""

    def __init__(self) -> None:
        self.rooms: Counter[str] = Counter()
        self.calls: dict[str, asyncio.Future[Answer]] = {}
        self.requests: list[CallRequest] = []
        self.settlements: dict[str, bool] = {}
        self.refuses = 0
        self.told: list[Callable[[str], None]] = []
        self.changed = asyncio.Event()

    def room(self, app_id: str) -> int:
        """As the dispatcher asks it."""
        return self.rooms[app_id]

    def on_room(self, told: Callable[[str], None]) -> None:
        """As the dispatcher says it."""
        self.told.append(told)

    def settled(self, request_id: str, *, recorded: bool) -> None:
        """As the dispatcher tells it."""
        self.settlements[request_id] = recorded
        self.changed.set()

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Wait for the test."""
        if self.refuses:
            self.refuses -= 1
            raise NotTaken("nobody takes it")
        self.rooms[request.app_id] -= 1
        assert self.rooms[request.app_id] >= 0, f"{request.app_id} was given more than it takes"
        self.requests.append(request)
        future = self.calls[request.request_id] = asyncio.get_running_loop().create_future()
        self.changed.set()
        try:
            return await future
        finally:
            del self.calls[request.request_id]
            self.give(request.app_id, 1)

    def give(self, app: str, more: int) -> None:
        """The app takes more."""
        self.rooms[app] += more
        for told in self.told:
            told(app)

    async def until(self, condition: Callable[[], bool]) -> None:
        """It has come about."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def made(self, count: int) -> None:
        """So many calls have been made in all."""
        await self.until(lambda: len(self.requests) >= count)
        assert len(self.requests) == count


def driven(test: Callable[[Node, Roomed], Awaitable[None]]) -> Callable[[], None]:
    """A test with a node over memory, and two apps of such a driver: `a` with two functions, `b` with one."""

    @functools.wraps(test)
    def runs() -> None:
        async def main() -> None:
            driver = Roomed()
            node = Node(MemoryStore(), drivers={"roomed": driver.call}, rooms={"roomed": driver})
            await node.start()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    for app, functions in (("a", ("f", "g")), ("b", ("h",))):
                        await node.submit(AppSynced(_app(app, functions), "roomed"))
                    await test(node, driver)
            finally:
                await node.stop()

        asyncio.run(main())

    del runs.__wrapped__  # type: ignore[attr-defined]
    return runs


def _app(name: str, functions: Sequence[str]) -> Any:
    configs = [FunctionConfig(id=f"{name}-{one}", name=one, triggers=(Trigger(event=f"{name}/{one}"),)) for one in functions]
    return registration(app_name=name, url="", sdk="x:v1", functions=configs)


async def send(node: Node, name: str, count: int) -> None:
    """Start so many runs."""
    now = node.clock.now_ms()
    events = [
        Event(internal_id=node.new_id(), id=node.new_id(), name=name, data=b"{}", user=b"{}", ts=now, v=None, meta=None, received_ms=now)
        for _ in range(count)
    ]
    await node.send(tuple(events), fresh=True)


async def leased(node: Node) -> int:
    """How many items the node holds."""
    return len(await node.reader.held_items(node.holder))


@driven
async def test_no_room_no_lease(node: Node, driver: Roomed) -> None:
    """Runs wait in the queue; as room comes, so many go out, and the rest waits on."""
    await send(node, "a/f", 5)
    await node.submit(AppSynced(_app("b", ("h",)), "roomed"))
    assert await leased(node) == 0 and driver.requests == []
    driver.give("a", 2)
    await driver.made(2)
    assert await leased(node) == 2
    driver.give("a", 9)
    await driver.made(5)
    assert await leased(node) == 5 and node.calls_out == 5


@driven
async def test_an_end_makes_room_for_the_next(node: Node, driver: Roomed) -> None:
    """One at a time, each call is followed by another; it is told when it is recorded."""
    driver.rooms["a"] = 1
    await send(node, "a/f", 3)
    for n in range(1, 4):
        await driver.made(n)
        (request_id,) = driver.calls
        assert request_id not in driver.settlements
        driver.calls[request_id].set_result(Returned(data=b"1"))
        await driver.until(lambda n=n: len(driver.settlements) == n)  # type: ignore[misc]
    assert list(driver.settlements.values()) == [True] * 3 and await leased(node) == 0


@driven
async def test_functions_of_an_app_share_its_room(node: Node, driver: Roomed) -> None:
    """Fairly; another app's room is its own."""
    driver.rooms.update(a=4, b=1)
    await asyncio.gather(send(node, "a/f", 9), send(node, "a/g", 9), send(node, "b/h", 9))
    await driver.made(5)
    for n in range(6, 14):
        request_id = next(request.request_id for request in driver.requests if request.request_id in driver.calls and request.app_id == "a")
        driver.calls[request_id].set_result(failed("E", "e", retriable=False))
        await driver.made(n)
    made = Counter(request.function_id for request in driver.requests)
    assert made["b-h"] == 1 and made["a-f"] + made["a-g"] == 12 and min(made["a-f"], made["a-g"]) >= 4


@driven
async def test_a_call_that_is_not_taken_goes_back(node: Node, driver: Roomed) -> None:
    """It is made again when there is room, under another request id, and counts as no loss."""
    driver.rooms["a"] = 1
    driver.refuses = 5
    await send(node, "a/f", 1)
    await driver.made(1)
    (request,) = driver.requests
    assert request.attempt == 0
    assert list(driver.settlements.values()) == [False] * 5 and request.request_id not in driver.settlements
    driver.calls[request.request_id].set_result(Returned(data=b"1"))
    await node.run_end(request.run_id)
    run = await node.reader.run(request.run_id)
    assert run is not None and run.status == "completed"


@driven
async def test_more_functions_wait_than_a_claim_looks_at(node: Node, driver: Roomed) -> None:
    """Those that were woken first come first, and each has its turn before one has its second."""
    names = tuple(f"n{i}" for i in range(7))
    await node.submit(AppSynced(_app("c", names), "roomed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "LOOK_MAX", 2)
        for name in names:
            await send(node, f"c/{name}", 2)
        driver.give("c", 1)
        for n in range(1, 2 * len(names) + 1):
            await driver.made(n)
            (request_id,) = driver.calls
            driver.calls[request_id].set_result(Returned(data=b"1"))
            await driver.until(lambda n=n: len(driver.settlements) == n)  # type: ignore[misc]
    made = [request.function_id for request in driver.requests]
    assert set(made[: len(names)]) == set(made[len(names) :]) == {f"c-{name}" for name in names}


@driven
async def test_a_function_that_moves_to_another_driver_while_it_waits(node: Node, driver: Roomed) -> None:
    """Is called by the one that it has when there is room."""
    other = Roomed()
    node.add_driver("other", other.call)
    await send(node, "a/f", 1)
    await node.submit(AppSynced(_app("a", ("f", "g")), "other"))
    other.rooms["a"] = 1
    driver.give("a", 1)
    await other.made(1)
    assert driver.requests == []


# Batches of queues.


async def consumed(node: Node, messages: int, queue: str = "q") -> None:
    """An app `c` of the driver consumes a queue, in which so many messages wait."""
    consumer = Consumer(max_batch_size=1, max_batch_timeout_ms=0)
    config = FunctionConfig(id="c-q", name="q", triggers=(Trigger(queue=queue),), consumer=consumer)
    await node.submit(AppSynced(registration(app_name="c", url="", sdk="x:v1", functions=(config,)), "roomed"))
    new = tuple(NewMessage(f"{n:032x}", b"%d" % n, "json") for n in range(messages))
    await node.submit(MessagesSent(queue, new, fresh=True))


async def waiting(node: Node) -> int:
    """How many messages are not out."""
    (queue,) = await node.reader.queues(1)
    return queue.waiting


@driven
async def test_no_room_no_delivery(node: Node, driver: Roomed) -> None:
    """Batches wait in their queue while no worker takes them, without being claimed over and over; as room comes, so many go out."""
    await consumed(node, 9)
    await node.submit(QueueSet(queue="q", paused=False))
    assert await waiting(node) == 9 and driver.requests == []
    driver.give("c", 2)
    await driver.made(2)
    assert await waiting(node) == 7
    for n in range(3, 10):
        request_id = next(iter(driver.calls))
        driver.calls[request_id].set_result(Returned(data=b"null"))
        await driver.made(n)
    for future in list(driver.calls.values()):
        future.set_result(Returned(data=b"null"))
    await driver.until(lambda: len(driver.settlements) == 9)
    assert set(driver.settlements.values()) == {True}
    assert await waiting(node) == 0 and await node.reader.deliveries_of("q", 9) == ()


@driven
async def test_a_batch_that_is_not_taken_goes_back(node: Node, driver: Roomed) -> None:
    """It is made again while there is room, and its messages have been tried but once."""
    driver.rooms["c"] = 1
    driver.refuses = 5
    await consumed(node, 1)
    await driver.made(1)
    (request,) = driver.requests
    assert list(driver.settlements.values()) == [False] * 5
    assert b'"attempts":1,' in request.events[0]
    driver.calls[request.request_id].set_result(Returned(data=b"null"))
    await driver.until(lambda: driver.settlements.get(request.request_id) is True)


@driven
async def test_a_queue_whose_consumer_is_out_of_reach_rests(node: Node, driver: Roomed) -> None:
    """Its messages are not tried in vain as often as they may be: an app that is not here has not been tried at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliveries, "REST_S", (0.01,))
        driver.rooms["c"] = 1
        await consumed(node, 1)
        for n in range(1, 9):
            await driver.made(n)
            assert b'"attempts":1,' in driver.requests[-1].events[0]
            driver.calls[driver.requests[-1].request_id].set_result(failed("AppNotFound", "not here", code="app_not_found"))
            await driver.until(lambda n=n: len(driver.settlements) == n)  # type: ignore[misc]
        for n in range(9, 13):
            await driver.made(n)
            assert (b'"attempts":1,' in driver.requests[-1].events[0]) is (n < 12), "three losses in a row are a failed try"
            driver.calls[driver.requests[-1].request_id].set_result(failed("E", "nobody there", code="http_unreachable"))
            await driver.until(lambda n=n: len(driver.settlements) == n)  # type: ignore[misc]
        await driver.made(13)
        driver.calls[driver.requests[-1].request_id].set_result(Returned(data=b"null"))
        await driver.until(lambda: len(driver.settlements) == 13)
    assert await waiting(node) == 0


@driven
async def test_an_app_that_comes_back_ends_the_rest(node: Node, driver: Roomed) -> None:
    """Its sync says so, however long the rest would be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliveries, "REST_S", (3_600.0,))
        driver.rooms["c"] = 1
        await consumed(node, 1)
        await driver.made(1)
        driver.calls[driver.requests[-1].request_id].set_result(failed("AppNotFound", "not here", code="app_not_found"))
        await driver.until(lambda: len(driver.settlements) == 1)
        await consumed(node, 1)
        await driver.made(2)
        driver.calls[driver.requests[-1].request_id].set_result(Returned(data=b"null"))
        await driver.until(lambda: len(driver.settlements) == 2)
