"""Fields of apps, functions, events and connected workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stepwell.engine.model import AppRow, EventRow, Run
from stepwell.engine.registry import Function
from stepwell.protocol.ids import app_uuid, is_ulid, ulid_ms
from stepwell.runtime.bodies import event_wire, told
from stepwell.server.graphql.context import RUNS_OF_EVENT_MAX, context_of, time
from stepwell.server.graphql.runs import edges, page_info
from stepwell.server.listing import EventFilter, Page, count_events
from stepwell.server.shapes import ENVIRONMENT_ID, is_told


class EventsPage(msgspec.Struct):
    """A page of events, and what it was asked for."""

    page: Page[EventRow]
    wanted: EventFilter


def functions_of(app: AppRow, info: Any) -> list[Function]:
    """The functions that an app has."""
    context = context_of(info)
    context.spend(0)  # where the bound is passed already, nothing more is looked at
    found = [function for function in context.node.registry.of_app(app.name) if not function.row.archived]
    context.spend(len(found))
    return found


def triggers_of(function: Function) -> list[dict[str, Any]]:
    """What starts a function."""
    return [
        {"type": "CRON", "value": trigger.cron, "condition": None}
        if trigger.cron is not None
        else {"type": "EVENT", "value": trigger.event_name, "condition": trigger.expression}
        for trigger in function.config.triggers
    ]


def method_of(app: AppRow) -> str:
    """How calls reach an app."""
    return "CONNECT" if app.driver == "connect" else "SERVE"


async def _raw(row: EventRow, info: Any) -> str:
    return (await event_wire(context_of(info).reader, row)).decode()


async def _payload(row: EventRow, info: Any) -> str:
    return row.data.decode() if row.run_id is None else (await told(context_of(info).reader, row)).data.decode()


async def _runs(row: EventRow, info: Any) -> list[Run]:
    context = context_of(info)
    found = [run for run in await context.reader.runs_of_event(row.id, RUNS_OF_EVENT_MAX) if is_told(run)]
    context.spend(len(found))
    return found


async def _recent(row: EventRow, info: Any, count: int = 5) -> list[Run]:
    return (await _runs(row, info))[: max(count, 0)]


async def _pending(row: EventRow, info: Any) -> int:
    return sum(run.ended_ms is None for run in await _runs(row, info))


async def _status(row: EventRow, info: Any) -> str | None:
    runs = await _runs(row, info)
    if not runs:
        return None
    if any(run.ended_ms is None for run in runs):
        return "RUNNING"
    return "FAILED" if any(run.status == "failed" for run in runs) else "COMPLETED"


async def _total_runs(row: EventRow, info: Any) -> int:
    return len(await _runs(row, info))


async def _total(shown: EventsPage, info: Any) -> int:
    return await count_events(context_of(info).reader, shown.wanted)


STATUSES = ("CONNECTED", "READY", "DRAINING", "DISCONNECTING", "DISCONNECTED")


def connection(told: Mapping[str, Any], info: Any) -> dict[str, Any]:
    """A connected worker, from the protocol's `ConnMetadata`."""
    status, attributes = told.get("status", 0), told.get("attributes") or {}
    name = next(iter(told.get("all_worker_groups") or {}), None)
    apps = context_of(info).apps
    return {
        "id": told.get("id", ""),
        "gatewayId": told.get("gateway_id"),
        "instanceId": told.get("instance_id", ""),
        "appID": app_uuid(name) if isinstance(name, str) else None,
        "app": apps.get(name) if isinstance(name, str) else None,
        "connectedAt": time(ulid_ms(told["id"])) if is_ulid(told.get("id", "")) else None,
        "lastHeartbeatAt": told.get("last_heartbeat_at"),
        "disconnectedAt": None,
        "disconnectReason": None,
        "status": STATUSES[status] if isinstance(status, int) and 0 <= status < len(STATUSES) else "CONNECTED",
        "sdkLang": told.get("sdk_language", ""),
        "sdkVersion": told.get("sdk_version", ""),
        "sdkPlatform": "",
        "appVersion": None,
        "functionCount": len(functions_of(apps[name], info)) if isinstance(name, str) and name in apps else 0,
        "cpuCores": attributes.get("cpu_cores"),
        "memBytes": attributes.get("mem_bytes"),
        "os": attributes.get("os"),
        "maxWorkerConcurrency": None,
    }


THINGS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "App": {
        "externalID": lambda app, info: app.name,
        "sdkLanguage": lambda app, info: app.sdk.partition(":")[0],
        "sdkVersion": lambda app, info: app.sdk.partition(":")[2],
        "createdAt": lambda app, info: time(app.synced_ms),
        "error": lambda app, info: None,
        "functions": functions_of,
        "functionCount": lambda app, info: len(functions_of(app, info)),
        "autodiscovered": lambda app, info: False,
        "connected": lambda app, info: not app.archived,
        "method": lambda app, info: method_of(app),
        "appVersion": lambda app, info: None,
        "isArchived": lambda app, info: app.archived,
    },
    "Function": {
        "id": lambda function, info: function.row.uuid,
        "slug": lambda function, info: function.id,
        "name": lambda function, info: function.row.name,
        "config": lambda function, info: function.row.config.decode(),
        "version": lambda function, info: function.row.version,
        "triggers": lambda function, info: triggers_of(function),
        "maxAttempts": lambda function, info: function.max_attempts,
        "concurrency": lambda function, info: min((one.limit for one in function.config.concurrency if one.limit > 0), default=0),
        "url": lambda function, info: function.config.url,
        "appID": lambda function, info: app_uuid(function.row.app_name),
        "app": lambda function, info: context_of(info).apps[function.row.app_name],
        "isPaused": lambda function, info: function.row.paused,
        "isArchived": lambda function, info: function.row.archived,
    },
    "Event": {
        "externalID": lambda row, info: row.key,
        "createdAt": lambda row, info: time(row.received_ms),
        "payload": _payload,
        "schema": lambda row, info: None,
        "raw": _raw,
        "status": _status,
        "pendingRuns": _pending,
        "totalRuns": _total_runs,
        "functionRuns": _runs,
        "recentRuns": _recent,
    },
    "EventV2": {
        "occurredAt": lambda row, info: time(row.ts),
        "receivedAt": lambda row, info: time(row.received_ms),
        "idempotencyKey": lambda row, info: row.key if row.key != row.id else None,
        "raw": _raw,
        "version": lambda row, info: row.v,
        "envID": lambda row, info: ENVIRONMENT_ID,
        "runs": _runs,
    },
    "EventsConnection": {
        "edges": lambda shown, info: edges(shown.page),
        "pageInfo": lambda shown, info: page_info(shown.page),
        "totalCount": _total,
    },
}
