"""Actors as users write them, on a real engine in this process: units, turns, errors, alarms, leaving memory and coming back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import stepwell
from stepwell import embedded
from stepwell.engine.inputs_actors import ActorWrote
from stepwell.errors import UsageError
from stepwell.primitives import actor as machine
from stepwell.sdk.actors import hosting
from stepwell.store.base import EntryRange
from stepwell.store.memory import MemoryStore
from stepwell.userdb.connection import UserDatabase

WAIT_S = 10.0


class Refused(Exception):
    """An error of the app's own."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(f"refused: {reason}")
        self.reason, self.code = reason, code


class Rig:
    """An app with actors, its engine, and the units that were stored."""

    def __init__(self) -> None:
        self.app = stepwell.App("rig")
        self.log: list[Any] = []
        self.units: list[ActorWrote] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.engine: embedded.Engine

    def gate(self, name: str) -> asyncio.Event:
        """An event that a test opens."""
        return self.gates.setdefault(name, asyncio.Event())

    @asynccontextmanager
    async def running(self, store: MemoryStore | None = None, db: Path | None = None) -> AsyncIterator[embedded.Engine]:
        """The engine, over rows that stay where a store is given."""
        async with embedded.engine(self.app, store=store, db=db) as engine:
            self.engine = engine
            submit = engine.node.actors._submit

            def watched(input: Any) -> Any:
                if isinstance(input, ActorWrote):
                    self.units.append(input)
                return submit(input)

            engine.node.actors._submit = watched
            yield engine

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition, looking whenever the loop has done something."""
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
                await asyncio.sleep(0.005)
        assert condition(), what


@pytest.fixture
def rig() -> Rig:
    return Rig()


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def test_what_is_written_without_another_await_is_one_unit(rig: Rig) -> None:
    """Storage awaits do not end a unit, the alarm is part of it; another await does end it."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def write(self) -> None:
            await self.storage.put("a", 1)
            await self.storage.put({"b": 2, "c": await self.storage.get("a")})
            await self.storage.delete("b")
            await self.set_alarm("1h")
            await asyncio.sleep(0)
            await self.storage.put("d", 4)

        async def alarm(self, info: stepwell.AlarmInfo) -> None: ...

    async def main() -> None:
        async with rig.running():
            await Thing["x"].write()
            first, second = rig.units
            assert (dict(first.puts), first.deletes) == ({"a": b"1", "c": b"1"}, ("b",))
            assert isinstance(first.alarm, int)
            assert dict(second.puts) == {"d": b"4"}
            assert (first.number, second.number) == (1, 2)

    run(main())


def test_an_answer_leaves_when_its_writes_are_durable(rig: Rig) -> None:
    """However fast the next turn begins, nobody hears of what is not stored; what a turn sends is behind its writes as well."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def write(self) -> int:
            count: int = await self.storage.get("n", 0) + 1
            await self.storage.put("n", count)
            return count

        async def send(self) -> None:
            await self.storage.put("sent", True)
            await rig.app.send("thing/sent", {})

    async def main() -> None:
        async with rig.running() as engine:
            stored: list[str] = []
            node_submit = engine.node.submit

            def submit(input: Any) -> Any:
                future = node_submit(input)
                if isinstance(input, ActorWrote):
                    future.add_done_callback(lambda _: stored.append(input.puts[0][1].decode()))
                return future

            engine.node.actors._submit = submit
            calls = [asyncio.ensure_future(Thing["x"].write()) for _ in range(20)]
            for done in asyncio.as_completed(calls):
                count = await done
                assert str(count) in stored
            assert [call.result() for call in calls] == list(range(1, 21))
            sent: list[bool] = []
            send = engine.send

            async def sending(body: bytes) -> list[str]:
                sent.append("true" in stored)
                return await send(body)

            engine.send = sending  # type: ignore[method-assign]
            await Thing["x"].send()
            assert sent == [True]

    run(main())


def test_one_turn_at_a_time_in_order_of_arrival(rig: Rig) -> None:
    """Calls of one actor never overlap, whatever they wait for; other actors go on meanwhile."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def work(self, n: int) -> None:
            rig.log.append((self.name, "begin", n))
            await asyncio.sleep(0.001)
            await self.storage.put("n", n)
            await asyncio.sleep(0.001)
            rig.log.append((self.name, "end", n))

    async def main() -> None:
        async with rig.running():
            await asyncio.gather(*(Thing[name].work(n) for n in range(5) for name in ("x", "y")))
            for name in ("x", "y"):
                mine = [(what, n) for who, what, n in rig.log if who == name]
                assert mine == [(what, n) for n in range(5) for what in ("begin", "end")]
            assert rig.log.index(("y", "begin", 0)) < rig.log.index(("x", "end", 0))

    run(main())


def test_a_call_back_of_the_same_chain_is_let_in(rig: Rig) -> None:
    """Two actors that call each other do not wait for each other for ever; a call of another chain waits its turn."""

    @rig.app.actor
    class Ping(stepwell.Actor):
        async def go(self, other: str, depth: int) -> list[str]:
            if depth == 0:
                return [self.name]
            await self.storage.put("depth", depth)
            return [self.name, *await Ping[other].go(self.name, depth - 1)]

        async def look(self) -> int:
            depth: int = await self.storage.get("depth")
            return depth

    async def main() -> None:
        async with rig.running():
            assert await Ping["a"].go("b", 5) == ["a", "b", "a", "b", "a", "b"]
            assert await Ping["a"].look() == 1
            assert await Ping["me"].go("me", 3) == ["me"] * 4
            with pytest.raises(UsageError, match="32"):
                await Ping["a"].go("b", 100)

    run(main())


def test_errors_travel_as_what_they_are(rig: Rig) -> None:
    """Type, text and own properties reach the caller, through another actor too; what was written before stays."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def refuse(self) -> None:
            await self.storage.put("tried", True)
            raise Refused("closed", 7)

        async def pass_on(self) -> None:
            await Thing["inner"].refuse()

        async def key(self) -> None:
            raise KeyError("k")

        async def tried(self) -> bool:
            return bool(await self.storage.get("tried", False))

        def plain(self) -> int:
            return 1

    async def main() -> None:
        async with rig.running():
            for call in (Thing["x"].refuse, Thing["x"].pass_on):
                with pytest.raises(Refused) as caught:
                    await call()
                error: Any = caught.value
                assert isinstance(error, stepwell.ActorError)
                assert (str(error), error.reason, error.code, error.name) == ("refused: closed", "closed", 7, "Refused")
                assert error.properties == {"reason": "closed", "code": 7}
                assert "raise Refused" in error.stack
            with pytest.raises(KeyError) as missing:
                await Thing["x"].key()
            assert str(missing.value) == "k"
            assert await Thing["inner"].tried()
            with pytest.raises(AttributeError, match="write it as `async def plain"):
                await Thing["x"].plain()  # type: ignore[misc]
            with pytest.raises(AttributeError, match=r"has no method 'nope'; it has .*refuse"):
                await Thing["x"].nope()  # type: ignore[attr-defined]
            with pytest.raises(TypeError, match="too many positional"):
                await Thing["x"].refuse(1)  # type: ignore[call-arg]

    run(main())


def test_transactions_make_a_unit_larger_or_undo_it(rig: Rig) -> None:
    """One unit across other awaits; an error undoes all and is raised; `rollback()` undoes and goes on; nested ones undo only theirs."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def move(self) -> int:
            async def body(tx: stepwell.Transaction) -> int:
                await self.storage.put("a", 1)
                await asyncio.sleep(0)
                await self.storage.put("b", 2)
                return 3

            return await self.storage.transaction(body)

        async def fail(self) -> None:
            await self.storage.put("kept", 1)

            async def body(tx: stepwell.Transaction) -> None:
                await self.storage.delete_all()
                await self.storage.put("a", 9)
                await self.set_alarm("1h")
                raise Refused("no", 1)

            await self.storage.transaction(body)

        async def nested(self) -> str:
            async def inner(tx: stepwell.Transaction) -> None:
                await self.storage.put("inner", 1)
                raise ValueError

            async def outer(tx: stepwell.Transaction) -> str:
                await self.storage.put("outer", 1)
                with contextlib.suppress(ValueError):
                    await self.storage.transaction(inner)
                return "done"

            return await self.storage.transaction(outer)

        async def take_back(self) -> str:
            async def body(tx: stepwell.Transaction) -> str:
                await self.storage.put("gone", 1)
                tx.rollback()
                return "told"

            return await self.storage.transaction(body)

        async def all(self) -> dict[str, Any]:
            return {**await self.storage.list(), "alarm": await self.get_alarm()}

        async def alarm(self, info: stepwell.AlarmInfo) -> None: ...

    async def main() -> None:
        async with rig.running():
            assert await Thing["x"].move() == 3
            (unit,) = rig.units
            assert dict(unit.puts) == {"a": b"1", "b": b"2"}
            with pytest.raises(Refused):
                await Thing["x"].fail()
            assert await Thing["x"].nested() == "done"
            assert await Thing["x"].take_back() == "told"
            assert await Thing["x"].all() == {"a": 1, "b": 2, "kept": 1, "outer": 1, "alarm": None}
            assert [dict(unit.puts) for unit in rig.units[1:]] == [{"kept": b"1"}, {"outer": b"1"}]

    run(main())


def test_what_is_stored_is_there_after_the_actor_has_left(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle actor leaves memory with its fields; it comes back with what it has stored, few entries or many."""
    monkeypatch.setattr(hosting, "SWEEP_S", 0.01)
    monkeypatch.setattr(hosting.Hosting.__init__, "__kwdefaults__", {"on_less": None, "idle_s": 0.02})

    @rig.app.actor
    class Thing(stepwell.Actor):
        def __init__(self) -> None:
            self.turns = 0

        async def on_activate(self) -> None:
            rig.log.append(self.name)

        async def fill(self, count: int) -> int:
            for n in range(count):
                await self.storage.put(f"k{n:04}", n)
            self.turns += 1
            return self.turns

        async def look(self) -> list[Any]:
            self.turns += 1
            listed = await self.storage.list(start="k0003", limit=3)
            last = await self.storage.list(reverse=True, limit=2)
            return [self.turns, list(listed), list(last), await self.storage.get("k0001"), await self.storage.get("nope", "-")]

    async def main() -> None:
        async with rig.running() as engine:
            actors = engine.node.actors
            for name, count in (("few", 10), ("many", 700)):
                assert await Thing[name].fill(count) == 1
                await rig.until(lambda: not actors.in_memory()["rig-Thing"], "it leaves")
                last = [f"k{count - 1:04}", f"k{count - 2:04}"]
                assert await Thing[name].look() == [1, ["k0003", "k0004", "k0005"], last, 1, "-"]
            assert rig.log == ["few", "few", "many", "many"]

    run(main())


def test_an_actor_with_many_entries_reads_what_it_has_just_written(rig: Rig, tmp_path: Path) -> None:
    """On a database: entries that are not in memory are read, and what is written and not yet stored counts."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def fill(self) -> None:
            for n in range(600):
                await self.storage.put(f"k{n:04}", "x" * 3000)

        async def change(self) -> list[Any]:
            await self.storage.put("k0000", "new")
            gone = await self.storage.delete(["k0001", "k0002", "nope"])
            await self.storage.put("k0002a", "between")
            first = await self.storage.list(limit=3)
            whole = await self.storage.list()
            prefix = await self.storage.list(prefix="k059")
            back = await self.storage.list(end="k0004", reverse=True)
            return [gone, list(first), first["k0000"], len(whole), len(prefix), list(back)]

        async def clear(self) -> list[Any]:
            await self.storage.delete_all()
            await self.storage.put("only", 1)
            return [await self.storage.list(), await self.storage.get("k0100")]

    async def main() -> None:
        path = tmp_path / "actors.db"
        async with rig.running(db=path):
            await Thing["x"].fill()
        async with rig.running(db=path):
            told = await Thing["x"].change()
            assert told == [2, ["k0000", "k0002a", "k0003"], "new", 599, 10, ["k0003", "k0002a", "k0000"]]
            (unit,) = rig.units[-1:]
            assert (set(dict(unit.puts)), set(unit.deletes)) == ({"k0000", "k0002a"}, {"k0001", "k0002"}), "one unit, reads and all"
        async with rig.running(db=path):
            assert await Thing["x"].clear() == [{"only": 1}, None]
        async with rig.running(db=path) as engine:
            row = await engine.node.reader.actor("rig-Thing", "x")
            assert row is not None and (row.entries, row.generation) == (1, 1)

    run(main())


def test_an_actor_that_stores_nothing_leaves_nothing(rig: Rig) -> None:
    """Calling actors by all sorts of names costs no rows."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def name_of(self) -> str:
            return self.name

    async def main() -> None:
        store = MemoryStore()
        async with rig.running(store):
            for name in ("a", "b/c", "ü ", "x" * 1024):
                assert await Thing[name].name_of() == name
        assert len(store.tables.actors) == 0
        for name in ("", "x" * 1025, "a\0b", 3):
            with pytest.raises(UsageError):
                Thing[name]  # type: ignore[index]

    run(main())


def test_limits_are_told(rig: Rig) -> None:
    """Keys, values, lists and units have limits, and what goes beyond them is refused with a sentence, and not written."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def put(self, key: Any, size: int) -> None:
            await self.storage.put(key, "x" * size)

        async def many(self, count: int) -> None:
            await self.storage.put({f"k{n}": n for n in range(count)})

        async def unit(self) -> None:
            for n in range(10_001):
                await self.storage.put(f"k{n}", n)

        async def limit(self, limit: int) -> None:
            await self.storage.list(limit=limit)

        async def alarmless(self) -> None:
            await self.set_alarm("1s")

        async def unwritable(self) -> None:
            await self.storage.put("x", object())

        async def size(self) -> int:
            return len(await self.storage.list())

    async def main() -> None:
        async with rig.running():
            thing = Thing["x"]
            refused: list[tuple[Any, str]] = [
                (thing.put("k" * 2049, 1), "2049 bytes; at most 2048"),
                (thing.put("k", 2 * 1024 * 1024), "2097152 at most"),
                (thing.put(7, 1), "put"),
                (thing.put("a\0b", 1), "NUL"),
                (thing.many(129), "129 keys; at most 128"),
                (thing.limit(0), "positive"),
                (thing.alarmless(), "async def alarm"),
                (thing.unwritable(), "cannot be written as JSON"),
            ]
            for call, says in refused:
                with pytest.raises(UsageError, match=says):
                    await call
            assert await thing.size() == 0
            with pytest.raises(UsageError, match="at most 10000 keys"):
                await thing.unit()

    run(main())


def test_alarms_go_off_and_are_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven runs, counted; what an alarm writes before it fails is kept; between the retries its time is the old one."""
    monkeypatch.setattr(machine, "retry_ms", lambda actor, scheduled_ms, retries: 20)

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def begin(self) -> None:
            await self.set_alarm("10ms")

        async def look(self) -> tuple[int, datetime | None]:
            return await self.storage.get("tries", 0), await self.get_alarm()

        async def alarm(self, info: stepwell.AlarmInfo) -> None:
            rig.log.append((info.scheduled_time, info.retry_count, info.is_retry, await self.get_alarm()))
            await self.storage.put("tries", info.retry_count)
            raise Refused("not yet", info.retry_count)

    async def main() -> None:
        async with rig.running() as engine:
            before = datetime.now(UTC)
            await Thing["x"].begin()
            await rig.until(lambda: len(rig.log) == 1, "the first run")
            _, pending = await Thing["x"].look()
            await rig.until(lambda: len(rig.log) == 7, "the last run")
            times = {at for at, _, _, _ in rig.log}
            assert len(times) == 1 and before <= times.pop() <= before + timedelta(seconds=5)
            assert [(retry, is_retry, alarm) for _, retry, is_retry, alarm in rig.log] == [(n, n > 0, None) for n in range(7)]
            assert pending is None or pending == rig.log[0][0], "the old time, once it is known that it failed"
            assert await Thing["x"].look() == (6, None)
            row = await engine.node.reader.actor("rig-Thing", "x")
            assert row is not None and row.error is not None and b"Refused" in row.error
            assert await engine.node.reader.held_alarms(engine.node.holder) == ()

    run(main())


ALARM_CASES = {
    "sets another and succeeds": ("set", False, [0, 0]),
    "sets another and fails: it replaces the retry": ("set", True, [0, 0]),
    "takes it back and fails: no retry": ("delete", True, [0]),
    "clears all and fails: no retry": ("delete_all", True, [0]),
}


@pytest.mark.parametrize("case", ALARM_CASES, ids=str)
def test_what_an_alarm_does_to_the_alarm(rig: Rig, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the reference's table of alarms."""
    does, fails, expected = ALARM_CASES[case]
    monkeypatch.setattr(machine, "retry_ms", lambda actor, scheduled_ms, retries: 10)

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def begin(self) -> None:
            await self.set_alarm("0s")

        async def look(self) -> Any:
            return await self.get_alarm()

        async def alarm(self, info: stepwell.AlarmInfo) -> None:
            rig.log.append(info.retry_count)
            if len(rig.log) > 1:
                return
            if does == "set":
                await self.set_alarm("20ms")
                assert await self.get_alarm() is not None
            elif does == "delete":
                await self.delete_alarm()
            else:
                await self.storage.delete_all()
            if fails:
                raise Refused("no", 1)

    async def main() -> None:
        async with rig.running() as engine:
            await Thing["x"].begin()
            await rig.until(lambda: len(rig.log) == len(expected), "its runs")
            held = engine.node.reader.held_alarms
            async with asyncio.timeout(WAIT_S):
                while await held(engine.node.holder):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.005)
            assert await Thing["x"].look() is None
            timers = await engine.node.reader.due_timers(1 << 60, 10)
            assert not [timer for timer, _ in timers if timer.startswith("alarm/")]
            assert rig.log == expected

    run(main())


def test_alarms_outlive_the_engine(rig: Rig) -> None:
    """One that is set before the end goes off after the next start; one that runs at the end is run again."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def begin(self) -> None:
            await self.set_alarm("30ms")

        async def alarm(self, info: stepwell.AlarmInfo) -> None:
            rig.log.append(info.retry_count)
            await rig.gate("end").wait()

    async def main() -> None:
        store = MemoryStore()
        async with rig.running(store):
            await Thing["x"].begin()
            await rig.until(lambda: len(rig.log) == 1, "it runs")
        rig.gate("end").set()
        async with rig.running(store):
            await rig.until(lambda: len(rig.log) == 2, "it runs again")
            assert rig.log == [0, 0], "a run that was cut off uses up no retry"

    run(main())


def test_a_step_calls_an_actor(rig: Rig) -> None:
    """A stub's method is a step's function: its result comes back as annotated, and the replay does not call it again."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def at(self, when: datetime, by: float) -> datetime:
            rig.log.append(self.name)
            assert isinstance(when, datetime) and isinstance(by, float)
            return when + timedelta(seconds=by)

    @rig.app.function(trigger="go")
    async def go(ctx: stepwell.Context[Any]) -> str:
        when = await ctx.step.run("at", Thing["x"].at, datetime(2030, 1, 1, tzinfo=UTC), 2.0)
        await ctx.step.sleep("nap", "10ms")
        return when.isoformat()

    async def main() -> None:
        async with rig.running() as engine:
            (event_id,) = await rig.app.send("go", {})
            (started,) = await engine.runs_of(event_id)
            assert await engine.output(started.id) == "2030-01-01T00:00:02+00:00"
            assert rig.log == ["x"]

    run(main())


def test_an_unknown_kind_and_a_class_without_an_app(rig: Rig) -> None:
    """Both say what to do."""

    class Lonely(stepwell.Actor):
        async def go(self) -> None: ...

    with pytest.raises(UsageError, match=r"put @app\.actor above the class"):
        Lonely["x"]
    with pytest.raises(UsageError, match='use Lonely\\["name"\\]'):
        _ = Lonely().storage
    with pytest.raises(UsageError, match=r"base stepwell\.Actor"):
        rig.app.actor(int)  # type: ignore[type-var]

    async def main() -> None:
        async with rig.running():
            rig.app.actor(Lonely)
            with pytest.raises(stepwell.NotFound, match="no actors of kind 'rig-Lonely'; here are: none"):
                await Lonely["x"].go()

    run(main())


def test_a_unit_that_is_refused_resets_the_actor(rig: Rig) -> None:
    """Whoever waits is told; the next call finds what is stored, and not what was in memory."""

    @rig.app.actor
    class Thing(stepwell.Actor):
        async def put(self, value: int) -> int:
            await self.storage.put("v", value)
            return value

        async def get(self) -> Any:
            return await self.storage.get("v")

    async def main() -> None:
        async with rig.running() as engine:
            assert await Thing["x"].put(1) == 1
            # Another activation of the same actor, as another node would have it.
            place = engine.node.actors._places["rig-Thing", "x"]
            place.fence -= 1
            with pytest.raises(stepwell.ActorError, match="activated elsewhere") as caught:
                await Thing["x"].put(2)
            assert caught.value.reset
            assert await Thing["x"].get() == 1

    run(main())


def test_gates_let_others_in_while_one_waits(rig: Rig) -> None:
    """With `gates=True` a call enters while another waits for something else; a block keeps it out."""

    @rig.app.actor
    class Room(stepwell.Actor, gates=True):
        async def wait(self, block: bool) -> None:
            async def work() -> None:
                rig.log.append("waits")
                await rig.gate("open").wait()
                rig.log.append("ends")

            await (self.block_concurrency_while(work) if block else work())

        async def enter(self) -> None:
            rig.log.append("enters")

    async def main() -> None:
        async with rig.running():
            for block, expected in ((False, ["waits", "enters", "ends"]), (True, ["waits", "ends", "enters"])):
                rig.log.clear()
                rig.gate("open").clear()
                waiting = asyncio.ensure_future(Room["r"].wait(block))
                await rig.until(lambda: rig.log, "it waits")
                entering = asyncio.ensure_future(Room["r"].enter())
                for _ in range(20):
                    await asyncio.sleep(0)
                rig.gate("open").set()
                await asyncio.gather(waiting, entering)
                assert rig.log == expected

    run(main())


class Sql:
    """A kind with a file, for the tests below."""

    def __init__(self, rig: Rig) -> None:
        @rig.app.actor
        class Book(stepwell.Actor, sql=True):
            async def on_activate(self) -> None:
                self.sql.exec("CREATE TABLE IF NOT EXISTS lines (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)")

            async def add(self, text: str) -> int:
                self.sql.exec("INSERT INTO lines (text) VALUES (?)", text)
                await self.storage.put("last", text)
                return int(self.sql.exec("SELECT count(*) AS n FROM lines").one()["n"])

            async def fail(self, text: str) -> None:
                async def body(tx: stepwell.Transaction) -> None:
                    await self.add(text)
                    await self.set_alarm("1h")
                    raise Refused("no", 1)

                await self.storage.transaction(body)

            async def look(self) -> list[Any]:
                rows = [row["text"] for row in self.sql.exec("SELECT text FROM lines ORDER BY id")]
                return [rows, await self.storage.list(), (await self.get_alarm()) is not None]

            async def later(self, wait: str) -> None:
                self.sql.exec("INSERT INTO lines (text) VALUES (?)", f"alarm in {wait}")
                await self.set_alarm(wait)

            async def forget(self) -> None:
                await self.storage.delete_all()

            async def alarm(self, info: stepwell.AlarmInfo) -> None:
                rig.log.append((info.retry_count, await self.get_alarm()))
                self.sql.exec("INSERT INTO lines (text) VALUES (?)", f"rang {len(rig.log)}")
                if "fail" in rig.gates and info.retry_count < 2:
                    raise Refused("not yet", 1)

        self.Book = Book


def test_an_actor_with_sql_has_all_in_a_file_of_its_own(rig: Rig, tmp_path: Path) -> None:
    """Rows and entries are one unit, kept over a restart; an error undoes both and the alarm; clearing takes tables too."""
    book = Sql(rig).Book
    path = tmp_path / "sql.db"

    async def main() -> None:
        async with rig.running(db=path):
            assert await book["a"].add("one") == 1
            assert await book["a"].add("two") == 2
            with pytest.raises(Refused):
                await book["a"].fail("three")
            with pytest.raises(stepwell.SqlError, match="UNIQUE"):
                await book["a"].add("one")
            assert await book["b"].look() == [[], {}, False]
        assert len(list((tmp_path / "sql.db.actors" / "rig-Book").glob("*.sqlite"))) == 2
        async with rig.running(db=path) as engine:
            assert await book["a"].look() == [["one", "two"], {"last": "two"}, False]
            await book["a"].forget()
            with pytest.raises(stepwell.SqlError, match="no such table: lines"):
                await book["a"].look()
            assert await engine.node.reader.actor_range("rig-Book", "a", EntryRange(limit=9)) == ()

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_the_alarm_of_an_actor_with_sql(rig: Rig, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes off, is tried again, and leaves nothing pending, here or in the file."""
    monkeypatch.setattr(machine, "retry_ms", lambda actor, scheduled_ms, retries: 20)
    book = Sql(rig).Book
    if fails:
        rig.gate("fail")

    async def main() -> None:
        async with rig.running() as engine:
            await book["a"].later("20ms")
            runs = 3 if fails else 1
            await rig.until(lambda: len(rig.log) == runs, "its runs")
            rang = [f"rang {n + 1}" for n in range(runs)]
            assert await book["a"].look() == [["alarm in 20ms", *rang], {}, False]
            assert rig.log == [(n, None) for n in range(runs)]
            row = await engine.node.reader.actor("rig-Book", "a")
            assert row is not None and row.alarm_ms is None

    run(main())


@pytest.mark.parametrize("first, second, rings", [("50ms", "1h", 0), ("1h", "20ms", 1)])
def test_the_timer_of_a_file_moves_with_its_alarm(rig: Rig, first: str, second: str, rings: int) -> None:
    """Later or earlier; a timer that goes off where the file has no alarm that is due does nothing but set itself anew."""
    book = Sql(rig).Book

    async def main() -> None:
        async with rig.running() as engine:
            await book["a"].later(first)
            await book["a"].later(second)
            await rig.until(lambda: len(rig.log) == rings, "it rings, or not")
            row = await engine.node.reader.actor("rig-Book", "a")
            assert row is not None and (row.alarm_ms is not None) == (rings == 0)
            if rings == 0:
                # A crash may have left an earlier timer: it asks the file.
                place = engine.node.actors._places["rig-Book", "a"]
                ((activation, _),) = engine.node.actors._kinds["rig-Book"][1]()[0].hosting._here.values()  # type: ignore[attr-defined]
                activation.memory._tell(engine.node.clock.now_ms())
                moved = row.alarm_ms

                async def again() -> bool:
                    found = await engine.node.reader.actor("rig-Book", "a")
                    return found is not None and found.firings == 1 and found.firing is None and found.alarm_ms == moved

                async with asyncio.timeout(WAIT_S):
                    while not await again():  # noqa: ASYNC110 - as above
                        await asyncio.sleep(0.005)
                assert rig.log == [] and place.calls == {}

    run(main())


def test_a_file_that_was_claimed_elsewhere_is_left_alone(rig: Rig, tmp_path: Path) -> None:
    """An activation with an older fence stores nothing; the next one goes on with what is there."""
    book = Sql(rig).Book

    async def main() -> None:
        async with rig.running(db=tmp_path / "sql.db"):
            assert await book["a"].add("one") == 1
            (path,) = (tmp_path / "sql.db.actors" / "rig-Book").glob("*.sqlite")
            other = UserDatabase(path)
            other.claim(1 << 50)
            other.close()
            with pytest.raises(stepwell.ActorError, match="may not write to it any more"):
                await book["a"].add("two")

    run(main())
