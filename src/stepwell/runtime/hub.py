"""Who listens to which topic, and what has come for them: in memory, and of this process alone.

A subscriber has a queue with a bound. One that does not keep up is dropped: it gets what was queued, then the reason, then nothing,
so that what it reads is always an unbroken beginning. A publisher waits for nobody. The hub knows no clock, no HTTP and no store, and
belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.realtime import TOPICS_PER_SUBSCRIBER_MAX, Topic, closing_message

QUEUE_MESSAGES_MAX = 1000
QUEUE_BYTES_MAX = 4 * 1024 * 1024
"""What waits for one subscriber: beyond either bound it is dropped as too slow."""

SUBSCRIBERS_MAX = 10_000
"""Of one server; further ones are refused."""

TOO_SLOW = "the subscriber reads too slowly: more than {messages} messages or {bytes} bytes waited for it"


class Parcel:
    """A message on its way, shared by all who get it. A `raw` one is bytes that somebody forwards, not a message of ours."""

    __slots__ = ("_text", "body", "raw")

    def __init__(self, body: bytes, *, raw: bool = False) -> None:
        self.body, self.raw = body, raw
        self._text: str | None = None

    @property
    def text(self) -> str:
        """The body as text, made once for all."""
        if self._text is None:
            self._text = self.body.decode("utf-8", "replace")
        return self._text


class Counts(msgspec.Struct):
    """What the hub has done since it was made, and how many listen."""

    subscribers: int = 0
    published: int = 0
    delivered: int = 0
    dropped: int = 0


class Subscription:
    """One subscriber's topics and queue. Read it with `next` from one task, and `close` it."""

    __slots__ = ("_bytes", "_hub", "_queue", "_reader", "closed", "on_closed", "reason", "topics")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._queue: deque[Parcel] = deque()
        self._bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self.topics: dict[Topic, None] = {}
        self.closed, self.reason = False, ""
        self.on_closed: Callable[[], object] | None = None

    def add(self, topics: Iterable[Topic]) -> None:
        """Listen to these too. Raises `ProtocolError` where that would be too many."""
        self._hub.add(self, topics)

    def remove(self, topics: Iterable[Topic]) -> None:
        """Listen to these no more."""
        self._hub.remove(self, topics)

    async def next(self) -> Parcel | None:
        """The next parcel; `None` when the subscription is closed and all is read."""
        while not self._queue:
            if self.closed:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        parcel = self._queue.popleft()
        self._bytes -= len(parcel.body)
        return parcel

    @property
    def waiting(self) -> int:
        """How many parcels wait to be read."""
        return len(self._queue)

    def put(self, parcel: Parcel) -> bool:
        """Queue a parcel for this subscriber alone. Says whether it was; one beyond a bound closes the subscription."""
        if self.closed:
            return False
        size = len(parcel.body)
        hub = self._hub
        if self._queue and (len(self._queue) >= hub.queue_messages_max or self._bytes + size > hub.queue_bytes_max):
            hub.counts.dropped += 1
            self.close(TOO_SLOW.format(messages=hub.queue_messages_max, bytes=hub.queue_bytes_max))
            return False
        self._queue.append(parcel)
        self._bytes += size
        self._wake()
        return True

    def close(self, reason: str = "") -> None:
        """Listen to nothing more. With a reason, the subscriber reads it last."""
        if self.closed:
            return
        self._hub.forget(self)
        self.closed, self.reason = True, reason
        if reason:
            last = Parcel(closing_message(reason))
            self._queue.append(last)
            self._bytes += len(last.body)
        self._wake()
        if self.on_closed is not None:
            self.on_closed()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Channel:
    """A channel that is listened to: its topics with their subscribers, and what its feed notes about it."""

    __slots__ = ("note", "topics")

    def __init__(self) -> None:
        self.topics: dict[str, dict[Subscription, None]] = {}
        self.note: object = None


class Hub:
    """Subscribers by channel and topic."""

    def __init__(
        self,
        *,
        queue_messages_max: int = QUEUE_MESSAGES_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        subscribers_max: int = SUBSCRIBERS_MAX,
    ) -> None:
        self.queue_messages_max, self.queue_bytes_max, self._subscribers_max = queue_messages_max, queue_bytes_max, subscribers_max
        self.channels: dict[str, Channel] = {}
        self.counts = Counts()
        self._subscriptions: dict[Subscription, None] = {}
        self._closed = ""

    def subscribe(self, topics: Iterable[Topic]) -> Subscription:
        """Listen to topics. Raises `ProtocolError` where too many do, or the hub is closed."""
        if self._closed:
            raise ProtocolError(self._closed, 503)
        if len(self._subscriptions) >= self._subscribers_max:
            raise ProtocolError(f"{self._subscribers_max} subscribers listen to this server, and more are not taken", 503)
        subscription = Subscription(self)
        self.add(subscription, topics)
        self._subscriptions[subscription] = None
        self.counts.subscribers += 1
        return subscription

    def add(self, subscription: Subscription, topics: Iterable[Topic]) -> None:
        """A subscriber listens to these too; all of them or, where that is too many, none."""
        new = [topic for topic in dict.fromkeys(topics) if topic not in subscription.topics]
        if len(subscription.topics) + len(new) > TOPICS_PER_SUBSCRIBER_MAX:
            raise ProtocolError(f"a subscriber listens to at most {TOPICS_PER_SUBSCRIBER_MAX} topics")
        if subscription.closed:
            return
        for topic in new:
            subscription.topics[topic] = None
            channel = self.channels.get(topic.channel)
            if channel is None:
                channel = self.channels[topic.channel] = Channel()
            channel.topics.setdefault(topic.name, {})[subscription] = None

    def remove(self, subscription: Subscription, topics: Iterable[Topic]) -> None:
        """A subscriber listens to these no more. A channel that nobody listens to is forgotten."""
        for topic in list(topics):
            if topic not in subscription.topics:
                continue
            del subscription.topics[topic]
            channel = self.channels[topic.channel]
            listeners = channel.topics[topic.name]
            del listeners[subscription]
            if not listeners:
                del channel.topics[topic.name]
                if not channel.topics:
                    del self.channels[topic.channel]

    def forget(self, subscription: Subscription) -> None:
        """A subscriber has gone."""
        self.remove(subscription, subscription.topics)
        if subscription in self._subscriptions:
            del self._subscriptions[subscription]
            self.counts.subscribers -= 1

    def listens(self, channel: str, name: str) -> bool:
        """Whether anybody listens to a topic."""
        found = self.channels.get(channel)
        return found is not None and name in found.topics

    def publish(self, channel: str, name: str, parcel: Parcel) -> int:
        """Queue a parcel for everybody who listens to the topic. Says how many got it."""
        self.counts.published += 1
        found = self.channels.get(channel)
        listeners = None if found is None else found.topics.get(name)
        if not listeners:
            return 0
        reached = sum([subscription.put(parcel) for subscription in list(listeners)])
        self.counts.delivered += reached
        return reached

    def close(self, reason: str) -> None:
        """Close every subscription with a reason, and take no more."""
        self._closed = reason
        for subscription in list(self._subscriptions):
            subscription.close(reason)
