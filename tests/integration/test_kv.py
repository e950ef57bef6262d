"""Key-value namespaces, by each way that an app has to its engine: in its process, over HTTP, in a child process."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import stepwell
from stepwell.engine.inputs import NodeStarted, SignalSent, TimerDue
from stepwell.engine.inputs_primitives import KvWritten
from stepwell.engine.model_primitives import KvEntry
from stepwell.engine.timers import SWEEP_KEEPS_MS, SWEEP_MS
from stepwell.errors import ProtocolError, UsageError
from stepwell.runtime.heart import Heart
from stepwell.runtime.node import Node
from stepwell.sdk.kv import Kv
from stepwell.store.memory import MemoryStore
from tests.simulation.clock import VirtualClock, at_once


@dataclasses.dataclass
class Flag:
    """A typed value."""

    on: bool
    share: float


@asynccontextmanager
async def engine(tmp_path: Path, db: bool) -> AsyncIterator[tuple[Kv, Node]]:
    """A namespace of an app whose engine is in this process."""
    app = stepwell.App("flags")
    async with app.engine(db=tmp_path / "kv.db" if db else None) as running:
        yield app.kv("flags"), running.node


@pytest.mark.parametrize("db", [False, True], ids=["memory", "sqlite"])
def test_what_was_put_is_what_get_finds(tmp_path: Path, db: bool) -> None:
    """JSON values come back as they were, bytes as bytes; typed where a type is asked for; a put takes the place of all of another."""

    async def test() -> None:
        async with engine(tmp_path, db) as (flags, _):
            values = {"a": {"n": 1.0, "list": [True, None]}, "b": b"\x00\xff", "c": "text", "d": None, "e": 2**60}
            for key, value in values.items():
                await flags.put(key, value)
            assert await flags.get_many([*values, "z", "a"]) == {**values, "z": None}
            assert isinstance((await flags.get("a"))["n"], float)
            await flags.put("flag", Flag(on=True, share=1.0), metadata={"by": "ann"}, ttl="1h")
            assert await flags.get("flag", type=Flag) == Flag(on=True, share=1.0)
            found = await flags.get_with_metadata("flag")
            assert found is not None and found.metadata == {"by": "ann"}
            assert found.expires_at is not None and timedelta(minutes=59) < found.expires_at - datetime.now(UTC) < timedelta(minutes=61)
            await flags.put("flag", 1)
            assert await flags.get_with_metadata("flag") == stepwell.KvValue(1)
            await flags.delete("flag", "a", "never there")
            assert await flags.get("flag", "default") == "default"
            assert await flags.get("a") is None

    asyncio.run(test())


@pytest.mark.parametrize("db", [False, True], ids=["memory", "sqlite"])
def test_lists_are_in_the_order_of_bytes_and_go_on_behind_the_last_key(tmp_path: Path, db: bool) -> None:
    """UTF-8's order, with a NUL, U+0001 and the last code point among the keys; changes before a page do no harm."""

    async def test() -> None:
        keys = ["B", "a", "z", "é", "￿", "😀", "a\x00b", "a\x01b", "a\x01", "ab", "a\U0010ffff\U0010ffff"]
        async with engine(tmp_path, db) as (flags, _):
            for key in keys:
                await flags.put(key, key)
            expected = sorted(keys, key=str.encode)
            assert [key.name async for key in flags.keys("")] == expected
            assert await flags.get_many(keys) == {key: key for key in keys}
            assert [key.name async for key in flags.keys("a")] == [key for key in expected if key.startswith("a")]
            first = await flags.list(limit=4)
            assert [key.name for key in first.keys] == expected[:4]
            await flags.delete(expected[3])
            rest = await flags.list(limit=7, cursor=first.cursor)
            assert [key.name for key in rest.keys] == expected[4:]
            assert rest.cursor is None

    asyncio.run(test())


def test_what_has_expired_is_not_seen_and_goes_with_the_sweep(tmp_path: Path) -> None:
    """Not by get nor by list, from its very millisecond on; the row goes a while later."""

    async def test() -> None:
        store = MemoryStore()
        app = stepwell.App("flags")
        async with app.engine(store=store) as running:
            clock = running.node.clock
            flags = app.kv("flags")
            soon = datetime.fromtimestamp((clock.now_ms() + 50) / 1000, UTC)
            await flags.put("short", 1, expires_at=soon)
            await flags.put("long", 2, ttl="1d")
            async with asyncio.timeout(5):
                while await flags.get("short") is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert [key.name async for key in flags.keys("")] == ["long"]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("", "empty"),
        (".", "not allowed"),
        ("..", "not allowed"),
        ("é" * 257, "514 bytes"),
        ("\ud800", "surrogate"),
        (3, "must be a string"),
    ],
)
def test_keys_that_are_none_are_refused(tmp_path: Path, key: str, sentence: str) -> None:
    """With a sentence, before anything is asked."""

    async def test() -> None:
        async with engine(tmp_path, False) as (flags, _):
            for ask in (flags.put(key, 1), flags.get(key), flags.delete(key)):
                with pytest.raises(UsageError, match=sentence):
                    await ask

    asyncio.run(test())


def test_values_beyond_the_bounds_are_refused(tmp_path: Path) -> None:
    """25 MiB is taken and one byte more is not; metadata have 1,024 bytes; 100 keys are read at once; a time that is over is none."""

    async def test() -> None:
        async with engine(tmp_path, True) as (flags, _):
            largest = b"x" * (25 * 1024 * 1024)
            await flags.put("large", largest)
            assert await flags.get("large") == largest
            with pytest.raises(UsageError, match="26214401 bytes"):
                await flags.put("large", largest + b"x")
            await flags.put("m", 1, metadata="x" * 1022)
            with pytest.raises(UsageError, match="1025 bytes"):
                await flags.put("m", 1, metadata="x" * 1023)
            with pytest.raises(UsageError, match="101 keys"):
                await flags.get_many([str(n) for n in range(101)])
            with pytest.raises(UsageError, match="not both"):
                await flags.put("m", 1, ttl="1h", expires_at=datetime.now(UTC))
            with pytest.raises(ProtocolError, match="not in the future"):
                await flags.put("m", 1, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
            with pytest.raises(UsageError, match="no name"):
                stepwell.App("a").kv("not a name")
            with pytest.raises(ProtocolError, match="cursor"):
                await flags.list(cursor="€")

    asyncio.run(test())


def test_values_are_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    """Durable when `put` returns."""

    async def test() -> None:
        for opened in range(3):
            async with engine(tmp_path, True) as (flags, node):
                assert await flags.get("n", 0) == opened
                await flags.put("n", opened + 1)
                assert await node.reader.kv_namespaces(10) == ("flags",)

    asyncio.run(test())


@pytest.mark.parametrize("db", [False, True], ids=["memory", "sqlite"])
def test_kept_signals_are_no_namespace(tmp_path: Path, db: bool) -> None:
    """They lie among the entries, in a namespace that has no name: nobody is told of it."""

    async def test() -> None:
        async with engine(tmp_path, db) as (flags, node):
            await node.submit(SignalSent("go", b"1", keep_until_ms=node.clock.now_ms() + 60_000))
            assert await node.reader.kv_namespaces(10) == ()
            await flags.put("n", 1)
            assert await node.reader.kv_namespaces(10) == ("flags",)

    asyncio.run(test())


def test_the_sweep_takes_what_has_expired() -> None:
    """By the scan that gives expired entries only, the first to end first; kept a while longer, for a clock that is set back."""
    tables = MemoryStore().tables
    for key, ends in (("a", 5), ("b", None), ("c", 3), ("d", 9)):
        entry = KvEntry(namespace="n", key=key, value=b"", content_type="json", metadata=None, expires_ms=ends)
        tables.kv.put(("n", key), entry)
    assert [entry.key for entry in tables.old_entries("5")] == ["c", "a"]
    clock = VirtualClock(random.Random(1))
    store = MemoryStore()
    heart = Heart(store, clock)
    entry = KvEntry(namespace="n", key="k", value=b"1", content_type="json", metadata=None, expires_ms=clock.ms + 1)
    at_once(heart.handle([NodeStarted("node", "node/1"), KvWritten("n", (entry,), ())]))
    clock.ms += SWEEP_KEEPS_MS
    at_once(heart.handle([TimerDue("sweep")]))
    assert ("n", "k") in store.tables.kv.rows
    clock.ms += 1 + SWEEP_MS
    at_once(heart.handle([TimerDue("sweep")]))
    assert not store.tables.kv.rows
