"""The stores are equal: the same inputs at the same times, under the same faults, have the same outcomes and leave the same rows."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.commands import RegistryChanged
from stepwell.engine.inputs import AnyInput
from stepwell.engine.registry import Settings
from stepwell.engine.tables import SPECS, Tables
from stepwell.errors import StoreUnavailable
from stepwell.primitives.queue_care import place_of
from stepwell.protocol.ids import ulid_ms
from stepwell.runtime.heart import Beat, Heart
from stepwell.store.base import RunOrder, RunWalk, Store
from stepwell.store.sqlite import SqliteStore
from stepwell.store.statements import CODECS
from tests.simulation import queues
from tests.simulation.actors import ActorWorld
from tests.simulation.checkers import WatchedHeart
from tests.simulation.clock import VirtualClock
from tests.simulation.faults import FaultyStore
from tests.simulation.queues import QueueHeart
from tests.simulation.world import World, simulate, small_bounds

SEEDS = range(1, 25)
OF_RUN = ("run", "steps", "attempts", "items_of", "timers_of", "defers_of", "inputs_of", "metadata_of", "spans_of", "trace_totals")


class Recorder(WatchedHeart):
    """A heart that keeps its groups with their time and what became of them."""

    log: list[tuple[list[AnyInput], int, str]]

    def __init__(self, store: Store, clock: VirtualClock, settings: Settings) -> None:
        super().__init__(store, clock, settings)
        self.log = []

    async def handle(self, inputs: Sequence[AnyInput]) -> Beat:
        """Handle, and note."""
        now_ms = self._clock.now_ms()
        try:
            beat = await super().handle(inputs)
        except StoreUnavailable as error:
            self.log.append((list(inputs), now_ms, repr(error)))
            raise
        self.log.append((list(inputs), now_ms, repr(beat.decided)))
        return beat


class QueueRecorder(Recorder, QueueHeart):
    """The same for a heart whose decisions a model of queues watches."""


@pytest.mark.parametrize("seed", SEEDS)
def test_sqlite_does_what_the_model_does(seed: int, tmp_path: Path) -> None:
    """A simulated course, faults and all, played again on a file: outcome by outcome, and all rows at the end."""
    play_again(simulate(seed, Recorder), small_bounds(seed), tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
def test_sqlite_does_what_the_model_does_with_queues(seed: int, tmp_path: Path) -> None:
    """The same for the courses of queues."""
    play_again(queues.simulate(seed, QueueRecorder), queues.small_bounds(seed), tmp_path)


def play_again(
    world: World | queues.QueueWorld | ActorWorld,
    bounds: AbstractContextManager[None],
    tmp_path: Path,
    compare: Callable[[Store, Store, Tables], Awaitable[None]] | None = None,
) -> None:
    """Give the same inputs at the same times to a file. `compare` asks both stores; unless said, all that runs and queues are asked."""
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
                    decided = (await heart.handle(inputs)).decided
                    assert repr(decided) == outcome, f"group {number}: {inputs}"
                    if any(isinstance(effect, RegistryChanged) for one in decided for effect in one.effects):
                        await heart.reload()
                except StoreUnavailable as error:
                    assert repr(error) == outcome, f"group {number}: {inputs}"
            await (compare or same_answers)(store, world.store, world.tables)
        finally:
            await store.close()
        assert next(faults, None) is None

    with bounds:
        asyncio.run(replay())
    assert rows_of(path) == {name: sorted(world.tables.by_name[name], key=repr) for name in SPECS}


async def same_answers(store: Store, model: Store, tables: Tables) -> None:
    """Every query gives the same on both."""
    queries: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("catalogue", (), {}),
        ("holders", (), {}),
        ("functions_with_work", (), {}),
        ("set_aside", (10,), {}),
        ("cancellations", (10,), {}),
        ("due_timers", (1 << 60, 10), {}),
        ("queue_depths", (3,), {}),
        ("leased_items", (5,), {}),
        *(("items_ahead", (item, 10), {}) for item in tables.items if item.holder is None),
        *(("begun_runs", (function.id, 5), {}) for function in tables.functions),
        ("next_due_ms", (0,), {}),
        *(("held_items", (holder.id,), {}) for holder in tables.holders),
        *((name, (run.id,), {}) for run in tables.runs for name in OF_RUN),
        *(("walk_runs", (RunWalk(order=order, descending=down), 50), {}) for order in RunOrder for down in (True, False)),
        *(("walk_runs", (RunWalk(function_id=run.function_id, after=(ulid_ms(run.id), run.id)), 5), {}) for run in tables.runs),
        *(("walk_events", (5, event.id), {}) for event in tables.events),
        *(("step", (step.run_id, step.id), {}) for step in tables.steps),
        *(("attempt", (attempt.id,), {}) for attempt in tables.attempts),
        ("runs_by_id", ([run.id for run in tables.runs],), {}),
        *((name, (event.id, *limit), {}) for event in tables.events for name, limit in (("event", ()), ("runs_of_event", (5,)))),
        *(("runs", (), {"limit": 3, "cursor": run.id, "function_id": run.function_id}) for run in tables.runs),
        *(("runs", (), {"limit": 3, "status": run.status}) for run in tables.runs),
        *(("events", (), {"limit": 3, "cursor": event.id, "name": event.name}) for event in tables.events),
        ("queues", (2,), {}),
        *(("queues", (2, queue.id), {}) for queue in tables.queues),
        *(("queue_messages", (queue.id, 3), {}) for queue in tables.queues),
        *(("queue_messages", (one.queue, 3, place_of(one)), {}) for one in tables.messages),
        *(("message", (message_id,), {}) for message_id in (*tables.messages.rows, "none")),
        *(("deliveries_of", (queue.id, 2), {}) for queue in tables.queues),
        *(("held_deliveries", (holder.id,), {}) for holder in tables.holders),
        *(("events", (), {"limit": 9, "received_after_ms": event.received_ms}) for event in tables.events),
    ]
    for name, values, named in queries:
        answer = await getattr(store.reader, name)(*values, **named)
        assert answer == await getattr(model.reader, name)(*values, **named), (name, values, named)


def rows_of(path: Path) -> dict[str, list[Any]]:
    """All that a closed file holds."""
    connection = sqlite3.connect(path)
    rows = {}
    for name, spec in SPECS.items():
        columns = ", ".join(f'"{column}"' for column in spec.row.__struct_fields__)
        rows[name] = sorted((CODECS[name].row_of(values) for values in connection.execute(f"SELECT {columns} FROM {name}")), key=repr)
    connection.close()
    return rows
