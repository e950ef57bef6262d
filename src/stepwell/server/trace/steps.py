"""The spans of steps, and of the tries of those that were tried again."""

from __future__ import annotations

from typing import Any

from stepwell.engine.expression.binding import interpolated
from stepwell.engine.model import Attempt, Item, Run, Step, StepStatus
from stepwell.engine.resume import op_of, signal_of
from stepwell.errors import ExpressionError, ProtocolError
from stepwell.protocol.ids import derived_ulid
from stepwell.protocol.lifecycle import FINISHED
from stepwell.protocol.ops import opts_of, timeout_ms, wait_until_ms
from stepwell.server.trace.outputs import OutputRef
from stepwell.server.trace.span import EventInfo, InvokeInfo, Rows, RunInfo, SignalInfo, SleepInfo, Span, SpanStatus, StepInfo, span_id

STEP_OPS = {
    "Sleep": "SLEEP",
    "WaitForEvent": "WAIT_FOR_EVENT",
    "WaitForSignal": "WAIT_FOR_SIGNAL",
    "InvokeFunction": "INVOKE",
    "AIGateway": "AI_GATEWAY",
    **dict.fromkeys(("StepRun", "Step", "StepPlanned", "StepError", "StepFailed"), "RUN"),
}


def step_span(rows: Rows, parent_id: str, step: Step, attempts: list[Attempt]) -> Span:
    """A step, with its tries where there were several."""
    run, opts = rows.run, opts_of(op_of(step))
    out = next((item for item in rows.items if item.step_id == step.id and item.holder is not None), None)
    started = [ms for ms in (*(attempt.started_ms for attempt in attempts), step.started_ms) if ms is not None]
    op, kind = STEP_OPS.get(step.op), opts.get("type")
    span = Span(
        id=span_id(run.id, "step", step.id),
        parent_id=parent_id,
        name=step.name or step.user_id or step.id,
        kind="step",
        status=step_status(run, step, out),
        queued_ms=step.queued_ms,
        started_ms=min(started) if started else out.leased_ms if out is not None else waiting_since(step),
        ended_ms=step.ended_ms if step.ended_ms is not None else run.ended_ms,
        step_id=step.id,
        step_op=op,
        step_type=kind if isinstance(kind, str) and kind != "step.run" else op or step.op,
        info=step_info(rows, step, opts),
        output=OutputRef(run.id, "step", step.id) if has_output(step) else None,
    )
    if step.attempts > 1 or any(attempt.kind == "lost" for attempt in attempts):
        span.attempts = max(step.attempts, 1)
        span.children = [attempt_span(run, span.id, attempt) for attempt in attempts]
        last = step.attempts - 1 if step.ended_ms is not None else out.attempt if out is not None else None
        if last is not None and step.status is not StepStatus.FAILED:
            span.children.append(last_try(run, span, step, out, last))
    return span


def last_try(run: Run, span: Span, step: Step, out: Item | None, number: int) -> Span:
    """The try that no row tells of: the one that succeeded, or is out."""
    started_ms = out.leased_ms if out is not None else step.started_ms
    return Span(
        id=span_id(run.id, "step", step.id, str(number)),
        parent_id=span.id,
        name=f"Attempt {number}",
        kind="attempt",
        status=span.status,
        queued_ms=started_ms or span.queued_ms,
        started_ms=started_ms,
        ended_ms=step.ended_ms,
        attempt=number,
        step_id=step.id,
        output=span.output,
    )


def attempt_span(run: Run, parent_id: str, attempt: Attempt) -> Span:
    """A try that failed, or whose call was lost."""
    return Span(
        id=span_id(run.id, "attempt", attempt.id),
        parent_id=parent_id,
        name=f"Attempt {attempt.attempt}" if attempt.kind == "failed" else f"Attempt {attempt.attempt}, lost",
        kind="attempt",
        status=SpanStatus.FAILED,
        queued_ms=attempt.started_ms,
        started_ms=attempt.started_ms,
        ended_ms=attempt.ended_ms,
        attempt=attempt.attempt,
        step_id=attempt.step_id or None,
        output=OutputRef(run.id, "attempt", attempt.id),
    )


def step_status(run: Run, step: Step, out: Item | None) -> SpanStatus:
    """Where the step stands; what had not ended with its run was cancelled. `out`: its item, where its call is out."""
    if step.status is StepStatus.COMPLETED:
        return SpanStatus.COMPLETED
    if step.status is StepStatus.FAILED:
        return SpanStatus.FAILED
    if run.ended_ms is not None:
        return SpanStatus.CANCELLED
    if step.status is StepStatus.WAITING and step.op != "Sleep":
        return SpanStatus.WAITING
    return SpanStatus.QUEUED if step.status is StepStatus.PLANNED and out is None else SpanStatus.RUNNING


def waiting_since(step: Step) -> int | None:
    """A sleeping or waiting step has begun when it was told."""
    return step.queued_ms if step.status is StepStatus.WAITING else None


def has_output(step: Step) -> bool:
    """Whether the step gave something: not a sleep, nor a wait whose time was over."""
    return step.memo is not None and step.op != "Sleep" and not (step.memo == b"null" and step.op.startswith("Wait"))


def step_info(rows: Rows, step: Step, opts: dict[str, Any]) -> StepInfo | None:
    """What its kind of step has to tell."""
    ended = step.memo is not None
    match step.op:
        case "Sleep":
            until_ms = opts.get("until_ms")
            return SleepInfo(until_ms if isinstance(until_ms, int) else step.ended_ms)
        case "WaitForEvent":
            where = opts.get("if")
            return EventInfo(
                str(opts.get("event") or step.name),
                shown_condition(where, rows.event) if isinstance(where, str) and where.strip() else None,
                over_ms(rows, step),
                step.ref,
                step.ref is None if ended else None,
            )
        case "InvokeFunction":
            invoked = rows.invoked.get(step.ref or "")
            returned = ended and invoked is not None and invoked.ended_ms is not None and invoked.ended_ms <= (step.ended_ms or 0)
            return InvokeInfo(
                invoked.event_ids[0] if invoked is not None and invoked.event_ids else None,
                str(opts.get("function_id") or ""),
                over_ms(rows, step),
                derived_ulid(invoked.ended_ms, invoked.id, FINISHED) if returned and invoked is not None and invoked.ended_ms else None,
                step.ref,
                (b"InngestInvokeTimeoutError" in (step.memo or b"") and not returned) if ended else None,
            )
        case "WaitForSignal":
            return SignalInfo(signal_of(op_of(step)), over_ms(rows, step), step.memo == b"null" if ended else None)
        case _ if STEP_OPS.get(step.op) == "RUN":
            kind = opts.get("type")
            return RunInfo(kind if isinstance(kind, str) else None)
        case _:
            return None


def shown_condition(where: str, event: dict[str, Any]) -> str:
    """The condition with the run's own values in it."""
    try:
        return interpolated(where, event)
    except ExpressionError:
        return where


def over_ms(rows: Rows, step: Step) -> int | None:
    """When the step's wait is over: by its timer, or, after it, as it was asked for."""
    timer = next((timer for timer in rows.timers if timer.id == f"wait/{step.run_id}/{step.id}"), None)
    if timer is not None:
        return timer.due_ms
    op = op_of(step)
    try:
        return wait_until_ms(op, step.queued_ms) if step.op == "WaitForEvent" else timeout_ms(op, step.queued_ms)
    except ProtocolError:
        return None
