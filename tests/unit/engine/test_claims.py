"""Claims beside other inputs of their group: what these have made or opened is claimed too, in one more reading."""

from __future__ import annotations

import asyncio
import random

from stepwell.engine.commands import Call
from stepwell.engine.inputs import AppSynced, Ask, CallAnswered, Claim, EventsReceived, NodeStarted
from stepwell.protocol.calls import Returned
from stepwell.protocol.events import Event
from stepwell.protocol.functions import Concurrency, FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import numbered_ulids
from stepwell.runtime.heart import Heart
from stepwell.store.memory import MemoryStore
from tests.simulation.clock import VirtualClock


def events(count: int, entropy: bytes) -> EventsReceived:
    """Events of as many tenants."""
    ids = numbered_ulids(1, entropy)
    return EventsReceived(
        tuple(
            Event(internal_id=ids(n), id=ids(n), name="x", data=b'{"t":%d}' % n, user=b"{}", ts=1, v=None, meta=None, received_ms=1)
            for n in range(count)
        ),
        fresh=True,
    )


def test_lanes_that_the_group_has_made_and_opened_are_claimed_at_once() -> None:
    """A hundred tenants with a limit of one each: their lanes come into being, and later open, in the very group of the claim."""

    async def main() -> None:
        heart = Heart(MemoryStore(), VirtualClock(random.Random(1)))
        limit = Concurrency(limit=1, key="event.data.t")
        config = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),), concurrency=(limit,))
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(config,), checksum="1")
        await heart.handle([NodeStarted("n", "n/1")])
        await heart.handle([AppSynced(told, "local")])
        await heart.reload()
        claim = Claim("n/1", (Ask("a-f", 256),))
        beat = await heart.handle([events(100, b"0" * 10), events(100, b"1" * 10), claim])
        assert [one.error for one in beat.decided] == [None] * 3
        calls = [effect for effect in beat.decided[2].effects if isinstance(effect, Call)]
        assert len(calls) == 100 and len({call.item.lane_id for call in calls}) == 100
        answers = [CallAnswered(call.run.id, call.item.id, call.item.fence, Returned(data=b"1")) for call in calls]
        beat = await heart.handle([*answers, claim])
        assert [one.error for one in beat.decided] == [None] * 101
        assert sum(isinstance(effect, Call) for effect in beat.decided[-1].effects) == 100

    asyncio.run(main())
