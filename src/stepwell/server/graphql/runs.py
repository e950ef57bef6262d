"""Fields of runs, in the two shapes that there are (`FunctionRunV2`, and `FunctionRun` of older tools), and of pages of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stepwell.engine.model import EventRow, Run, RunStatus
from stepwell.protocol.ids import app_uuid, function_uuid, trace_id_of
from stepwell.server.graphql.context import TRACE_COST, context_of, text_of, time
from stepwell.server.graphql.traces import Shown
from stepwell.server.listing import Page, RunFilter, count_runs, cursor_of
from stepwell.server.shapes import skipped_for
from stepwell.server.trace.reading import read_trace
from stepwell.server.trace.span import walk
from stepwell.server.trace.tree import RUN_STATUS
from stepwell.store.base import RunOrder


class RunsPage(msgspec.Struct):
    """A page of runs, and what it was asked for, so that all of them can be counted."""

    page: Page[Run]
    wanted: RunFilter
    order: RunOrder


def final_output(run: Run) -> str | None:
    """The result or error of a run that has come to its end: in the same row as its status."""
    return text_of(run.output) if run.status in (RunStatus.COMPLETED, RunStatus.FAILED) else None


def cron_of(run: Run) -> str | None:
    """The cron line that a run was made by."""
    return run.origin if run.cause == "cron" else None


def is_batch(run: Run, info: Any) -> bool:
    """Whether the run was made for a batch of events, be it of one."""
    function = context_of(info).functions.get(run.function_id)
    return len(run.event_ids) > 1 or (run.cause == "event" and function is not None and function.config.batch is not None)


def batch_id(run: Run, info: Any) -> str | None:
    """The id of a run's batch: the run's, which is known from the first event on."""
    return run.id if is_batch(run, info) else None


async def _trace(run: Run, info: Any, preview: bool | None = None) -> Shown:
    context = context_of(info)
    context.spend(TRACE_COST)
    root = await read_trace(context.reader, run)
    context.spend(len(walk(root)))
    return Shown(root, run, bool(preview))


async def _event_name(run: Run, info: Any) -> str | None:
    row = await context_of(info).event_of(run)
    return None if row is None else row.name


async def _event(run: Run, info: Any) -> EventRow | None:
    return await context_of(info).event_of(run)


async def _events(run: Run, info: Any) -> list[EventRow]:
    return list(await context_of(info).reader.events_by_id(run.event_ids))


async def _has_ai(run: Run, info: Any) -> bool:
    reader = context_of(info).reader
    return any(step.op == "AIGateway" or b'"step.ai.' in (step.opts or b"") for step in await reader.steps(run.id))


async def _pending_steps(run: Run, info: Any) -> int:
    return sum(step.ended_ms is None for step in await context_of(info).reader.steps(run.id)) if run.ended_ms is None else 0


async def _total(shown: RunsPage, info: Any, preview: bool | None = None) -> int:
    return await count_runs(context_of(info).reader, shown.wanted, shown.order)


def _page_info(page: Page[Any]) -> dict[str, Any]:
    return {
        "hasNextPage": page.more,
        "hasPreviousPage": False,
        "startCursor": cursor_of(page.found[0][0]) if page.found else None,
        "endCursor": cursor_of(page.end) if page.end is not None else None,
    }


def edges(page: Page[Any]) -> list[dict[str, Any]]:
    """What was found, each with its cursor."""
    return [{"cursor": cursor_of(place), "node": found} for place, found in page.found]


page_info = _page_info

RUNS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "FunctionRunV2": {
        "appID": lambda run, info: app_uuid(run.app_name),
        "app": lambda run, info: context_of(info).apps.get(run.app_name),
        "functionID": lambda run, info: function_uuid(run.function_id),
        "function": lambda run, info: context_of(info).functions.get(run.function_id),
        "traceID": lambda run, info: trace_id_of(run.id),
        "queuedAt": lambda run, info: time(run.created_ms),
        "startedAt": lambda run, info: time(run.started_ms),
        "endedAt": lambda run, info: time(run.ended_ms),
        "status": lambda run, info: RUN_STATUS[run.status],
        "sourceID": lambda run, info: None,
        "triggerIDs": lambda run, info: list(run.event_ids),
        "eventName": _event_name,
        "isBatch": is_batch,
        "batchCreatedAt": lambda run, info: time(run.created_ms) if is_batch(run, info) else None,
        "cronSchedule": lambda run, info: cron_of(run),
        "output": lambda run, info: final_output(run),
        "trace": _trace,
        "hasAI": _has_ai,
        "originalRunID": lambda run, info: run.origin if run.cause == "rerun" else None,
        "skipReason": lambda run, info: "SINGLETON" if skipped_for(run) is not None else None,
        "skipExistingRunID": lambda run, info: skipped_for(run),
    },
    "FunctionRun": {
        "functionID": lambda run, info: function_uuid(run.function_id),
        "function": lambda run, info: context_of(info).functions.get(run.function_id),
        "event": _event,
        "events": _events,
        "eventID": lambda run, info: run.event_ids[0] if run.event_ids else "",
        "status": lambda run, info: RUN_STATUS[run.status],
        "startedAt": lambda run, info: time(run.started_ms or run.created_ms),
        "finishedAt": lambda run, info: time(run.ended_ms),
        "output": lambda run, info: final_output(run),
        "batchID": batch_id,
        "batchCreatedAt": lambda run, info: time(run.created_ms) if is_batch(run, info) else None,
        "cron": lambda run, info: cron_of(run),
        "pendingSteps": _pending_steps,
    },
    "RunsConnection": {
        "edges": lambda shown, info: edges(shown.page),
        "pageInfo": lambda shown, info: _page_info(shown.page),
        "totalCount": _total,
    },
}
