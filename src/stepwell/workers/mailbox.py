"""The names under which events reach a workflow's instance. They are signals, kept until the instance waits for one of their type."""

from __future__ import annotations

import hashlib

from stepwell.protocol.config import NAME_CHARS_MAX

KEEP = "30d"
"""How long an event is kept for an instance that does not wait for it."""


def signal_of(workflow: str, instance: str, event_type: str) -> str:
    """The signal's name; of one that would be too long, the type is told by its digest."""
    name = f"workflow/{workflow}/{instance}/{event_type}"
    if len(name) <= NAME_CHARS_MAX:
        return name
    return f"workflow/{workflow}/{instance}/{hashlib.sha256(event_type.encode()).hexdigest()}"
