"""What a child process of `stepwell workers dev` is told: which project, and which part of it is its own."""

from __future__ import annotations

from typing import Literal

import msgspec

from stepwell.workers.limits import NO_LIMITS, Limits

VARIABLE = "STEPWELL_WORKER"
"""The environment variable that holds it, as JSON."""
Kind = Literal["fetch", "queue", "scheduled", "workflows", "objects"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A project's wrangler file and environment, and the kind of handlers that this process runs.

    `socket` is the descriptor that a `fetch` process listens at. `services` are the addresses of all projects by name; requests between
    them bear the `token`. `objects` are the kinds of actors that classes of Durable Objects are, by project and class.
    """

    file: str
    kind: Kind
    environment: str | None = None
    socket: int = -1
    services: dict[str, str] = {}
    objects: dict[str, dict[str, str]] = {}
    token: str = ""
    limits: Limits = NO_LIMITS


def app_name(project: str, kind: str) -> str:
    """The name of the app that a project's handlers of a kind are to the server."""
    return f"{project}.{kind}"


def function_name(project: str, kind: str, id: str) -> str:
    """The name by which the server knows a function of such an app."""
    return f"{app_name(project, kind)}-{id}"
