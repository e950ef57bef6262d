"""The activations of one process: what the server tells goes to them, what they tell goes to the server. Idle ones offer to leave."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import count

from stepwell.errors import Superseded
from stepwell.protocol.actors import (
    ActorAlarmed,
    ActorCalled,
    ActorClosed,
    ActorDurable,
    ActorEntries,
    ActorOpened,
    ActorRead,
    ActorReturned,
    ActorsIdle,
    ActorStored,
    ActorSync,
    FromActors,
    ToActors,
)
from stepwell.sdk.actors.activation import Activation, Kind
from stepwell.sdk.actors.memory import Entries, Unit

IDLE_S = 10.0
"""How long an actor stays in memory with nothing to do."""

SWEEP_S = 1.0
"""How often the idle ones are looked for."""


class ServerLink:
    """The storage of one activation: the server's rows."""

    def __init__(self, activation: int, emit: Callable[[FromActors], None], numbers: count[int]) -> None:
        self._activation, self._emit, self._numbers = activation, emit, numbers
        self._asked: dict[int, asyncio.Future[tuple[Entries, bool]]] = {}

    def store(self, unit: Unit) -> None:
        """Tell it."""
        self._emit(
            ActorStored(
                activation=self._activation,
                number=unit.number,
                puts={key: value for key, value in unit.puts.items() if value is not None},
                deletes=tuple(key for key, value in unit.puts.items() if value is None),
                clear=unit.clear,
                alarm=unit.alarm,
            )
        )

    async def sync(self) -> None:
        """Ask the server."""
        seq, future = self._ask()
        self._emit(ActorSync(activation=self._activation, seq=seq))
        await future

    async def values(self, keys: tuple[str, ...]) -> tuple[Entries, bool]:
        """Ask the server."""
        seq, future = self._ask()
        self._emit(ActorRead(activation=self._activation, seq=seq, keys=keys))
        return await future

    async def range(self, start: str, end: str | None, reverse: bool, limit: int) -> tuple[Entries, bool]:
        """Ask the server."""
        seq, future = self._ask()
        self._emit(ActorRead(activation=self._activation, seq=seq, start=start, end=end, reverse=reverse, limit=limit))
        return await future

    def _ask(self) -> tuple[int, asyncio.Future[tuple[Entries, bool]]]:
        seq = next(self._numbers)
        future: asyncio.Future[tuple[Entries, bool]] = asyncio.get_running_loop().create_future()
        self._asked[seq] = future
        return seq, future

    def answer(self, seq: int, entries: Entries, more: bool = False) -> None:
        """The server has answered."""
        future = self._asked.pop(seq, None)
        if future is not None and not future.done():
            future.set_result((entries, more))

    def close(self) -> None:
        """It answers no more."""
        for future in self._asked.values():
            if not future.done():
                future.set_exception(Superseded("this activation of the actor is over"))
                future.exception()
        self._asked.clear()


class Hosting:
    """The actors of this process. `emit` tells the server; `on_less` is told when one has left."""

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        emit: Callable[[FromActors], None],
        *,
        now_ms: Callable[[], int],
        on_less: Callable[[], None] | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        self._kinds, self._emit, self._now_ms, self._on_less, self._idle_s = kinds, emit, now_ms, on_less, idle_s
        self._loop = asyncio.get_running_loop()
        self._here: OrderedDict[int, tuple[Activation, ServerLink]] = OrderedDict()
        self._since: dict[int, float] = {}
        self._numbers = count(1)
        self._sweeping: asyncio.TimerHandle | None = None
        self._draining = False

    def __len__(self) -> int:
        return len(self._here)

    def take(self, message: ToActors) -> None:
        """The server tells something; of an activation that is over, nothing counts."""
        if isinstance(message, ActorOpened):
            self._open(message)
            return
        if isinstance(message, ActorReturned):
            return
        found = self._here.get(message.activation)
        if found is None:
            return
        activation, link = found
        match message:
            case ActorCalled() | ActorAlarmed():
                activation.deliver(message)
            case ActorEntries(seq=seq, entries=entries, more=more):
                link.answer(seq, list(entries), more)
            case ActorDurable(seq=seq):
                link.answer(seq, [])
            case ActorClosed():
                self._forget(activation)
                activation.close()

    def _open(self, opened: ActorOpened) -> None:
        link = ServerLink(opened.activation, self._emit, self._numbers)
        activation = Activation(
            opened,
            self._kinds[opened.kind],
            link,
            emit=self._emit,
            now_ms=self._now_ms,
            on_end=self._touch,
            on_over=self._forget,
        )
        self._here[opened.activation] = (activation, link)
        self._touch(activation)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    def _touch(self, activation: Activation) -> None:
        if activation.id in self._here:
            self._since[activation.id] = self._loop.time()
            self._here.move_to_end(activation.id)
            if self._draining and activation.is_idle:
                self._emit(ActorsIdle(activations=(activation.id,)))

    def _forget(self, activation: Activation) -> None:
        found = self._here.pop(activation.id, None)
        if found is not None:
            del self._since[activation.id]
            found[1].close()
            if self._on_less is not None:
                self._on_less()

    def _sweep(self) -> None:
        """Offer to leave, where nothing has been going on for a while. The server has the last word, since a call may be on its way."""
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep) if self._here else None
        until = self._loop.time() - self._idle_s
        idle: list[int] = []
        for number, (activation, _) in list(self._here.items()):
            if self._since[number] > until:
                break
            self._touch(activation)
            if activation.is_idle:
                idle.append(number)
        if idle:
            self._emit(ActorsIdle(activations=tuple(idle)))

    def drain(self) -> None:
        """Let actors leave as soon as they have done what they have in hand."""
        self._draining = True
        idle = tuple(number for number, (activation, _) in self._here.items() if activation.is_idle)
        if idle:
            self._emit(ActorsIdle(activations=idle))

    async def close(self) -> None:
        """Take down what is left."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for activation, _ in list(self._here.values()):
            self._forget(activation)
            activation.close()
        await asyncio.sleep(0)
