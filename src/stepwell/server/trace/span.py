"""What a trace is: spans, what their kinds tell, and the rows that they are made of."""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec

from stepwell.engine.model import Attempt, Item, Metadata, Run, Step, Timer, TraceTotals, UserSpan
from stepwell.protocol.ids import span_id_of
from stepwell.server.trace.outputs import OutputRef


class SpanStatus(enum.StrEnum):
    """Where a span stands (§8.3). A sleeping step runs, for nothing but time ends it; what waits for somebody else waits."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"


class RunInfo(msgspec.Struct, frozen=True):
    """Of a step of the user's code: what kind of step it is (`step.sendEvent`), where the app says it."""

    type: str | None


class SleepInfo(msgspec.Struct, frozen=True):
    """Of a sleep: when it ends."""

    until_ms: int | None


class EventInfo(msgspec.Struct, frozen=True):
    """Of a wait for an event; what came of it is `None` while it waits."""

    event_name: str
    expression: str | None
    timeout_ms: int | None
    found_event_id: str | None
    timed_out: bool | None


class InvokeInfo(msgspec.Struct, frozen=True):
    """Of an invoked function."""

    triggering_event_id: str | None
    function_id: str
    timeout_ms: int | None
    return_event_id: str | None
    run_id: str | None
    timed_out: bool | None


class SignalInfo(msgspec.Struct, frozen=True):
    """Of a wait for a signal."""

    signal: str
    timeout_ms: int | None
    timed_out: bool | None


StepInfo = RunInfo | SleepInfo | EventInfo | InvokeInfo | SignalInfo


class Noted(msgspec.Struct, frozen=True):
    """Metadata as it is shown."""

    scope: str
    kind: str
    values: dict[str, Any]
    updated_ms: int


class Span(msgspec.Struct, kw_only=True):
    """A span of a trace. `attempts` counts the tries of what was tried more than once."""

    id: str
    parent_id: str | None
    name: str
    kind: Literal["run", "step", "attempt", "calls", "final", "user"]
    status: SpanStatus
    queued_ms: int
    started_ms: int | None
    ended_ms: int | None
    attempts: int = 0
    attempt: int | None = None
    step_id: str | None = None
    step_op: str | None = None
    step_type: str = ""
    info: StepInfo | None = None
    output: OutputRef | None = None
    user: UserSpan | None = None
    notes: list[Noted] = []
    children: list[Span] = []


class Rows(msgspec.Struct, kw_only=True):
    """What a trace is made of (`reading.read_rows`). `invoked`: runs that its steps invoked; `event`: the run's own."""

    run: Run
    steps: tuple[Step, ...]
    attempts: tuple[Attempt, ...] = ()
    items: tuple[Item, ...] = ()
    timers: tuple[Timer, ...] = ()
    invoked: dict[str, Run] = {}
    event: dict[str, Any] = {}
    metadata: tuple[Metadata, ...] = ()
    spans: tuple[UserSpan, ...] = ()
    totals: TraceTotals | None = None


def span_id(run_id: str, *parts: str) -> str:
    """The W3C id of a span of a run."""
    return span_id_of(run_id, *parts)


def walk(span: Span) -> list[Span]:
    """The span and all below it."""
    return [span, *(below for child in span.children for below in walk(child))]
