"""Events as rows, as expressions see them, and as functions see them. A lifecycle event's body is built from its run."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.engine.model import EventRow, Json, Run
from stepwell.engine.view import View
from stepwell.protocol.events import Event
from stepwell.protocol.lifecycle import lifecycle_data


def stored(event: Event) -> EventRow:
    """The row of a received event."""
    return EventRow(
        id=event.internal_id,
        key=event.id,
        name=event.name,
        data=event.data,
        user=event.user,
        ts=event.ts,
        v=event.v,
        meta=event.meta,
        received_ms=event.received_ms,
    )


def event_body(event: EventRow | Event) -> dict[str, Any]:
    """An event as expressions see it; `ts` is a float there (§10)."""
    key = event.key if isinstance(event, EventRow) else event.id
    body = {"id": key, "name": event.name, "data": msgspec.json.decode(event.data), "user": msgspec.json.decode(event.user)}
    body["ts"] = float(event.ts)
    if event.v is not None:
        body["v"] = event.v
    if event.meta is not None:
        body["meta"] = msgspec.json.decode(event.meta)
    return body


def body_of(view: View, row: EventRow) -> dict[str, Any]:
    """A stored event as expressions see it, whatever its kind."""
    return event_body(row if row.run_id is None else with_data(row, told_data(view, row)))


def wire_of(view: View, row: EventRow) -> Json:
    """A stored event as functions see it, whatever its kind."""
    return wire(row if row.run_id is None else with_data(row, told_data(view, row)))


def told_data(view: View, row: EventRow) -> Json:
    """The data of a lifecycle event, from its run and the run's own events."""
    assert row.run_id is not None
    run = view.run(row.run_id)
    assert run is not None, f"lifecycle event {row.id} has lost its run"
    events = [wire(event) for event_id in run.event_ids if (event := view.event(event_id)) is not None]
    return run_data(run, events)


def run_data(run: Run, events: list[Json]) -> Json:
    """The data of a run's lifecycle events (§6.1)."""
    correlation_id = run.origin if run.cause == "invoke" else None
    return lifecycle_data(run.function_id, run.id, run.status, run.output, events, correlation_id)


def with_data(row: EventRow, data: Json) -> EventRow:
    """The row with a body in it."""
    return msgspec.structs.replace(row, data=data)


def wire(event: EventRow) -> bytes:
    """A stored event as functions see it."""
    return Event(
        internal_id=event.id,
        id=event.key,
        name=event.name,
        data=event.data,
        user=event.user,
        ts=event.ts,
        v=event.v,
        meta=event.meta,
        received_ms=event.received_ms,
    ).wire()
