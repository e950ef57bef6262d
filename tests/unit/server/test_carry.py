"""How a subscription's parcels are carried to the other side: its end, its silence, and a reader that has stopped reading."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from stepwell.protocol.realtime import Topic
from stepwell.runtime.hub import Hub, Parcel
from stepwell.server import realtime_api
from stepwell.server.realtime_api import _Events, carry

T = Topic("c", "t")
PING = Parcel(b"ping")


def run(main: Coroutine[Any, Any, None]) -> None:
    """To its end, or not at all."""
    asyncio.run(asyncio.wait_for(main, 10))


class Other:
    """The other side: takes what is sent while it reads, and goes away when told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.reads, self.gone, self.got = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.reads.set()

    async def send(self, parcel: Parcel) -> None:
        await self.reads.wait()
        self.sent.append(parcel.body)
        self.got.set()

    async def listen(self) -> None:
        await self.gone.wait()


def test_what_was_queued_is_sent_before_the_end() -> None:
    """And the end says that all was."""

    async def main() -> None:
        hub, other = Hub(), Other()
        subscription = hub.subscribe([T])
        carrying = asyncio.create_task(carry(subscription, other.send, other.listen(), PING))
        for i in range(3):
            hub.publish("c", "t", Parcel(b"%d" % i))
        subscription.close("enough")
        assert await carrying is True
        assert other.sent[:3] == [b"0", b"1", b"2"] and b"enough" in other.sent[3]

    run(main())


def test_the_other_side_s_end_ends_the_subscription() -> None:
    """Nothing is left listening, and a goodbye is not said to nobody."""

    async def main() -> None:
        hub, other = Hub(), Other()
        carrying = asyncio.create_task(carry(hub.subscribe([T]), other.send, other.listen(), PING))
        await asyncio.sleep(0)
        other.gone.set()
        assert await carrying is False
        assert hub.channels == {} and hub.counts.subscribers == 0

    run(main())


def test_a_connection_that_breaks_ends_the_subscription() -> None:
    """The error goes no further."""

    async def main() -> None:
        hub, other = Hub(), Other()

        async def broken(parcel: Parcel) -> None:
            raise OSError("gone")

        carrying = asyncio.create_task(carry(hub.subscribe([T]), broken, other.listen(), PING))
        await asyncio.sleep(0)
        hub.publish("c", "t", Parcel(b"1"))
        assert await carrying is False
        assert hub.counts.subscribers == 0

    run(main())


def test_who_is_dropped_and_still_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; before that it may read the rest."""
    monkeypatch.setattr(realtime_api, "FLUSH_S", 0.05)

    async def main() -> None:
        hub, other = Hub(queue_messages_max=2), Other()
        other.reads.clear()
        carrying = asyncio.create_task(carry(hub.subscribe([T]), other.send, other.listen(), PING))
        for _ in range(4):
            await asyncio.sleep(0)
            hub.publish("c", "t", Parcel(b"1"))
        assert hub.counts.dropped == 1
        assert await carrying is False
        assert other.sent == []

    run(main())


def test_a_silent_connection_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again."""
    monkeypatch.setattr(realtime_api, "PING_S", 0.02)

    async def main() -> None:
        hub, other = Hub(), Other()
        subscription = hub.subscribe([T])
        carrying = asyncio.create_task(carry(subscription, other.send, other.listen(), PING))
        while len(other.sent) < 3:
            other.got.clear()
            await other.got.wait()
        assert set(other.sent) == {b"ping"}
        other.gone.set()
        await carrying

    run(main())


def test_server_sent_events_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and the answer is whole."""
    monkeypatch.setattr(realtime_api, "SSE_MAX_S", 0.05)

    async def main() -> None:
        hub, other = Hub(), Other()
        messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await other.listen()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        await _Events(hub.subscribe([T]))({}, receive, send)
        start, *bodies, closing, end = messages
        assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
        assert not any(name == b"content-length" for name, _ in start["headers"])
        assert bodies[0]["body"].startswith(b":") and b"connect again" in closing["body"]
        assert end == {"type": "http.response.body", "body": b"", "more_body": False}
        assert hub.counts.subscribers == 0

    run(main())
