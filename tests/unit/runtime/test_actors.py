"""Where actors are: calls find their activation, answers wait for what was written, and what ends takes its calls with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.engine.inputs_actors import Activated, ActorActivated, ActorsReleased, ActorWrote, AlarmAnswered
from stepwell.errors import NotFound, StoreUnavailable
from stepwell.primitives.actor import AlarmFired, StaleActivation
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
)
from stepwell.runtime import actor_alarms, actors
from stepwell.runtime.actors import Actors


class Host:
    """A place that notes what it is told."""

    def __init__(self) -> None:
        self.takes_actors = True
        self.told: list[Any] = []

    def tell(self, message: Any) -> None:
        self.told.append(message)

    def last(self, kind: type[Any]) -> Any:
        return [message for message in self.told if isinstance(message, kind)][-1]


class Rig:
    """A router over two places, whose inputs a test answers."""

    def __init__(self) -> None:
        self.inputs: list[tuple[Any, asyncio.Future[Any]]] = []
        self.reader = Reader()
        self.actors = Actors(self._submit, lambda: self.reader, "node/1")  # type: ignore[arg-type, return-value]
        self.hosts = [Host(), Host()]
        self.fence = 0
        self.actors.serve([ActorKind("k")], self._places)

    def _places(self) -> list[Host]:
        return self.hosts

    def _submit(self, input: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.inputs.append((input, future))
        if isinstance(input, ActorActivated):
            self.fence += 1
            future.set_result(Activated(self.fence, None, ((f"of {self.fence}", b""),), True))
        return future

    def call(self, name: str = "x") -> asyncio.Future[bytes]:
        return asyncio.ensure_future(self.actors.call("k", name, "m", b"args"))

    def answer(self, host: Host, called: Any, result: bytes = b"ok", failure: ActorFailure | None = None) -> None:
        answered = ActorAnswered(activation=called.activation, call_id=called.call_id, result=result, failure=failure)
        self.actors.take(host, answered)

    def of(self, kind: type[Any]) -> list[tuple[Any, asyncio.Future[Any]]]:
        return [(input, future) for input, future in self.inputs if isinstance(input, kind)]


class Reader:
    """Some entries."""

    def __init__(self) -> None:
        self.alarms: tuple[tuple[str, str, int], ...] = ()
        self.entries: tuple[tuple[str, bytes], ...] = (("a", b"1" * 10), ("b", b"2" * 10), ("c", b"3" * 10))

    async def actor_values(self, kind: str, name: str, keys: tuple[str, ...]) -> Any:
        return tuple(entry for entry in self.entries if entry[0] in keys)

    async def actor_range(self, kind: str, name: str, wanted: Any) -> Any:
        return self.entries[: wanted.limit]

    async def held_alarms(self, holder: str) -> Any:
        return self.alarms


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def check(work: Callable[[Rig], Any]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work(Rig()), 10)

    asyncio.run(main())


def test_calls_of_one_actor_go_one_way_and_others_to_the_emptier_place() -> None:
    """One activation, told its snapshot before its calls, which come in order; a second actor lives where there are fewer."""

    async def work(rig: Rig) -> None:
        calls = [rig.call(), rig.call()]
        await settle()
        first = rig.hosts[0]
        opened, *called = first.told
        assert isinstance(opened, ActorOpened) and opened.fence == 1 and opened.snapshot.entries == (("of 1", b""),)
        assert [type(one) for one in called] == [ActorCalled, ActorCalled]
        rig.call("y")
        await settle()
        assert rig.hosts[1].last(ActorOpened).name == "y"
        for one in called:
            rig.answer(first, one)
        assert await asyncio.gather(*calls) == [b"ok", b"ok"]
        assert rig.actors.in_memory() == {"k": 2}
        with pytest.raises(NotFound, match="'nope'; here are: k"):
            await rig.actors.call("nope", "x", "m", b"")

    check(work)


def test_an_answer_waits_for_the_units_before_it() -> None:
    """It is given when they are stored; a failure's text waits as well."""

    async def work(rig: Rig) -> None:
        call = rig.call()
        await settle()
        host = rig.hosts[0]
        called = host.last(ActorCalled)
        for number in (1, 2):
            rig.actors.take(host, ActorStored(activation=called.activation, number=number, puts={"a": b"1"}))
        rig.answer(host, called, failure=ActorFailure(name="ValueError", message="no"))
        rig.actors.take(host, ActorSync(activation=called.activation, seq=7))
        await settle()
        (first, one), (second, two) = rig.of(ActorWrote)
        assert (first.fence, first.number, second.number) == (1, 1, 2)
        one.set_result(None)
        await settle()
        assert not call.done() and not [told for told in host.told if isinstance(told, ActorDurable)]
        two.set_result(None)
        with pytest.raises(ActorFailed, match="ValueError: no"):
            await call
        await settle()
        assert host.last(ActorDurable).seq == 7

    check(work)


def test_a_refused_unit_ends_the_activation() -> None:
    """Its calls fail, answered or not; the place is told; later units of it are told to nobody; the next call finds a new activation."""

    async def work(rig: Rig) -> None:
        held, open_ = rig.call(), rig.call()
        await settle()
        host = rig.hosts[0]
        first, _ = [message for message in host.told if isinstance(message, ActorCalled)]
        rig.actors.take(host, ActorStored(activation=first.activation, number=1, puts={"a": b"1"}))
        rig.answer(host, first)
        rig.of(ActorWrote)[0][1].set_exception(StaleActivation("elsewhere"))
        for call in (held, open_):
            with pytest.raises(ActorFailed, match="elsewhere"):
                await call
        assert host.last(ActorClosed).reason == "elsewhere"
        rig.actors.take(host, ActorStored(activation=first.activation, number=2, puts={"a": b"2"}))
        assert len(rig.of(ActorWrote)) == 1
        rig.call()
        await settle()
        assert host.last(ActorOpened).fence == 2

    check(work)


def test_a_place_that_is_gone_fails_its_calls_and_its_alarms() -> None:
    """A died process counts as the alarm's failure, one that was ended on purpose does not; a call that waits goes elsewhere."""

    async def work(rig: Rig) -> None:
        for taken, outcome in ((False, "failed"), (True, "lost")):
            name = f"x-{outcome}"
            call = rig.call(name)
            rig.actors.fire(AlarmFired("k", name, 3, 1000, 0))
            await settle()
            host = next(host for host in rig.hosts if any(isinstance(one, ActorAlarmed) for one in host.told))
            host.takes_actors = False
            later = rig.call(name)
            await settle()
            rig.actors.gone(host, "died with signal 9", taken=taken)
            with pytest.raises(ActorFailed, match="died with signal 9"):
                await call
            await settle()
            answered, _ = rig.of(AlarmAnswered)[-1]
            assert (answered.name, answered.firing, answered.outcome) == (name, 3, outcome)
            other = next(one for one in rig.hosts if one is not host)
            rig.answer(other, other.last(ActorCalled))
            assert await later == b"ok"
            host.takes_actors = True
            host.told.clear()
            rig.hosts = [host, Host()]

    check(work)


def test_a_call_waits_until_a_place_that_drains_has_let_go() -> None:
    """The old place ends what it has in hand; then the actor is activated elsewhere, with the next fence."""

    async def work(rig: Rig) -> None:
        first = rig.call()
        await settle()
        old, new = rig.hosts
        old.takes_actors = False
        second = rig.call()
        await settle()
        activation = old.last(ActorOpened).activation
        rig.actors.take(old, ActorsIdle(activations=(activation,)))
        assert not [one for one in old.told if isinstance(one, ActorClosed)], "it has a call in hand"
        rig.answer(old, old.last(ActorCalled))
        assert await first == b"ok"
        rig.actors.take(old, ActorsIdle(activations=(activation,)))
        await settle()
        assert old.last(ActorClosed).activation == activation
        assert new.last(ActorOpened).fence == 2
        rig.answer(new, new.last(ActorCalled), b"second")
        assert await second == b"second"

    check(work)


def test_calls_wait_for_a_place_where_there_is_none() -> None:
    """A process may be starting; when there is one they are made."""

    async def work(rig: Rig) -> None:
        for host in rig.hosts:
            host.takes_actors = False
        call = rig.call()
        await settle()
        assert rig.inputs == []
        rig.hosts[1].takes_actors = True
        rig.actors.changed()
        await settle()
        rig.answer(rig.hosts[1], rig.hosts[1].last(ActorCalled))
        assert await call == b"ok"

    check(work)


def test_what_a_reset_has_not_begun_goes_to_the_next_activation() -> None:
    """Calls that it answered have their answers; the others are made again, in their order."""

    async def work(rig: Rig) -> None:
        calls = [rig.call() for _ in range(3)]
        await settle()
        host = rig.hosts[0]
        first = host.last(ActorOpened).activation
        one = next(message for message in host.told if isinstance(message, ActorCalled))
        rig.answer(host, one, failure=ActorFailure(name="Error", message="aborted", reset=True))
        rig.actors.take(host, ActorReset(activation=first))
        await settle()
        with pytest.raises(ActorFailed, match="aborted"):
            await calls[0]
        anew = [message for message in host.told if isinstance(message, ActorCalled) and message.activation != first]
        assert [message.call_id for message in anew] == [one.call_id + 2, one.call_id + 3] or len(anew) == 2
        for message in anew:
            rig.answer(host, message)
        assert await asyncio.gather(*calls[1:]) == [b"ok", b"ok"]

    check(work)


def test_released_activations_are_told_together() -> None:
    """Idle ones leave at once, and are told to the store in one input."""

    async def work(rig: Rig) -> None:
        calls = [rig.call(name) for name in "abc"]
        await settle()
        for host in rig.hosts:
            for message in list(host.told):
                if isinstance(message, ActorCalled):
                    rig.answer(host, message)
        await asyncio.gather(*calls)
        for host in rig.hosts:
            rig.actors.take(host, ActorsIdle(activations=tuple(one.activation for one in host.told if isinstance(one, ActorOpened))))
        assert rig.actors.in_memory() == {"k": 0}
        rig.actors._release()
        ((released, _),) = rig.of(ActorsReleased)
        assert sorted(name for _, name, _ in released.actors) == ["a", "b", "c"]

    check(work)


def test_alarms_take_turns_and_wait_for_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many run at a time; those of a kind that nobody has wait until somebody does."""
    monkeypatch.setattr(actor_alarms, "ALARMS_MAX", 2)

    async def work(rig: Rig) -> None:
        for n in range(3):
            rig.actors.fire(AlarmFired("k", f"a{n}", 1, 1000, n))
        rig.actors.fire(AlarmFired("later", "z", 1, 1000, 0))
        await settle()

        def alarms() -> list[tuple[Host, Any]]:
            return [(host, one) for host in rig.hosts for one in host.told if isinstance(one, ActorAlarmed)]

        assert len(alarms()) == 2 and rig.actors.alarms_waiting == 2
        host, first = alarms()[0]
        rig.answer(host, first)
        await settle()
        assert rig.of(AlarmAnswered)[0][0].outcome == "ok"
        assert len(alarms()) == 3
        host, second = alarms()[1]
        rig.answer(host, second, failure=ActorFailure(name="E", message="m"))
        await settle()
        answered, _ = rig.of(AlarmAnswered)[1]
        assert answered.outcome == "failed" and answered.error is not None and b'"message":"m"' in answered.error
        rig.actors.serve([ActorKind("later")], lambda: rig.hosts)
        await settle()
        assert [one.scheduled_ms for _, one in alarms()] == [1000] * 4

    check(work)


def test_alarms_in_nobodys_hand_go_off_again() -> None:
    """Seen twice in a row; one that runs here is none of them."""

    async def work(rig: Rig) -> None:
        rig.reader.alarms = (("k", "a", 1), ("k", "b", 4))
        rig.actors.fire(AlarmFired("k", "a", 1, 1000, 0))
        await rig.actors.compare()
        await settle()
        assert rig.of(AlarmAnswered) == []
        await rig.actors.compare()
        ((answered, _),) = rig.of(AlarmAnswered)
        assert (answered.name, answered.firing, answered.outcome) == ("b", 4, "lost")

    check(work)


def test_reads_wait_for_what_was_written_and_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An activation reads its own writes; what is too much for a message is told to be more."""
    monkeypatch.setattr(actors, "READ_BYTES_MAX", 25)

    async def work(rig: Rig) -> None:
        rig.call()
        await settle()
        host = rig.hosts[0]
        activation = host.last(ActorOpened).activation
        rig.actors.take(host, ActorStored(activation=activation, number=1, puts={"a": b"1"}))
        rig.actors.take(host, ActorRead(activation=activation, seq=1, keys=("a", "b", "c")))
        await settle()
        assert not [one for one in host.told if isinstance(one, ActorEntries)]
        rig.of(ActorWrote)[0][1].set_result(None)
        await settle()
        entries = host.last(ActorEntries)
        assert ([key for key, _ in entries.entries], entries.more) == (["a", "b"], True)
        rig.actors.take(host, ActorRead(activation=activation, seq=2, start="", limit=1))
        await settle()
        assert (len(host.last(ActorEntries).entries), host.last(ActorEntries).more) == (1, True)

    check(work)


def test_a_stubs_call_comes_back_to_where_it_was_made() -> None:
    """Result, failure, and an error of the server's own."""

    async def work(rig: Rig) -> None:
        caller, home = Host(), rig.hosts[0]
        for seq, failure in ((1, None), (2, ActorFailure(name="E", message="m"))):
            rig.actors.take(caller, ActorAsked(seq=seq, kind="k", name="x", method="m", args=b""))
            await settle()
            rig.answer(home, home.last(ActorCalled), failure=failure)
            await settle()
        rig.actors.take(caller, ActorAsked(seq=3, kind="nope", name="x", method="m", args=b""))
        await settle()
        ok, failed, unknown = caller.told
        assert ok == ActorReturned(seq=1, result=b"ok") and failed.failure.name == "E"
        assert unknown.failure.name == "NotFound"
        await rig.actors.stop()
        with pytest.raises(StoreUnavailable):
            await rig.actors.call("k", "x", "m", b"")

    check(work)
