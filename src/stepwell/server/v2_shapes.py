"""Runs and spans as `/v2` shows them."""

from __future__ import annotations

from typing import Any

from stepwell.engine.model import Run, RunStatus
from stepwell.protocol.ids import app_uuid, function_uuid
from stepwell.server.shapes import time_text, value_of
from stepwell.server.trace.outputs import output_of_run
from stepwell.server.trace.span import EventInfo, InvokeInfo, RunInfo, SignalInfo, SleepInfo, Span
from stepwell.server.trace.tree import RUN_STATUS


def run_shape(run: Run, output: bool) -> dict[str, Any]:
    """A run of `/v2`."""
    shown: dict[str, Any] = {
        "id": run.id,
        "functionId": run.function_id,
        "functionInternalId": function_uuid(run.function_id),
        "functionVersion": run.function_version,
        "appId": run.app_name,
        "appInternalId": app_uuid(run.app_name),
        "status": str(RUN_STATUS[run.status]),
        "eventIds": list(run.event_ids),
        "queuedAt": time_text(run.created_ms),
        "startedAt": None if run.started_ms is None else time_text(run.started_ms),
        "endedAt": None if run.ended_ms is None else time_text(run.ended_ms),
        "cron": run.origin if run.cause == "cron" else None,
        "originalRunId": run.origin if run.cause == "rerun" else None,
        "cancelReason": run.reason if run.status is RunStatus.CANCELLED else None,
    }
    if output:
        told = output_of_run(run)
        shown |= {"output": value_of(told.data), "error": value_of(told.error)}
    return shown


def span_shape(span: Span) -> dict[str, Any]:
    """A span of `/v2`, without those below it."""
    return {
        "id": span.id,
        "parentId": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "status": str(span.status),
        "stepId": span.step_id,
        "stepOp": span.step_op,
        "stepType": span.step_type,
        "stepInfo": info_shape(span),
        "attempts": span.attempts,
        "outputId": None if span.output is None else str(span.output),
        "queuedAt": time_text(span.queued_ms),
        "startedAt": None if span.started_ms is None else time_text(span.started_ms),
        "endedAt": None if span.ended_ms is None else time_text(span.ended_ms),
        "attributes": None if span.user is None else value_of(span.user.attributes),
        "metadata": [
            {"scope": noted.scope, "kind": noted.kind, "values": noted.values, "updatedAt": time_text(noted.updated_ms)}
            for noted in span.notes
        ],
    }


def info_shape(span: Span) -> dict[str, Any] | None:
    """What a step's kind has to tell."""

    def time(ms: int | None) -> str | None:
        return None if ms is None else time_text(ms)

    match span.info:
        case RunInfo(kind):
            return {"type": kind}
        case SleepInfo(until_ms):
            return {"sleepUntil": time(until_ms)}
        case EventInfo(name, expression, timeout_ms, found, timed_out):
            shown = {"eventName": name, "expression": expression, "timeout": time(timeout_ms)}
            return {**shown, "foundEventId": found, "timedOut": timed_out}
        case InvokeInfo(triggering, function_id, timeout_ms, returned, run_id, timed_out):
            shown = {"triggeringEventId": triggering, "functionId": function_id, "timeout": time(timeout_ms)}
            return {**shown, "returnEventId": returned, "runId": run_id, "timedOut": timed_out}
        case SignalInfo(signal, timeout_ms, timed_out):
            return {"signal": signal, "timeout": time(timeout_ms), "timedOut": timed_out}
        case None:
            return None
