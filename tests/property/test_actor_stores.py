"""Actors on a database are what they are on the model: the same inputs under the same faults leave the same rows and answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell.store.base import EntryRange, Store
from tests.property.test_stores import Recorder, play_again
from tests.simulation.actors import KEYS, KIND, NAMES, simulate_actors, small_bounds

SEEDS = range(1, 17)


@pytest.mark.parametrize("seed", SEEDS)
def test_sqlite_does_what_the_model_does(seed: int, tmp_path: Path) -> None:
    """A simulated course, played again on a file: outcome by outcome, and all rows and queries at the end."""
    world = simulate_actors(seed, Recorder)
    play_again(world, small_bounds(seed), tmp_path, lambda store, model, _: same_answers(store, model, world.holder))


async def same_answers(store: Store, model: Store, holder: str) -> None:
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
        ("held_alarms", (holder,)),
        *(("actor", (KIND, name)) for name in (*NAMES, "nobody")),
        *(("actor_values", (KIND, name, [*KEYS[1:], "none"])) for name in NAMES),
        *(("actor_range", (KIND, name, wanted)) for name in NAMES for wanted in ranges),
    ]
    for query, values in queries:
        answer = await getattr(store.reader, query)(*values)
        assert answer == await getattr(model.reader, query)(*values), (query, values)
