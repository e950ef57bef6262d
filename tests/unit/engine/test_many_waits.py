"""Ten thousand runs that wait: an event reads of them what it is for, and one that is for all resumes each once, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.commands import Call, Effect
from stepwell.engine.inputs import AnyInput, AppSynced, Ask, CallAnswered, Claim, EventsReceived, NodeStarted, TimerDue
from stepwell.engine.selection import MEET_AT_ONCE, MEET_BY_CURSOR
from stepwell.protocol.calls import Ops
from stepwell.protocol.events import Event
from stepwell.protocol.functions import FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import numbered_ulids
from stepwell.protocol.ops import Op
from stepwell.runtime.heart import Heart
from stepwell.store import sqlite
from stepwell.store.sqlite import SqliteStore
from tests.simulation.clock import VirtualClock

RUNS = 10_000
HOLDER = "n/1"
OWN = Op(op="WaitForEvent", id="own", name="own", opts=b'{"event":"own","timeout":"1d","if":"async.data.id == event.data.id"}')
ALL = Op(op="WaitForEvent", id="all", name="all", opts=b'{"event":"all","timeout":"1d"}')


class Engine:
    """A heart over a file, whose reads are counted."""

    def __init__(self, path: Path, seed: int) -> None:
        self.store = SqliteStore(path)
        self.clock = VirtualClock(random.Random(seed))
        self.heart = Heart(self.store, self.clock)
        self.ids = numbered_ulids(self.clock.ms, self.clock.entropy(10))
        self.sent = 0

    async def give(self, *inputs: AnyInput) -> list[Effect]:
        """Decide inputs, as many groups as it takes."""
        effects: list[Effect] = []
        waiting: Sequence[AnyInput] = inputs
        while waiting:
            beat = await self.heart.handle(waiting)
            assert [one.error for one in beat.decided if one.error is not None] == []
            effects += [effect for one in beat.decided for effect in one.effects]
            waiting = waiting[len(beat.decided) :]
        return effects

    def events(self, name: str, data: list[bytes]) -> EventsReceived:
        """Events with new ids."""
        fields: dict[str, Any] = {"name": name, "user": b"{}", "ts": 1, "v": None, "meta": None, "received_ms": self.clock.ms}
        made = []
        for one in data:
            event_id = self.ids(self.sent)
            self.sent += 1
            made.append(Event(internal_id=event_id, id=event_id, data=one, **fields))
        return EventsReceived(tuple(made), fresh=True)

    async def start(self) -> None:
        """Open the file, as a node that has just started does."""
        await self.store.open()
        await self.give(NodeStarted("n", HOLDER))
        await self.heart.reload()

    async def cursors(self) -> list[str]:
        """The ids of meeting cursors."""
        return [timer_id for timer_id, _ in await self.store.reader.due_timers(self.clock.ms, 100) if timer_id.startswith("meet/")]


async def waiting(engine: Engine) -> None:
    """Runs that wait for an event of their own, and for one that is for all."""
    config = FunctionConfig(id="a-f", name="f", triggers=(Trigger(event="x"),))
    told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(config,), checksum="1")
    await engine.start()
    await engine.give(AppSynced(told, "local"))
    await engine.heart.reload()
    for start in range(0, RUNS, 100):
        await engine.give(engine.events("x", [b'{"id":%d}' % n for n in range(start, start + 100)]))
        calls = [effect for effect in await engine.give(Claim(HOLDER, (Ask("a-f", 100),))) if isinstance(effect, Call)]
        assert len(calls) == 100
        await engine.give(
            *(CallAnswered(call.run.id, call.item.id, call.item.fence, Ops(ops=(OWN, ALL), request_version=2)) for call in calls)
        )


def test_an_event_finds_its_wait_among_ten_thousand_and_one_for_all_resumes_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one wait is found by its key; the many by a cursor, which goes on after a crash."""
    path = tmp_path / "waits.db"
    read: Counter[str] = Counter()
    fetch = sqlite._Writer.fetch

    def counted(self: Any, wanted: Any) -> Any:
        found = fetch(self, wanted)
        for scan, rows in zip(wanted.scans, found.scans, strict=True):
            read[scan.name] += 1
            read[f"{scan.name}: rows"] += len(rows)
        return found

    monkeypatch.setattr(sqlite._Writer, "fetch", counted)

    def resumed(path: Path) -> dict[str, int]:
        """How many steps have a result, by their name."""
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return dict(connection.execute("SELECT id, count(*) FROM steps WHERE ended_ms IS NOT NULL GROUP BY id"))

    async def main() -> None:
        engine = Engine(path, 1)
        await waiting(engine)
        await engine.store.close()
        engine = Engine(path, 2)
        await engine.start()

        read.clear()
        await engine.give(engine.events("own", [b'{"id":777}']))
        assert resumed(path) == {"own": 1}
        assert read["waits_of: rows"] == 1, read
        assert await engine.cursors() == []

        await engine.give(engine.events("all", [b"{}"]))
        assert resumed(path) == {"own": 1, "all": MEET_AT_ONCE}
        for _ in range(20):
            (cursor,) = await engine.cursors()
            await engine.give(TimerDue(cursor))
        assert resumed(path) == {"own": 1, "all": MEET_AT_ONCE + 20 * MEET_BY_CURSOR}

        # The process dies, and another one finds what was on the disk.
        copy = tmp_path / "after" / path.name
        copy.parent.mkdir()
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{copy}{end}")
        await engine.store.close()
        engine = Engine(copy, 3)
        await engine.start()
        while cursors := await engine.cursors():
            await engine.give(TimerDue(cursors[0]))
        assert resumed(copy) == {"own": 1, "all": RUNS}
        await engine.store.close()

    asyncio.run(main())
