"""The memory store: the reference model that the databases are held to, and what tests and simulations run on.

It is made of the very tables a `View` works on. Rows are immutable, so that a view takes them as they are; a commit puts the net
changes in at once. Nothing survives the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

from msgspec.structs import replace

from stepwell.engine.flow.keys import HELD
from stepwell.engine.model import (
    AppRow,
    Attempt,
    Cancellation,
    Defer,
    EventRow,
    FunctionRow,
    Holder,
    Item,
    Metadata,
    Row,
    Run,
    RunStatus,
    SetAside,
    Step,
    StepInput,
    Timer,
    TraceTotals,
    UserSpan,
)
from stepwell.engine.model_actors import Actor, ActorEntry
from stepwell.engine.model_primitives import Delivery, KvEntry, Message, Queue
from stepwell.engine.selection import Fetch, Fetched, resolve
from stepwell.engine.tables import SCANS, SPECS, Tables, behind, entries_value, item_order
from stepwell.engine.view import Changes, Selection, View
from stepwell.errors import Conflict
from stepwell.protocol.ids import ulid_ms
from stepwell.store.base import (
    ActorCount,
    Catalogue,
    EntryRange,
    EventPlace,
    QueueDepth,
    Reader,
    RunOrder,
    RunPage,
    RunPlace,
    RunWalk,
    Transaction,
)
from stepwell.store.databases import Databases


class MemoryStore:
    """Rows in dictionaries."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.commits = 0
        self.databases = Databases(None)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Let go of users' databases, which are files all the same; the rows stay for whoever opens the store again."""
        await self.databases.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction over the tables."""
        yield _Transaction(self)

    @property
    def reader(self) -> Reader:
        """Queries over the tables."""
        return _Reader(self.tables)

    def fetch(self, wanted: Fetch) -> Fetched:
        """The rows that one level of selections asks for."""
        rows = {
            table: [row for key in keys if (row := self.tables.by_name[table].rows.get(key)) is not None]
            for table, keys in wanted.keys.items()
        }
        return Fetched(rows, [SCANS[scan.name](self.tables, scan.value)[: scan.limit] for scan in wanted.scans])

    def write(self, changes: Changes) -> None:
        """Put the net changes in, all or none. Raises `Conflict` as a database's keys would."""
        for name, change in changes.tables.items():
            table = self.tables.by_name[name]
            for row in change.inserted:
                if table.spec.key_of(row) in table.rows:
                    raise Conflict(f"{name} {table.spec.key_of(row)!r} is there already")
            for key in (*(table.spec.key_of(row) for row in change.updated), *change.deleted):
                if key not in table.rows:
                    raise Conflict(f"{name} {key!r} is not there")
        # Ranges go last: they spare the items that this group has leased.
        for name, change in changes.tables.items():
            table = self.tables.by_name[name]
            for row in (*change.inserted, *change.updated):
                table.put(table.spec.key_of(row), row)
            for key in change.deleted:
                table.remove(key)
        for run_id in changes.ended_runs:
            self._take("timers", self.tables.timers.find("run", run_id))
            self._take("items", [item for item in self.tables.items.find("run", run_id) if item.holder is None])
            self._take("waits", self.tables.waits.find("run", run_id))
            self._take("names", self.tables.names.find("run", run_id))
        for run_id in changes.deleted_runs:
            self._take("runs", [self.tables.runs.rows[run_id]] if run_id in self.tables.runs.rows else [])
            for name in ("steps", "attempts", "timers", "inputs", "metadata", "spans", "defers"):
                self._take(name, self.tables.by_name[name].find("run", run_id))
            self.tables.trace_totals.remove(run_id)
        self.commits += 1

    def _take(self, table: str, rows: Iterable[Row]) -> None:
        for row in list(rows):
            self.tables.by_name[table].remove(SPECS[table].key_of(row))


class _Transaction:
    """One group's transaction."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def load(self, selections: Iterable[Selection], view: View) -> None:
        """Resolve level by level, without a wait."""
        levels = resolve(selections, view)
        try:
            wanted = next(levels)
            while True:
                wanted = levels.send(self._store.fetch(wanted))
        except StopIteration:
            return

    async def save(self, changes: Changes) -> None:
        """Put the changes in."""
        self._store.write(changes)


class _Reader:
    """Queries over the tables as they are."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def catalogue(self) -> Catalogue:
        """Every app and function."""
        apps: list[AppRow] = sorted(self._tables.apps, key=lambda app: app.name)
        functions: list[FunctionRow] = sorted(self._tables.functions, key=lambda function: function.id)
        return Catalogue(tuple(apps), tuple(functions))

    async def holders(self) -> tuple[Holder, ...]:
        """The nodes' epochs."""
        return tuple(sorted(self._tables.holders, key=lambda holder: holder.id))

    async def due_timers(self, until_ms: int, limit: int) -> tuple[tuple[str, int], ...]:
        """Timers due up to a time, the earliest first."""
        due = sorted((timer.due_ms, timer.id) for timer in self._tables.timers if timer.due_ms <= until_ms)
        return tuple((timer_id, due_ms) for due_ms, timer_id in due[:limit])

    async def next_due_ms(self, after_ms: int) -> int | None:
        """When the first later timer is due."""
        return min((timer.due_ms for timer in self._tables.timers if timer.due_ms > after_ms), default=None)

    async def held_items(self, holder: str) -> tuple[tuple[str, int], ...]:
        """The items that a holder has leased."""
        return tuple((item.id, item.fence) for item in self._tables.holder_items(holder))

    async def functions_with_work(self) -> tuple[str, ...]:
        """The functions that have items nobody holds, those of paused runs aside."""
        return tuple(sorted({item.function_id for item in self._waiting()}))

    async def run(self, run_id: str) -> Run | None:
        """A run."""
        return self._tables.runs.rows.get(run_id)

    async def runs(
        self, *, limit: int, cursor: str | None = None, status: RunStatus | None = None, function_id: str | None = None
    ) -> RunPage:
        """Runs, newest first."""
        found = [
            run
            for run in sorted(self._tables.runs, key=lambda run: run.id, reverse=True)
            if (cursor is None or run.id < cursor)
            and (status is None or run.status is status)
            and (function_id is None or run.function_id == function_id)
        ]
        page = tuple(found[:limit])
        return RunPage(page, page[-1].id if len(found) > limit else None)

    async def runs_of_event(self, event_id: str, limit: int) -> tuple[Run, ...]:
        """The runs that belong to an event."""
        return tuple(sorted((run for run in self._tables.runs if event_id in run.event_ids), key=lambda run: run.id)[:limit])

    async def steps(self, run_id: str) -> tuple[Step, ...]:
        """A run's steps in the order in which they were queued."""
        return tuple(sorted(self._tables.steps.find("run", run_id), key=step_order))

    async def attempts(self, run_id: str) -> tuple[Attempt, ...]:
        """A run's failed and lost tries."""
        return tuple(sorted(self._tables.attempts.find("run", run_id), key=lambda attempt: (attempt.ended_ms, attempt.id)))

    async def items_ahead(self, item: Item, limit: int) -> int:
        """How many items of its lane are before it."""
        return sum(item_order(other) < item_order(item) for other in self._tables.lane_items(item.lane_id)[:limit])

    async def leased_items(self, limit: int) -> tuple[Item, ...]:
        """Items that are out."""
        return tuple(sorted((item for item in self._tables.items if item.holder is not None), key=lambda item: item.id)[:limit])

    async def begun_runs(self, function_id: str, limit: int) -> tuple[Run, ...]:
        """A function's runs that have begun."""
        return tuple([run for run in self._tables.live_runs(behind(function_id, "")) if run.started_ms is not None][:limit])

    async def queue_depths(self, limit: int) -> tuple[QueueDepth, ...]:
        """How much waits for each function."""
        waiting: dict[str, list[int]] = {}
        for item in self._waiting():
            waiting.setdefault(item.function_id, []).append(item.order_ms)
        return tuple(QueueDepth(function_id, min(len(times), limit), min(times)) for function_id, times in sorted(waiting.items()))

    def _waiting(self) -> Iterator[Item]:
        """Items that nobody holds, but those of paused runs."""
        return (item for item in self._tables.items if item.holder is None and not item.lane_id.startswith(HELD))

    async def defers_of(self, run_id: str) -> tuple[Defer, ...]:
        """What a run wants to have run after its end."""
        return tuple(self._tables.defers_of(run_id))

    async def items_of(self, run_id: str) -> tuple[Item, ...]:
        """A run's outstanding items."""
        return tuple(sorted(self._tables.items.find("run", run_id), key=lambda item: item.id))

    async def timers_of(self, run_id: str) -> tuple[Timer, ...]:
        """A run's timers."""
        return tuple(sorted(self._tables.timers.find("run", run_id), key=lambda timer: timer.id))

    async def timer(self, timer_id: str) -> Timer | None:
        """A timer."""
        return self._tables.timers.rows.get(timer_id)

    async def event(self, event_id: str) -> EventRow | None:
        """An event."""
        return self._tables.events.rows.get(event_id)

    async def events_by_id(self, event_ids: Sequence[str]) -> tuple[EventRow, ...]:
        """Events in the order asked."""
        rows = self._tables.events.rows
        return tuple(rows[event_id] for event_id in event_ids if event_id in rows)

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
        found = [
            event
            for event in sorted(self._tables.events, key=lambda event: event.id, reverse=True)
            if (cursor is None or event.id < cursor)
            and (name is None or event.name == name)
            and (received_after_ms is None or event.received_ms > received_after_ms)
            and (received_before_ms is None or event.received_ms < received_before_ms)
        ]
        return tuple(found[:limit])

    async def cancellations(self, limit: int) -> tuple[Cancellation, ...]:
        """Bulk cancellations, newest first."""
        return tuple(sorted(self._tables.cancellations, key=lambda one: one.id, reverse=True)[:limit])

    async def runs_by_id(self, run_ids: Sequence[str]) -> tuple[Run, ...]:
        """Runs in the order asked."""
        rows = self._tables.runs.rows
        return tuple(rows[run_id] for run_id in run_ids if run_id in rows)

    async def walk_runs(self, walk: RunWalk, limit: int) -> tuple[RunPlace, ...]:
        """The next places of a way through the runs."""
        places = [
            RunPlace(at_ms, run.id, run.status, run.function_id)
            for run in self._tables.runs
            if (walk.order is not RunOrder.MADE or walk.function_id in (None, run.function_id))
            and (at_ms := run_time_ms(run, walk.order)) is not None
            and walk.from_ms <= at_ms < walk.until_ms
            and (walk.after is None or ((at_ms, run.id) < walk.after if walk.descending else (at_ms, run.id) > walk.after))
        ]
        return tuple(sorted(places, key=lambda place: (place.at_ms, place.id), reverse=walk.descending)[:limit])

    async def walk_events(self, limit: int, after: str | None = None) -> tuple[EventPlace, ...]:
        """The next places of the way through the events."""
        rows = sorted((row for row in self._tables.events if after is None or row.id < after), key=lambda row: row.id, reverse=True)
        return tuple(EventPlace(row.id, row.name, row.received_ms) for row in rows[:limit])

    async def step(self, run_id: str, step_id: str) -> Step | None:
        """A step."""
        return self._tables.steps.rows.get((run_id, step_id))

    async def attempt(self, attempt_id: str) -> Attempt | None:
        """A failed or lost try."""
        return self._tables.attempts.rows.get(attempt_id)

    async def inputs_of(self, run_id: str) -> tuple[StepInput, ...]:
        """The inputs that a rerun gives its steps."""
        return tuple(sorted(self._tables.inputs.find("run", run_id), key=lambda row: row.step_id))

    async def metadata_of(self, run_id: str) -> tuple[Metadata, ...]:
        """What was noted about a run and its parts."""
        return tuple(sorted(self._tables.metadata.find("run", run_id), key=lambda row: (row.scope, row.span, row.kind)))

    async def spans_of(self, run_id: str) -> tuple[UserSpan, ...]:
        """The spans of a run's own code."""
        return tuple(sorted(self._tables.spans.find("run", run_id), key=lambda span: (span.started_ms, span.id)))

    async def trace_totals(self, run_id: str) -> TraceTotals | None:
        """How much metadata and how many spans a run has."""
        return self._tables.trace_totals.rows.get(run_id)

    async def kv_get(self, namespace: str, keys: Sequence[str], now_ms: int) -> tuple[KvEntry, ...]:
        """The values under keys of a namespace."""
        found = (self._tables.kv.rows.get((namespace, key)) for key in dict.fromkeys(keys))
        return tuple(entry for entry in found if entry is not None and (entry.expires_ms is None or entry.expires_ms > now_ms))

    async def kv_list(self, namespace: str, prefix: str, after: str, limit: int, now_ms: int) -> tuple[KvEntry, ...]:
        """The keys of a namespace."""
        found = [
            replace(entry, value=b"")
            for entry in self._tables.kv.find("namespace", namespace)
            if entry.key.startswith(prefix)
            and entry.key.encode() > after.encode()
            and (entry.expires_ms is None or entry.expires_ms > now_ms)
        ]
        return tuple(sorted(found, key=lambda entry: entry.key.encode())[:limit])

    async def kv_namespaces(self, limit: int) -> tuple[str, ...]:
        """The namespaces that hold anything."""
        return tuple(sorted({entry.namespace for entry in self._tables.kv if entry.namespace})[:limit])

    async def queues(self, limit: int, after: str = "") -> tuple[Queue, ...]:
        """Queues by name."""
        return tuple(sorted((queue for queue in self._tables.queues if queue.id > after), key=lambda queue: queue.id)[:limit])

    async def queue(self, name: str) -> Queue | None:
        """A queue."""
        return self._tables.queues.rows.get(name)

    async def queue_messages(self, queue: str, limit: int, after: str = "") -> tuple[Message, ...]:
        """A queue's messages that are not out."""
        return tuple(self._tables.queue_messages(behind(queue, after))[:limit])

    async def message(self, message_id: str) -> Message | None:
        """A message."""
        return self._tables.messages.rows.get(message_id)

    async def deliveries_of(self, queue: str, limit: int) -> tuple[Delivery, ...]:
        """The deliveries of a queue that are out."""
        found = (delivery for delivery in self._tables.deliveries if delivery.queue == queue)
        return tuple(sorted(found, key=lambda delivery: delivery.id)[:limit])

    async def held_deliveries(self, holder: str) -> tuple[str, ...]:
        """The deliveries that a holder has out."""
        return tuple(delivery.id for delivery in self._tables.holder_deliveries(holder))

    async def actor(self, kind: str, name: str) -> Actor | None:
        """An actor."""
        return self._tables.actors.rows.get((kind, name))

    async def actors(self, kind: str, limit: int, after: str = "") -> tuple[Actor, ...]:
        """A kind's actors by name."""
        found = (actor for actor in self._tables.actors if actor.kind == kind and actor.name > after)
        return tuple(sorted(found, key=lambda actor: actor.name)[:limit])

    async def held_alarms(self, holder: str) -> tuple[tuple[str, str, int], ...]:
        """The alarms that a holder runs."""
        return tuple((actor.kind, actor.name, actor.firings) for actor in self._tables.firing_actors(holder))

    async def actor_kinds(self, limit: int) -> tuple[ActorCount, ...]:
        """The kinds that have actors."""
        counts = []
        for kind in sorted({actor.kind for actor in self._tables.actors}):
            alarms = [actor.alarm_ms for actor in self._tables.actors if actor.kind == kind and actor.alarm_ms is not None]
            count = sum(actor.kind == kind for actor in self._tables.actors)
            counts.append(ActorCount(kind, min(count, limit), min(len(alarms), limit), min(alarms, default=None)))
        return tuple(counts)

    async def actor_values(self, kind: str, name: str, keys: Sequence[str]) -> tuple[tuple[str, bytes], ...]:
        """Those of an actor's entries that have these keys."""
        return tuple((entry.key, entry.value) for entry in self._entries(kind, name) if entry.key in keys)

    async def actor_range(self, kind: str, name: str, wanted: EntryRange) -> tuple[tuple[str, bytes], ...]:
        """Entries of a range of an actor's keys."""
        entries = [e for e in self._entries(kind, name) if e.key >= wanted.start and (wanted.end is None or e.key < wanted.end)]
        if wanted.reverse:
            entries.reverse()
        return tuple((entry.key, entry.value) for entry in entries[: wanted.limit])

    def _entries(self, kind: str, name: str) -> list[ActorEntry]:
        actor = self._tables.actors.rows.get((kind, name))
        return [] if actor is None else self._tables.entries_of(entries_value(actor))

    async def set_aside(self, limit: int) -> tuple[SetAside, ...]:
        """Inputs that raised, newest first."""
        return tuple(sorted(self._tables.set_aside, key=lambda aside: (-aside.created_ms, aside.id))[:limit])


def run_time_ms(run: Run, order: RunOrder) -> int | None:
    """What a run is listed by."""
    match order:
        case RunOrder.MADE:
            return ulid_ms(run.id)
        case RunOrder.STARTED:
            return run.started_ms
        case RunOrder.ENDED:
            return run.ended_ms


def step_order(step: Step) -> tuple[int, int, str]:
    """The order in which steps are shown: as queued; of those queued together, as finished."""
    return (step.queued_ms, step.position if step.position >= 0 else 1 << 30, step.id)
