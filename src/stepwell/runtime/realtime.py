"""Realtime of a node: what apps publish, and what a run's own topics tell of its commits (inngest-protocol §5.11).

Nothing of it is stored: a message reaches whoever listens when it is published. What a run's topics tell follows the commit, and costs
nothing while nobody listens.
"""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from msgspec import UNSET, Raw, UnsetType

from stepwell.engine.model import Run, RunStatus, Step, StepStatus
from stepwell.engine.registry import Registry
from stepwell.engine.view import Changes
from stepwell.protocol.realtime import (
    MESSAGE_BYTES_MAX,
    RUN_TOPIC,
    STEP_TOPIC,
    STREAM_TOPIC,
    Kind,
    Message,
    Topic,
    encode_message,
    json_data,
)
from stepwell.runtime.clock import Clock
from stepwell.runtime.hub import Hub, Parcel, Subscription

RUN_WORDS = {
    RunStatus.QUEUED: "queued",
    RunStatus.RUNNING: "running",
    RunStatus.WAITING: "running",
    RunStatus.COMPLETED: "completed",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
    RunStatus.SKIPPED: "skipped",
}
"""A run's status as subscribers know it: one that sleeps or waits is running."""


EARLY_MS = 60_000
EARLY_BYTES_MAX = 8 * 1024 * 1024
"""What is teed to a channel that nobody listens to yet is kept so long, and so much of it in all: the client of a durable endpoint is told
where to listen in the moment in which the app goes on."""


class _Early(msgspec.Struct):
    """What was teed before anybody listened, until it is too old."""

    until_ms: float
    parts: list[bytes]
    size: int = 0


class RunData(msgspec.Struct, kw_only=True):
    """What `$run` tells: times in milliseconds since the epoch; output or error once it has ended, unless it is too large for a message."""

    id: str
    function_id: str
    status: str
    queued_ms: int
    started_ms: int | None
    ended_ms: int | None
    output: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class StepData(msgspec.Struct, kw_only=True):
    """What `$step` tells. `memo` is the step's result as it is stored, `{"data": …}` or `{"error": …}`, unless it is too large."""

    id: str
    name: str
    op: str
    status: str
    attempts: int
    queued_ms: int
    started_ms: int | None
    ended_ms: int | None
    memo: Raw | UnsetType = UNSET


class Realtime:
    """The hub of a node, with what gives its messages their times and ids."""

    def __init__(self, clock: Clock, new_id: Callable[[], str], registry: Callable[[], Registry], *, env_id: str = "") -> None:
        self.hub = Hub()
        self._clock, self._new_id, self._registry, self._env_id = clock, new_id, registry, env_id
        self._early: dict[str, _Early] = {}
        self._early_size = 0

    def subscribe(self, topics: Iterable[Topic]) -> Subscription:
        """Listen to topics."""
        subscription = self.hub.subscribe(())
        try:
            self.add(subscription, topics)
        except BaseException:
            subscription.close()
            raise
        return subscription

    def add(self, subscription: Subscription, topics: Iterable[Topic]) -> None:
        """Listen to these too; who comes first to a stream gets what was sent before."""
        topics = list(topics)
        subscription.add(topics)
        self._age()
        for topic in topics:
            if topic.name == STREAM_TOPIC and (early := self._early.pop(topic.channel, None)) is not None:
                self._early_size -= early.size
                subscription.put(Parcel(b"".join(early.parts), raw=True))

    def publish(self, channel: str, names: Iterable[str], data: Raw, *, run_id: str = "", metadata: Raw | UnsetType = UNSET) -> int:
        """Send data to whoever listens to these topics of a channel; says how many messages were queued."""
        return sum(self._send(channel, name, "data", data, run_id=run_id, metadata=metadata) for name in names)

    def stream(self, channel: str, names: Iterable[str], *, run_id: str = "", metadata: Raw | UnsetType = UNSET) -> Stream:
        """Send data in parts, from now until the stream is closed."""
        return Stream(self, channel, tuple(names), self._new_id, run_id, metadata)

    def tee(self, channel: str, body: bytes) -> int:
        """Forward bytes as they are to whoever listens to the channel's stream, or will in a moment."""
        if not self.hub.listens(channel, STREAM_TOPIC):
            early = self._early.get(channel)
            if early is None:
                early = self._early[channel] = _Early(self._clock.elapsed_ms() + EARLY_MS, [])
            early.parts.append(body)
            early.size += len(body)
            self._early_size += len(body)
            self._age()
        return self.hub.publish(channel, STREAM_TOPIC, Parcel(body, raw=True))

    def _age(self) -> None:
        """Forget what was teed long ago, and the oldest where there is too much."""
        now_ms = self._clock.elapsed_ms()
        while self._early and (self._early_size > EARLY_BYTES_MAX or next(iter(self._early.values())).until_ms <= now_ms):
            self._early_size -= self._early.pop(next(iter(self._early))).size

    def _send(
        self,
        channel: str,
        name: str,
        kind: Kind,
        data: Raw,
        *,
        run_id: str = "",
        stream_id: str = "",
        metadata: Raw | UnsetType = UNSET,
    ) -> int:
        if not self.hub.listens(channel, name):
            self.hub.counts.published += 1
            return 0
        message = Message(
            kind=kind,
            data=data,
            channel=channel,
            topic=name,
            run_id=run_id,
            env_id=self._env_id,
            stream_id=stream_id,
            metadata=metadata,
        )
        return self.hub.publish(channel, name, Parcel(encode_message(message, self._clock.now_ms())))

    # What runs tell.

    def tell(self, changes: Changes) -> None:
        """Tell of a commit to whoever listens to its runs: steps first, so that a run's end comes last."""
        if not self.hub.channels:
            return
        steps, runs = changes.tables.get("steps"), changes.tables.get("runs")
        for step in () if steps is None else (*steps.inserted, *steps.updated):
            if isinstance(step, Step) and self.hub.listens(step.run_id, STEP_TOPIC):
                self.hub.publish(step.run_id, STEP_TOPIC, self._step_parcel(step))
        for run in () if runs is None else (*runs.inserted, *runs.updated):
            if isinstance(run, Run) and self.hub.listens(run.id, RUN_TOPIC):
                channel = self.hub.channels[run.id]
                if channel.note != (noted := RUN_WORDS[run.status]):
                    channel.note = noted
                    self.hub.publish(run.id, RUN_TOPIC, self._run_parcel(run))

    async def greet(self, subscription: Subscription, run_id: str, read: Callable[[str], Awaitable[Run | None]]) -> None:
        """Tell how a run stands to somebody who has begun to listen to it: its end may have been before."""
        if (channel := self.hub.channels.get(run_id)) is None:
            return
        noted = channel.note
        run = await read(run_id)
        if run is not None and channel.note == noted:  # else what came meanwhile is newer than what was read
            channel.note = RUN_WORDS[run.status]
            subscription.put(self._run_parcel(run))

    def _run_parcel(self, run: Run) -> Parcel:
        data = RunData(
            id=run.id,
            function_id=run.function_id,
            status=RUN_WORDS[run.status],
            queued_ms=run.created_ms,
            started_ms=run.started_ms,
            ended_ms=run.ended_ms,
        )
        if run.output is not None and len(run.output) <= MESSAGE_BYTES_MAX:
            if run.status is RunStatus.FAILED:
                data.error = Raw(run.output)
            else:
                data.output = Raw(run.output)
        function = self._registry().functions.get(run.function_id)
        return self._own_parcel("run", run.id, RUN_TOPIC, json_data(data), "" if function is None else function.row.uuid, run.function_id)

    def _step_parcel(self, step: Step) -> Parcel:
        data = StepData(
            id=step.id,
            name=step.name,
            op=step.op,
            status=str(StepStatus(step.status)),
            attempts=step.attempts,
            queued_ms=step.queued_ms,
            started_ms=step.started_ms,
            ended_ms=step.ended_ms,
        )
        if step.memo is not None and len(step.memo) <= MESSAGE_BYTES_MAX:
            data.memo = Raw(step.memo)
        return self._own_parcel("step", step.run_id, STEP_TOPIC, json_data(data))

    def _own_parcel(self, kind: Kind, run_id: str, name: str, data: Raw, fn_id: str = "", fn_slug: str = "") -> Parcel:
        message = Message(
            kind=kind, data=data, channel=run_id, topic=name, run_id=run_id, fn_id=fn_id, fn_slug=fn_slug, env_id=self._env_id
        )
        return Parcel(encode_message(message, self._clock.now_ms()))


class Stream:
    """Data sent in parts: a start, chunks of text, an end. Each topic has a stream of its own."""

    def __init__(
        self,
        realtime: Realtime,
        channel: str,
        names: tuple[str, ...],
        new_id: Callable[[], str],
        run_id: str,
        metadata: Raw | UnsetType,
    ) -> None:
        self._realtime, self._channel, self._run_id, self._metadata = realtime, channel, run_id, metadata
        self._ids = {name: new_id() for name in names}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for name, stream_id in self._ids.items():
            self._send(name, "datastream-start", json_data(stream_id), stream_id)

    def write(self, part: bytes) -> None:
        """The next part. A character that is cut by the end of a part comes with the next one."""
        self._chunk(self._decoder.decode(part))

    def close(self) -> None:
        """No more is coming."""
        self._chunk(self._decoder.decode(b"", final=True))
        for name, stream_id in self._ids.items():
            self._send(name, "datastream-end", json_data(stream_id), stream_id)

    def _chunk(self, text: str) -> None:
        if text:
            for name, stream_id in self._ids.items():
                self._send(name, "chunk", json_data(text), stream_id)

    def _send(self, name: str, kind: Kind, data: Raw, stream_id: str) -> None:
        self._realtime._send(self._channel, name, kind, data, run_id=self._run_id, stream_id=stream_id, metadata=self._metadata)
