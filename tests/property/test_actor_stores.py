"""Actors on a database are what they are on the model: the same inputs under the same faults leave the same rows and answers."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from stepwell.engine.tables import SPECS
from stepwell.errors import StoreUnavailable
from stepwell.runtime.heart import Heart
from stepwell.store.base import EntryRange, Store
from stepwell.store.sqlite import SqliteStore
from tests.property.test_stores import Recorder, rows_of
from tests.simulation.actors import KEYS, KIND, NAMES, ActorWorld, simulate_actors, small_bounds
from tests.simulation.clock import VirtualClock
from tests.simulation.faults import FaultyStore

SEEDS = range(1, 17)


@pytest.mark.parametrize("seed", SEEDS)
def test_sqlite_does_what_the_model_does(seed: int, tmp_path: Path) -> None:
    """A simulated course, played again on a file: outcome by outcome, and all rows and queries at the end."""
    world = simulate_actors(seed, Recorder)
    recorder = world.heart
    assert isinstance(recorder, Recorder)
    path = tmp_path / "replay.db"

    async def replay() -> None:
        clock = VirtualClock(random.Random(0))
        faults = iter(world.luck.met)
        store = FaultyStore(SqliteStore(path), lambda: next(faults))
        heart = Heart(store, clock, recorder.registry.settings)
        await store.open()
        try:
            for number, (inputs, now_ms, outcome) in enumerate(recorder.log):
                clock.ms = now_ms
                try:
                    told = repr((await heart.handle(inputs)).decided)
                except StoreUnavailable as error:
                    told = repr(error)
                assert told == outcome, f"group {number}: {inputs}"
            await same_answers(store, world)
        finally:
            await store.close()

    with small_bounds(seed):
        asyncio.run(replay())
    assert rows_of(path) == {name: sorted(world.tables.by_name[name], key=repr) for name in SPECS}


async def same_answers(store: Store, world: ActorWorld) -> None:
    """Every query gives the same on both."""
    ranges = [
        EntryRange(start=start, end=end, reverse=reverse, limit=limit)
        for start, end, limit in (("", None, 9), ("k2", None, 1), ("", "k3", 9), ("k2", "k4", 2))
        for reverse in (False, True)
    ]
    queries: list[tuple[str, tuple[object, ...]]] = [
        ("actor_kinds", (2,)),
        ("actor_kinds", (99,)),
        ("actors", (KIND, 2)),
        ("actors", (KIND, 9, "a")),
        ("held_alarms", (world.holder,)),
        *(("actor", (KIND, name)) for name in (*NAMES, "nobody")),
        *(("actor_values", (KIND, name, [*KEYS[1:], "none"])) for name in NAMES),
        *(("actor_range", (KIND, name, wanted)) for name in NAMES for wanted in ranges),
    ]
    for query, values in queries:
        answer = await getattr(store.reader, query)(*values)
        assert answer == await getattr(world.store.reader, query)(*values), (query, values)
