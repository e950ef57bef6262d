"""The tree: the run, its steps in the order of time, the tries of those that were tried again, the function's end."""

from __future__ import annotations

from collections import defaultdict

from stepwell.engine.model import Attempt, RunStatus
from stepwell.server.trace.calls import call_spans
from stepwell.server.trace.notes import place_notes, place_user_spans
from stepwell.server.trace.outputs import OutputRef
from stepwell.server.trace.span import Rows, Span, SpanStatus, span_id
from stepwell.server.trace.steps import step_span

RUN_STATUS = {
    RunStatus.QUEUED: SpanStatus.QUEUED,
    RunStatus.RUNNING: SpanStatus.RUNNING,
    RunStatus.WAITING: SpanStatus.RUNNING,
    RunStatus.COMPLETED: SpanStatus.COMPLETED,
    RunStatus.FAILED: SpanStatus.FAILED,
    RunStatus.CANCELLED: SpanStatus.CANCELLED,
    RunStatus.SKIPPED: SpanStatus.SKIPPED,
}


def trace_of(rows: Rows) -> Span:
    """The tree."""
    run = rows.run
    root = Span(
        id=span_id(run.id),
        parent_id=None,
        name="Run",
        kind="run",
        status=RUN_STATUS[run.status],
        queued_ms=run.created_ms,
        started_ms=run.started_ms,
        ended_ms=run.ended_ms,
        output=OutputRef(run.id, "run", "") if run.status in (RunStatus.COMPLETED, RunStatus.FAILED) else None,
    )
    of_step: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in rows.attempts:
        of_step[attempt.step_id].append(attempt)
    known = {step.id for step in rows.steps}
    root.children = [step_span(rows, root.id, step, of_step.get(step.id, [])) for step in rows.steps]
    # Tries of the function, and of steps that never came to be.
    loose = [attempt for step_id, attempts in of_step.items() if step_id not in known for attempt in attempts]
    root.children += call_spans(rows, root, sorted(loose, key=lambda attempt: (attempt.ended_ms, attempt.id)))
    root.children.sort(key=lambda span: (span.kind == "final", span.queued_ms))
    place_user_spans(rows, root)
    place_notes(rows, root)
    return root
