"""What an activation lets in at the same time, by turns and by gates; how it ends itself; what it tells, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stepwell.protocol.actors import (
    ActorAlarmed,
    ActorAnswered,
    ActorCalled,
    ActorClosed,
    ActorDurable,
    ActorEntries,
    ActorOpened,
    ActorRead,
    ActorReset,
    ActorsIdle,
    ActorStored,
    ActorSync,
    Snapshot,
)
from stepwell.sdk.actors.activation import Activation, current
from stepwell.sdk.actors.hosting import Hosting

Method = Callable[[Activation, bytes], Awaitable[bytes]]


class Thing:
    """A kind whose methods are given by a test."""

    id = "k"
    sql = False

    def __init__(self, gates: bool, **methods: Method) -> None:
        self.gates, self.methods = gates, methods
        self.made = 0
        self.on_make: Callable[[Activation], None] = lambda activation: None

    def make(self, activation: Activation) -> Any:
        self.made += 1
        self.on_make(activation)
        return activation

    async def started(self, instance: Any) -> None:
        return None

    async def invoke(self, instance: Any, method: str, args: bytes) -> bytes:
        return await self.methods[method](instance, args)

    async def alarm(self, instance: Any, scheduled_ms: int, retry_count: int) -> None:
        await self.methods["alarm"](instance, b"")


class Rig:
    """A place with one actor, and all that it tells."""

    def __init__(self, kind: Thing, *, entries: tuple[tuple[str, bytes], ...] = (), whole: bool = True) -> None:
        self.told: list[Any] = []
        self.hosting = Hosting({"k": kind}, self.told.append, now_ms=lambda: 1000)
        self.calls = 0
        self.hosting.take(ActorOpened(activation=1, kind="k", name="x", fence=5, snapshot=Snapshot(entries=entries, whole=whole)))

    def call(self, method: str, args: bytes = b"", chain: tuple[str, ...] = ()) -> int:
        self.calls += 1
        self.hosting.take(ActorCalled(activation=1, call_id=self.calls, method=method, args=args, chain=chain))
        return self.calls

    async def settle(self) -> None:
        """Let everything come to where it waits."""
        for _ in range(20):
            await asyncio.sleep(0)

    def answers(self) -> dict[int, Any]:
        return {one.call_id: one.failure or one.result for one in self.told if isinstance(one, ActorAnswered)}


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


async def read_wait_write(activation: Activation, args: bytes) -> bytes:
    """Loses an update where another one is let in between."""
    count = int(await activation.memory.value("n") or b"0")
    if args:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    activation.memory.put("n", b"%d" % (count + 1))
    return b"%d" % (count + 1)


@pytest.mark.parametrize(
    "gates, args, whole, ends",
    [
        (False, b"timer", True, b"2"),
        (True, b"", True, b"2"),
        (True, b"timer", True, b"1"),
        (True, b"", False, b"2"),
    ],
)
def test_two_calls_that_read_and_write(gates: bool, args: bytes, whole: bool, ends: bytes) -> None:
    """By turns both count; by gates both count where they wait for the storage only, and one is lost over another wait."""

    async def main() -> None:
        rig = Rig(Thing(gates, count=read_wait_write), whole=whole)
        rig.call("count", args)
        rig.call("count", args)
        await rig.settle()
        for read in [one for one in rig.told if isinstance(one, ActorRead)]:
            rig.hosting.take(ActorEntries(activation=1, seq=read.seq))
            await rig.settle()
        assert set(rig.answers()) == {1, 2}
        assert rig.answers()[2] == ends

    run(main())


def test_gates_let_calls_in_while_one_waits_for_something_else() -> None:
    """A second call runs while the first waits; blocking keeps it out until the block ends."""
    opened, log = asyncio.Event(), []

    async def slow(activation: Activation, args: bytes) -> bytes:
        async def work() -> None:
            log.append("begin")
            await opened.wait()
            log.append("end")

        if args:
            await activation.block_concurrency_while(work)
        else:
            await work()
        return b""

    async def quick(activation: Activation, args: bytes) -> bytes:
        log.append("quick")
        return b""

    async def main() -> None:
        for args, expected in ((b"", ["begin", "quick", "end"]), (b"block", ["begin", "end", "quick"])):
            opened.clear()
            log.clear()
            rig = Rig(Thing(True, slow=slow, quick=quick))
            rig.call("slow", args)
            rig.call("quick")
            await rig.settle()
            opened.set()
            await rig.settle()
            assert log == expected

    run(main())


def test_a_write_is_told_before_the_answer() -> None:
    """The unit goes before the answer, also where the turn ends without another await; what follows is told after."""

    async def write(activation: Activation, args: bytes) -> bytes:
        activation.memory.put("a", b"1")
        return b"done"

    async def main() -> None:
        rig = Rig(Thing(False, write=write))
        rig.call("write")
        await rig.settle()
        kinds = [type(one) for one in rig.told]
        assert kinds == [ActorStored, ActorAnswered]

    run(main())


def test_an_alarm_waits_for_the_turn_and_knows_that_it_runs() -> None:
    """By turns it comes after the call that is under way. While it runs none is pending; a failed one is pending again."""
    opened, seen = asyncio.Event(), []

    async def slow(activation: Activation, args: bytes) -> bytes:
        activation.memory.set_alarm(1000)
        await opened.wait()
        seen.append("call")
        return b""

    async def alarm(activation: Activation, args: bytes) -> bytes:
        seen.append(activation.memory.alarm_ms)
        raise ValueError("no")

    async def main() -> None:
        rig = Rig(Thing(False, slow=slow, alarm=alarm))
        rig.call("slow")
        await rig.settle()
        rig.hosting.take(ActorAlarmed(activation=1, call_id=99, scheduled_ms=1000))
        await rig.settle()
        assert seen == []
        opened.set()
        await rig.settle()
        assert seen == ["call", None]
        assert rig.answers()[99].name == "ValueError"
        ((activation, _),) = rig.hosting._here.values()
        assert activation.memory.alarm_ms == 1000

    run(main())


def test_an_abort_fails_what_is_under_way_and_loses_what_is_not_told() -> None:
    """An awaited put of the same turn is lost; one before another await is kept. The activation is reset."""
    forever = asyncio.Event()

    async def wait(activation: Activation, args: bytes) -> bytes:
        await forever.wait()
        return b""

    async def abort(activation: Activation, args: bytes) -> bytes:
        activation.memory.put("kept", b"1")
        await asyncio.sleep(0)
        activation.memory.put("lost", b"1")
        activation.abort(RangeError("my abort"))

    async def main() -> None:
        rig = Rig(Thing(True, wait=wait, abort=abort))
        rig.call("wait")
        rig.call("abort")
        await rig.settle()
        assert [one.puts for one in rig.told if isinstance(one, ActorStored)] == [{"kept": b"1"}]
        for failure in rig.answers().values():
            assert (failure.name, failure.message, failure.reset) == ("Error", "RangeError: my abort", True)
        assert set(rig.answers()) == {1, 2}
        assert isinstance(rig.told[-1], ActorReset)
        assert len(rig.hosting) == 0

    run(main())


class RangeError(Exception):
    """An error by another name."""


@pytest.mark.parametrize("where", ["constructor", "block", "block in the constructor"])
def test_what_fails_while_it_comes_to_life_resets_it(where: str) -> None:
    """Every call that waits fails with that error; the server is told, and will try anew."""

    async def fail() -> None:
        raise RangeError("not today")

    async def block(activation: Activation, args: bytes) -> bytes:
        await activation.block_concurrency_while(fail)
        return b""

    async def main() -> None:
        kind = Thing(True, block=block)
        if where == "constructor":

            def broken(activation: Activation) -> None:
                raise RangeError("not today")

            kind.on_make = broken
        elif where == "block in the constructor":
            kind.on_make = lambda activation: activation.block_while(fail()) and None
        rig = Rig(kind)
        rig.call("block")
        await rig.settle()
        (failure,) = rig.answers().values()
        assert (failure.name, failure.message, failure.reset) == ("RangeError", "not today", True)
        assert isinstance(rig.told[-1], ActorReset)

    run(main())


def test_blocking_in_the_constructor_holds_the_first_call() -> None:
    """What is set up there is there."""

    async def look(activation: Activation, args: bytes) -> bytes:
        return await activation.memory.value("setup") or b"nothing"

    async def main() -> None:
        kind = Thing(True, look=look)

        async def set_up(activation: Activation) -> None:
            await asyncio.sleep(0)
            activation.memory.put("setup", b"done")

        kind.on_make = lambda activation: activation.block_while(set_up(activation)) and None
        rig = Rig(kind)
        rig.call("look")
        await rig.settle()
        assert rig.answers() == {1: b"done"}

    run(main())


def test_a_call_of_the_same_chain_is_let_in() -> None:
    """By turns: one whose chain names the turn that is under way enters at once, another one waits."""
    opened, ids = asyncio.Event(), []

    async def outer(activation: Activation, args: bytes) -> bytes:
        turn = current.get()
        assert turn is not None
        ids.append(turn.onward)
        await opened.wait()
        return b""

    async def inner(activation: Activation, args: bytes) -> bytes:
        return args

    async def main() -> None:
        rig = Rig(Thing(False, outer=outer, inner=inner))
        rig.call("outer", chain=("far",))
        await rig.settle()
        assert ids == [("far", "1.5.1")]
        rig.call("inner", b"other", chain=("far",))
        rig.call("inner", b"back", chain=ids[0])
        await rig.settle()
        assert rig.answers() == {3: b"back"}
        opened.set()
        await rig.settle()
        assert rig.answers() == {1: b"", 2: b"other", 3: b"back"}

    run(main())


def test_an_idle_actor_offers_to_leave_and_a_busy_one_does_not() -> None:
    """While it drains, each offers as soon as it has nothing to do; the server's word ends it."""
    opened = asyncio.Event()

    async def slow(activation: Activation, args: bytes) -> bytes:
        activation.wait_until(opened.wait())
        return b""

    async def main() -> None:
        rig = Rig(Thing(False, slow=slow))
        rig.call("slow")
        await rig.settle()
        rig.hosting.drain()
        assert not [one for one in rig.told if isinstance(one, ActorsIdle)]
        opened.set()
        await rig.settle()
        assert rig.told[-1] == ActorsIdle(activations=(1,))
        rig.hosting.take(ActorClosed(activation=1))
        assert len(rig.hosting) == 0

    run(main())


def test_what_leaves_waits_until_what_was_written_is_durable() -> None:
    """`sync` ends the unit and asks the server; it asks nothing where all is durable."""

    async def sync(activation: Activation, args: bytes) -> bytes:
        activation.memory.put("a", b"1")
        await activation.memory.durable()
        await activation.memory.durable()
        return b"synced"

    async def main() -> None:
        rig = Rig(Thing(False, sync=sync))
        rig.call("sync")
        await rig.settle()
        stored, asked = rig.told
        assert isinstance(stored, ActorStored) and isinstance(asked, ActorSync)
        rig.hosting.take(ActorDurable(activation=1, seq=asked.seq))
        await rig.settle()
        assert rig.answers() == {1: b"synced"}
        assert len([one for one in rig.told if isinstance(one, ActorSync)]) == 1

    run(main())
