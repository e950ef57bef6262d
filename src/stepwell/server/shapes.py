"""Rows as the APIs show them: the shapes of inngest-protocol §7.1, and those of the page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from stepwell.engine.flow.singleton import SINGLETON
from stepwell.engine.model import Attempt, Defer, EventRow, FunctionRow, Item, Json, Run, RunStatus, Step, StepStatus
from stepwell.protocol.codec import decode
from stepwell.protocol.events import Event
from stepwell.protocol.ids import function_uuid
from stepwell.server.trace.outputs import output_of_step

ACCOUNT_ID = "00000000-0000-4000-a000-000000000000"
ENVIRONMENT_ID = "00000000-0000-4000-b000-000000000000"
STATUS_NAMES = {
    RunStatus.QUEUED: "Scheduled",
    RunStatus.RUNNING: "Running",
    RunStatus.WAITING: "Running",
    RunStatus.COMPLETED: "Completed",
    RunStatus.FAILED: "Failed",
    RunStatus.CANCELLED: "Cancelled",
    RunStatus.SKIPPED: "Skipped",
}


def time_text(ms: int) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def value_of(body: Json | None) -> Any:
    """A stored body as a value."""
    return None if body is None else decode(body)


def is_told(run: Run) -> bool:
    """Whether SDKs' tools are told of the run: not of one that a rate limit kept from being made, which they take for no run (§11.3)."""
    return run.status is not RunStatus.SKIPPED or skipped_for(run) is not None


def skipped_for(run: Run) -> str | None:
    """The run for whose sake, as a singleton, this one was skipped."""
    reason = run.reason or ""
    return reason.removeprefix(SINGLETON) if run.status is RunStatus.SKIPPED and reason.startswith(SINGLETON) else None


def sdk_event(event: Event) -> dict[str, Any]:
    """An event of `/v1/events`."""
    shown = {
        "internal_id": event.internal_id,
        "account_id": ACCOUNT_ID,
        "environment_id": ENVIRONMENT_ID,
        "source": "",
        "source_id": None,
        "received_at": time_text(event.received_ms),
        "id": event.id,
        "name": event.name,
        "data": decode(event.data),
        "user": decode(event.user),
        "ts": event.ts,
    }
    return shown if event.v is None else {**shown, "v": event.v}


def sdk_run(run: Run) -> dict[str, Any]:
    """A run of `/v1/runs`."""
    shown: dict[str, Any] = {
        "run_id": run.id,
        "run_started_at": time_text(run.started_ms or run.created_ms),
        "function_id": function_uuid(run.function_id),
        "function_version": run.function_version,
        "environment_id": ENVIRONMENT_ID,
        "event_id": run.event_ids[0] if run.event_ids else "",
        "status": STATUS_NAMES[run.status],
        "ended_at": None if run.ended_ms is None else time_text(run.ended_ms),
    }
    if run.cause == "rerun" and run.origin is not None:
        shown["original_run_id"] = run.origin
    if run.output is not None:
        shown["output"] = decode(run.output)
    return shown


def page_run(run: Run, function: FunctionRow | None, event: EventRow | None) -> dict[str, Any]:
    """A run in the page's list."""
    return {
        "id": run.id,
        "function": {"id": run.function_id, "name": run.function_id if function is None else function.name, "app": run.app_name},
        "status": str(run.status),
        "trigger": {
            "kind": "event",
            "name": "" if event is None else event.name,
            "event_id": run.event_ids[0] if run.event_ids else None,
        },
        "queued_ms": run.created_ms,
        "started_ms": run.started_ms,
        "ended_ms": run.ended_ms,
        "steps": run.steps,
        "origin": run.origin if run.cause == "rerun" else None,
        "paused_by": run.held,
    }


def page_step(step: Step, attempts: list[Attempt], items: list[Item]) -> dict[str, Any]:
    """A step in the page's trace. A planned one whose call is out shows as running."""
    output = output_of_step(step)
    opts = value_of(step.opts)
    began = [attempt.started_ms for attempt in attempts]
    out = next((item for item in items if item.step_id == step.id and item.holder is not None), None)
    status, started_ms = str(step.status), min([ms for ms in (*began, step.started_ms) if ms is not None], default=None)
    if step.status is StepStatus.PLANNED and out is not None:
        status, started_ms = "running", started_ms or out.leased_ms
    return {
        "id": step.id,
        "name": step.name,
        "op": {"StepRun": "run", "Step": "run", "StepPlanned": "run", "StepError": "run", "StepFailed": "run"}.get(
            step.op, step.op.lower()
        ),
        "type": (opts or {}).get("type") if isinstance(opts, dict) else None,
        "status": status,
        "index": step.index,
        "queued_ms": step.queued_ms,
        "started_ms": started_ms,
        "ended_ms": step.ended_ms,
        "input": opts.get("input") if isinstance(opts, dict) else None,
        "output": value_of(output.data),
        "error": value_of(output.error),
        "tries": step.attempts,
        "attempts": [page_attempt(attempt) for attempt in attempts],
    }


def page_defer(defer: Defer) -> dict[str, Any]:
    """What a run wants to have run after its end, in the page's trace."""
    return {
        "id": defer.id,
        "name": defer.name,
        "function": defer.function_id,
        "status": str(defer.status),
        "reason": defer.reason,
        "input": value_of(defer.input),
    }


def page_attempt(attempt: Attempt) -> dict[str, Any]:
    """A failed or lost try in the page's trace."""
    return {
        "attempt": attempt.attempt,
        "started_ms": attempt.started_ms,
        "ended_ms": attempt.ended_ms,
        "error": decode(attempt.error),
        "kind": attempt.kind,
        "worker": attempt.worker,
    }
