"""The seam between the heartbeat and a store: a transaction has `load` and `save`; a `Reader` answers queries.

A store knows tables, keys and scans (`engine/tables.py`), never what they mean. Errors say what is known: `Conflict`, nothing was
committed and the group may be tried again; `StoreUnavailable`, the outcome is unknown and the same inputs may be sent again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

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
from stepwell.engine.view import Changes, Selection, View
from stepwell.store.databases import Databases


class Transaction(Protocol):
    """One group's look at the store and its one write."""

    async def load(self, selections: Iterable[Selection], view: View) -> None:
        """Read what the selections name, and what it leads to, into the view. May be called again with more."""
        ...

    async def save(self, changes: Changes) -> None:
        """Write the net changes and commit: durable when this returns.

        Raises `Conflict` where a row that was to be new exists, or one to be changed does not: nothing is written then.
        """
        ...


class RunPage(msgspec.Struct, frozen=True):
    """Runs, newest first, and where the next page begins (`None`: there is none)."""

    runs: tuple[Run, ...]
    cursor: str | None


class QueueDepth(msgspec.Struct, frozen=True):
    """How many items of a function nobody holds, and how old the oldest of their runs is (`order_ms`: its priority counts)."""

    function_id: str
    waiting: int
    oldest_ms: int


class RunOrder(enum.StrEnum):
    """What runs are listed by: when they were made (the time in their id), first called, ended."""

    MADE = "made"
    STARTED = "started"
    ENDED = "ended"


class RunPlace(msgspec.Struct, frozen=True):
    """A run in a list, without its bodies: where it stands (`at_ms`, `id`), and what lists are filtered by."""

    at_ms: int
    id: str
    status: RunStatus
    function_id: str


class RunWalk(msgspec.Struct, frozen=True, kw_only=True):
    """A way through the runs: from `after`, in an order, within a span of time (`from_ms` ≤ at < `until_ms`).

    Of one function only, where the order is `MADE` and `function_id` says so: there is an index for that.
    """

    order: RunOrder = RunOrder.MADE
    descending: bool = True
    after: tuple[int, str] | None = None
    from_ms: int = 0
    until_ms: int = 1 << 47
    function_id: str | None = None


class EventPlace(msgspec.Struct, frozen=True):
    """An event in a list, without its body."""

    id: str
    name: str
    received_ms: int


class ActorCount(msgspec.Struct, frozen=True):
    """A kind of actors: how many have a row, how many have a pending alarm, and when the first of these is due."""

    kind: str
    actors: int
    alarms: int
    next_alarm_ms: int | None


class EntryRange(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of an actor from `start` up to `end`: the first ones, or the last ones, the last one first."""

    start: str = ""
    end: str | None = None
    reverse: bool = False
    limit: int


class Catalogue(msgspec.Struct, frozen=True):
    """What the registry is made of."""

    apps: tuple[AppRow, ...]
    functions: tuple[FunctionRow, ...]


class Reader(Protocol):
    """Queries, each in one short transaction of its own. Lists are bounded by `limit`; ended runs come with their output."""

    async def catalogue(self) -> Catalogue:
        """Every app and function, archived ones too."""
        ...

    async def holders(self) -> tuple[Holder, ...]:
        """The nodes' epochs."""
        ...

    async def due_timers(self, until_ms: int, limit: int) -> tuple[tuple[str, int], ...]:
        """(id, due_ms) of timers due up to a time, the earliest first."""
        ...

    async def next_due_ms(self, after_ms: int) -> int | None:
        """When the first timer later than a time is due."""
        ...

    async def held_items(self, holder: str) -> tuple[tuple[str, int], ...]:
        """(id, fence) of the items that a holder has leased."""
        ...

    async def functions_with_work(self) -> tuple[str, ...]:
        """The functions that have items nobody holds, those of paused runs aside."""
        ...

    async def run(self, run_id: str) -> Run | None:
        """A run."""
        ...

    async def runs(
        self, *, limit: int, cursor: str | None = None, status: RunStatus | None = None, function_id: str | None = None
    ) -> RunPage:
        """Runs, newest first (by id), behind the cursor."""
        ...

    async def runs_of_event(self, event_id: str, limit: int) -> tuple[Run, ...]:
        """The runs that an event started or belongs to, by its internal id, oldest first."""
        ...

    async def steps(self, run_id: str) -> tuple[Step, ...]:
        """A run's steps with their memos, in the order in which they were queued."""
        ...

    async def attempts(self, run_id: str) -> tuple[Attempt, ...]:
        """A run's failed and lost tries, in order."""
        ...

    async def items_ahead(self, item: Item, limit: int) -> int:
        """How many items of its lane that nobody holds are before an item; counted to a limit."""
        ...

    async def leased_items(self, limit: int) -> tuple[Item, ...]:
        """Items that are out, whoever holds them."""
        ...

    async def begun_runs(self, function_id: str, limit: int) -> tuple[Run, ...]:
        """A function's runs that have begun and not ended, the oldest first."""
        ...

    async def queue_depths(self, limit: int) -> tuple[QueueDepth, ...]:
        """How much waits for each function that has anything waiting; each is counted to a limit."""
        ...

    async def defers_of(self, run_id: str) -> tuple[Defer, ...]:
        """What a run wants to have run after its end, by the hashed id."""
        ...

    async def items_of(self, run_id: str) -> tuple[Item, ...]:
        """A run's outstanding items."""
        ...

    async def timers_of(self, run_id: str) -> tuple[Timer, ...]:
        """A run's timers."""
        ...

    async def timer(self, timer_id: str) -> Timer | None:
        """A timer."""
        ...

    async def event(self, event_id: str) -> EventRow | None:
        """An event by its internal id."""
        ...

    async def events_by_id(self, event_ids: Sequence[str]) -> tuple[EventRow, ...]:
        """Events by their internal ids, in the order asked."""
        ...

    async def events(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        name: str | None = None,
        received_after_ms: int | None = None,
        received_before_ms: int | None = None,
    ) -> tuple[EventRow, ...]:
        """Events, newest first (by internal id), behind the cursor."""
        ...

    async def cancellations(self, limit: int) -> tuple[Cancellation, ...]:
        """Bulk cancellations, newest first."""
        ...

    async def runs_by_id(self, run_ids: Sequence[str]) -> tuple[Run, ...]:
        """Runs by id, in the order asked."""
        ...

    async def walk_runs(self, walk: RunWalk, limit: int) -> tuple[RunPlace, ...]:
        """The next places of a way through the runs."""
        ...

    async def walk_events(self, limit: int, after: str | None = None) -> tuple[EventPlace, ...]:
        """The next places of the way through the events, newest first (by internal id)."""
        ...

    async def step(self, run_id: str, step_id: str) -> Step | None:
        """A step."""
        ...

    async def attempt(self, attempt_id: str) -> Attempt | None:
        """A failed or lost try."""
        ...

    async def inputs_of(self, run_id: str) -> tuple[StepInput, ...]:
        """The inputs that a rerun gives its steps."""
        ...

    async def metadata_of(self, run_id: str) -> tuple[Metadata, ...]:
        """What was noted about a run and its parts."""
        ...

    async def spans_of(self, run_id: str) -> tuple[UserSpan, ...]:
        """The spans of a run's own code, in the order in which they began."""
        ...

    async def trace_totals(self, run_id: str) -> TraceTotals | None:
        """How much metadata and how many spans a run has."""
        ...

    async def kv_get(self, namespace: str, keys: Sequence[str], now_ms: int) -> tuple[KvEntry, ...]:
        """The values under keys of a namespace, those that have not expired; in no particular order."""
        ...

    async def kv_list(self, namespace: str, prefix: str, after: str, limit: int, now_ms: int) -> tuple[KvEntry, ...]:
        """The keys of a namespace that begin with a prefix, behind one, in the order of their bytes; their values are left out."""
        ...

    async def kv_namespaces(self, limit: int) -> tuple[str, ...]:
        """The namespaces that hold anything, but the one without a name, where the engine keeps signals (`engine/mail.py`)."""
        ...

    async def queues(self, limit: int, after: str = "") -> tuple[Queue, ...]:
        """Queues by name, behind one."""
        ...

    async def queue(self, name: str) -> Queue | None:
        """A queue."""
        ...

    async def queue_messages(self, queue: str, limit: int, after: str = "") -> tuple[Message, ...]:
        """A queue's messages that are not out, in their order; behind a place (`primitives.queue_care.place_of`)."""
        ...

    async def message(self, message_id: str) -> Message | None:
        """A message."""
        ...

    async def deliveries_of(self, queue: str, limit: int) -> tuple[Delivery, ...]:
        """The deliveries of a queue that are out."""
        ...

    async def held_deliveries(self, holder: str) -> tuple[str, ...]:
        """The ids of the deliveries that a holder has out."""
        ...

    async def actor(self, kind: str, name: str) -> Actor | None:
        """An actor."""
        ...

    async def actors(self, kind: str, limit: int, after: str = "") -> tuple[Actor, ...]:
        """A kind's actors by name, those behind one."""
        ...

    async def held_alarms(self, holder: str) -> tuple[tuple[str, str, int], ...]:
        """The alarms that a holder runs: kind and name of their actors, and their numbers."""
        ...

    async def actor_kinds(self, limit: int) -> tuple[ActorCount, ...]:
        """The kinds that have actors; each is counted so far."""
        ...

    async def actor_values(self, kind: str, name: str, keys: Sequence[str]) -> tuple[tuple[str, bytes], ...]:
        """Those of an actor's entries that have these keys, in the order of the keys."""
        ...

    async def actor_range(self, kind: str, name: str, wanted: EntryRange) -> tuple[tuple[str, bytes], ...]:
        """Entries of a range of an actor's keys."""
        ...

    async def set_aside(self, limit: int) -> tuple[SetAside, ...]:
        """Inputs that raised, newest first."""
        ...


class Store(Protocol):
    """Where rows are kept."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A group's transaction; one at a time. Left without `save`, nothing was written."""
        ...

    @property
    def reader(self) -> Reader:
        """Queries beside the transactions; they see what is committed."""
        ...

    @property
    def databases(self) -> Databases:
        """Users' own databases, which lie beside it and end with it."""
        ...

    async def open(self) -> None:
        """Open or make the store, and bring its schema up to date."""
        ...

    async def close(self) -> None:
        """Let go of it; every commit that was answered is durable."""
        ...
