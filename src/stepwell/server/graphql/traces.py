"""Fields of traces: spans, what their kinds tell, and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stepwell.engine.model import Run
from stepwell.protocol.codec import decode
from stepwell.protocol.ids import app_uuid, function_uuid, trace_id_of
from stepwell.server.graphql.context import text_of, time
from stepwell.server.trace.outputs import Output
from stepwell.server.trace.span import EventInfo, InvokeInfo, RunInfo, SignalInfo, SleepInfo, Span, SpanStatus


class Shown(msgspec.Struct):
    """A span as it is asked for: with `preview`, the function's end has the name that newer tools look for."""

    span: Span
    run: Run
    preview: bool


INFO_TYPES: dict[type, str] = {
    RunInfo: "RunStepInfo",
    SleepInfo: "SleepStepInfo",
    EventInfo: "WaitForEventStepInfo",
    InvokeInfo: "InvokeStepInfo",
    SignalInfo: "WaitForSignalStepInfo",
}


def info_type(value: Any, info: Any, abstract: Any) -> str:
    """The type's name of what a step's kind tells."""
    return INFO_TYPES[type(value)]


def name_of(shown: Shown) -> str:
    """The span's name."""
    if shown.span.kind == "final" and not shown.preview:
        return "function success" if shown.span.status is SpanStatus.COMPLETED else "function error"
    return shown.span.name


def duration_ms(span: Span) -> int | None:
    """How long it took, of what has ended."""
    return None if span.ended_ms is None else max(span.ended_ms - (span.started_ms or span.queued_ms), 0)


def user_span(shown: Shown, info: Any) -> dict[str, Any] | None:
    """What the app told of a span of its own."""
    user = shown.span.user
    if user is None:
        return None
    told = decode(user.attributes)
    return {
        "spanName": user.name,
        "spanKind": user.kind,
        "serviceName": told.get("resource", {}).get("service.name"),
        "scopeName": told.get("scope", {}).get("name"),
        "scopeVersion": told.get("scope", {}).get("version"),
        "spanAttrs": msgspec.json.encode(told.get("span", {})).decode(),
        "resourceAttrs": msgspec.json.encode(told.get("resource", {})).decode(),
    }


def step_error(output: Output, info: Any) -> dict[str, Any] | None:
    """An output's error."""
    if output.error is None:
        return None
    error = decode(output.error)
    if not isinstance(error, dict):
        error = {"message": str(error)}
    stack = error.get("stack")
    return {
        "message": str(error.get("message", "")),
        "name": str(error["name"]) if error.get("name") else None,
        "stack": stack if isinstance(stack, str) else None,
        "cause": error.get("cause"),
    }


TRACES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "RunTraceSpan": {
        "appID": lambda shown, info: app_uuid(shown.run.app_name),
        "functionID": lambda shown, info: function_uuid(shown.run.function_id),
        "runID": lambda shown, info: shown.run.id,
        "traceID": lambda shown, info: trace_id_of(shown.run.id),
        "parentSpanID": lambda shown, info: shown.span.parent_id,
        "spanID": lambda shown, info: shown.span.id,
        "name": lambda shown, info: name_of(shown),
        "status": lambda shown, info: shown.span.status,
        "attempts": lambda shown, info: shown.span.attempts,
        "isRoot": lambda shown, info: shown.span.kind == "run",
        "queuedAt": lambda shown, info: time(shown.span.queued_ms),
        "startedAt": lambda shown, info: time(shown.span.started_ms),
        "endedAt": lambda shown, info: time(shown.span.ended_ms),
        "duration": lambda shown, info: duration_ms(shown.span),
        "outputID": lambda shown, info: None if shown.span.output is None else str(shown.span.output),
        "childrenSpans": lambda shown, info: [Shown(child, shown.run, shown.preview) for child in shown.span.children],
        "stepOp": lambda shown, info: shown.span.step_op,
        "stepID": lambda shown, info: shown.span.step_id,
        "stepType": lambda shown, info: shown.span.step_type,
        "stepInfo": lambda shown, info: shown.span.info,
        "isUserland": lambda shown, info: shown.span.kind == "user",
        "userlandSpan": user_span,
        "metadata": lambda shown, info: shown.span.notes,
    },
    "SpanMetadata": {"updatedAt": lambda noted, info: time(noted.updated_ms)},
    "SleepStepInfo": {"sleepUntil": lambda told, info: time(told.until_ms)},
    "WaitForEventStepInfo": {
        "eventName": lambda told, info: told.event_name,
        "timeout": lambda told, info: time(told.timeout_ms),
        "foundEventID": lambda told, info: told.found_event_id,
        "timedOut": lambda told, info: told.timed_out,
    },
    "InvokeStepInfo": {
        "triggeringEventID": lambda told, info: told.triggering_event_id,
        "functionID": lambda told, info: told.function_id,
        "timeout": lambda told, info: time(told.timeout_ms),
        "returnEventID": lambda told, info: told.return_event_id,
        "runID": lambda told, info: told.run_id,
        "timedOut": lambda told, info: told.timed_out,
    },
    "WaitForSignalStepInfo": {
        "timeout": lambda told, info: time(told.timeout_ms),
        "timedOut": lambda told, info: told.timed_out,
    },
    "RunTraceSpanOutput": {
        "input": lambda output, info: text_of(output.input),
        "data": lambda output, info: text_of(output.data),
        "error": step_error,
    },
}
