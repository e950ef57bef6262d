"""Questions about runs and queues that take more than one read: why a run waits, and how much waits for whom."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.engine.flow.keys import THROTTLE, gating
from stepwell.engine.flow.why import Facts, Why, explain
from stepwell.engine.model import Item, Run
from stepwell.engine.view import Select, Selection
from stepwell.errors import NotFound
from stepwell.runtime.clock import Clock
from stepwell.runtime.heart import Heart
from stepwell.store.base import Reader

AHEAD_MAX = 100_000
"""How far the items before a run are counted."""

HELD_MAX = 1000
"""Leased items and begun runs that are looked at for who holds a key."""

HOLDERS_MAX = 10
"""Runs that are named as holding a key."""


async def why(reader: Reader, heart: Heart, clock: Clock, run_id: str) -> Why:
    """What a run waits for. Raises `NotFound`."""
    run = await reader.run(run_id)
    function = heart.registry.functions.get(run.function_id) if run is not None else None
    if run is None or function is None:
        raise NotFound(f"there is no run {run_id!r}")
    items = await reader.items_of(run_id)
    waiting = sorted((item for item in items if item.holder is None), key=lambda item: (item.starts, item.order_ms, item.id))
    view = await heart.look(list(selections(run)))
    held = await holders(reader, run, waiting) if waiting else {}
    facts = Facts(
        run=run,
        function=function,
        items=items,
        timers=await reader.timers_of(run_id),
        steps=await reader.steps(run_id),
        ahead=await reader.items_ahead(waiting[0], AHEAD_MAX) if waiting else 0,
        held=held,
    )
    return explain(facts, view, clock.now_ms())


async def pause_of(reader: Reader, run: Run) -> str | None:
    """`paused`, or `pausing` while a call of it is out; `None` where nobody has paused the run, of which nothing more is read."""
    if run.held is None:
        return None
    return "pausing" if any(item.holder is not None for item in await reader.items_of(run.id)) else "paused"


def selections(run: Run) -> Iterator[Selection]:
    """What may keep a run's items back."""
    for key in gating(run.keys):
        yield Select("rates" if key.startswith(THROTTLE) else "counters", key)


async def holders(reader: Reader, run: Run, waiting: list[Item]) -> dict[str, tuple[str, ...]]:
    """Some of the runs that hold the keys which an item wants."""
    held: dict[str, dict[str, None]] = {key: {} for key in run.keys}
    for item in await reader.leased_items(HELD_MAX):
        for key in item.keys:
            held.get(key, {})[item.run_id] = None
    for other in await reader.begun_runs(run.function_id, HELD_MAX):
        for key in other.keys:
            if key.startswith("run/"):
                held.get(key, {})[other.id] = None
    return {key: tuple(runs)[:HOLDERS_MAX] for key, runs in held.items()}
