"""Tables of rows with their named lookups: what the memory store is made of, and what a `View` works on.

A table knows its key and its indexes, nothing of what the rows mean. `SPECS` lists every table once, for the stores too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, Generic, TypeVar

from stepwell.engine import model, model_actors, model_primitives
from stepwell.engine.model import Key, LaneState, Row

R = TypeVar("R", bound=Row)


class Spec:
    """A table's name, row type, key columns, and indexes: a name → the value a row is found under (`None`: not in the index)."""

    __slots__ = ("indexes", "key", "key_of", "name", "row")

    def __init__(
        self, name: str, row: type[Row], key: tuple[str, ...], indexes: dict[str, Callable[[Any], str | None]] | None = None
    ) -> None:
        self.name, self.row, self.key, self.indexes = name, row, key, indexes or {}
        # A row's key: a string, or a tuple where the key has several columns.
        self.key_of: Callable[[Row], Any] = attrgetter(*key)


SPECS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec("events", model.EventRow, ("id",)),
        Spec("dedups", model.Dedup, ("function_id", "event_key")),
        Spec("apps", model.AppRow, ("name",)),
        Spec("functions", model.FunctionRow, ("id",)),
        Spec("runs", model.Run, ("id",), {"live": lambda run: run.function_id if run.ended_ms is None else None}),
        Spec("steps", model.Step, ("run_id", "id"), {"run": lambda step: step.run_id}),
        Spec("attempts", model.Attempt, ("id",), {"run": lambda attempt: attempt.run_id}),
        Spec(
            "lanes",
            model.Lane,
            ("id",),
            {
                "ready": lambda lane: lane.function_id if lane.state is LaneState.READY else None,
                "shut_by": lambda lane: lane.shut_by,
                "shut": lambda lane: lane.function_id if lane.state is LaneState.SHUT else None,
                "empty": lambda lane: "" if lane.state is LaneState.EMPTY else None,
            },
        ),
        Spec(
            "items",
            model.Item,
            ("id",),
            {
                "lane": lambda item: item.lane_id if item.holder is None else None,
                "holder": lambda item: item.holder,
                "run": lambda item: item.run_id,
            },
        ),
        Spec("counters", model.Counter, ("id",)),
        Spec("rates", model.Rate, ("id",)),
        Spec("holds", model.Hold, ("id",)),
        Spec("members", model.Member, ("event_id", "run_id")),
        Spec("clocks", model.FairClock, ("function_id",)),
        Spec("topics", model.Topic, ("name",)),
        Spec("waits", model.Wait, ("run_id", "id"), {"run": lambda wait: wait.run_id, "lookup": lambda wait: wait.lookup}),
        Spec("names", model.Name, ("id",), {"run": lambda name: name.run_id}),
        Spec("timers", model.Timer, ("id",), {"run": lambda timer: timer.run_id}),
        Spec("schedules", model.Schedule, ("function_id", "cron")),
        Spec("cancellations", model.Cancellation, ("id",)),
        Spec("defers", model.Defer, ("run_id", "id"), {"run": lambda defer: defer.run_id}),
        Spec("holders", model.Holder, ("id",)),
        Spec("set_aside", model.SetAside, ("id",)),
        Spec("inputs", model.StepInput, ("run_id", "step_id"), {"run": lambda row: row.run_id}),
        Spec("metadata", model.Metadata, ("run_id", "scope", "span", "kind"), {"run": lambda row: row.run_id}),
        Spec("spans", model.UserSpan, ("run_id", "id"), {"run": lambda span: span.run_id}),
        Spec("trace_totals", model.TraceTotals, ("run_id",)),
        Spec("queues", model_primitives.Queue, ("id",)),
        Spec(
            "messages",
            model_primitives.Message,
            ("id",),
            {"queue": lambda message: message.queue if message.delivery is None else None},
        ),
        Spec("kv", model_primitives.KvEntry, ("namespace", "key"), {"namespace": lambda entry: entry.namespace}),
        Spec("deliveries", model_primitives.Delivery, ("id",), {"holder": lambda delivery: delivery.holder}),
        Spec("actors", model_actors.Actor, ("kind", "name"), {"firing": lambda actor: actor.firing}),
        Spec("actor_entries", model_actors.ActorEntry, ("kind", "name", "generation", "key"), {"actor": lambda row: entries_value(row)}),
    )
}

TABLE_OF: dict[type[Row], str] = {spec.row: name for name, spec in SPECS.items()}


class Table(Generic[R]):
    """Rows by key. An index is built when it is first asked, and kept in step from then on: most views never ask most of them."""

    __slots__ = ("_indexes", "rows", "spec")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.rows: dict[Key, R] = {}
        self._indexes: dict[str, dict[str, dict[Key, None]]] = {}

    def put(self, key: Key, row: R) -> None:
        """Set the row under its key, replacing an earlier one."""
        before = self.rows.get(key) if self._indexes else None
        self.rows[key] = row
        for name, index in self._indexes.items():
            value_of = self.spec.indexes[name]
            value = value_of(row)
            if before is not None:
                old = value_of(before)
                if old == value:
                    continue
                self._drop(index, old, key)
            if value is not None:
                index.setdefault(value, {})[key] = None

    def remove(self, key: Key) -> None:
        """Take the row away; nothing happens where there is none."""
        before = self.rows.pop(key, None)
        if before is not None:
            for name, index in self._indexes.items():
                self._drop(index, self.spec.indexes[name](before), key)

    def find(self, index_name: str, value: str) -> list[R]:
        """The rows that an index holds under a value, in no particular order."""
        index = self._indexes.get(index_name)
        if index is None:
            index = self._build(index_name)
        return [self.rows[key] for key in index.get(value, ())]

    def _build(self, index_name: str) -> dict[str, dict[Key, None]]:
        index = self._indexes[index_name] = {}
        value_of = self.spec.indexes[index_name]
        for key, row in self.rows.items():
            if (value := value_of(row)) is not None:
                index.setdefault(value, {})[key] = None
        return index

    @staticmethod
    def _drop(index: dict[str, dict[Key, None]], value: str | None, key: Key) -> None:
        if value is not None and (keys := index.get(value)) is not None:
            keys.pop(key, None)
            if not keys:
                del index[value]

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows.values())

    def __len__(self) -> int:
        return len(self.rows)


class Tables:
    """Every table, empty at first."""

    def __init__(self) -> None:
        self.events: Table[model.EventRow] = Table(SPECS["events"])
        self.dedups: Table[model.Dedup] = Table(SPECS["dedups"])
        self.apps: Table[model.AppRow] = Table(SPECS["apps"])
        self.functions: Table[model.FunctionRow] = Table(SPECS["functions"])
        self.runs: Table[model.Run] = Table(SPECS["runs"])
        self.steps: Table[model.Step] = Table(SPECS["steps"])
        self.attempts: Table[model.Attempt] = Table(SPECS["attempts"])
        self.items: Table[model.Item] = Table(SPECS["items"])
        self.lanes: Table[model.Lane] = Table(SPECS["lanes"])
        self.counters: Table[model.Counter] = Table(SPECS["counters"])
        self.rates: Table[model.Rate] = Table(SPECS["rates"])
        self.holds: Table[model.Hold] = Table(SPECS["holds"])
        self.members: Table[model.Member] = Table(SPECS["members"])
        self.clocks: Table[model.FairClock] = Table(SPECS["clocks"])
        self.topics: Table[model.Topic] = Table(SPECS["topics"])
        self.waits: Table[model.Wait] = Table(SPECS["waits"])
        self.names: Table[model.Name] = Table(SPECS["names"])
        self.timers: Table[model.Timer] = Table(SPECS["timers"])
        self.schedules: Table[model.Schedule] = Table(SPECS["schedules"])
        self.cancellations: Table[model.Cancellation] = Table(SPECS["cancellations"])
        self.defers: Table[model.Defer] = Table(SPECS["defers"])
        self.holders: Table[model.Holder] = Table(SPECS["holders"])
        self.set_aside: Table[model.SetAside] = Table(SPECS["set_aside"])
        self.inputs: Table[model.StepInput] = Table(SPECS["inputs"])
        self.metadata: Table[model.Metadata] = Table(SPECS["metadata"])
        self.spans: Table[model.UserSpan] = Table(SPECS["spans"])
        self.trace_totals: Table[model.TraceTotals] = Table(SPECS["trace_totals"])
        self.queues: Table[model_primitives.Queue] = Table(SPECS["queues"])
        self.messages: Table[model_primitives.Message] = Table(SPECS["messages"])
        self.kv: Table[model_primitives.KvEntry] = Table(SPECS["kv"])
        self.deliveries: Table[model_primitives.Delivery] = Table(SPECS["deliveries"])
        self.actors: Table[model_actors.Actor] = Table(SPECS["actors"])
        self.actor_entries: Table[model_actors.ActorEntry] = Table(SPECS["actor_entries"])
        self.by_name: dict[str, Table[Any]] = {name: getattr(self, name) for name in SPECS}

    # The scans: the same order in every store.

    def ready_lanes(self, function_id: str) -> list[model.Lane]:
        """A function's ready lanes, the least served first."""
        return sorted(self.lanes.find("ready", function_id), key=lambda lane: (lane.tag, lane.id))

    def lane_items(self, lane_id: str) -> list[model.Item]:
        """A lane's items that nobody holds: what continues before what starts, then the older run."""
        return sorted(self.items.find("lane", lane_id), key=item_order)

    def shut_lanes(self, counter_id: str) -> list[model.Lane]:
        """The lanes that a counter shut, in the order in which they are opened."""
        return sorted(self.lanes.find("shut_by", counter_id), key=lambda lane: (-lane.shut_at, lane.tag, lane.id))

    def function_lanes(self, value: str) -> list[model.Lane]:
        """A function's shut lanes, those behind an id (`behind`)."""
        function_id, _, after = value.partition("\n")
        return sorted((lane for lane in self.lanes.find("shut", function_id) if lane.id > after), key=lambda lane: lane.id)

    def empty_lanes(self, _: str) -> list[model.Lane]:
        """Lanes without items, of all functions."""
        return sorted(self.lanes.find("empty", ""), key=lambda lane: (lane.tag, lane.id))

    def old_dedups(self, value: str) -> list[model.Dedup]:
        """Event keys that are remembered no longer than until a time."""
        old = (dedup for dedup in self.dedups if dedup.expires_ms <= int(value))
        return sorted(old, key=lambda dedup: (dedup.expires_ms, dedup.function_id, dedup.event_key))

    def old_rates(self, value: str) -> list[model.Rate]:
        """Rates that are at rest since a time, in milliseconds."""
        old = (rate for rate in self.rates if rate.until_us <= int(value) * 1000)
        return sorted(old, key=lambda rate: (rate.until_us, rate.id))

    def holder_items(self, holder: str) -> list[model.Item]:
        """The items that a holder has leased."""
        return sorted(self.items.find("holder", holder), key=lambda item: item.id)

    def waits_of(self, value: str) -> list[model.Wait]:
        """The waits under a lookup key, those behind a serial (`behind`), in the order in which they were made."""
        lookup, _, after = value.partition("\n")
        return sorted((wait for wait in self.waits.find("lookup", lookup) if wait.serial > int(after)), key=lambda wait: wait.serial)

    def live_runs(self, value: str) -> list[model.Run]:
        """A function's runs that have not ended, those behind an id (`behind`), the oldest first."""
        function_id, _, after = value.partition("\n")
        return sorted((run for run in self.runs.find("live", function_id) if run.id > after), key=lambda run: run.id)

    def span_metadata(self, value: str) -> list[model.Metadata]:
        """What was noted about one span (`span_value`), by kind."""
        run_id, scope, span = json.loads(value)
        found = (row for row in self.metadata.find("run", run_id) if (row.scope, row.span) == (scope, span))
        return sorted(found, key=lambda row: row.kind)

    def defers_of(self, run_id: str) -> list[model.Defer]:
        """What a run wants to have run after its end."""
        return sorted(self.defers.find("run", run_id), key=lambda defer: defer.id)

    def queue_messages(self, value: str) -> list[model_primitives.Message]:
        """A queue's messages that are not out, in their order; those behind a place (`behind`), where one is given."""
        queue, _, place = value.partition("\n")
        ready_ms, _, message_id = place.partition(" ")
        after = (int(ready_ms or 0), message_id)
        found = (message for message in self.messages.find("queue", queue) if (message.ready_ms, message.id) > after)
        return sorted(found, key=lambda message: (message.ready_ms, message.id))

    def old_entries(self, value: str) -> list[model_primitives.KvEntry]:
        """Entries of namespaces that have expired until a time."""
        old = [(entry.expires_ms, entry) for entry in self.kv if entry.expires_ms is not None and entry.expires_ms <= int(value)]
        return [entry for _, entry in sorted(old, key=lambda one: (one[0], one[1].namespace, one[1].key.encode()))]

    def holder_deliveries(self, holder: str) -> list[model_primitives.Delivery]:
        """The deliveries that a holder has out."""
        return sorted(self.deliveries.find("holder", holder), key=lambda delivery: delivery.id)

    def entries_of(self, value: str) -> list[model_actors.ActorEntry]:
        """What an actor has stored in one generation (`entries_value`), in the order of the keys."""
        return sorted(self.actor_entries.find("actor", value), key=lambda entry: entry.key)

    def firing_actors(self, holder: str) -> list[model_actors.Actor]:
        """The actors whose alarm a holder runs."""
        return sorted(self.actors.find("firing", holder), key=lambda actor: (actor.kind, actor.name))


def entries_value(of: model_actors.Actor | model_actors.ActorEntry) -> str:
    """The value of the scan `actor_entries`."""
    return json.dumps([of.kind, of.name, of.generation])


def span_value(run_id: str, scope: str, span: str) -> str:
    """The value of the scan `span_metadata`."""
    return json.dumps([run_id, scope, span])


def behind(value: str, place: str | int) -> str:
    """The value of a scan that goes on behind a place."""
    return f"{value}\n{place}"


def item_order(item: model.Item) -> tuple[int, int, str]:
    """The order inside a lane."""
    return (item.starts, item.order_ms, item.id)


SCANS: dict[str, Callable[[Tables, str], list[Any]]] = {
    "ready_lanes": Tables.ready_lanes,
    "lane_items": Tables.lane_items,
    "shut_lanes": Tables.shut_lanes,
    "function_lanes": Tables.function_lanes,
    "empty_lanes": Tables.empty_lanes,
    "old_dedups": Tables.old_dedups,
    "old_rates": Tables.old_rates,
    "holder_items": Tables.holder_items,
    "waits_of": Tables.waits_of,
    "live_runs": Tables.live_runs,
    "span_metadata": Tables.span_metadata,
    "defers_of": Tables.defers_of,
    "queue_messages": Tables.queue_messages,
    "holder_deliveries": Tables.holder_deliveries,
    "old_entries": Tables.old_entries,
    "actor_entries": Tables.entries_of,
    "firing_actors": Tables.firing_actors,
}

SCAN_TABLE: dict[str, str] = {
    "ready_lanes": "lanes",
    "lane_items": "items",
    "shut_lanes": "lanes",
    "function_lanes": "lanes",
    "empty_lanes": "lanes",
    "old_dedups": "dedups",
    "old_rates": "rates",
    "holder_items": "items",
    "waits_of": "waits",
    "live_runs": "runs",
    "span_metadata": "metadata",
    "defers_of": "defers",
    "queue_messages": "messages",
    "holder_deliveries": "deliveries",
    "old_entries": "kv",
    "actor_entries": "actor_entries",
    "firing_actors": "actors",
}
