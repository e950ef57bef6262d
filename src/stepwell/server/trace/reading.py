"""Reads what a trace is made of."""

from __future__ import annotations

import asyncio
from typing import Any

from stepwell.engine.model import Run
from stepwell.protocol.codec import decode
from stepwell.runtime.bodies import event_wire
from stepwell.server.trace.span import Rows, Span
from stepwell.server.trace.tree import trace_of
from stepwell.store.base import Reader


async def read_rows(reader: Reader, run: Run) -> Rows:
    """The rows of a run's trace. The run is read before them, so that an ended one misses nothing."""
    (steps, attempts, items, timers), (metadata, spans, totals) = await asyncio.gather(
        asyncio.gather(reader.steps(run.id), reader.attempts(run.id), reader.items_of(run.id), reader.timers_of(run.id)),
        asyncio.gather(reader.metadata_of(run.id), reader.spans_of(run.id), reader.trace_totals(run.id)),
    )
    refs = [step.ref for step in steps if step.op == "InvokeFunction" and step.ref is not None]
    invoked = {child.id: child for child in await reader.runs_by_id(refs)} if refs else {}
    event: dict[str, Any] = {}
    if run.event_ids and any(step.op == "WaitForEvent" for step in steps):
        row = await reader.event(run.event_ids[0])
        event = decode(await event_wire(reader, row)) if row is not None else {}
    return Rows(
        run=run,
        steps=steps,
        attempts=attempts,
        items=items,
        timers=timers,
        invoked=invoked,
        event=event,
        metadata=metadata,
        spans=spans,
        totals=totals,
    )


async def read_trace(reader: Reader, run: Run) -> Span:
    """A run's trace."""
    return trace_of(await read_rows(reader, run))
