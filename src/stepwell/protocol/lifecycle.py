"""Data of the events that the server itself makes (inngest-protocol §6): canonical objects, into which stored bodies are spliced."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.protocol.codec import Json, canonical, decode, text, with_key
from stepwell.protocol.durations import format_date
from stepwell.protocol.events import OWN_KEY

FINISHED = "inngest/function.finished"
FAILED = "inngest/function.failed"
CANCELLED = "inngest/function.cancelled"
INVOKED = "inngest/function.invoked"
SCHEDULED = "inngest/scheduled.timer"
DEFERRED = "inngest/deferred.schedule"
HTTP_REQUEST = "inngest/http.request"
STATUS_NAMES = {"completed": "Completed", "failed": "Failed", "cancelled": "Cancelled", "skipped": "Skipped"}


RUN_WAIT_MS_MAX = 25_000
"""How long one request for a run may wait for the run's end: less than SDKs and proxies wait for an answer."""


def lifecycle_data(
    function_id: str, run_id: str, status: str, output: Json | None, events: Sequence[Json], correlation_id: str | None = None
) -> Json:
    """The `data` of `inngest/function.finished`, `.failed` and `.cancelled`: the run's events and output spliced in.

    A failed run has an `error`, a completed one a `result`, a cancelled one neither.
    """
    parts = [b'{"_inngest":{"status":', text(STATUS_NAMES.get(status, status)), b"}"]
    if correlation_id is not None:
        parts += [b',"correlation_id":', text(correlation_id)]
    if status == "failed":
        parts += [b',"error":', error_body(output)]
    first = events[0] if events else b"{}"
    parts += [b',"event":', first, b',"events":[', b",".join(events), b'],"function_id":', text(function_id)]
    if status == "completed" and output is not None:
        parts += [b',"result":', output]
    parts += [b',"run_id":', text(run_id), b"}"]
    return b"".join(parts)


def error_body(output: Json | None) -> Json:
    """The error of a failed run: always with `error`, `name` and `message`; what else it holds stays."""
    value = decode(output) if output is not None else {}
    if not isinstance(value, dict):
        value = {"message": value if isinstance(value, str) else canonical(value).decode()}
    name, message = str(value.get("name") or "Error"), str(value.get("message") or "")
    return canonical({"error": f"{name}: {message}" if message else name, **value, "name": name, "message": message})


def invoked_data(
    payload: Json,
    *,
    fn_id: str,
    correlation_id: str,
    expire_ms: int,
    gid: str = "",
    name: str = "",
    source_app_id: str = "",
    source_fn_id: str = "",
    source_fn_v: int = 0,
) -> Json:
    """The `data` of `inngest/function.invoked` (§6.4): the payload's data, and for whom and by whom it is."""
    own = {
        "correlation_id": correlation_id,
        "expire": expire_ms,
        "fn_id": fn_id,
        "gid": gid,
        "name": name,
        "source_app_id": source_app_id,
        "source_fn_id": source_fn_id,
        "source_fn_v": source_fn_v,
    }
    return with_key(payload, OWN_KEY, canonical(own))


def scheduled_data(cron: str, scheduled_ms: int, fire_ms: int) -> Json:
    """The `data` of `inngest/scheduled.timer` (§6.5); the event's id is `scheduledAt`, so that a tick is one run."""
    return canonical({"cron": cron, "fireAt": format_date(fire_ms), "scheduledAt": format_date(scheduled_ms)})


def deferred_data(input: Json, *, fn_slug: str, parent_app_id: str, parent_fn_id: str, parent_fn_slug: str, parent_run_id: str) -> Json:
    """The `data` of `inngest/deferred.schedule` (§6.6): the input, and which run it comes from."""
    own = {
        "fn_slug": fn_slug,
        "parent_app_id": parent_app_id,
        "parent_fn_id": parent_fn_id,
        "parent_fn_slug": parent_fn_slug,
        "parent_run_id": parent_run_id,
    }
    return with_key(input, OWN_KEY, canonical(own))


def correlation_of(run_id: str, step_id: str) -> str:
    """What an invoke is answered by (§5.4)."""
    return f"{run_id}.{step_id}"


def split_correlation(correlation_id: str) -> tuple[str, str]:
    """The invoking run and its step's hash."""
    run_id, _, step_id = correlation_id.partition(".")
    return run_id, step_id
