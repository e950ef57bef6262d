"""The spans of the function's own calls: its end, and calls on the way that were made more than once."""

from __future__ import annotations

from stepwell.engine.model import Attempt, Run, RunStatus
from stepwell.server.trace.span import Rows, Span, SpanStatus, span_id
from stepwell.server.trace.steps import attempt_span


def call_spans(rows: Rows, root: Span, attempts: list[Attempt]) -> list[Span]:
    """The function's end, where it came to one; and calls on the way that were made more than once."""
    run = rows.run
    by_job: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_job.setdefault(attempt.id.rpartition("/")[0], []).append(attempt)
    final = run.status in (RunStatus.COMPLETED, RunStatus.FAILED)
    last_job = next(reversed(by_job), "")
    last_queued_ms = max((step.queued_ms for step in rows.steps), default=0)
    # The last job is the one that ended the run, unless a step came of it.
    ends_run = final and last_job != "" and (run.status is RunStatus.FAILED or last_queued_ms < by_job[last_job][-1].ended_ms)
    last_tries = by_job.pop(last_job) if ends_run else []
    spans = [calls_span(run, root, job, tries) for job, tries in by_job.items()]
    if final:
        spans.append(final_span(rows, root, last_tries))
    return spans


def calls_span(run: Run, root: Span, job: str, attempts: list[Attempt]) -> Span:
    """A call on the way that failed or was lost, and was or will be made again."""
    span = Span(
        id=span_id(run.id, "calls", job),
        parent_id=root.id,
        name="Discovery",
        kind="calls",
        status=SpanStatus.FAILED if run.ended_ms is not None else SpanStatus.RUNNING,
        queued_ms=attempts[0].started_ms,
        started_ms=attempts[0].started_ms,
        ended_ms=attempts[-1].ended_ms if run.ended_ms is not None else None,
        attempts=len(attempts),
    )
    span.children = [attempt_span(run, span.id, attempt) for attempt in attempts]
    return span


def final_span(rows: Rows, root: Span, attempts: list[Attempt]) -> Span:
    """What the function returned or raised at last."""
    run = rows.run
    began_ms = max([run.started_ms or run.created_ms, *(step.ended_ms for step in rows.steps if step.ended_ms is not None)])
    began_ms = min([began_ms, *(attempt.started_ms for attempt in attempts), run.ended_ms or began_ms])
    span = Span(
        id=span_id(run.id, "final"),
        parent_id=root.id,
        name="Finalization",
        kind="final",
        status=root.status,
        queued_ms=began_ms,
        started_ms=began_ms,
        ended_ms=run.ended_ms,
        step_type="FINALIZATION",
        output=root.output,
    )
    tries = len({attempt.attempt for attempt in attempts}) + (run.status is RunStatus.COMPLETED and bool(attempts))
    if len(attempts) > 1 or (attempts and run.status is RunStatus.COMPLETED):
        span.attempts = tries
        span.children = [attempt_span(run, span.id, attempt) for attempt in attempts]
    if attempts and run.status is RunStatus.COMPLETED:
        number = attempts[-1].attempt + (attempts[-1].kind == "failed")
        span.children.append(
            Span(
                id=span_id(run.id, "final", str(number)),
                parent_id=span.id,
                name=f"Attempt {number}",
                kind="attempt",
                status=span.status,
                queued_ms=attempts[-1].ended_ms,
                started_ms=attempts[-1].ended_ms,
                ended_ms=run.ended_ms,
                attempt=number,
                output=root.output,
            )
        )
    return span
