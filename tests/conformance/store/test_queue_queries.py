"""One suite for every store: queues by name, and their messages from a place on."""

from __future__ import annotations

from collections.abc import Callable

from stepwell.engine.commands import Put
from stepwell.engine.model_primitives import Message, Queue
from stepwell.primitives.queue_care import place_of
from stepwell.store.base import Store
from tests.conformance.store.conftest import Work
from tests.conformance.store.test_store import write


def test_queues_are_found_by_name(check: Callable[[Work], None]) -> None:
    """One, and a page behind one."""

    async def work(store: Store) -> None:
        rows = [Queue(id=name, waiting=n, dead_letter="d") for n, name in enumerate("bac")]
        for row in rows:
            await write(store, Put(row))
        assert await store.reader.queue("a") == rows[1]
        assert await store.reader.queue("aa") is None
        assert [row.id for row in await store.reader.queues(2)] == ["a", "b"]
        assert [row.id for row in await store.reader.queues(2, "b")] == ["c"]

    check(work)


def test_messages_go_on_behind_a_place(check: Callable[[Work], None]) -> None:
    """By the time from which they wait, then by id; those that are out and those of other queues are not among them."""

    async def work(store: Store) -> None:
        rows = [
            Message(
                id=f"{n:032x}", queue="a" if n % 5 else "b", ready_ms=100 - n // 3, sent_ms=1, content_type="json", body=b"1", error=b"{}"
            )
            for n in range(20)
        ]
        for row in rows:
            await write(store, Put(row))
        expected = sorted((row for row in rows if row.queue == "a"), key=lambda row: (row.ready_ms, row.id))
        found: list[Message] = []
        while page := await store.reader.queue_messages("a", 3, place_of(found[-1]) if found else ""):
            found += page
        assert found == expected

    check(work)
