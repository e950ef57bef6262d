"""What happened: every change of durable state is one of these, and all take the same path (`transition.py`).

Inputs are values. Every id that a repeated input must be recognised by is in it before the first try; times of the outside
world are fields, `now_ms` is the node's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stepwell.engine.input import Input
from stepwell.engine.inputs_actors import ActorActivated, ActorsReleased, ActorWrote, AlarmAnswered
from stepwell.engine.inputs_primitives import (
    BatchAnswered,
    DeliveriesReturned,
    KvWritten,
    LeasesSettled,
    MessageEdited,
    MessagesDeleted,
    MessagesMoved,
    MessagesPulled,
    MessagesSent,
    QueueClaimed,
    QueuePurged,
    QueueSet,
)
from stepwell.engine.model import Cancellation, Json, Step, Timer, UserSpan
from stepwell.protocol.calls import Answer, Checkpoint
from stepwell.protocol.events import Event
from stepwell.protocol.functions import FunctionConfig, Override, Registration
from stepwell.protocol.metadata import Note
from stepwell.protocol.ops import Op


class EventsReceived(Input, frozen=True):
    """Events to store and route, 100 at most. `fresh` says that their ids were made for this very input, so that none is stored yet.

    `seeded`: the sender has made their ids, and sends them once more where it has heard no answer; each time is noted as a receipt.
    """

    events: tuple[Event, ...]
    fresh: bool = False
    seeded: bool = False


class AppSynced(Input, frozen=True):
    """An app told its functions. `driver` says how calls reach it."""

    registration: Registration
    driver: str


class AppRemoved(Input, frozen=True):
    """Somebody wants an app to be known no longer."""

    app_name: str


class NodeStarted(Input, frozen=True):
    """A node begins an epoch. `alone` says that no other node can be alive (SQLite): every other epoch is over."""

    node_id: str
    holder: str
    others: tuple[str, ...] = ()


class HolderRenewed(Input, frozen=True):
    """A node lives."""

    holder: str


class Ask(msgspec.Struct, frozen=True):
    """A function that may have ready items, and how many calls there is room for."""

    function_id: str
    room: int


class Claim(Input, frozen=True):
    """A node has room for calls."""

    holder: str
    asks: tuple[Ask, ...]


class CallAnswered(Input, frozen=True):
    """A call ended: with an answer, or lost. `worker` names where it ran."""

    run_id: str
    item_id: str
    fence: int
    answer: Answer
    worker: str = ""


class CallsReturned(Input, frozen=True):
    """Leased items, each with its fence, that have no call in hand at the node that holds them."""

    items: tuple[tuple[str, int], ...]
    reason: str


class StepsCheckpointed(Input, frozen=True):
    """A call that goes on reports steps."""

    checkpoint: Checkpoint


class EndpointFound(Input, frozen=True):
    """A domain tells of one of its endpoints. `app_name` is the domain, `sdk` what its code is written with."""

    app_name: str
    sdk: str
    function: FunctionConfig


class SyncRunBegun(Input, frozen=True):
    """An app has begun a run and executes it: with the steps done so far. The event's id is the idempotency key, where it has one."""

    run_id: str
    function_id: str
    event: Event
    request_version: int
    ops: tuple[Op, ...]


class SyncStepsTold(Input, frozen=True):
    """An app that executes a run tells what it has done, or wants done."""

    run_id: str
    ops: tuple[Op, ...]


class TimerDue(Input, frozen=True):
    """A timer's time has come. `holder`: the node that does what it leads to."""

    timer_id: str
    holder: str = ""


class RunCancelled(Input, frozen=True):
    """Somebody wants a run to end."""

    run_id: str
    reason: str


class RunHeld(Input, frozen=True):
    """Somebody (`by`) wants a run to pause, or to go on."""

    run_id: str
    held: bool
    by: str = ""


class FromStep(msgspec.Struct, frozen=True):
    """Where a rerun begins: at a step of the run, with what finished before it (`kept`, which does not change any more).

    `input`: a JSON array in place of the step's own.
    """

    step_id: str
    kept: tuple[Step, ...]
    input: Json | None = None


class RunRerun(Input, frozen=True):
    """Somebody wants a run again: same events, a new run that names its origin, from its beginning or from a step."""

    run_id: str
    new_run_id: str
    from_step: FromStep | None = None


class MetadataTold(Input, frozen=True):
    """Somebody notes something about a run, its steps, tries or spans."""

    run_id: str
    notes: tuple[Note, ...]


class SpansTold(Input, frozen=True):
    """An app exports spans of a run's own code."""

    run_id: str
    spans: tuple[UserSpan, ...]


class FunctionInvoked(Input, frozen=True):
    """Somebody wants one function to run, with an event of its own. `function_id`: its slug or UUID."""

    function_id: str
    event: Event


class SignalSent(Input, frozen=True):
    """A signal, for the step that waits for its name, or that will until `keep_until_ms`. `data` is canonical JSON."""

    signal: str
    data: Json
    keep_until_ms: int | None = None


class RunsCancelled(Input, frozen=True):
    """Somebody wants runs of a function to end: those made in a span of time, and for which a condition on their event holds."""

    cancellation: Cancellation


class CancellationEnded(Input, frozen=True):
    """Somebody wants a bulk cancellation to go no further."""

    cancellation_id: str


class FunctionHeld(Input, frozen=True):
    """Somebody wants a function to pause, to begin no more runs, or to go on."""

    function_id: str
    mode: Literal["running", "paused", "draining"]


class FunctionOverridden(Input, frozen=True):
    """Somebody wants other limits for a function than its app told; `None`: those again."""

    function_id: str
    override: Override | None


class InputSetAside(Input, frozen=True):
    """An input of the engine's own raised: it is kept with its error, its timer taken away."""

    id: str
    input: Json
    error: str
    timer: Timer | None


CHANGES_REGISTRY = (AppSynced, AppRemoved, FunctionHeld, FunctionOverridden, EndpointFound)
"""Inputs after which decisions are made with other functions: each ends its group."""

AnyInput = (
    EventsReceived
    | AppSynced
    | AppRemoved
    | NodeStarted
    | HolderRenewed
    | Claim
    | CallAnswered
    | CallsReturned
    | StepsCheckpointed
    | EndpointFound
    | SyncRunBegun
    | SyncStepsTold
    | TimerDue
    | RunCancelled
    | RunHeld
    | RunRerun
    | MetadataTold
    | SpansTold
    | FunctionInvoked
    | SignalSent
    | RunsCancelled
    | CancellationEnded
    | FunctionHeld
    | FunctionOverridden
    | InputSetAside
    | MessagesSent
    | QueueClaimed
    | BatchAnswered
    | DeliveriesReturned
    | MessagesPulled
    | LeasesSettled
    | QueueSet
    | QueuePurged
    | MessagesMoved
    | MessagesDeleted
    | MessageEdited
    | KvWritten
    | ActorActivated
    | ActorWrote
    | AlarmAnswered
    | ActorsReleased
)
"""Every input there is: what the door takes, and what an input log decodes to."""


# Replies


class EventsAccepted(msgspec.Struct, frozen=True):
    """The reply to `EventsReceived`: the internal ids, in order."""

    ids: tuple[str, ...]


class Synced(msgspec.Struct, frozen=True):
    """The reply to `AppSynced`."""

    modified: bool
    app_id: str
    sync_id: str


class Removed(msgspec.Struct, frozen=True):
    """The reply to `AppRemoved`: how many functions went with the app."""

    app_name: str
    functions: int


class Claimed(msgspec.Struct, frozen=True):
    """The reply to `Claim`: calls that go out, by function, and which functions may have more."""

    calls: dict[str, int]
    more: tuple[str, ...]
