"""The queries. What is asked for by an id that there is not is an error, never a bare null (inngest-protocol §11.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stepwell.engine.model import AppRow, EventRow, Run, RunStatus
from stepwell.engine.registry import Function
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.ids import app_uuid, function_uuid
from stepwell.runtime.bodies import event_bodies
from stepwell.server.graphql.context import Context, context_of, moment, page_size, time
from stepwell.server.graphql.runs import RunsPage, batch_id, cron_of, is_batch
from stepwell.server.graphql.things import EventsPage, connection, method_of
from stepwell.server.graphql.traces import Shown
from stepwell.server.listing import EventFilter, RunFilter, conditions, find_events, find_runs, parse_cursor
from stepwell.server.shapes import is_told
from stepwell.server.trace.outputs import Output, parse_output_id, read_output
from stepwell.server.trace.reading import read_trace
from stepwell.server.trace.tree import RUN_STATUS
from stepwell.store.base import RunOrder

EVENTS_SHOWN = 100
ORDERS = {"QUEUED_AT": RunOrder.MADE, "STARTED_AT": RunOrder.STARTED, "ENDED_AT": RunOrder.ENDED}
NO_SESSIONS = "this server keeps no debug sessions; run a run again from one of its steps (rerun with fromStep) instead"


async def event_named(context: Context, event_id: str) -> EventRow:
    """An event by its internal id. Raises `NotFound`."""
    row = await context.event(event_id)
    if row is None:
        raise NotFound(f"there is no event {event_id!r}: use the id that the send was answered with")
    return row


def apps(root: Any, info: Any, filter: dict[str, Any] | None = None) -> list[AppRow]:
    """Apps by name."""
    wanted = filter or {}
    shown = sorted(context_of(info).apps.values(), key=lambda app: app.name)
    if wanted.get("archived") is not None:
        shown = [app for app in shown if app.archived is wanted["archived"]]
    return [app for app in shown if wanted.get("method") in (None, method_of(app))]


def app(root: Any, info: Any, id: str) -> AppRow:
    """An app by its id."""
    found = next((app for app in context_of(info).apps.values() if app.id == id), None)
    if found is None:
        raise NotFound(f"there is no app {id!r}")
    return found


def functions(root: Any, info: Any) -> list[Function]:
    """Functions that their apps have."""
    return [function for function in context_of(info).functions.values() if not function.row.archived]


def function_by_slug(root: Any, info: Any, query: dict[str, Any]) -> Function:
    """A function by its slug."""
    found = context_of(info).node.registry.named(query["functionSlug"])
    if found is None:
        raise NotFound(f"there is no function {query['functionSlug']!r}")
    return found


async def event(root: Any, info: Any, query: dict[str, Any]) -> EventRow:
    """An event."""
    return await event_named(context_of(info), query["eventId"])


async def events(root: Any, info: Any, query: dict[str, Any]) -> list[EventRow]:
    """The latest events of users."""
    after = query.get("lastEventId")
    page = await find_events(context_of(info).reader, EventFilter(), limit=EVENTS_SHOWN, after=(0, after) if after else None)
    return [row for _, row in page.found]


async def event_v2(root: Any, info: Any, id: str) -> EventRow:
    """An event."""
    return await event_named(context_of(info), id)


async def events_v2(root: Any, info: Any, filter: dict[str, Any], first: int = 50, after: str | None = None) -> EventsPage:
    """A page of events."""
    until_ms = moment(filter.get("until"), "until")
    wanted = EventFilter(
        from_ms=moment(filter["from"], "from") or 0,
        until_ms=1 << 47 if until_ms is None else until_ms,
        names=frozenset(filter.get("eventNames") or ()),
        own=filter.get("includeInternalEvents", False),
        query=conditions(filter.get("query"), ("event",)),
    )
    return EventsPage(await find_events(context_of(info).reader, wanted, limit=page_size(first), after=parse_cursor(after)), wanted)


async def function_run(root: Any, info: Any, query: dict[str, Any]) -> Run:
    """A run."""
    return await context_of(info).run(query["functionRunId"])


async def run(root: Any, info: Any, runID: str) -> Run:
    """A run."""
    return await context_of(info).run(runID)


async def runs(
    root: Any,
    info: Any,
    filter: dict[str, Any],
    orderBy: list[dict[str, Any]],
    first: int = 40,
    after: str | None = None,
    preview: bool | None = None,
) -> RunsPage:
    """A page of runs."""
    context = context_of(info)
    if len(orderBy) > 1:
        raise ProtocolError("runs are ordered by one field, and where that is the same by their id: give one orderBy")
    by = orderBy[0] if orderBy else {"field": "QUEUED_AT", "direction": "DESC"}
    order, until_ms = ORDERS[by["field"]], moment(filter.get("until"), "until")
    wanted = RunFilter(
        times=ORDERS[filter.get("timeField", "QUEUED_AT")],
        from_ms=moment(filter["from"], "from") or 0,
        until_ms=1 << 47 if until_ms is None else until_ms,
        statuses=statuses_of(filter.get("status")),
        function_ids=functions_wanted(context, filter),
        query=conditions(filter.get("query"), ("event", "output", "error")),
    )
    page = await find_runs(
        context.reader, wanted, limit=page_size(first), order=order, descending=by["direction"] == "DESC", after=parse_cursor(after)
    )
    return RunsPage(page, wanted, order)


def statuses_of(names: list[str] | None) -> frozenset[RunStatus]:
    """The statuses that a run may have to be shown under one of these names."""
    return frozenset(status for status, name in RUN_STATUS.items() if name in (names or ()))


def functions_wanted(context: Context, filter: dict[str, Any]) -> frozenset[str] | None:
    """The slugs of the functions that a filter names, by their ids and their apps'; `None` for all."""
    ids, apps = filter.get("functionIDs"), filter.get("appIDs")
    if not ids and not apps:
        return None
    wanted = {app_uuid(app.name): app.name for app in context.apps.values()}
    names = {wanted.get(app_id) for app_id in apps or ()}
    return frozenset(
        slug
        for slug, function in context.functions.items()
        if (not ids or function_uuid(slug) in ids) and (not apps or function.row.app_name in names)
    )


async def run_trace(root: Any, info: Any, runID: str, preview: bool | None = None) -> Shown:
    """A run's trace."""
    context = context_of(info)
    found = await context.run(runID)
    return Shown(await read_trace(context.reader, found), found, bool(preview))


async def output(root: Any, info: Any, outputID: str) -> Output:
    """What a span gave."""
    return await read_output(context_of(info).reader, parse_output_id(outputID))


async def run_trigger(root: Any, info: Any, runID: str) -> dict[str, Any]:
    """What started a run."""
    context = context_of(info)
    found = await context.run(runID)
    first = await context.event_of(found)
    bodies = await event_bodies(context.reader, found)
    return {
        "eventName": None if first is None else first.name,
        "IDs": list(found.event_ids),
        "payloads": [body.decode() for body in bodies],
        "timestamp": time(found.created_ms if first is None else first.received_ms),
        "isBatch": is_batch(found, info),
        "batchID": batch_id(found, info),
        "cron": cron_of(found),
    }


async def stream(root: Any, info: Any, query: dict[str, Any]) -> list[dict[str, Any]]:
    """The latest events with their runs."""
    reader, before = context_of(info).reader, query.get("before")
    wanted = EventFilter(own=query.get("includeInternalEvents", False))
    limit = page_size(query.get("limit", 10))
    page = await find_events(reader, wanted, limit=limit, after=(0, before) if before else None)
    items = []
    for _, row in page.found:
        if query.get("after") and row.id <= query["after"]:
            break
        runs = [run for run in await reader.runs_of_event(row.id, EVENTS_SHOWN) if is_told(run)]
        cron = next((line for run in runs if (line := cron_of(run)) is not None), None)
        items.append(
            {
                "id": row.id,
                "trigger": cron or row.name,
                "type": "EVENT" if cron is None else "CRON",
                "createdAt": time(row.received_ms),
                "runs": runs,
                "inBatch": any(is_batch(run, info) for run in runs),
            }
        )
    return items


def worker_connections(
    root: Any,
    info: Any,
    first: int = 40,
    after: str | None = None,
    orderBy: list[dict[str, Any]] | None = None,
    filter: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The workers that are connected, oldest first."""
    connections = context_of(info).connections
    wanted = filter or {}
    shown = [connection(told, info) for told in (connections() if connections is not None else ())]
    shown = [
        one
        for one in shown
        if (not wanted.get("status") or one["status"] in wanted["status"])
        and (not wanted.get("appIDs") or one["appID"] in wanted["appIDs"])
    ]
    if any(by["direction"] == "DESC" for by in orderBy or ()):
        shown.reverse()
    begin = next((i + 1 for i, one in enumerate(shown) if one["id"] == after), 0) if after else 0
    page = shown[begin : begin + page_size(first)]
    return {
        "edges": [{"cursor": one["id"], "node": one} for one in page],
        "pageInfo": {
            "hasNextPage": begin + len(page) < len(shown),
            "hasPreviousPage": begin > 0,
            "startCursor": page[0]["id"] if page else None,
            "endCursor": page[-1]["id"] if page else None,
        },
        "totalCount": len(shown),
    }


def worker_connection(root: Any, info: Any, connectionId: str) -> dict[str, Any]:
    """A worker that is connected."""
    connections = context_of(info).connections
    told = next((one for one in (connections() if connections is not None else ()) if one.get("id") == connectionId), None)
    if told is None:
        raise NotFound(f"no worker is connected as {connectionId!r}")
    return connection(told, info)


def no_sessions(root: Any, info: Any, **named: Any) -> None:
    """Debug sessions are a thing of the hosted product."""
    raise NotFound(NO_SESSIONS)


QUERIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "Query": {
        "apps": apps,
        "app": app,
        "functions": functions,
        "functionBySlug": function_by_slug,
        "event": event,
        "events": events,
        "eventV2": event_v2,
        "eventsV2": events_v2,
        "functionRun": function_run,
        "run": run,
        "runs": runs,
        "runTrace": run_trace,
        "runTraceSpanOutputByID": output,
        "runTrigger": run_trigger,
        "stream": stream,
        "workerConnections": worker_connections,
        "workerConnection": worker_connection,
        "debugRun": no_sessions,
        "debugSession": no_sessions,
    }
}
