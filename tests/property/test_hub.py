"""Any interleaving of subscribing, publishing, reading and closing keeps the hub's promises."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stepwell.protocol.realtime import Topic
from stepwell.runtime.hub import Hub, Parcel, Subscription

QUEUE_MAX = 4
TOPICS = [Topic(channel, name) for channel in "xy" for name in "ab"]
topics = st.sets(st.sampled_from(TOPICS), max_size=4)
numbers = st.integers(0, 5)


class _Reader:
    """What a subscriber ought to read: each message published to a topic while it listened to it, until it was dropped."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.expected: list[bytes] = []
        self.read: list[bytes] = []
        self.dropped = False

    @property
    def waiting(self) -> int:
        return len(self.expected) - len(self.read)


class HubMachine(RuleBasedStateMachine):
    """Readers are named by their number; each message has a number of its own."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.hub = Hub(queue_messages_max=QUEUE_MAX)
        self.readers: list[_Reader] = []
        self.published = 0

    def reader(self, number: int) -> _Reader | None:
        return self.readers[number] if number < len(self.readers) else None

    @rule(topics=topics)
    def subscribe(self, topics: set[Topic]) -> None:
        if len(self.readers) < 6:
            self.readers.append(_Reader(self.hub.subscribe(topics)))

    @rule(number=numbers, topics=topics)
    def add(self, number: int, topics: set[Topic]) -> None:
        if reader := self.reader(number):
            reader.subscription.add(topics)

    @rule(number=numbers, topics=topics)
    def remove(self, number: int, topics: set[Topic]) -> None:
        if reader := self.reader(number):
            reader.subscription.remove(topics)

    @rule(topic=st.sampled_from(TOPICS))
    def publish(self, topic: Topic) -> None:
        self.published += 1
        body = f"{topic.channel}{topic.name}{self.published}".encode()
        reached = 0
        for reader in self.readers:
            if topic in reader.subscription.topics:
                if reader.waiting < QUEUE_MAX:
                    reader.expected.append(body)
                    reached += 1
                else:
                    reader.dropped = True
        assert self.hub.publish(topic.channel, topic.name, Parcel(body)) == reached

    @rule(number=numbers)
    def read(self, number: int) -> None:
        reader = self.reader(number)
        if reader is not None and reader.waiting:
            parcel = self.loop.run_until_complete(asyncio.wait_for(reader.subscription.next(), 5))
            assert parcel is not None
            reader.read.append(parcel.body)

    @rule(number=numbers)
    def close(self, number: int) -> None:
        if reader := self.reader(number):
            reader.subscription.close()

    @invariant()
    def nothing_is_lost_or_out_of_order(self) -> None:
        for reader in getattr(self, "readers", ()):
            assert reader.read == reader.expected[: len(reader.read)]
            assert reader.subscription.waiting == reader.waiting + reader.dropped
            assert reader.subscription.closed >= reader.dropped

    @invariant()
    def the_hub_knows_who_listens(self) -> None:
        if not hasattr(self, "hub"):
            return
        listening: dict[tuple[str, str], set[Subscription]] = defaultdict(set)
        for reader in self.readers:
            if not reader.subscription.closed:
                for topic in reader.subscription.topics:
                    listening[topic.channel, topic.name].add(reader.subscription)
        known = {(name, topic): set(found) for name, channel in self.hub.channels.items() for topic, found in channel.topics.items()}
        assert known == listening
        assert self.hub.counts.subscribers == sum(not reader.subscription.closed for reader in self.readers)

    def teardown(self) -> None:
        async def rest(reader: _Reader) -> None:
            reader.subscription.close()
            while (parcel := await reader.subscription.next()) is not None:
                reader.read.append(parcel.body)

        for reader in getattr(self, "readers", ()):
            self.loop.run_until_complete(rest(reader))
            if reader.dropped:
                assert json.loads(reader.read.pop())["kind"] == "closing"
            assert reader.read == reader.expected
        if hasattr(self, "loop"):
            self.loop.close()


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
