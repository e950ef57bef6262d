"""From what an input names to the rows it leads to: relations, and the reading of selections level by level.

A store reads a list of selections table by table (`resolve`); it needs to know two things only, how to fetch rows by key and how
to run a named scan. What a row leads to (`RELATIONS`) is knowledge of the engine and stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

import msgspec

from stepwell.engine.flow.keys import THROTTLE, counted, gating, held_lane, of_calls, of_runs, of_throttles
from stepwell.engine.model import Item, Key, Lane, Name, Row, Run, Timer, TimerKind, Wait
from stepwell.engine.model_actors import Actor
from stepwell.engine.model_primitives import Delivery, places_of
from stepwell.engine.tables import SCAN_TABLE, behind, entries_value
from stepwell.engine.view import Scan, Select, Selection, View
from stepwell.protocol.lifecycle import split_correlation

OPEN_AT_ONCE = 4
"""Shut lanes that one release looks at; a release frees one slot, the others are for lanes that turn out to be empty."""

OPEN_BY_CURSOR = 64
"""Shut lanes that one step of an opening cursor looks at."""

RETURN_AT_ONCE = 100
"""Items of an ended holder that come back in one step of its cursor."""

MEET_AT_ONCE = 16
"""Waits under one lookup key that an event meets as it is stored."""

MEET_BY_CURSOR = 100
"""Waits that one step of a meeting cursor looks at."""

CANCEL_BY_CURSOR = 100
"""Runs that one step of a bulk cancellation looks at."""

RESUME_AT_ONCE = 100
"""Items of a run that was paused, that go back to its lane at once."""

SWEEP_AT_ONCE = 500
"""Rows of each kind that one step of the sweep takes away."""

CLAIM_OF_LANE = 64
"""Items that one claim looks at in a lane, where a function has one."""

CLAIM_OF_ONE = 2
"""Items that one claim looks at in each lane, where a key lets one call out at a time: that one, and whether another follows it.

A lane that runs dry is then known to, and is not shut only for its next opening to find nothing in it.
"""

CLAIM_OF_MANY = 8
"""Items that one claim looks at in each lane, where a function has many."""


WHOLE_KEYS = 256
"""Entries with which an actor comes into memory at once; of one with more, they are read when they are asked for."""

WHOLE_BYTES = 1024 * 1024
"""What these may hold."""

CLEAR_AT_ONCE = 500
"""Entries that one step of a clearing cursor takes away."""

REFIRE_AT_ONCE = 100
"""Alarms of an ended holder that go off again in one step of its cursor."""


def item_release(item: Item) -> Iterable[Selection]:
    """What giving an item's slots back touches: its counters, and the first lanes that each of them shut."""
    for counter_id in of_calls(item.keys):
        yield Select("counters", counter_id)
        yield Scan("shut_lanes", counter_id, OPEN_AT_ONCE)


def item_claim(item: Item) -> Iterable[Selection]:
    """An item's run, and what may refuse its claim. The lane is known: the item was found in it."""
    yield Select("runs", item.run_id)
    for counter_id in gating(item.keys):
        yield Select("rates" if counter_id.startswith(THROTTLE) else "counters", counter_id)


def run_lane(run: Run) -> Iterable[Selection]:
    """What putting an item of the run into its lane touches, and what its end gives back. A lane without keys has no row."""
    if run.keys:
        yield Select("lanes", run.lane_id)
        yield Select("clocks", run.function_id)
        for counter_id in of_runs(run.keys):
            yield Select("counters", counter_id)
            yield Scan("shut_lanes", counter_id, OPEN_AT_ONCE)


def lane_counters(lane: Lane) -> Iterable[Selection]:
    """What gates a lane."""
    for counter_id in of_throttles(lane.keys):
        yield Select("rates", counter_id)
        yield Select("timers", f"admit/{counter_id}")
    for counter_id in counted(lane.keys):
        yield Select("counters", counter_id)


def lane_others(lane: Lane) -> Iterable[Selection]:
    """Where other lanes may hold its keys too: whether one of them waits for an opening."""
    for counter_id in gating(lane.keys):
        yield Scan("shut_lanes", counter_id, 1)
        yield Select("timers", f"open/{counter_id}")


def timer_subject(timer: Timer) -> Iterable[Selection]:
    """What a timer is about, by its kind."""
    if timer.run_id is not None:
        yield Select("runs", timer.run_id, ("lane", "invoker") if timer.kind is TimerKind.LIMIT else ("lane",))
    match timer.kind:
        case TimerKind.SLEEP:
            assert timer.run_id is not None
            yield Select("steps", (timer.run_id, timer.ref))
        case TimerKind.ROUTE:
            yield Select("events", timer.ref, ("run",))
        case TimerKind.OPEN | TimerKind.ADMIT:
            yield Select("rates" if timer.ref.startswith(THROTTLE) else "counters", timer.ref)
            yield Scan("shut_lanes", timer.ref, OPEN_BY_CURSOR)
        case TimerKind.RETURN:
            yield Select("holders", timer.ref)
            yield Scan("holder_items", timer.ref, RETURN_AT_ONCE, ("release", "run"))
        case TimerKind.TIMEOUT:
            assert timer.run_id is not None
            yield Select("steps", (timer.run_id, timer.ref))
        case TimerKind.MEET:
            yield Select("events", timer.ref, ("run",))
            lookup, after, _ = msgspec.json.decode(timer.after)
            yield Scan("waits_of", behind(lookup, after), MEET_BY_CURSOR, ("resume",))
        case TimerKind.CRON:
            yield Select("schedules", (timer.ref, cron_of(timer)))
        case TimerKind.HOLD:
            yield Select("holds", timer.ref, ("event",))
        case TimerKind.REOPEN:
            yield Scan("function_lanes", behind(timer.ref, timer.after), OPEN_BY_CURSOR)
        case TimerKind.CANCEL:
            yield Select("cancellations", timer.ref)
        case TimerKind.RESUME:
            yield Select("runs", timer.ref, ("lane",))
            yield Scan("lane_items", held_lane(timer.ref), RESUME_AT_ONCE)
        case TimerKind.ITEM | TimerKind.LIMIT | TimerKind.SWEEP:
            pass
        case TimerKind.EXPIRY | TimerKind.PURGE:
            yield Select("queues", timer.ref)
        case TimerKind.QUEUE | TimerKind.REDELIVER:
            pass
        case TimerKind.ALARM:
            kind, _, name = timer.ref.partition("/")
            yield Select("actors", (kind, name))
        case TimerKind.CLEAR:
            yield Scan("actor_entries", timer.ref, CLEAR_AT_ONCE)
        case TimerKind.REFIRE:
            yield Scan("firing_actors", timer.ref, REFIRE_AT_ONCE)


def cron_of(timer: Timer) -> str:
    """The cron line of a `CRON` timer, which carries it behind its tick's time."""
    return timer.after.partition(" ")[2]


def wait_subject(wait: Wait) -> Iterable[Selection]:
    """What resuming a wait touches; a cancel rule leads to its run only."""
    yield Select("runs", wait.run_id, ("lane",))
    yield Select("steps", (wait.run_id, wait.id))
    yield Select("timers", f"wait/{wait.run_id}/{wait.id}")


def invoker(run: Run) -> Iterable[Selection]:
    """The step that invoked the run, which goes on when the run ends."""
    if run.cause == "invoke" and run.origin is not None:
        run_id, step_id = split_correlation(run.origin)
        yield Select("runs", run_id, ("lane",))
        yield Select("steps", (run_id, step_id))
        yield Select("timers", f"wait/{run_id}/{step_id}")


def name_owner(name: Name) -> Iterable[Selection]:
    """The step that waits for a signal."""
    yield Select("runs", name.run_id, ("lane",))
    yield Select("steps", (name.run_id, name.ref))
    yield Select("timers", f"wait/{name.run_id}/{name.ref}")


def delivery_messages(delivery: Delivery) -> Iterable[Selection]:
    """What the end of a delivery touches: its messages, its queue and that one's places."""
    for message_id in delivery.messages:
        yield Select("messages", message_id)
    yield Select("queues", delivery.queue)
    yield Select("timers", f"expiry/{delivery.queue}")
    yield Select("counters", places_of(delivery.queue))


def is_small(actor: Actor) -> bool:
    """Whether the actor comes into memory with all its entries."""
    return actor.entries <= WHOLE_KEYS and actor.bytes <= WHOLE_BYTES


def actor_entries(actor: Actor) -> Iterable[Selection]:
    """What an activation begins with."""
    if actor.entries and is_small(actor):
        yield Scan("actor_entries", entries_value(actor), WHOLE_KEYS + 1)


def actor_holder(actor: Actor) -> Iterable[Selection]:
    """What tells whether the actor's holder lives."""
    if actor.holder is not None:
        yield Select("holders", actor.holder)
        yield Select("timers", f"return/{actor.holder}")


RELATIONS: dict[tuple[str, str], Callable[[Any], Iterable[Selection]]] = {
    ("items", "release"): item_release,
    ("items", "run"): lambda item: [Select("runs", item.run_id, ("lane",))],
    ("items", "claim"): item_claim,
    ("runs", "lane"): run_lane,
    ("runs", "events"): lambda run: [Select("events", event_id) for event_id in run.event_ids],
    ("lanes", "counters"): lane_counters,
    ("lanes", "others"): lane_others,
    ("lanes", "items"): lambda lane: [Scan("lane_items", lane.id, CLAIM_OF_LANE, ("claim",))],
    ("lanes", "one_item"): lambda lane: [Scan("lane_items", lane.id, CLAIM_OF_ONE, ("claim",))],
    ("lanes", "few_items"): lambda lane: [Scan("lane_items", lane.id, CLAIM_OF_MANY, ("claim",))],
    ("timers", "subject"): timer_subject,
    ("runs", "invoker"): invoker,
    ("waits", "resume"): wait_subject,
    ("names", "owner"): name_owner,
    ("actors", "entries"): actor_entries,
    ("actors", "holder"): actor_holder,
    ("names", "run"): lambda name: [Select("runs", name.run_id, ("lane", "invoker"))],
    ("deliveries", "messages"): delivery_messages,
    ("holds", "event"): lambda hold: [Select("events", hold.events[0], ("run",))],
    ("events", "run"): lambda event: [Select("runs", event.run_id, ("events",))] if event.run_id is not None else [],
}


class Fetch(msgspec.Struct, frozen=True):
    """One level's reads: keys by table, and scans."""

    keys: dict[str, list[Key]]
    scans: list[Scan]


class Fetched(msgspec.Struct, frozen=True):
    """The rows found: by table, and for each scan in the order asked."""

    rows: dict[str, list[Row]]
    scans: list[list[Row]]


def resolve(selections: Iterable[Selection], view: View) -> Generator[Fetch, Fetched, None]:
    """Read what the selections name into the view, level by level. Yields what to fetch, is sent what was found.

    Rows and scans that the view has already are not asked for again, so that a group can start over with more selections.
    """
    level: list[Selection] = list(selections)
    while level:
        keys, scans = _merged(level)
        missing = {}
        for table, by_key in keys.items():
            unknown = view.unknown(table, by_key)
            if unknown:
                missing[table] = unknown
        open_scans = [scan for scan in scans.values() if not view.knows_scan(scan.name, scan.value, scan.limit)] if scans else []
        if missing or open_scans:
            fetched = yield Fetch(missing, open_scans)
            for table, asked in missing.items():
                view.admit(table, asked, fetched.rows.get(table, ()))
            for scan, rows in zip(open_scans, fetched.scans, strict=True):
                view.admit_scan(scan, rows)
        level = []
        for table, by_key in keys.items():
            rows_of = view.by_name[table].rows
            for key, follow in by_key.items():
                if follow and (row := rows_of.get(key)) is not None:
                    for relation in follow:
                        level += RELATIONS[table, relation](row)
        for scan in scans.values():
            if scan.follow:
                for row in view.scan(scan.name, scan.value, scan.limit):
                    for relation in scan.follow:
                        level += RELATIONS[SCAN_TABLE[scan.name], relation](row)


def _merged(level: list[Selection]) -> tuple[dict[str, dict[Key, tuple[str, ...]]], dict[tuple[str, str], Scan]]:
    """Each key once, with all the relations asked of it; each scan once, with the largest limit."""
    keys: dict[str, dict[Key, tuple[str, ...]]] = {}
    scans: dict[tuple[str, str], Scan] = {}
    for wanted in level:
        if type(wanted) is Select:
            by_key = keys.get(wanted.table)
            if by_key is None:
                by_key = keys[wanted.table] = {}
            known = by_key.get(wanted.key)
            if not known:
                by_key[wanted.key] = wanted.follow
            elif wanted.follow and wanted.follow != known:
                by_key[wanted.key] = tuple(dict.fromkeys((*known, *wanted.follow)))
        elif isinstance(wanted, Scan):
            scan = scans.get((wanted.name, wanted.value))
            if scan is not None:
                follow = tuple(dict.fromkeys((*scan.follow, *wanted.follow)))
                wanted = Scan(wanted.name, wanted.value, max(scan.limit, wanted.limit), follow)
            scans[wanted.name, wanted.value] = wanted
    return keys, scans
