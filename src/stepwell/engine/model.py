"""The rows of durable state, and the values their columns may hold.

A row is a frozen struct; changing one means putting another in its place, which only commands do (`commands.py`). Nothing here
knows how rows are stored or decided upon. JSON bodies are canonical JSON text in `bytes`; times are milliseconds since the epoch.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

Json = bytes
Cause = Literal["event", "rerun", "lifecycle", "invoke", "cron"]
"""What a run was made for."""
Key = str | tuple[str | int, ...]


class RunStatus(enum.StrEnum):
    """Where a run stands; the legal moves are `run.MOVES`."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class StepStatus(enum.StrEnum):
    """Where a step stands: planned → running (tried, not finished) → completed or failed; waiting while it sleeps or waits."""

    PLANNED = "planned"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"


class DeferStatus(enum.StrEnum):
    """What becomes of a deferred run: it is to begin after its parent's end, was taken back, was refused, or has been asked for."""

    AFTER_RUN = "after_run"
    ABORTED = "aborted"
    REJECTED = "rejected"
    SCHEDULED = "scheduled"


class LaneState(enum.StrEnum):
    """Ready to be claimed from, shut by a full key, or without items."""

    READY = "ready"
    SHUT = "shut"
    EMPTY = "empty"


class TimerKind(enum.StrEnum):
    """What a timer does when it is due."""

    SLEEP = "sleep"  # a sleeping step ends
    TIMEOUT = "wait"  # a step has waited long enough: for an event, a signal, another run's end
    LIMIT = "limit"  # a run has waited too long for its start, or taken too long since
    ITEM = "item"  # the item it carries becomes ready: a backoff, a delayed start
    CRON = "cron"  # a schedule's next tick
    ROUTE = "route"  # a stored event meets functions, those behind `after` (a durable cursor)
    MEET = "meet"  # a stored event meets the waits under a lookup key, those behind `after` (a durable cursor)
    CANCEL = "cancel"  # a bulk cancellation goes on behind `after` (a durable cursor)
    RETURN = "return"  # items of an ended holder come back (a durable cursor)
    OPEN = "open"  # shut lanes of a counter with room are opened (a durable cursor)
    HOLD = "hold"  # an open batch or debounce has waited long enough
    ADMIT = "admit"  # a throttle admits its next start
    REOPEN = "reopen"  # a function's shut lanes are opened, since its settings have changed (a durable cursor)
    RESUME = "resume"  # the items of a run that was paused go back to its lane (a durable cursor)
    SWEEP = "sweep"  # what has expired is taken away (a durable cursor, again and again)
    QUEUE = "queue"  # a queue's messages may have become a batch
    EXPIRY = "expiry"  # a queue's oldest messages have been kept long enough (a durable cursor)
    PURGE = "purge"  # a queue's messages are taken away (a durable cursor)
    REDELIVER = "redeliver"  # deliveries of an ended holder come back (a durable cursor)
    ALARM = "alarm"  # an actor's alarm goes off
    CLEAR = "clear"  # what an actor has cleared is taken away (a durable cursor)
    REFIRE = "refire"  # alarms that an ended holder was running go off again (a durable cursor)


OF_PRIMITIVES = frozenset((TimerKind.QUEUE, TimerKind.EXPIRY, TimerKind.PURGE, TimerKind.REDELIVER))
"""Timers whose machines are in `primitives`."""

OF_ACTORS = frozenset((TimerKind.ALARM, TimerKind.CLEAR, TimerKind.REFIRE))
"""Timers whose machine is `primitives/actor.py`."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What every row is."""


class EventRow(Row, frozen=True, kw_only=True):
    """A stored event. A lifecycle event has `run_id` and no body of its own: it is built from its run when read.

    `receipts` counts how often its sender has sent it, under the id that it made for it (inngest-protocol §11.6).
    """

    id: str
    key: str
    name: str
    data: Json
    user: Json
    ts: int
    v: str | None
    meta: Json | None
    received_ms: int
    run_id: str | None = None
    receipts: int = 1


class Dedup(Row, frozen=True, kw_only=True):
    """One run per (function, event key) until `expires_ms` (inngest-protocol §2.3)."""

    function_id: str
    event_key: str
    run_id: str
    expires_ms: int


class AppRow(Row, frozen=True, kw_only=True):
    """An app as last synced. `driver` says how calls reach it: `http`, `local`, `process` or `connect`."""

    name: str
    id: str
    driver: str
    url: str
    sdk: str
    framework: str
    checksum: str
    synced_ms: int
    archived: bool = False


class FunctionRow(Row, frozen=True, kw_only=True):
    """A function as last synced; archived, never deleted, while runs refer to it. `keyed`: it has, or once had, gating keys;
    `rekeyed`: others than today's.

    `paused`: none of its items is claimed. `draining`: runs that have begun go on, no other begins. `override`: settings that a person
    has changed since the sync (`config.Override`).
    """

    id: str
    uuid: str
    app_name: str
    name: str
    config: Json
    version: int
    keyed: bool = False
    paused: bool = False
    archived: bool = False
    draining: bool = False
    override: Json | None = None
    rekeyed: bool = False


class Run(Row, frozen=True, kw_only=True):
    """One execution of a function.

    `calls` counts the run's items (ready, leased or backing off), `waits` its sleeping and waiting steps: a live run has at least one
    of them. `origin` names what it was made from, by its cause: a run (rerun, lifecycle), an invoking run and step, a cron line.
    `guarded`: it has limit timers, cancel rules or a singleton's name, which go with it.
    `defers` counts what it wants to have run after its end. `held` says who has paused it, where somebody has: it is not called then.
    `pending` holds the step ids of the open parallel group, `pending_key` the id of the discovery that joins it (§4.6).
    """

    id: str
    function_id: str
    function_version: int
    app_name: str
    event_ids: tuple[str, ...]
    status: RunStatus
    cause: Cause
    origin: str | None
    lane_id: str
    keys: tuple[str, ...]
    order_ms: int
    created_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    request_version: int = -1
    force_plan: bool = False
    pending: tuple[str, ...] = ()
    pending_key: str = ""
    steps: int = 0
    finished: int = 0
    state_bytes: int = 0
    calls: int = 0
    waits: int = 0
    output: Json | None = None
    reason: str | None = None
    guarded: bool = False
    defers: int = 0
    held: str | None = None


class Step(Row, frozen=True, kw_only=True):
    """A memoised unit of a run. `memo` is what the app is sent under the step's id (§4.3); `position` its place in the stack.

    `ref`: the internal id of the event that a wait found, the run that an invoke started. `started_ms`: of the last try; attempts
    tell when those before it began.
    """

    run_id: str
    id: str
    op: str
    name: str
    user_id: str
    index: int
    status: StepStatus
    opts: Json | None
    memo: Json | None
    attempts: int
    queued_ms: int
    started_ms: int | None
    ended_ms: int | None
    position: int
    ref: str | None = None


class Defer(Row, frozen=True, kw_only=True):
    """Something that a run wants to have run after its end (§5.10): by `function_id`, with `input`, which a refused one has not.

    `id` is the hashed id of the op that asked for it; `reason` says why it was refused.
    """

    run_id: str
    id: str
    name: str
    function_id: str
    status: DeferStatus
    input: Json | None
    meta: Json | None
    reason: str | None
    created_ms: int


class Attempt(Row, frozen=True, kw_only=True):
    """A try that its step's row does not tell: one that failed, or whose call was lost. `step_id` is "" for the function's own."""

    id: str
    run_id: str
    step_id: str
    attempt: int
    kind: Literal["failed", "lost"]
    started_ms: int
    ended_ms: int
    error: Json
    worker: str


class Item(Row, frozen=True, kw_only=True):
    """A unit of ready work: call this run, or this step of it. Leased while `holder` is set; `fence` counts the leases.

    `lane_id` is its run's, or the lane in which the items of a paused run wait (`flow.keys.held_lane`).
    """

    id: str
    run_id: str
    function_id: str
    lane_id: str
    keys: tuple[str, ...]
    starts: int
    order_ms: int
    step_id: str
    attempt: int = 0
    fence: int = 0
    losses: int = 0
    holder: str | None = None
    leased_ms: int | None = None


class Lane(Row, frozen=True, kw_only=True):
    """The items that share every gating key. `tag` is its virtual time: the lane with the smallest is served next.

    `shut_at` is the limit that the refusing key had for this function: of the lanes that a shared key shut, those with a larger one open
    first, so that where the first has no room, none has.
    """

    id: str
    function_id: str
    keys: tuple[str, ...]
    state: LaneState
    shut_by: str | None = None
    tag: int = 0
    shut_at: int = 0


class Counter(Row, frozen=True, kw_only=True):
    """How many leased calls hold a key."""

    id: str
    running: int


class Rate(Row, frozen=True, kw_only=True):
    """A key over time. Of a throttle: `until_us` is its theoretical arrival time. Of a rate limit: `used` places of a window until then."""

    id: str
    used: int
    until_us: int


class Hold(Row, frozen=True, kw_only=True):
    """An open batch or debounce, with the events that wait in it. `keys` gate a batch's run; `ts` is the stored event's."""

    id: str
    function_id: str
    events: tuple[str, ...]
    keys: tuple[str, ...]
    first_ms: int
    due_ms: int
    ts: int
    size: int


class Member(Row, frozen=True, kw_only=True):
    """An event of a batch's run, its first one aside, which the run itself leads to."""

    event_id: str
    run_id: str


class FairClock(Row, frozen=True, kw_only=True):
    """A keyed function's virtual time: the tag of the lane served last. A lane that comes back starts no earlier."""

    function_id: str
    virtual: int


class Timer(Row, frozen=True, kw_only=True):
    """Something due. `ref` names what its kind is about; `item` is what a retry or delayed start puts in; `after` a cursor's place."""

    id: str
    due_ms: int
    kind: TimerKind
    run_id: str | None = None
    ref: str = ""
    after: str = ""
    item: Item | None = None


class Wait(Row, frozen=True, kw_only=True):
    """A run that an event may resume (a waiting step, whose id it has) or end (a cancel rule, `cancel/0` and so on).

    `lookup` is what events find it by, `serial` its place among the waits for events of this name. `where` is the condition, `event`
    what it reads of the run's own event.
    """

    run_id: str
    id: str
    name: str
    lookup: str
    serial: int
    where: str | None
    event: Json
    expires_ms: int


class Topic(Row, frozen=True, kw_only=True):
    """An event name that something waits for, or once did: the paths by which its events find waits, and how many there were."""

    name: str
    paths: tuple[str, ...]
    serial: int


class Name(Row, frozen=True, kw_only=True):
    """A name that one run at a time may have: a signal's (`signal/NAME`), with the step that waits for it; a singleton's."""

    id: str
    run_id: str
    ref: str


class Schedule(Row, frozen=True, kw_only=True):
    """A cron line of a function, and the last tick that it fired: none fires twice, whatever the clock does."""

    function_id: str
    cron: str
    fired_ms: int


class Cancellation(Row, frozen=True, kw_only=True):
    """A bulk cancellation: the function's runs made in a span of time, those for which the condition holds."""

    id: str
    app_name: str
    function_id: str
    after_ms: int | None
    before_ms: int
    where: str | None
    created_ms: int


class Holder(Row, frozen=True, kw_only=True):
    """A node's epoch, the owner of leases, and when it last said that it lives."""

    id: str
    node_id: str
    renewed_ms: int


class SetAside(Row, frozen=True, kw_only=True):
    """An input of the engine's own (a timer, a cursor) whose decision raised: kept with its error, never retried in a loop."""

    id: str
    input: Json
    error: str
    run_id: str | None
    created_ms: int


class StepInput(Row, frozen=True, kw_only=True):
    """The input that a rerun gives a step in place of its own: a JSON array, sent with the calls until the step is done (§4.3)."""

    run_id: str
    step_id: str
    input: Json


MetadataScope = Literal["run", "step", "step_attempt", "extended_trace"]
"""What metadata is about, spelled as on the wire."""


class Metadata(Row, frozen=True, kw_only=True):
    """What an app or a person noted: of one kind, about a run, a step, a try or a span of the app's own.

    `span` names which: "" for the run, a step's id, a step's id with `/` and the try's number, the span's id.
    """

    run_id: str
    scope: MetadataScope
    span: str
    kind: str
    values: Json
    updated_ms: int


class UserSpan(Row, frozen=True, kw_only=True):
    """A span of a user's own code, as the app exported it. `step_id` is "" where the app did not say which step it belongs to."""

    run_id: str
    id: str
    parent_id: str
    step_id: str
    name: str
    kind: str
    status: Literal["unset", "ok", "error"]
    message: str
    attributes: Json
    started_ms: int
    ended_ms: int


class TraceTotals(Row, frozen=True, kw_only=True):
    """How much metadata and how many spans a run has; `spans_refused` counts those that were too many."""

    run_id: str
    metadata_bytes: int = 0
    spans: int = 0
    span_bytes: int = 0
    spans_refused: int = 0
