"""Queries of the SQLite store: a pool of read connections, one short transaction a query, cut off after a time."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import Any

import msgspec

from stepwell.engine.model import (
    Attempt,
    Cancellation,
    Defer,
    EventRow,
    Holder,
    Item,
    Metadata,
    Run,
    RunStatus,
    SetAside,
    Step,
    StepInput,
    Timer,
    TraceTotals,
    UserSpan,
)
from stepwell.engine.model_actors import Actor
from stepwell.engine.model_primitives import Delivery, KvEntry, Message, Queue
from stepwell.engine.tables import behind
from stepwell.errors import StoreUnavailable
from stepwell.protocol.ids import ulid, ulid_ms
from stepwell.protocol.kv import KEY_BYTES_MAX
from stepwell.store.base import ActorCount, Catalogue, EntryRange, EventPlace, QueueDepth, RunOrder, RunPage, RunPlace, RunWalk
from stepwell.store.statements import CODECS, load_statements

QUERY_S_MAX = 10.0
"""How long a query may take; a longer one would also keep the WAL from shrinking."""

PROGRESS_STEPS = 50_000
"""SQLite's steps between two looks at the clock."""

LAST = "\U0010ffff" * (KEY_BYTES_MAX // 4 + 1)
"""What stands behind all that a key may go on with."""

STATEMENTS = load_statements("sqlite")


class SqliteReader:
    """The queries of `store.base.Reader`."""

    def __init__(self, path: Path, connections: int) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="stepwell-reader")
        self._local = local()
        self._connections: list[sqlite3.Connection] = []

    def close(self) -> None:
        """End the threads and disconnect."""
        self._pool.shutdown(wait=True)
        for connection in self._connections:
            connection.close()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA query_only = 1")
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    async def _ask(self, query: str, parameters: Mapping[str, object], read: Callable[[list[Any]], Any]) -> Any:
        def run() -> Any:
            connection = self._connection()
            until = time.monotonic() + QUERY_S_MAX
            connection.set_progress_handler(lambda: int(time.monotonic() > until), PROGRESS_STEPS)
            try:
                return read(connection.execute(STATEMENTS[query].text, parameters).fetchall())
            except sqlite3.OperationalError as error:
                what = f"took longer than {QUERY_S_MAX:g} s" if "interrupted" in str(error) else f"failed: {error}"
                raise StoreUnavailable(f"the query {query!r} {what}") from None

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    async def _rows(self, table: str, query: str, /, **parameters: object) -> tuple[Any, ...]:
        row_of = CODECS[table].row_of
        rows: tuple[Any, ...] = await self._ask(query, parameters, lambda found: tuple(row_of(values) for values in found))
        return rows

    async def catalogue(self) -> Catalogue:
        """Every app and function."""
        return Catalogue(await self._rows("apps", "catalogue_apps"), await self._rows("functions", "catalogue_functions"))

    async def holders(self) -> tuple[Holder, ...]:
        """The nodes' epochs."""
        return await self._rows("holders", "holders")

    async def due_timers(self, until_ms: int, limit: int) -> tuple[tuple[str, int], ...]:
        """Timers due up to a time, the earliest first."""
        pairs: tuple[tuple[str, int], ...] = await self._ask("due_timers", {"until_ms": until_ms, "limit": limit}, tuple)
        return pairs

    async def next_due_ms(self, after_ms: int) -> int | None:
        """When the first later timer is due."""
        due_ms: int | None = await self._ask("next_due", {"after_ms": after_ms}, lambda found: found[0][0])
        return due_ms

    async def held_items(self, holder: str) -> tuple[tuple[str, int], ...]:
        """The items that a holder has leased."""
        pairs: tuple[tuple[str, int], ...] = await self._ask("held_items", {"holder": holder}, tuple)
        return pairs

    async def functions_with_work(self) -> tuple[str, ...]:
        """The functions that have items nobody holds."""
        ids: tuple[str, ...] = await self._ask("functions_with_work", {}, lambda found: tuple(row[0] for row in found))
        return ids

    async def run(self, run_id: str) -> Run | None:
        """A run."""
        return next(iter(await self._rows("runs", "run", id=run_id)), None)

    async def runs(
        self, *, limit: int, cursor: str | None = None, status: RunStatus | None = None, function_id: str | None = None
    ) -> RunPage:
        """Runs, newest first."""
        asked: dict[str, object] = {"limit": limit + 1, "cursor": cursor, "status": None if status is None else str(status)}
        if function_id is not None:
            found = await self._rows("runs", "runs_of_function", function_id=function_id, **asked)
        elif status in (RunStatus.FAILED, RunStatus.CANCELLED):
            found = await self._rows("runs", "runs_unhappy", **asked)
        else:
            found = await self._rows("runs", "runs", **asked)
        return RunPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    async def runs_of_event(self, event_id: str, limit: int) -> tuple[Run, ...]:
        """The runs that belong to an event."""
        return await self._rows("runs", "runs_of_event", event_id=event_id, limit=limit)

    async def steps(self, run_id: str) -> tuple[Step, ...]:
        """A run's steps in the order in which they were queued."""
        return await self._rows("steps", "steps_of", run_id=run_id)

    async def attempts(self, run_id: str) -> tuple[Attempt, ...]:
        """A run's failed and lost tries."""
        return await self._rows("attempts", "attempts_of", run_id=run_id)

    async def items_ahead(self, item: Item, limit: int) -> int:
        """How many items of its lane are before it."""
        place = {"lane_id": item.lane_id, "starts": item.starts, "order_ms": item.order_ms, "id": item.id, "limit": limit}
        count: int = await self._ask("items_ahead", place, lambda found: found[0][0])
        return count

    async def leased_items(self, limit: int) -> tuple[Item, ...]:
        """Items that are out."""
        return await self._rows("items", "leased_items", limit=limit)

    async def begun_runs(self, function_id: str, limit: int) -> tuple[Run, ...]:
        """A function's runs that have begun."""
        return await self._rows("runs", "begun_runs", function_id=function_id, limit=limit)

    async def queue_depths(self, limit: int) -> tuple[QueueDepth, ...]:
        """How much waits for each function."""
        depths: tuple[QueueDepth, ...] = await self._ask(
            "queue_depths", {"limit": limit}, lambda found: tuple(QueueDepth(*row) for row in found)
        )
        return depths

    async def defers_of(self, run_id: str) -> tuple[Defer, ...]:
        """What a run wants to have run after its end."""
        return await self._rows("defers", "defers_of", value=run_id, limit=-1)

    async def items_of(self, run_id: str) -> tuple[Item, ...]:
        """A run's outstanding items."""
        return await self._rows("items", "items_of", run_id=run_id)

    async def timers_of(self, run_id: str) -> tuple[Timer, ...]:
        """A run's timers."""
        return await self._rows("timers", "timers_of", run_id=run_id)

    async def timer(self, timer_id: str) -> Timer | None:
        """A timer."""
        return next(iter(await self._rows("timers", "select_timers", keys=_list([timer_id]))), None)

    async def event(self, event_id: str) -> EventRow | None:
        """An event."""
        return next(iter(await self._rows("events", "events_by_id", keys=_list([event_id]))), None)

    async def events_by_id(self, event_ids: Sequence[str]) -> tuple[EventRow, ...]:
        """Events in the order asked."""
        found = {row.id: row for row in await self._rows("events", "events_by_id", keys=_list(event_ids))}
        return tuple(found[event_id] for event_id in event_ids if event_id in found)

    async def events(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        name: str | None = None,
        received_after_ms: int | None = None,
        received_before_ms: int | None = None,
    ) -> tuple[EventRow, ...]:
        """Events, newest first."""
        return await self._rows(
            "events", "events", limit=limit, cursor=cursor, name=name, after_ms=received_after_ms, before_ms=received_before_ms
        )

    async def cancellations(self, limit: int) -> tuple[Cancellation, ...]:
        """Bulk cancellations, newest first."""
        return await self._rows("cancellations", "cancellations", limit=limit)

    async def runs_by_id(self, run_ids: Sequence[str]) -> tuple[Run, ...]:
        """Runs in the order asked."""
        found = {run.id: run for run in await self._rows("runs", "runs_by_id", keys=_list(run_ids))}
        return tuple(found[run_id] for run_id in run_ids if run_id in found)

    async def walk_runs(self, walk: RunWalk, limit: int) -> tuple[RunPlace, ...]:
        """The next places of a way through the runs."""
        asked: dict[str, object] = {"from_ms": walk.from_ms, "until_ms": walk.until_ms, "limit": limit, "function_id": walk.function_id}
        name = f"walk_{walk.order}_{'down' if walk.descending else 'up'}"
        if walk.order is RunOrder.MADE:
            # The id begins with the time: a span of time is a span of ids, and the place is the id alone.
            beyond = None if walk.after is None else walk.after[1]
            asked |= {"low": id_floor(walk.from_ms), "high": id_floor(walk.until_ms), "after": beyond}
            name += "_of_function" if walk.function_id is not None else ""
        else:
            at_ms, run_id = walk.after or ((1 << 62, "") if walk.descending else (-1, ""))
            asked |= {"after_ms": at_ms, "after_id": run_id}
        found: list[tuple[str, str, str, int | None]] = await self._ask(name, asked, list)
        return tuple(
            RunPlace(ulid_ms(run_id) if at_ms is None else at_ms, run_id, RunStatus(status), function_id)
            for run_id, status, function_id, at_ms in found
        )

    async def walk_events(self, limit: int, after: str | None = None) -> tuple[EventPlace, ...]:
        """The next places of the way through the events."""
        found: list[tuple[str, str, int]] = await self._ask("walk_events", {"limit": limit, "after": after}, list)
        return tuple(EventPlace(*values) for values in found)

    async def step(self, run_id: str, step_id: str) -> Step | None:
        """A step."""
        return next(iter(await self._rows("steps", "step_of", run_id=run_id, id=step_id)), None)

    async def attempt(self, attempt_id: str) -> Attempt | None:
        """A failed or lost try."""
        return next(iter(await self._rows("attempts", "select_attempts", keys=_list([attempt_id]))), None)

    async def inputs_of(self, run_id: str) -> tuple[StepInput, ...]:
        """The inputs that a rerun gives its steps."""
        return await self._rows("inputs", "inputs_of", run_id=run_id)

    async def metadata_of(self, run_id: str) -> tuple[Metadata, ...]:
        """What was noted about a run and its parts."""
        return await self._rows("metadata", "metadata_of", run_id=run_id)

    async def spans_of(self, run_id: str) -> tuple[UserSpan, ...]:
        """The spans of a run's own code."""
        return await self._rows("spans", "spans_of", run_id=run_id)

    async def trace_totals(self, run_id: str) -> TraceTotals | None:
        """How much metadata and how many spans a run has."""
        return next(iter(await self._rows("trace_totals", "select_trace_totals", keys=_list([run_id]))), None)

    async def kv_get(self, namespace: str, keys: Sequence[str], now_ms: int) -> tuple[KvEntry, ...]:
        """The values under keys of a namespace."""
        asked = msgspec.json.encode(list(dict.fromkeys(keys))).decode()
        return await self._rows("kv", "kv_get", namespace=namespace, keys=asked, now_ms=now_ms)

    async def kv_list(self, namespace: str, prefix: str, after: str, limit: int, now_ms: int) -> tuple[KvEntry, ...]:
        """The keys of a namespace."""
        span = {"first": prefix, "last": prefix + LAST, "after": after}
        return await self._rows("kv", "kv_list", namespace=namespace, limit=limit, now_ms=now_ms, **span)

    async def kv_namespaces(self, limit: int) -> tuple[str, ...]:
        """The namespaces that hold anything."""
        names: tuple[str, ...] = await self._ask("kv_namespaces", {"limit": limit}, lambda found: tuple(row[0] for row in found))
        return names

    async def queues(self, limit: int, after: str = "") -> tuple[Queue, ...]:
        """Queues by name."""
        return await self._rows("queues", "queues", limit=limit, after=after)

    async def queue(self, name: str) -> Queue | None:
        """A queue."""
        return next(iter(await self._rows("queues", "queue", id=name)), None)

    async def queue_messages(self, queue: str, limit: int, after: str = "") -> tuple[Message, ...]:
        """A queue's messages that are not out."""
        return await self._rows("messages", "queue_messages", value=behind(queue, after), limit=limit)

    async def message(self, message_id: str) -> Message | None:
        """A message."""
        return next(iter(await self._rows("messages", "message", id=message_id)), None)

    async def deliveries_of(self, queue: str, limit: int) -> tuple[Delivery, ...]:
        """The deliveries of a queue that are out."""
        return await self._rows("deliveries", "deliveries_of", queue=queue, limit=limit)

    async def held_deliveries(self, holder: str) -> tuple[str, ...]:
        """The deliveries that a holder has out."""
        ids: tuple[str, ...] = await self._ask("held_deliveries", {"holder": holder}, lambda found: tuple(row[0] for row in found))
        return ids

    async def actor(self, kind: str, name: str) -> Actor | None:
        """An actor."""
        return next(iter(await self._rows("actors", "actor", kind=kind, name=name)), None)

    async def actors(self, kind: str, limit: int, after: str = "") -> tuple[Actor, ...]:
        """A kind's actors by name."""
        return await self._rows("actors", "actors", kind=kind, after=after, limit=limit)

    async def held_alarms(self, holder: str) -> tuple[tuple[str, str, int], ...]:
        """The alarms that a holder runs."""
        found: tuple[tuple[str, str, int], ...] = await self._ask("held_alarms", {"holder": holder}, tuple)
        return found

    async def actor_kinds(self, limit: int) -> tuple[ActorCount, ...]:
        """The kinds that have actors."""
        counts: tuple[ActorCount, ...] = await self._ask(
            "actor_kinds", {"limit": limit}, lambda found: tuple(ActorCount(*row) for row in found)
        )
        return counts

    async def actor_values(self, kind: str, name: str, keys: Sequence[str]) -> tuple[tuple[str, bytes], ...]:
        """Those of an actor's entries that have these keys."""
        found: tuple[tuple[str, bytes], ...] = await self._ask("actor_values", {"kind": kind, "name": name, "keys": _list(keys)}, tuple)
        return found

    async def actor_range(self, kind: str, name: str, wanted: EntryRange) -> tuple[tuple[str, bytes], ...]:
        """Entries of a range of an actor's keys."""
        asked = {"kind": kind, "name": name, "start": wanted.start, "until": wanted.end, "limit": wanted.limit}
        found: tuple[tuple[str, bytes], ...] = await self._ask("actor_range_reversed" if wanted.reverse else "actor_range", asked, tuple)
        return found

    async def set_aside(self, limit: int) -> tuple[SetAside, ...]:
        """Inputs that raised, newest first."""
        return await self._rows("set_aside", "set_aside", limit=limit)


def _list(values: Sequence[str]) -> str:
    return msgspec.json.encode(list(values)).decode()


def id_floor(ms: int) -> str:
    """The first id that a time can have."""
    return ulid(ms, bytes(10))
