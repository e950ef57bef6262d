"""Bindings without a server: how their methods begin, what they send, which names and ids they have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import UsageError
from stepwell.sdk.app import App
from stepwell.workers import wire
from stepwell.workers.bindings.calling import Begun, Started, at_once, begins, number_of, options_of, owe, paid, shown_number
from stepwell.workers.bindings.kv import KvNamespace
from stepwell.workers.bindings.names import CHARS_MAX, store_name
from stepwell.workers.bindings.queue import Queue
from stepwell.workers.config import Migration, Project, Renamed
from stepwell.workers.errors import BindingError
from stepwell.workers.objects.classes import Stored, stored_classes
from stepwell.workers.objects.ids import Names, actor_name
from stepwell.workers.web.request import Request
from stepwell.workers.web.response import Response


class Way:
    """Answers every request alike, and keeps them."""

    def __init__(self, answer: Any, status: int = 200) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._answer, self._status = json.dumps(answer).encode(), status

    async def ask(self, method: str, path: str, body: bytes = b"", *, once: bool = False) -> tuple[int, bytes]:
        self.asked.append((method, path, json.loads(body or b"null")))
        return self._status, self._answer


def app_with(way: Way) -> App:
    app = App("here")
    app._engine = way  # type: ignore[assignment]
    return app


def test_work_begins_when_it_is_called() -> None:
    """Awaited or not; it may be gathered, made a task and cancelled as a coroutine may."""
    done: list[int] = []

    @begins
    async def soon(n: int) -> int:
        await asyncio.sleep(0)
        done.append(n)
        return n

    @at_once
    async def now(n: int) -> int:
        done.append(n)
        if n < 0:
            raise ValueError(n)
        if n > 5:
            await asyncio.sleep(0)
            done.append(10 * n)
        return n

    async def main() -> None:
        now(1)
        assert done == [1]
        unawaited = soon(2)
        assert isinstance(unawaited, Coroutine) and done == [1]
        await asyncio.sleep(0.01)
        assert done == [1, 2]
        assert await asyncio.gather(soon(3), now(4), now(6)) == [3, 4, 6] and 60 in done
        assert await asyncio.create_task(now(7)) == 7
        failed = now(-1)
        with pytest.raises(ValueError, match="-1"):
            await failed
        forever: Begun[None] = Begun(asyncio.Event().wait())  # type: ignore[arg-type]
        waiting = asyncio.create_task(forever)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        half: Started[None] = Started(asyncio.Event().wait())  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(half, 0.01)

    asyncio.run(main())


def test_what_is_owed_is_paid_first() -> None:
    """Nothing leaves before it: what is called meanwhile goes behind it."""
    order: list[str] = []

    @begins
    async def leaves() -> None:
        order.append("left")

    async def main() -> None:
        gate = asyncio.Event()

        async def slow() -> None:
            await gate.wait()
            order.append("paid")

        owe(asyncio.get_running_loop().create_task(slow()))
        leaving = leaves()
        await asyncio.sleep(0.01)
        assert order == []
        gate.set()
        await leaving
        await paid()
        assert order == ["paid", "left"]

    asyncio.run(main())


def test_options_and_numbers() -> None:
    """Keywords win over a dict; numbers are made and written as JavaScript does."""
    assert options_of({"a": 1, "b": 2}, {"b": 3}) == {"a": 1, "b": 3} and options_of(None, {"a": 1}) == {"a": 1}
    with pytest.raises(TypeError, match="give keywords, or a dict"):
        options_of(5, {})
    assert [shown_number(number_of(one)) for one in (59, 60.5, "60", None, "x", 1e400, -1e400)] == [
        "59",
        "60.5",
        "60",
        "0",
        "NaN",
        "Infinity",
        "-Infinity",
    ]


def test_names_of_stores() -> None:
    """An id that may be a name is one; others always become the same one, and different ones."""
    assert store_name("a1-b_c") == "a1-b_c"
    odd = {store_name(one) for one in ("<BINDING_ID>", "BINDING_ID ", "x" * 65, "x" * 66, "é")}
    assert len(odd) == 5 and all(len(one) <= CHARS_MAX and one.isascii() for one in odd)
    assert store_name("<ID>") == store_name("<ID>") != store_name("ID")


def test_what_queues_send() -> None:
    """A message's own delay, the call's, the producer's; content types; dates and numbers as JSON has them."""

    async def main() -> None:
        way = Way({"ids": ["1"], "backlog": {"messages": 3, "bytes": 9}})
        queue = Queue(app_with(way), "jobs", 7)
        sent = await queue.send({"at": datetime(2026, 1, 2, tzinfo=UTC), "n": float("nan"), "b": b"\x01"})
        assert sent.metadata.metrics == {"backlogCount": 3, "backlogBytes": 9}
        wire_body = {"at": "2026-01-02T00:00:00.000Z", "n": None, "b": {"0": 1}}
        assert way.asked.pop() == (
            "POST",
            "/queues/jobs/messages",
            {"messages": [{"body": wire_body, "content_type": "json", "delay_ms": 7000}]},
        )
        await queue.sendBatch([{"body": b"x", "contentType": "bytes"}, {"body": "y", "delaySeconds": 0}], delaySeconds="1.5")
        assert way.asked.pop()[2]["messages"] == [
            {"body": "eA==", "content_type": "bytes", "delay_ms": 1000},
            {"body": "y", "content_type": "json", "delay_ms": 0},
        ]
        for body, options, error in (
            ((1,), {}, "cannot be sent"),
            ("x", {"contentType": "v8"}, "only JavaScript has"),
            ("x", {"delaySeconds": 1e12}, "Value out of range"),
            ("x", "text", "give keywords"),
        ):
            with pytest.raises(TypeError, match=error):
                await queue.send(body, options)
        with pytest.raises(TypeError, match="cannot be undefined"):
            await queue.send()
        with pytest.raises(BindingError, match="from 0 to 86400"):
            await queue.send("x", delaySeconds=-1)
        with pytest.raises(TypeError, match=r'like \{"body"'):
            await queue.sendBatch(["x"])
        refused = Queue(app_with(Way({"error": "too large"}, 413)), "jobs")
        with pytest.raises(BindingError, match="too large"):
            await refused.send("x")

    asyncio.run(main())


def test_what_kv_puts_and_asks() -> None:
    """Streams and buffers are bytes; a cursor that is refused is left out; a refusal is told with its status."""

    async def main() -> None:
        way = Way({"ok": True})
        kv = KvNamespace(app_with(way), "<ID>")

        async def parts() -> Any:
            yield b"ab"
            yield b"c"

        await kv.put("k", parts(), {"expirationTtl": "61.5"}, metadata={"a": 1})
        method, path, body = way.asked.pop()
        assert (method, path) == ("POST", f"/kv/{store_name('<ID>')}/write")
        assert body == {"puts": [{"key": "k", "content_type": "bytes", "value": "YWJj", "ttl_ms": 61000, "metadata": {"a": 1}}]}
        refused = KvNamespace(app_with(Way({"error": "no"}, 400)), "x")
        with pytest.raises(BindingError, match="KV GET failed: 400 no"):
            await refused.list(cursor="odd")
        with pytest.raises(BindingError, match="KV DELETE failed: 400 no"):
            await refused.delete("k")

    asyncio.run(main())


def test_values_between_processes() -> None:
    """What MessagePack has no form for, whole requests and responses, exceptions by their type; what cannot go is refused."""

    async def back(value: Any) -> Any:
        return wire.decode_outcome(await wire.encode(wire.Outcome(value)))

    async def main() -> None:
        at = datetime(2026, 5, 1, 12, 30)
        plain = {"at": at, "set": {1, 2}, "big": 10**30, "bytes": b"\x00", "none": None, "list": [1.5, "é", True]}
        assert await back(plain) == plain
        error = await back(ValueError("told"))
        assert str(error) == "told"
        response = await back(Response("body", 201, "Made", {"x-a": "1"}))
        assert (response.status, response.status_text, response.headers["x-a"], await response.text()) == (201, "Made", "1", "body")
        request = (await back([Request("https://a/b?c=1", method="PUT", body="x", headers={"x-b": "2"})]))[0]
        assert (request.method, request.url, request.headers["x-b"], await request.text()) == ("PUT", "https://a/b?c=1", "2", "x")
        with pytest.raises(TypeError, match="cannot be sent to a Worker in another process"):
            await back(print)
        with pytest.raises(BindingError, match="limited to 32MiB"):
            await back(b"x" * (32 * 1024 * 1024))

    asyncio.run(main())
    for name, message, kind in (("KeyError", "k", KeyError), ("Custom", "own", BindingError), ("UnicodeDecodeError", "x", BindingError)):
        with pytest.raises(kind, match=message):
            wire.decode_outcome(asyncio.run(wire.encode(wire.Outcome(error=(name, message)))))


def test_ids_of_objects() -> None:
    """The same for a name, good for one class, and told apart from those made at random; the server's name tells which it is."""
    tenants, others = Names(App("here"), "shop.objects-Tenant"), Names(App("here"), "shop.objects-Other")
    acme = tenants.named("acme")
    assert acme.equals(tenants.named("acme")) and acme != tenants.named("b") and acme != others.named("acme")
    assert len({acme, tenants.named("acme")}) == 1 and acme.name == "acme"
    lone = tenants.random()
    assert lone.name is None and tenants.of_digits(lone.toString()) == lone != tenants.random()
    for digits, error in (
        ("abc", "must be 64 hex digits"),
        ("g" * 64, "must be 64 hex digits"),
        (str(others.random()), "not valid for this"),
    ):
        with pytest.raises(TypeError, match=error):
            tenants.of_digits(digits)
    with pytest.raises(TypeError, match="bytes at most"):
        tenants.named("x" * 2000)

    async def known_as(id: Any) -> str:
        return await tenants.actor_of(id)

    for name in ("acme", "", "#x", "#=", "é"):
        assert asyncio.run(known_as(tenants.named(name))) == actor_name(name)
        assert tenants.of_actor(actor_name(name)) == tenants.named(name)
    told = asyncio.run(known_as(lone))
    assert told == f"#{lone}" and tenants.of_actor(told) == lone


def test_classes_keep_their_objects_under_new_names() -> None:
    """Renamed classes have the key that they began with; a name that is taken anew has another."""
    migrations = (
        Migration(tag="1", new_sqlite_classes=("A", "B"), new_classes=("K",)),
        Migration(tag="2", renamed_classes=(Renamed(before="A", after="C"),), deleted_classes=("B",)),
        Migration(tag="3", new_sqlite_classes=("A", "B")),
    )
    project = Project(file=Path("wrangler.toml"), name="p", main=Path("entry.py"), migrations=migrations)
    assert stored_classes(project) == {"C": Stored("A"), "K": Stored("K", False), "A": Stored("A.2"), "B": Stored("B.2")}


def test_limits_of_the_command_line() -> None:
    """By kind of handlers, in durations."""
    from stepwell.cli_workers import read_limits

    limits = read_limits(("queue.cpu=30s", "queue.wall=15m", "wait-until=30s"))
    assert (limits.queue.cpu_s, limits.queue.wall_s, limits.wait_until_s, limits.fetch.cpu_s) == (30, 900, 30, None)
    for wrong in ("queue=1s", "queue.gpu=1s", "other.cpu=1s", "queue.cpu=soon", "queue.cpu"):
        with pytest.raises(UsageError, match="--limit"):
            read_limits((wrong,))
