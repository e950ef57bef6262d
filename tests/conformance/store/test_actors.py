"""One suite for every store: actors and what they have stored, whatever its keys and bytes are; and by which index it is found."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

from stepwell.engine.commands import Put, SetRow
from stepwell.engine.model_actors import Actor, ActorEntry
from stepwell.engine.tables import entries_value
from stepwell.engine.view import Scan, Select
from stepwell.store.base import EntryRange, Store
from stepwell.store.sqlite import SqliteStore
from stepwell.store.sqlite_reader import STATEMENTS
from tests.conformance.store.conftest import Work
from tests.conformance.store.test_store import seen, write

KEYS = ["", "\n", "B", "a", "a b", 'a"b', "z", "é", "\uffff", "\U0001f600"]
"""In the order of their bytes."""


def an_entry(key: str, **columns: object) -> ActorEntry:
    """An entry."""
    return ActorEntry(**{"kind": "k", "name": "n/ü", "generation": 0, "key": key, "value": bytes(range(256)), **columns})  # type: ignore[arg-type]


ACTOR = Actor(kind="k", name="n/ü", fence=1)


def test_entries_have_any_key_and_any_bytes(check: Callable[[Work], None]) -> None:
    """By key, by range and by scan, in the order of their bytes; of this generation only."""

    async def work(store: Store) -> None:
        others = [an_entry("a", generation=1), an_entry("a", name="other"), an_entry("a", kind="other")]
        await write(store, Put(ACTOR), *(Put(an_entry(key)) for key in reversed(KEYS)), *(Put(entry) for entry in others))
        wanted = EntryRange(limit=99)
        assert [key for key, _ in await store.reader.actor_range("k", "n/ü", wanted)] == KEYS
        assert await store.reader.actor_values("k", "n/ü", ["é", "a b", "-"]) == (("a b", bytes(range(256))), ("é", bytes(range(256))))
        view = await seen(
            store, Scan("actor_entries", entries_value(ACTOR), 99), *(Select("actor_entries", ("k", "n/ü", 0, key)) for key in KEYS)
        )
        assert [entry.key for entry in view.scan("actor_entries", entries_value(ACTOR), 99)] == KEYS
        for key in KEYS:
            assert view.get("actor_entries", ("k", "n/ü", 0, key)) == an_entry(key)
        key = ("k", "n/ü", 0, "a b")
        await write(store, SetRow(an_entry("a b", value=b"")), selections=(Select("actor_entries", key),))
        assert await store.reader.actor_values("k", "n/ü", ["a b"]) == (("a b", b""),)

    check(work)


def test_every_query_of_actors_has_its_index(tmp_path: Path) -> None:
    """None looks at more than it gives."""

    async def made() -> None:
        store = SqliteStore(tmp_path / "store.db")
        await store.open()
        await store.close()

    asyncio.run(made())
    connection = sqlite3.connect(tmp_path / "store.db")
    parameters = {"kind": "k", "name": "n", "keys": '["a"]', "start": "", "until": None, "limit": 1, "after": "", "holder": "h"}
    parameters |= {"value": '["k","n",0]'}
    names = ("actor_values", "actor_range", "actor_range_reversed", "actor", "actors", "held_alarms", "actor_entries", "firing_actors")
    for name in (*names, "select_actors", "select_actor_entries", "delete_actor_entries"):
        plan = " | ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[name].text}", parameters))
        assert "SCAN actor" not in plan and "SCAN entry" not in plan, (name, plan)
    connection.close()
