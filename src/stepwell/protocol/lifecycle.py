"""Bodies of the system events that tell of a run's end (inngest-protocol §6)."""

from __future__ import annotations

import msgspec

from stepwell.protocol.codec import Json, canonical, decode

STATUS_NAMES = {"completed": "Completed", "failed": "Failed", "cancelled": "Cancelled"}


def lifecycle_data(function_id: str, run_id: str, status: str, output: Json | None, events: list[Json]) -> Json:
    """The `data` of `inngest/function.finished`, `.failed` or `.cancelled`: canonical, the run's events spliced in."""
    text = msgspec.json.encode
    parts = [b'{"_inngest":{"status":', text(STATUS_NAMES.get(status, status)), b"}"]
    if status == "failed":
        parts += [b',"error":', error_body(output)]
    first = events[0] if events else b"{}"
    parts += [b',"event":', first, b',"events":[', b",".join(events), b'],"function_id":', text(function_id)]
    if status == "completed" and output is not None:
        parts += [b',"result":', output]
    parts += [b',"run_id":', text(run_id), b"}"]
    return b"".join(parts)


def error_body(output: Json | None) -> Json:
    """The error of a failed run: always with `error`, `name` and `message`."""
    value = decode(output) if output is not None else {}
    if not isinstance(value, dict):
        value = {"message": str(value)}
    name, message = str(value.get("name") or "Error"), str(value.get("message") or "")
    return canonical({**value, "name": name, "message": message, "error": f"{name}: {message}"})
