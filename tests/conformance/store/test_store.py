"""One suite for every store: what a transaction writes, refuses and finds again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.engine.commands import (
    AdvanceRun,
    Charge,
    Delete,
    DeleteOfRun,
    DeleteRun,
    EndRun,
    HoldItem,
    MoveItem,
    Put,
    ReturnItem,
    SetDefer,
    SetLane,
)
from stepwell.engine.model import (
    Counter,
    Defer,
    DeferStatus,
    EventRow,
    Item,
    Lane,
    LaneState,
    Run,
    RunStatus,
    Step,
    StepStatus,
    Timer,
    TimerKind,
)
from stepwell.engine.view import Scan, Select, View
from stepwell.errors import Conflict, StoreRefused
from stepwell.store.base import Store
from stepwell.store.sqlite import SqliteStore
from stepwell.store.sqlite_files import APPLICATION_ID
from stepwell.store.statements import load_migrations
from tests.conformance.store.conftest import Work


def a_run(run_id: str = "R1", **columns: Any) -> Run:
    """A queued run."""
    fields: dict[str, Any] = {
        "id": run_id, "function_id": "f", "function_version": 1, "app_name": "a", "event_ids": ("E1",), "status": RunStatus.QUEUED,
        "cause": "event", "origin": None, "lane_id": "f", "keys": (), "order_ms": 1, "created_ms": 1, "calls": 1,
    }  # fmt: skip
    return Run(**{**fields, **columns})


def an_item(item_id: str = "R1-start", **columns: Any) -> Item:
    """A waiting item."""
    fields: dict[str, Any] = {"id": item_id, "run_id": item_id.split("-")[0], "function_id": "f", "lane_id": "f", "keys": (), "starts": 1}
    return Item(**{**fields, "order_ms": 1, "step_id": "step", **columns})


def a_step(step_id: str, **columns: Any) -> Step:
    """A finished step."""
    fields: dict[str, Any] = {
        "run_id": "R1", "id": step_id, "op": "StepRun", "name": step_id, "user_id": step_id, "index": 0, "status": StepStatus.COMPLETED,
        "opts": None, "memo": b'{"data":"\xc3\xbc"}', "attempts": 1, "queued_ms": 1, "started_ms": 1, "ended_ms": 2, "position": 0,
    }  # fmt: skip
    return Step(**{**fields, **columns})


def an_event(event_id: str, **columns: Any) -> EventRow:
    """A stored event."""
    fields: dict[str, Any] = {"id": event_id, "key": event_id, "name": "n", "data": b'{"a":1}', "user": b"{}", "ts": 1, "v": None}
    return EventRow(**{**fields, "meta": None, "received_ms": 5, **columns})


async def write(store: Store, *commands: Any, selections: tuple[Any, ...] = ()) -> None:
    """One transaction with these commands."""
    async with store.transaction() as tx:
        view = View()
        await tx.load(selections, view)
        view.apply(commands)
        await tx.save(view.changes())


async def seen(store: Store, *selections: Any) -> View:
    """What a transaction loads."""
    async with store.transaction() as tx:
        view = View()
        await tx.load(selections, view)
        return view


def test_rows_come_back_as_they_were_put(check: Callable[[Work], None]) -> None:
    """Every kind of value survives: bodies, tuples, flags, absent ones, an item inside a timer."""

    async def work(store: Store) -> None:
        run = a_run(keys=("k1", "k2"), pending=("a", "b"), force_plan=True, output=None)
        timer = Timer(id="item/R1-x", due_ms=7, kind=TimerKind.ITEM, run_id="R1", item=an_item("R1-x", keys=("k1",)))
        event = an_event("E1", meta=b'{"sessions":{}}', v="2", data='{"ü":"\\u0001"}'.encode())
        await write(store, Put(run), Put(timer), Put(event), Put(a_step("s")), Put(an_item()))
        assert await store.reader.run("R1") == run
        assert await store.reader.timer("item/R1-x") == timer
        assert await store.reader.event("E1") == event
        assert await store.reader.steps("R1") == (a_step("s"),)
        assert await store.reader.items_of("R1") == (an_item(),)
        view = await seen(store, Select("runs", "R1"), Select("timers", "item/R1-x"), Select("runs", "R2"))
        assert view.run("R1") == run and view.timer("item/R1-x") == timer and view.run("R2") is None

    check(work)


def test_a_key_that_is_taken_is_a_conflict_and_nothing_is_written(check: Callable[[Work], None]) -> None:
    """Neither the row nor its neighbours in the transaction."""

    async def work(store: Store) -> None:
        await write(store, Put(an_event("E1")))
        with pytest.raises(Conflict):
            await write(store, Put(a_run()), Put(an_event("E1", name="other")))
        assert await store.reader.run("R1") is None
        event = await store.reader.event("E1")
        assert event is not None and event.name == "n"

    check(work)


def test_a_row_that_is_gone_is_a_conflict(check: Callable[[Work], None]) -> None:
    """A change of a row that somebody has taken away is refused."""

    async def work(store: Store) -> None:
        await write(store, Put(a_run()))
        view = await seen(store, Select("runs", "R1"))
        async with store.transaction() as tx:
            other = View()
            await tx.load([Select("runs", "R1")], other)
            other.apply([Delete("runs", "R1")])
            await tx.save(other.changes())
        view.apply([AdvanceRun(run_id="R1", steps=5)])
        with pytest.raises(Conflict):
            async with store.transaction() as tx:
                await tx.save(view.changes())

    check(work)


def test_what_lives_less_than_a_group_is_not_written(check: Callable[[Work], None]) -> None:
    """Put and taken away: no change at all."""

    async def work(store: Store) -> None:
        async with store.transaction() as tx:
            view = View()
            await tx.load([], view)
            view.apply([Put(an_item())])
            view.apply([Delete("items", "R1-start")])
            assert not view.changes()
        assert await store.reader.items_of("R1") == ()

    check(work)


def test_the_end_of_a_run_takes_what_waits_for_it(check: Callable[[Work], None]) -> None:
    """Timers and items that nobody holds go, loaded or not; an item that is out stays, and so does another run's."""

    async def work(store: Store) -> None:
        await write(
            store,
            Put(a_run()),
            Put(a_run("R11")),
            Put(an_item("R1-a")),
            Put(an_item("R1-b")),
            Put(an_item("R1-c", holder="h", leased_ms=1, fence=1)),
            Put(an_item("R11-a")),
            Put(Timer(id="sleep/R1/s", due_ms=1, kind=TimerKind.SLEEP, run_id="R1", ref="s")),
            Put(Timer(id="item/R1-d", due_ms=1, kind=TimerKind.ITEM, run_id="R1", item=an_item("R1-d"))),
            Put(Timer(id="sleep/R11/s", due_ms=1, kind=TimerKind.SLEEP, run_id="R11", ref="s")),
        )
        end = EndRun("R1", RunStatus.CANCELLED, None, "why", 9)
        hold = HoldItem("R1-a", "h", 1, 5)
        await write(store, hold, end, DeleteOfRun("R1"), selections=(Select("runs", "R1"), Select("items", "R1-a")))
        assert [item.id for item in await store.reader.items_of("R1")] == ["R1-a", "R1-c"]
        assert await store.reader.timers_of("R1") == ()
        assert [item.id for item in await store.reader.items_of("R11")] == ["R11-a"]
        assert len(await store.reader.timers_of("R11")) == 1
        view = await seen(store, Select("timers", "sleep/R1/s"), Select("items", "R1-b"))
        assert view.timer("sleep/R1/s") is None and view.item("R1-b") is None

    check(work)


def test_a_run_keeps_what_it_defers_until_it_goes_itself(check: Callable[[Work], None]) -> None:
    """Found by their run, in order, bodies and all; the run's end leaves them, its deletion takes them, loaded or not."""

    async def work(store: Store) -> None:
        fields: dict[str, Any] = {"name": "d", "function_id": "g", "input": b'{"n":1}', "meta": b"{}", "reason": None, "created_ms": 1}
        kept = Defer(run_id="R1", id="d", status=DeferStatus.AFTER_RUN, **fields)
        refused = msgspec.structs.replace(kept, id="c", status=DeferStatus.REJECTED, input=None, meta=None, reason="too many")
        await write(store, Put(a_run(defers=2)), Put(kept), Put(refused), Put(msgspec.structs.replace(kept, run_id="R11")))
        assert await store.reader.defers_of("R1") == (refused, kept)
        view = await seen(store, Scan("defers_of", "R1", 9), Scan("defers_of", "R2", 9))
        assert view.scan("defers_of", "R1", 9) == [refused, kept] and view.scan("defers_of", "R2", 9) == []
        end = EndRun("R1", RunStatus.COMPLETED, b"1", None, 9)
        scheduled = SetDefer("R1", "d", DeferStatus.SCHEDULED)
        await write(store, scheduled, end, DeleteOfRun("R1"), selections=(Select("runs", "R1"), Select("defers", ("R1", "d"))))
        assert [one.status for one in await store.reader.defers_of("R1")] == [DeferStatus.REJECTED, DeferStatus.SCHEDULED]
        await write(store, DeleteRun("R1"))
        assert await store.reader.defers_of("R1") == () and len(await store.reader.defers_of("R11")) == 1

    check(work)


def test_scans_are_ordered_bounded_and_see_the_group(check: Callable[[Work], None]) -> None:
    """Continuing items first, then the older run; a dry scan says whether the store had more."""

    async def work(store: Store) -> None:
        items = [an_item(f"R{n}-i", order_ms=n) for n in (3, 1, 2)]
        continuing = an_item("R9-i", order_ms=9, starts=0)
        await write(store, *map(Put, items), Put(continuing), Put(an_item("R8-i", holder="h", leased_ms=1)))
        view = await seen(store, Scan("lane_items", "f", 3), Scan("holder_items", "h", 5))
        assert [item.id for item in view.scan("lane_items", "f", 3)] == ["R9-i", "R1-i", "R2-i"]
        assert view.more("lane_items", "f", 3) and not view.more("holder_items", "h", 5)
        view.apply([HoldItem("R9-i", "h", 1, 1)])
        assert [item.id for item in view.scan("lane_items", "f", 3)] == ["R1-i", "R2-i"]

    check(work)


def test_lanes_are_found_by_state(check: Callable[[Work], None]) -> None:
    """Ready lanes by tag; shut ones by the key that shut them."""

    async def work(store: Store) -> None:
        lanes = [Lane(id=f"l{n}", function_id="f", keys=("k",), state=LaneState.READY, tag=9 - n) for n in range(3)]
        await write(store, *map(Put, lanes))
        await write(
            store, SetLane("l2", LaneState.SHUT, "k", 7), Charge("k", 2), selections=(Select("lanes", "l2"), Select("counters", "k"))
        )
        view = await seen(store, Scan("ready_lanes", "f", 9), Scan("shut_lanes", "k", 9), Select("counters", "k"))
        assert [lane.id for lane in view.scan("ready_lanes", "f", 9)] == ["l1", "l0"]
        assert [lane.id for lane in view.scan("shut_lanes", "k", 9)] == ["l2"]
        assert view.counter("k") == Counter(id="k", running=2)

    check(work)


def test_items_are_found_in_their_lane_whatever_became_of_its_row(check: Callable[[Work], None]) -> None:
    """Where it was taken away while an item was out, and made anew; where an item changes its lane; several lanes at once."""

    async def work(store: Store) -> None:
        lanes = [Lane(id=f"l{n}", function_id="f", keys=("k",), state=LaneState.READY, tag=n) for n in range(3)]
        items = [an_item(f"R{n}-i", lane_id=f"l{n % 3}", keys=("k",), order_ms=n) for n in range(6)]
        await write(store, *map(Put, items), *map(Put, lanes), Put(an_item("R9-i")))

        async def waiting(*lane_ids: str) -> list[list[str]]:
            view = await seen(store, *(Scan("lane_items", lane_id, 9) for lane_id in lane_ids))
            return [[item.id for item in view.scan("lane_items", lane_id, 9)] for lane_id in lane_ids]

        assert await waiting("l0") == [["R0-i", "R3-i"]]
        assert await waiting("l2", "f", "l1", "l7") == [["R2-i", "R5-i"], ["R9-i"], ["R1-i", "R4-i"], []]
        out = ("R1-i", "R4-i")
        await write(store, *(HoldItem(one, "h", 1, 1) for one in out), Delete("lanes", "l1"), selections=by_key("items", *out, lanes="l1"))
        later = Lane(id="l8", function_id="f", keys=("k",), state=LaneState.READY, tag=0)
        await write(store, Put(later), Put(lanes[1]), ReturnItem("R4-i", None, 2, 0), selections=by_key("items", "R4-i"))
        assert await waiting("l1", "l8") == [["R4-i"], []]
        await write(store, ReturnItem("R1-i", None, 2, 0), MoveItem("R2-i", "held/R2"), selections=by_key("items", "R1-i", "R2-i"))
        assert await waiting("l1", "l2", "held/R2") == [["R1-i", "R4-i"], ["R5-i"], ["R2-i"]]
        await write(store, MoveItem("R2-i", "l2"), selections=by_key("items", "R2-i"))
        assert await waiting("held/R2", "l2") == [[], ["R2-i", "R5-i"]]
        assert await store.reader.items_ahead(items[5], 9) == 1

    check(work)


def by_key(table: str, *keys: str, lanes: str | None = None) -> tuple[Select, ...]:
    """Rows of a table, and a lane."""
    return (*(Select(table, key) for key in keys), *([Select("lanes", lanes)] if lanes else []))


def test_pages_of_runs(check: Callable[[Work], None]) -> None:
    """Newest first, filtered, each run once however small the pages."""

    async def work(store: Store) -> None:
        runs = [a_run(f"R{n}", function_id="f" if n % 2 else "g") for n in range(9)]
        await write(store, *map(Put, runs))
        await write(store, EndRun("R3", RunStatus.FAILED, b"{}", None, 2), selections=(Select("runs", "R3"),))
        for function_id, status in ((None, None), ("f", None), (None, RunStatus.FAILED), (None, RunStatus.QUEUED), ("f", RunStatus.QUEUED)):
            found: list[str] = []
            cursor = None
            while True:
                page = await store.reader.runs(limit=2, cursor=cursor, status=status, function_id=function_id)
                found += [run.id for run in page.runs]
                cursor = page.cursor
                if cursor is None:
                    break
            wanted = [
                run.id for run in reversed(runs)
                if (function_id in (None, run.function_id)) and (status is None or (status is RunStatus.FAILED) == (run.id == "R3"))
            ]  # fmt: skip
            assert found == wanted, (function_id, status)
        assert [run.id for run in await store.reader.runs_of_event("E1", 3)] == ["R0", "R1", "R2"]

    check(work)


def test_events_and_due_timers(check: Callable[[Work], None]) -> None:
    """Events by name and time, newest first; timers up to a time, the earliest first."""

    async def work(store: Store) -> None:
        await write(store, *(Put(an_event(f"E{n}", name="ab"[n % 2], received_ms=n)) for n in range(6)))
        found = await store.reader.events(limit=2, name="a", cursor="E4", received_before_ms=4)
        assert [event.id for event in found] == ["E2", "E0"]
        assert [event.id for event in await store.reader.events(limit=9, received_after_ms=3)] == ["E5", "E4"]
        assert [event.id for event in await store.reader.events_by_id(["E3", "E9", "E1"])] == ["E3", "E1"]
        await write(store, *(Put(Timer(id=f"t{n}", due_ms=10 - n, kind=TimerKind.ROUTE, ref="x")) for n in range(5)))
        assert await store.reader.due_timers(8, 2) == (("t4", 6), ("t3", 7))
        assert await store.reader.next_due_ms(8) == 9

    check(work)


def test_a_file_keeps_everything_and_has_the_schema_of_all_migrations(tmp_path: Path) -> None:
    """Opened again it has what was committed; its schema is what the numbered migrations make."""
    path = tmp_path / "kept.db"

    async def main() -> None:
        for turn in range(2):
            store = SqliteStore(path)
            await store.open()
            if turn == 0:
                await write(store, Put(a_run()))
            else:
                assert await store.reader.run("R1") == a_run()
            await store.close()

    asyncio.run(main())
    fresh, kept = sqlite3.connect(":memory:"), sqlite3.connect(path)
    for text in load_migrations("sqlite"):
        fresh.executescript(text)
    schema = "SELECT name, sql FROM sqlite_schema ORDER BY name"
    assert fresh.execute(schema).fetchall() == kept.execute(schema).fetchall()
    assert kept.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert kept.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_lanes_outlive_their_new_tables(tmp_path: Path) -> None:
    """A file whose lanes lie by their ids has the same ones when they lie by age, finds them, and what waits in them."""
    path = tmp_path / "older.db"
    older = sqlite3.connect(path, isolation_level=None)
    older.execute("PRAGMA auto_vacuum = INCREMENTAL")
    older.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for text in load_migrations("sqlite")[:6]:
        older.executescript(text)
    older.execute("PRAGMA user_version = 6")
    lanes = {
        "b": Lane(id="b", function_id="f", keys=("k",), state=LaneState.SHUT, shut_by="k", tag=1, shut_at=3),
        "c": Lane(id="c", function_id="f", keys=("l",), state=LaneState.EMPTY, tag=2),
        "a": Lane(id="a", function_id="f", keys=("m",), state=LaneState.READY, tag=3),
    }
    for lane in lanes.values():
        older.execute(
            "INSERT INTO lanes (id, function_id, keys, state, shut_by, tag, shut_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (lane.id, lane.function_id, f'["{lane.keys[0]}"]', lane.state, lane.shut_by, lane.tag, lane.shut_at),
        )
    waiting = {lane_id: [an_item(f"R{nth}-{lane_id}", lane_id=lane_id, order_ms=nth) for nth in range(2)] for lane_id in ("f", "b", "a")}
    names = ("id", "run_id", "function_id", "lane_id", "starts", "order_ms", "step_id", "attempt", "fence", "losses")
    for item in (item for items in waiting.values() for item in items):
        values = [getattr(item, name) for name in names]
        older.execute(f"INSERT INTO items (keys, {', '.join(names)}) VALUES ('[]', {', '.join('?' * len(names))})", values)
    for function_id, keyed in (("f", 1), ("g", 0)):
        values = (function_id, f"u-{function_id}", "a", function_id, "{}", 1, keyed, 0, 0)
        older.execute(
            "INSERT INTO functions (id, uuid, app_name, name, config, version, keyed, paused, archived) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    older.close()

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        # Whether one with keys had others before, the file does not say: it may have.
        assert {row.id: row.rekeyed for row in (await store.reader.catalogue()).functions} == {"f": True, "g": False}
        view = View()
        scans = {"ready_lanes": ("f", "a"), "shut_lanes": ("k", "b"), "function_lanes": ("f\n", "b"), "empty_lanes": ("", "c")}
        async with store.transaction() as tx:
            await tx.load([*(Select("lanes", lane_id) for lane_id in lanes), *(Scan(n, v, 9) for n, (v, _) in scans.items())], view)
        assert view.lanes.rows == lanes
        found = await seen(store, *(Scan("lane_items", lane_id, 9) for lane_id in waiting))
        assert {lane_id: found.scan("lane_items", lane_id, 9) for lane_id in waiting} == waiting
        for name, (value, lane_id) in scans.items():
            assert view.scan(name, value, 9) == [lanes[lane_id]]
        await store.close()

    asyncio.run(main())


def test_a_damaged_or_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Each with a sentence, and not a byte is changed."""
    path = tmp_path / "bad.db"

    async def refused() -> str:
        before = path.read_bytes()
        with pytest.raises(StoreRefused) as error:
            await SqliteStore(path).open()
        assert path.read_bytes() == before
        return str(error.value)

    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    assert "damaged" in asyncio.run(refused())
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    assert "another program" in asyncio.run(refused())
    newer = sqlite3.connect(path)
    newer.executescript("PRAGMA application_id = 1400140912; PRAGMA user_version = 999;")
    newer.close()
    assert "newer Stepwell" in asyncio.run(refused())
