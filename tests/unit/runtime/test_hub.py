"""The hub: topics, bounds, and what a subscriber reads that does not keep up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.realtime import TOPICS_PER_SUBSCRIBER_MAX, Topic
from stepwell.runtime.hub import Hub, Parcel, Subscription

A, B, OTHER = Topic("orders", "a"), Topic("orders", "b"), Topic("others", "a")


def run(main: Coroutine[Any, Any, None]) -> None:
    """To its end, or not at all."""
    asyncio.run(asyncio.wait_for(main, 10))


async def rest(subscription: Subscription) -> list[bytes]:
    """Everything that a closed subscription has left."""
    found = []
    while (parcel := await subscription.next()) is not None:
        found.append(parcel.body)
    return found


def test_a_message_goes_to_its_topic_s_listeners_alone() -> None:
    """Same topic name in another channel is another topic."""

    async def main() -> None:
        hub = Hub()
        one, both, other = hub.subscribe([A]), hub.subscribe([A, B, A]), hub.subscribe([OTHER])
        assert hub.publish("orders", "a", Parcel(b"1")) == 2
        assert hub.publish("orders", "b", Parcel(b"2")) == 1
        assert hub.publish("nobody", "a", Parcel(b"3")) == 0
        for subscription in (one, both, other):
            subscription.close()
        assert [await rest(one), await rest(both), await rest(other)] == [[b"1"], [b"1", b"2"], []]
        assert (hub.counts.published, hub.counts.delivered, hub.counts.subscribers, hub.counts.dropped) == (3, 3, 0, 0)

    run(main())


def test_topics_come_and_go() -> None:
    """What is added is heard from then on, what is removed no more; a channel without listeners is forgotten."""

    async def main() -> None:
        hub = Hub()
        subscription = hub.subscribe([A])
        subscription.add([B])
        hub.publish("orders", "b", Parcel(b"1"))
        subscription.remove([B, B, OTHER])
        hub.publish("orders", "b", Parcel(b"2"))
        assert hub.listens("orders", "a") and not hub.listens("orders", "b")
        subscription.remove([A])
        assert hub.channels == {}
        assert (await subscription.next()).body == b"1"  # type: ignore[union-attr]
        subscription.close()
        subscription.add([A])
        assert hub.channels == {} and hub.counts.subscribers == 0

    run(main())


def test_a_reader_waits_for_what_comes() -> None:
    """It wakes for a message, for the end, and can be cancelled without losing anything."""

    async def main() -> None:
        hub = Hub()
        subscription = hub.subscribe([A])
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        hub.publish("orders", "a", Parcel(b"1"))
        hub.publish("orders", "a", Parcel(b"2"))
        assert (await waiting).body == b"1"  # type: ignore[union-attr]
        assert (await subscription.next()).body == b"2"  # type: ignore[union-attr]
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        subscription.close()
        assert await waiting is None

    run(main())


@pytest.mark.parametrize(("bounds", "sizes", "kept"), [({"queue_messages_max": 3}, [1] * 6, 3), ({"queue_bytes_max": 10}, [4] * 6, 2)])
def test_a_slow_reader_gets_a_whole_beginning_and_the_reason(bounds: dict[str, int], sizes: list[int], kept: int) -> None:
    """Then nothing more; the publisher and the other subscribers notice nothing."""

    async def main() -> None:
        hub = Hub(**bounds)
        slow, fast = hub.subscribe([A]), hub.subscribe([A])
        told = []
        slow.on_closed = lambda: told.append("closed")
        read = []
        for i, size in enumerate(sizes):
            hub.publish("orders", "a", Parcel(b"%d" % i * size))
            read.append((await fast.next()).body)  # type: ignore[union-attr]
        assert read == [b"%d" % i * size for i, size in enumerate(sizes)]
        *messages, last = await rest(slow)
        assert messages == read[:kept]
        closing = json.loads(last)
        assert closing["kind"] == "closing" and "too slowly" in closing["data"]
        assert slow.reason == closing["data"] and told == ["closed"]
        assert (hub.counts.dropped, hub.counts.subscribers) == (1, 1)

    run(main())


def test_one_message_larger_than_the_bound_still_goes_to_an_empty_queue() -> None:
    """The bound is on what waits, and a reader that keeps up has nothing waiting."""

    async def main() -> None:
        hub = Hub(queue_bytes_max=10)
        subscription = hub.subscribe([A])
        assert hub.publish("orders", "a", Parcel(b"x" * 100)) == 1
        assert len((await subscription.next()).body) == 100  # type: ignore[union-attr]

    run(main())


def test_bounds_are_refused_with_their_numbers() -> None:
    """Too many subscribers, too many topics of one."""

    async def main() -> None:
        hub = Hub(subscribers_max=2)
        one, _ = hub.subscribe([A]), hub.subscribe([A])
        with pytest.raises(ProtocolError, match="2 subscribers") as refused:
            hub.subscribe([A])
        assert refused.value.status == 503
        one.close()
        two = hub.subscribe([])
        with pytest.raises(ProtocolError, match=str(TOPICS_PER_SUBSCRIBER_MAX)):
            two.add([Topic("c", str(i)) for i in range(TOPICS_PER_SUBSCRIBER_MAX + 1)])
        assert two.topics == {}

    run(main())


def test_a_closed_hub_tells_everybody_why() -> None:
    """And takes nobody more."""

    async def main() -> None:
        hub = Hub()
        subscriptions = [hub.subscribe([A]) for _ in range(3)]
        hub.close("the server stops")
        for subscription in subscriptions:
            assert [json.loads(body) for body in await rest(subscription)] == [{"kind": "closing", "data": "the server stops"}]
        with pytest.raises(ProtocolError, match="the server stops"):
            hub.subscribe([A])

    run(main())
