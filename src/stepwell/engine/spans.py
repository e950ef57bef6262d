"""Spans of users' own code, which apps export: kept with the run that they belong to, so many at most."""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, Effect, Put, Refuse, Reply, SetRow
from stepwell.engine.inputs import SpansTold
from stepwell.engine.model import TraceTotals, UserSpan
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import NotFound

SPANS_MAX = 1000
"""Spans of one run."""
SPAN_BYTES_MAX = 16 * 1024
"""Of one span's names, message and attributes."""
RUN_SPAN_BYTES_MAX = 1024 * 1024
"""Of all spans of a run."""


class SpansReply(msgspec.Struct, frozen=True):
    """The reply to `SpansTold`: how many were taken, and how many were too many or too large."""

    taken: int
    refused: int


def span_bytes(span: UserSpan) -> int:
    """What a span counts for."""
    return len(span.name.encode()) + len(span.message.encode()) + len(span.attributes)


def select_spans(told: SpansTold) -> list[Selection]:
    """The run, how much it has, and the spans, should some have come before."""
    keys = [(told.run_id, span.id) for span in told.spans]
    return [Select("runs", told.run_id), Select("trace_totals", told.run_id), *(Select("spans", key) for key in keys)]


def on_spans_told(view: View, told: SpansTold) -> list[Command | Effect]:
    """Keep those that are new and for which there is room; the others are counted."""
    if view.run(told.run_id) is None:
        return [Refuse(NotFound(f"there is no run {told.run_id!r}"))]
    before: TraceTotals = view.get("trace_totals", told.run_id) or TraceTotals(run_id=told.run_id)
    count, size, refused = before.spans, before.span_bytes, 0
    kept: dict[str, UserSpan] = {}
    for span in told.spans:
        if span.id in kept or view.get("spans", (told.run_id, span.id)) is not None:
            continue
        weight = span_bytes(span)
        if count >= SPANS_MAX or weight > SPAN_BYTES_MAX or size + weight > RUN_SPAN_BYTES_MAX:
            refused += 1
            continue
        kept[span.id] = span
        count, size = count + 1, size + weight
    if not kept and not refused:
        return [Reply(SpansReply(0, 0))]
    totals = msgspec.structs.replace(before, spans=count, span_bytes=size, spans_refused=before.spans_refused + refused)
    return [*map(Put, kept.values()), SetRow(totals), Reply(SpansReply(len(kept), refused))]
