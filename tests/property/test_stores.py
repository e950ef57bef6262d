"""The stores are equal: the same inputs at the same times have the same effects and leave the same rows."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from stepwell.engine.tables import SPECS
from stepwell.runtime.heart import Heart
from stepwell.store.sqlite import SqliteStore
from stepwell.store.statements import CODECS
from tests.simulation.clock import VirtualClock
from tests.simulation.world import World

SEEDS = range(1, 13)


class Recorder(Heart):
    """A heart that keeps its groups with their time and what became of them."""

    def __init__(self, heart: Heart) -> None:
        self.__dict__.update(heart.__dict__)
        self.log: list[tuple[object, ...]] = []

    async def handle(self, inputs):  # type: ignore[no-untyped-def]
        """Handle, and note."""
        beat = await Heart.handle(self, inputs)
        self.log.append((list(inputs), self._clock.now_ms(), [repr(one) for one in beat.decided]))
        return beat


@pytest.mark.parametrize("seed", SEEDS)
def test_sqlite_does_what_the_model_does(seed: int, tmp_path: Path) -> None:
    """A simulated course without faults, played again on SQLite."""
    world = World.__new__(World)
    original = random.Random.choice

    def without_faults(self: random.Random, options):  # type: ignore[no-untyped-def]
        return 0.0 if options == (0.0, 0.05, 0.2) else original(self, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random.Random, "choice", without_faults)
        patch.setattr("tests.simulation.world.Heart", lambda *args: Recorder(Heart(*args)))
        world.__init__(seed)  # type: ignore[misc]
        world.run()

    async def replay() -> dict[str, list[object]]:
        clock = VirtualClock(random.Random(0))
        store = SqliteStore(tmp_path / "replay.db")
        await store.open()
        heart = Heart(store, clock, world.heart.registry.settings)
        for inputs, now_ms, decided in world.heart.log:  # type: ignore[attr-defined]
            clock.ms = now_ms
            beat = await heart.handle(inputs)
            assert [repr(one) for one in beat.decided] == decided
            if any(type(input).__name__ == "AppSynced" for input in inputs):
                await heart.reload()
        rows = {}
        reader = store.reader
        for name, spec in SPECS.items():
            columns = ", ".join(f'"{column}"' for column in spec.row.__struct_fields__)
            connection = reader._connection()  # type: ignore[attr-defined]
            found = connection.execute(f"SELECT {columns} FROM {name}").fetchall()
            rows[name] = sorted((CODECS[name].row_of(values) for values in found), key=lambda row: str(spec.key_of(row)))
        await store.close()
        return rows

    kept = asyncio.run(replay())
    for name, spec in SPECS.items():
        model = sorted(world.store.tables.by_name[name], key=lambda row: str(spec.key_of(row)))
        assert kept[name] == model, name
