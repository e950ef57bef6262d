"""Queues: sends one by one and in batches, batches consumed, by the machine alone and through a server with child processes; and all of
that beside a million messages that wait.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.overhttp import POSTERS
from bench.result import Result
from stepwell.engine.inputs import AnyInput, AppSynced, NodeStarted
from stepwell.engine.inputs_primitives import BatchAnswered, LeasesSettled, MessagesPulled, MessagesSent, NewMessage, QueueClaimed, QueueSet
from stepwell.primitives.queue_claims import Deliver
from stepwell.primitives.queue_pulls import Pulled, lease_of
from stepwell.protocol.functions import FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import ulid
from stepwell.protocol.queues import Consumer, Outcome, message_id
from stepwell.runtime.clock import SystemClock
from stepwell.runtime.heart import Decided, Heart
from stepwell.store.sqlite import SqliteStore
from tests.support.processes import Server, until

BODY = {"order": "o-1", "tenant": "acme", "items": [1, 2, 3]}
RAW = json.dumps(BODY, separators=(",", ":"), sort_keys=True).encode()
BATCH = 100
WAITING = 1_000_000
ROUNDS = 40


class Machine:
    """A heart over a file, with a pushed queue `q` and a pulled one, `p`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path)
        self.heart = Heart(self.store, SystemClock())
        self.sent = self.written = 0

    async def open(self) -> None:
        """Open it, with the consumer."""
        await self.store.open()
        consumer = Consumer(max_batch_size=BATCH, max_batch_timeout_ms=0)
        config = FunctionConfig(id="a-q", name="q", triggers=(Trigger(queue="q"),), consumer=consumer)
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=(config,), checksum="1")
        await self.give([NodeStarted("n", "n/1")])
        await self.give([AppSynced(told, "local")])
        await self.heart.reload()
        await self.give([QueueSet(queue="p")])

    async def give(self, inputs: Sequence[AnyInput]) -> list[Decided]:
        """Have inputs decided, group by group."""
        decided: list[Decided] = []
        while len(decided) < len(inputs):
            beat = await self.heart.handle(inputs[len(decided) :])
            decided += beat.decided
            for change in beat.changes.tables.values() if beat.changes else ():
                self.written += len(change.inserted) + len(change.updated) + len(change.deleted)
        for one in decided:
            if one.error is not None:
                raise one.error
        return decided

    def messages(self, count: int, queue: str = "q") -> MessagesSent:
        """A send of new messages."""
        base = (time.time_ns() // 1_000_000 << 80) | self.sent
        self.sent += count
        return MessagesSent(queue, tuple(NewMessage(message_id(base + n), RAW, "json") for n in range(count)), fresh=True)

    async def send(self, sends: int, each: int, group: int) -> float:
        """So many sends of so many messages, so many of them in a group; gives messages a second."""
        began = time.perf_counter()
        for start in range(0, sends, group):
            await self.give([self.messages(each) for _ in range(min(group, sends - start))])
        return sends * each / (time.perf_counter() - began)

    async def consume(self) -> tuple[int, float]:
        """Claim and ack until nothing waits; gives how many messages that were, and how many a second."""
        began, done = time.perf_counter(), 0
        answers: list[AnyInput] = []
        while True:
            claim = QueueClaimed(ulid(time.time_ns() // 1_000_000, secrets.token_bytes(10)), "n/1", "q", 64)
            decided = await self.give([*answers, claim])
            delivers = [effect for one in decided for effect in one.effects if isinstance(effect, Deliver)]
            done += sum(len(one.messages) for one in delivers)
            answers = [BatchAnswered(one.delivery.id, Outcome()) for one in delivers]
            if not answers:
                return done, done / (time.perf_counter() - began)

    def fill(self, count: int) -> None:
        """Put messages into both queues of the file that have waited there for an hour: claims and pulls take them first."""
        hour_ago_ms = time.time_ns() // 1_000_000 - 3_600_000
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("BEGIN")
        for queue, first in (("q", 0), ("p", count)):
            connection.executemany(
                "INSERT INTO messages (id, queue, ready_ms, sent_ms, content_type, body, attempts, losses, pulled)"
                " VALUES (?1, ?2, ?3, ?3, 'json', ?4, 0, 0, 0)",
                ((f"{first + n:032x}", queue, hour_ago_ms + n // 1000, RAW) for n in range(count)),
            )
            connection.execute(
                "INSERT INTO queues (id, paused, waiting, waiting_bytes, retention_ms, visibility_ms, max_retries, dead_letter)"
                " VALUES (?1, 0, ?2, ?3, 345600000, 30000, 3, '')"
                " ON CONFLICT (id) DO UPDATE SET waiting = waiting + ?2, waiting_bytes = waiting_bytes + ?3",
                (queue, count, count * len(RAW)),
            )
        connection.execute("COMMIT")
        connection.close()

    async def reopen(self) -> None:
        """Look at the file anew, after rows were put into it from outside."""
        await self.store.close()
        await self.store.open()
        await self.heart.reload()


def machine(folder: Path, scale: int) -> list[Result]:
    """The machine alone, over a file with full fsync: groups as a busy server has them."""

    async def main() -> list[Result]:
        rig = Machine(folder / "queues.db")
        await rig.open()
        count = 20_000 // scale
        await rig.send(10, BATCH, 1)
        await rig.consume()
        rig.written = 0
        single = await rig.send(count, 1, POSTERS)
        batch = await rig.send(2 * count // BATCH, BATCH, 8)
        done, consumed = await rig.consume()
        rows = rig.written / done
        await rig.store.close()
        return [
            Result(f"queues, machine: sends one by one, {POSTERS} a group", single, "/s"),
            Result("queues, machine: sends in batches of 100, 8 a group", batch, "/s"),
            Result("queues, machine: consumed in batches of 100", consumed, "/s"),
            Result("queues, machine: rows written for a message, from its send to its ack", rows, ""),
        ]

    return uvloop.run(main())


def crowded(folder: Path, scale: int) -> list[Result]:
    """Send, claim and pull beside a million messages that wait, as a share of what they cost beside none; rounds of both take turns."""

    async def main() -> list[Result]:
        sides = [Machine(folder / f"queues-{side}.db") for side in ("empty", "full")]
        for side in sides:
            await side.open()
        sides[1].fill(WAITING // scale)
        await sides[1].reopen()
        times: list[dict[str, list[float]]] = [{}, {}]

        async def timed(side: int, name: str, inputs: Sequence[AnyInput]) -> list[Decided]:
            began = time.perf_counter()
            decided = await sides[side].give(inputs)
            times[side].setdefault(name, []).append(time.perf_counter() - began)
            return decided

        for _ in range(max(6, ROUNDS // scale)):
            for side in (0, 1):
                rig = sides[side]
                await timed(side, "send", [rig.messages(BATCH)])
                claim = QueueClaimed(ulid(time.time_ns() // 1_000_000, secrets.token_bytes(10)), "n/1", "q", 1)
                (claimed,) = await timed(side, "claim", [claim])
                (deliver,) = [effect for effect in claimed.effects if isinstance(effect, Deliver)]
                assert len(deliver.messages) == BATCH
                await timed(side, "ack", [BatchAnswered(deliver.delivery.id, Outcome())])
                await rig.give([rig.messages(BATCH, "p")])
                (reply,) = await timed(side, "pull", [MessagesPulled("p", BATCH)])
                pulled: Pulled = next(effect.value for effect in reply.effects if hasattr(effect, "value"))
                assert len(pulled.messages) == BATCH
                await rig.give([LeasesSettled("p", tuple(map(lease_of, pulled.messages)), ())])
        for side in sides:
            await side.store.close()
        return [
            Result(
                f"queues: {name} of 100 beside {WAITING // scale:,} waiting, share of that beside none",
                100 * statistics.median(times[1][name][2:]) / statistics.median(times[0][name][2:]),
                "%",
            )
            for name in ("send", "claim", "ack", "pull")
        ]

    return uvloop.run(main())


def server(folder: Path, scale: int) -> list[Result]:
    """A real server: posts over raw sockets, and a consumer in two child processes."""
    home = folder / "queues-server"
    home.mkdir()
    rig = Server(home, str(Path(__file__).parent / "queue_app.py"))
    try:
        rig.synced("bench-consume")
        process = psutil.Process(rig.popen.pid)
        results = []
        one = json.dumps({"messages": [{"body": BODY}]}).encode()
        many = json.dumps({"messages": [{"body": BODY}] * BATCH}).encode()
        for name, body, per, rounds in (("one by one", one, 1, 800), ("in batches of 100", many, BATCH, 40)):
            path = f"/queues/{'single' if per == 1 else 'batches'}/messages"
            uvloop.run(post_all(rig.url, path, body, 20))
            rounds = max(2, rounds // scale)
            began, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
            uvloop.run(post_all(rig.url, path, body, rounds))
            count, spent = POSTERS * rounds * per, time.perf_counter() - began
            results.append(Result(f"queues, server: messages sent {name} at concurrency {POSTERS}", count / spent, "/s"))
            cpu = sum(process.cpu_times()[:2]) - cpu
            results.append(Result(f"queues, server: CPU of a message sent {name}", 1e6 * cpu / count, "µs"))
        for _ in range(2):  # the first finds everything cold
            count, seconds = consumed(rig, home / "test.db", many, 40_000 // scale)
        results.append(Result("queues, server: consumed in batches of 100 by two child processes", count / seconds, "/s"))
        return results
    finally:
        rig.kill()


def consumed(rig: Server, path: Path, body: bytes, count: int) -> tuple[int, float]:
    """Fill the queue while its function is paused, and let it run; gives how many messages, and in how many seconds."""
    rig.ask("/api/functions/bench-consume/pause", {})
    uvloop.run(post_all(rig.url, "/queues/jobs/messages", body, max(1, count // BATCH // POSTERS)))
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    def left() -> int:
        (waiting,) = connection.execute("SELECT count(*) FROM messages WHERE queue = 'jobs'").fetchone()
        return int(waiting)

    count = left()
    began = time.perf_counter()
    rig.ask("/api/functions/bench-consume/resume", {})
    until(lambda: left() == 0, "the queue is consumed", 300)
    seconds = time.perf_counter() - began
    connection.close()
    return count, seconds


async def post_all(url: str, path: str, body: bytes, rounds: int) -> None:
    """Post the same body so many times over each of the connections."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def post() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(rounds):
            writer.write(head + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 200 " in answer, answer
            await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(post() for _ in range(POSTERS)))


ALL: tuple[Any, ...] = (machine, crowded, server)
