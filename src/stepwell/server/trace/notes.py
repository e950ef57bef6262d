"""What apps tell beside their steps: spans of their own code, and metadata."""

from __future__ import annotations

from stepwell.protocol.codec import decode
from stepwell.protocol.metadata import ABOUT_RUNS, AI, WARNINGS
from stepwell.server.trace.span import Noted, Rows, Span, SpanStatus, walk
from stepwell.server.trace.usage import summed, with_cost


def place_user_spans(rows: Rows, root: Span) -> None:
    """Put each span of the user's code under its parent; one whose parent is not told under its step, by name or by time."""
    steps = {span.step_id: span for span in root.children if span.kind == "step"}
    made = {
        row.id: Span(
            id=row.id,
            parent_id=row.parent_id or None,
            name=row.name,
            kind="user",
            status=SpanStatus.FAILED if row.status == "error" else SpanStatus.COMPLETED,
            queued_ms=row.started_ms,
            started_ms=row.started_ms,
            ended_ms=row.ended_ms,
            user=row,
        )
        for row in rows.spans
    }
    above = {row.id: row.parent_id for row in rows.spans}
    for span in made.values():
        assert span.user is not None
        parent = made.get(span.user.parent_id)
        if parent is None or in_circle(span.id, above):
            parent = steps.get(span.user.step_id) or at_that_time(root, span.queued_ms)
        span.parent_id = parent.id
        parent.children.append(span)


def in_circle(span_id: str, above: dict[str, str]) -> bool:
    """Whether a span would be under itself: exporters are not to be trusted."""
    seen = {span_id}
    place = above.get(span_id, "")
    while place in above:
        if place in seen:
            return True
        seen.add(place)
        place = above[place]
    return False


def at_that_time(root: Span, ms: int) -> Span:
    """The step that was running at a time, or the run."""
    for span in root.children:
        if span.step_op == "RUN" and span.started_ms is not None and span.started_ms <= ms <= (span.ended_ms or ms):
            return span
    return root


def place_notes(rows: Rows, root: Span) -> None:
    """Put what was noted where it belongs; what tells of the run as a whole stands at the run too."""
    everywhere = walk(root)
    steps = {span.step_id: span for span in everywhere if span.kind == "step"}
    tries = {f"{span.step_id}/{span.attempt}": span for span in everywhere if span.kind == "attempt" and span.step_id is not None}
    users = {span.id: span for span in everywhere if span.kind == "user"}
    for row in rows.metadata:
        values = decode(row.values)
        noted = Noted(row.scope, row.kind, with_cost(values) if row.kind == AI else values, row.updated_ms)
        match row.scope:
            case "run":
                span = root
            case "step":
                span = steps.get(row.span, root)
            case "step_attempt":
                span = tries.get(row.span) or steps.get(row.span.rpartition("/")[0], root)
            case "extended_trace":
                span = users.get(row.span, root)
        span.notes.append(noted)
        if row.kind in ABOUT_RUNS and span is not root:
            root.notes.append(noted)
    for span in steps.values():
        sum_usage(span)
    if rows.totals is not None and rows.totals.spans_refused:
        refused = {"spans": f"{rows.totals.spans_refused} spans of the app's own were more than are kept of a run"}
        root.notes.append(Noted("run", WARNINGS, refused, rows.run.created_ms))


def sum_usage(step: Span) -> None:
    """A step tells how models were used in all its parts together."""
    used = [noted for span in walk(step) for noted in span.notes if noted.kind == AI]
    if len(used) > 1:
        values = summed([noted.values for noted in used])
        step.notes = [noted for noted in step.notes if noted.kind != AI]
        step.notes.append(Noted("step", AI, values, max(noted.updated_ms for noted in used)))
