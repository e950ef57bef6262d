"""Where each actor is in memory: calls and alarms find its activation, or make one, and nothing leaves it before its writes are durable.

An actor has one activation at most, in one place. A call takes the way of its activation in order of arrival; while the actor is
being activated, or until a place that takes no more has let go of it, calls wait here. Answers wait for the units that were told
before them. When a place is gone, its calls fail, for calls are not stored; its running alarms are answered as lost or failed.
Nothing here knows what actors do, nor how their places are reached.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path

from stepwell.drivers.actors import ActorHost
from stepwell.engine.inputs_actors import RELEASED_MAX, Activated, ActorActivated, ActorsReleased, ActorWrote
from stepwell.errors import Error, NotFound, StoreUnavailable, UsageError
from stepwell.primitives.actor import AlarmFired
from stepwell.protocol.actors import (
    ActorAlarmed,
    ActorAnswered,
    ActorAsked,
    ActorCalled,
    ActorClosed,
    ActorDurable,
    ActorEntries,
    ActorFailed,
    ActorFailure,
    ActorKind,
    ActorOpened,
    ActorRead,
    ActorReset,
    ActorReturned,
    ActorsIdle,
    ActorStored,
    ActorSync,
    FromActors,
    Snapshot,
)
from stepwell.runtime.actor_alarms import LOST, Alarms, Submit, forget
from stepwell.store.base import EntryRange, Reader

RELEASE_S = 1.0
"""How long activations that have left memory wait for others, to be told of together."""

READ_BYTES_MAX = 16 * 1024 * 1024
"""What one message of entries holds; the others are asked for again."""


class _Call:
    """A call or an alarm on its way to an activation, in it, or held until its writes are durable."""

    __slots__ = ("alarm", "args", "chain", "future", "id", "method")

    def __init__(self, id: int, method: str, args: bytes, chain: tuple[str, ...], alarm: AlarmFired | None) -> None:
        self.id, self.method, self.args, self.chain, self.alarm = id, method, args, chain, alarm
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def fail(self, failure: ActorFailure) -> None:
        if not self.future.done():
            self.future.set_exception(ActorFailed(failure))


class _Place:
    """An actor that is in memory somewhere, or is about to be."""

    __slots__ = ("calls", "fence", "held", "host", "id", "kind", "name", "refused", "waiting", "write")

    def __init__(self, id: int, kind: str, name: str) -> None:
        self.id, self.kind, self.name = id, kind, name
        self.fence = 0
        self.host: ActorHost | None = None
        self.calls: dict[int, _Call] = {}
        """In the activation."""
        self.held: dict[int, _Call] = {}
        """Answered there, but not yet here."""
        self.waiting: deque[_Call] = deque()
        """For an activation."""
        self.write: asyncio.Future[object] | None = None
        """The last unit that is on its way to the store; those before it are stored before it."""
        self.refused = False


class Actors:
    """The actors of one node. `holder` is its epoch; `files`: the folder for those whose kind has SQL."""

    def __init__(
        self,
        submit: Submit,
        reader: Callable[[], Reader],
        holder: str,
        *,
        files: Path | None = None,
    ) -> None:
        self._submit, self._reader, self._holder, self.files = submit, reader, holder, files
        self._kinds: dict[str, tuple[ActorKind, Callable[[], Sequence[ActorHost]]]] = {}
        self._places: dict[tuple[str, str], _Place] = {}
        self._by_id: dict[int, _Place] = {}
        self._load: dict[ActorHost, dict[int, _Place]] = {}
        self._homeless: dict[tuple[str, str], None] = {}
        self._alarms = Alarms(submit, reader, holder, self._ring)
        self._released: list[tuple[str, str, int]] = []
        self._releasing: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)
        self._stopped = False

    # Figures.

    @property
    def kinds(self) -> list[str]:
        """The kinds that live on this node."""
        return sorted(self._kinds)

    def in_memory(self) -> dict[str, int]:
        """How many actors of each kind are in memory."""
        counts = dict.fromkeys(self._kinds, 0)
        for place in self._places.values():
            counts[place.kind] = counts.get(place.kind, 0) + 1
        return counts

    @property
    def alarms_waiting(self) -> int:
        """Alarms that have gone off and wait for their turn."""
        return self._alarms.waiting

    # Life.

    def serve(self, kinds: Iterable[ActorKind], hosts: Callable[[], Sequence[ActorHost]]) -> None:
        """These kinds live in these places, and in no others any more."""
        self._kinds = {kind: served for kind, served in self._kinds.items() if served[1] != hosts}
        for kind in kinds:
            self._kinds[kind.id] = (kind, hosts)
            self._alarms.served(kind.id)
        self.changed()

    def changed(self) -> None:
        """A place may take actors that took none before."""
        homeless, self._homeless = self._homeless, {}
        for key in homeless:
            place = self._places.get(key)
            if place is not None and place.host is None:
                self._activate(place)
        self._alarms.go_on()

    async def stop(self) -> None:
        """Fail the calls that are out, and tell of the activations that are left."""
        self._stopped = True
        self._alarms.stop()
        failure = ActorFailure(name="ActorLost", message="the server is being stopped")
        for place in list(self._places.values()):
            self._leave(place)
            for call in (*place.calls.values(), *place.held.values(), *place.waiting):
                call.fail(failure)
        if self._releasing is not None:
            self._releasing.cancel()
        self._release()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Calls.

    async def call(self, kind: str, name: str, method: str, args: bytes, chain: tuple[str, ...] = ()) -> bytes:
        """Call an actor's method, wherever it is. Raises `ActorFailed` with what it raised, `NotFound` for a kind that is not here."""
        if self._stopped:
            raise StoreUnavailable("the server is being stopped")
        if kind in self._kinds and self._kinds[kind][0].sql and self.files is None:
            raise UsageError(f"actors of kind {kind!r} have SQL, and their files need a folder beside a database file: there is none here")
        if kind not in self._kinds:
            here = ", ".join(sorted(self._kinds)) or "none"
            raise NotFound(
                f"there are no actors of kind {kind!r}; here are: {here}. Actors live in an app that the server runs "
                "(stepwell dev app.py, stepwell start app.py), or in an engine of one's own process"
            )
        call = _Call(next(self._numbers), method, args, chain, None)
        self._give(kind, name, call)
        return await call.future

    def fire(self, fired: AlarmFired) -> None:
        """An alarm goes off."""
        self._alarms.fire(fired)

    async def compare(self) -> None:
        """Have alarms go off again that the store has as running here, and that are not."""
        await self._alarms.compare()

    def _ring(self, fired: AlarmFired) -> asyncio.Future[bytes] | None:
        """Give an alarm to its actor; `None` where its kind is not here."""
        if fired.kind not in self._kinds:
            return None
        call = _Call(next(self._numbers), "alarm", b"", (), fired)
        self._give(fired.kind, fired.name, call)
        return call.future

    def _give(self, kind: str, name: str, call: _Call) -> None:
        place = self._places.get((kind, name))
        if place is None:
            place = _Place(next(self._numbers), kind, name)
            self._places[kind, name] = place
            place.waiting.append(call)
            self._activate(place)
        elif place.host is None or not place.host.takes_actors:
            # Being activated; or its place lets it go as soon as it has done what it has in hand.
            place.waiting.append(call)
        else:
            self._send(place, place.host, call)

    def _send(self, place: _Place, host: ActorHost, call: _Call) -> None:
        place.calls[call.id] = call
        if call.alarm is None:
            host.tell(ActorCalled(activation=place.id, call_id=call.id, method=call.method, args=call.args, chain=call.chain))
        else:
            fired = call.alarm
            host.tell(ActorAlarmed(activation=place.id, call_id=call.id, scheduled_ms=fired.scheduled_ms, retry_count=fired.retry_count))

    # Activations.

    def _activate(self, place: _Place) -> None:
        if self._host_for(place.kind) is None:
            self._homeless[place.kind, place.name] = None
            return
        self._task(self._activated(place))

    async def _activated(self, place: _Place) -> None:
        try:
            reply = await self._submit(ActorActivated(place.kind, place.name, self._holder))
        except Exception as error:
            self._drop(place)
            for call in place.waiting:
                call.fail(failure_of(error))
            return
        assert isinstance(reply, Activated)
        host = self._host_for(place.kind)
        if host is None:
            self._homeless[place.kind, place.name] = None
            return
        place.fence, place.host = reply.fence, host
        self._by_id[place.id] = place
        self._load.setdefault(host, {})[place.id] = place
        kind, _ = self._kinds[place.kind]
        host.tell(
            ActorOpened(
                activation=place.id,
                kind=place.kind,
                name=place.name,
                fence=place.fence,
                snapshot=Snapshot(alarm_ms=reply.alarm_ms, entries=reply.entries, whole=reply.whole),
                path=str(file_of(self.files, place.kind, place.name)) if kind.sql and self.files is not None else "",
            )
        )
        while place.waiting:
            self._send(place, host, place.waiting.popleft())

    def _host_for(self, kind: str) -> ActorHost | None:
        """The place with the fewest actors."""
        served = self._kinds.get(kind)
        if served is None:
            return None
        takers = [host for host in served[1]() if host.takes_actors]
        return min(takers, key=lambda host: len(self._load.get(host, ())), default=None)

    def _leave(self, place: _Place) -> None:
        """The activation is over."""
        self._drop(place)
        self._by_id.pop(place.id, None)
        if place.host is not None:
            of_host = self._load.get(place.host)
            if of_host is not None:
                of_host.pop(place.id, None)
        if place.fence:
            self._released.append((place.kind, place.name, place.fence))
            if len(self._released) >= RELEASED_MAX:
                self._release()
            elif self._releasing is None and not self._stopped:
                self._releasing = asyncio.get_running_loop().call_later(RELEASE_S, self._release)

    def _drop(self, place: _Place) -> None:
        if self._places.get((place.kind, place.name)) is place:
            del self._places[place.kind, place.name]

    def _again(self, place: _Place) -> None:
        """Calls that no activation has begun go to the next one."""
        for call in place.waiting:
            if not call.future.done():
                self._give(place.kind, place.name, call)

    def _release(self) -> None:
        self._releasing = None
        while self._released:
            batch, self._released = tuple(self._released[:RELEASED_MAX]), self._released[RELEASED_MAX:]
            forget(self._submit(ActorsReleased(batch)))

    def gone(self, host: ActorHost, why: str, *, taken: bool) -> None:
        """A place is no more: its calls fail, and its alarms too, where what ran there may have been the reason."""
        failure = ActorFailure(name=LOST if taken else DIED, message=f"the process that the actor lived in {why}", reset=True)
        for place in list(self._load.pop(host, {}).values()):
            self._leave(place)
            for call in place.calls.values():
                call.fail(failure)
            self._again(place)

    # What places tell.

    def take(self, host: ActorHost, message: FromActors) -> None:
        """A place tells something; of an activation that is over, nothing counts."""
        match message:
            case ActorAsked():
                self._task(self._asked(host, message))
                return
            case ActorsIdle():
                for activation in message.activations:
                    idle = self._by_id.get(activation)
                    if idle is not None and idle.host is host and not idle.calls:
                        self._leave(idle)
                        host.tell(ActorClosed(activation=activation))
                        self._again(idle)
                return
            case _:
                place = self._by_id.get(message.activation)
                if place is None or place.host is not host:
                    return
        match message:
            case ActorAnswered():
                self._on_answered(place, message)
            case ActorStored():
                self._on_stored(place, message)
            case ActorRead():
                self._task(self._read(place, host, message))
            case ActorSync():
                self._task(self._sync(place, host, message))
            case ActorReset():
                self._leave(place)
                # What it has not answered it has not begun.
                place.waiting.extendleft(reversed(list(place.calls.values())))
                self._again(place)

    async def _asked(self, host: ActorHost, asked: ActorAsked) -> None:
        """A stub's call."""
        try:
            result = await self.call(asked.kind, asked.name, asked.method, asked.args, asked.chain)
        except ActorFailed as failed:
            host.tell(ActorReturned(seq=asked.seq, failure=failed.failure))
        except Error as error:
            host.tell(ActorReturned(seq=asked.seq, failure=failure_of(error)))
        else:
            host.tell(ActorReturned(seq=asked.seq, result=result))

    def _on_answered(self, place: _Place, answered: ActorAnswered) -> None:
        call = place.calls.pop(answered.call_id, None)
        if call is None:
            return
        if place.write is None or place.write.done():
            self._settle(place, call, answered)
        else:
            place.held[call.id] = call
            place.write.add_done_callback(lambda _: self._settle(place, call, answered))

    def _settle(self, place: _Place, call: _Call, answered: ActorAnswered) -> None:
        """What was written before the answer is durable, or was refused: then its caller has been told so."""
        place.held.pop(call.id, None)
        if call.future.done() or place.refused:
            return
        if answered.failure is not None:
            call.fail(answered.failure)
        else:
            call.future.set_result(answered.result)

    def _on_stored(self, place: _Place, stored: ActorStored) -> None:
        wrote = ActorWrote(
            kind=place.kind,
            name=place.name,
            fence=place.fence,
            number=stored.number,
            puts=tuple(stored.puts.items()),
            deletes=stored.deletes,
            clear=stored.clear,
            alarm=stored.alarm,
        )
        place.write = self._submit(wrote)
        place.write.add_done_callback(lambda future: self._on_written(place, future))

    def _on_written(self, place: _Place, future: asyncio.Future[object]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None or place.refused:
            return
        # Its memory is ahead of the store: nothing that it says counts any more, and its next activation reads what is stored.
        place.refused = True
        failure = failure_of(error)
        self._leave(place)
        if place.host is not None:
            place.host.tell(ActorClosed(activation=place.id, reason=failure.message))
        for call in (*place.calls.values(), *place.held.values()):
            call.fail(failure)
        self._again(place)

    async def _read(self, place: _Place, host: ActorHost, asked: ActorRead) -> None:
        await self._written(place)
        reader, more = self._reader(), False
        try:
            if asked.keys is not None:
                entries = await reader.actor_values(place.kind, place.name, asked.keys)
            else:
                wanted = EntryRange(start=asked.start, end=asked.end, reverse=asked.reverse, limit=asked.limit)
                entries = await reader.actor_range(place.kind, place.name, wanted)
                more = len(entries) == asked.limit
        except StoreUnavailable as error:
            # The activation cannot go on without: its callers are told, and the next one tries again.
            if not place.refused:
                refused: asyncio.Future[object] = asyncio.get_running_loop().create_future()
                refused.set_exception(error)
                self._on_written(place, refused)
            return
        told = within(entries, READ_BYTES_MAX)
        host.tell(ActorEntries(activation=place.id, seq=asked.seq, entries=told, more=more or len(told) < len(entries)))

    async def _sync(self, place: _Place, host: ActorHost, asked: ActorSync) -> None:
        await self._written(place)
        if not place.refused:
            host.tell(ActorDurable(activation=place.id, seq=asked.seq))

    @staticmethod
    async def _written(place: _Place) -> None:
        """Wait until what was told so far is stored, or was refused."""
        if place.write is not None:
            await asyncio.wait([place.write])

    def _task(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


DIED = "ActorDied"
"""The name of a failure that says that the actor's process ended by itself."""


def file_of(folder: Path, kind: str, name: str) -> Path:
    """The file of an actor. A name may be any text: its hash may stand in a path."""
    return folder.absolute() / kind / f"{hashlib.sha256(name.encode()).hexdigest()}.sqlite"


def within(entries: tuple[tuple[str, bytes], ...], bytes_max: int) -> tuple[tuple[str, bytes], ...]:
    """The first entries, so many that they go into a message together; one at least."""
    size = 0
    for i, (_, value) in enumerate(entries):
        size += len(value)
        if i and size > bytes_max:
            return entries[:i]
    return entries


def failure_of(error: BaseException) -> ActorFailure:
    """An error of the engine's, for the caller of an actor."""
    return ActorFailure(name=type(error).__name__, message=str(error), type=f"{type(error).__module__}:{type(error).__name__}", reset=True)
