"""What resolvers work with: the node of one request, and what they read several times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepwell.engine.model import AppRow, EventRow, Run
from stepwell.engine.registry import Function
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.durations import parse_date_ms
from stepwell.runtime.node import Node
from stepwell.server.edits import SyncUrl
from stepwell.server.shapes import time_text

Connections = Callable[[], Sequence[Mapping[str, Any]]]
"""The workers that are connected, each as the protocol's `ConnMetadata` (§9.6)."""

PAGE_MAX = 400
"""Things on one page."""
RUNS_OF_EVENT_MAX = 100
THINGS_MAX = 50_000
"""Things of nested lists that one request is answered: what a list holds for each thing of another list multiplies."""
TRACE_COST = 500
"""What a trace counts for, however small."""


class Context:
    """One request."""

    def __init__(self, node: Node, sync_url: SyncUrl | None = None, connections: Connections | None = None) -> None:
        self.node, self.reader, self.sync_url, self.connections = node, node.reader, sync_url, connections
        self._events: dict[str, EventRow | None] = {}
        self._things = 0

    def spend(self, things: int) -> None:
        """Count what is listed. Raises `ProtocolError` beyond the bound."""
        self._things += things
        if self._things > THINGS_MAX:
            raise ProtocolError(f"the lists of this request hold more than {THINGS_MAX} things: ask for less at once")

    @property
    def functions(self) -> Mapping[str, Function]:
        """Functions by their slug, archived ones too."""
        return self.node.registry.functions

    @property
    def apps(self) -> Mapping[str, AppRow]:
        """Apps by their name."""
        return self.node.registry.apps

    async def run(self, run_id: str) -> Run:
        """A run. Raises `NotFound`."""
        run = await self.reader.run(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}")
        return run

    async def event(self, event_id: str) -> EventRow | None:
        """An event, read once."""
        if event_id not in self._events:
            self._events[event_id] = await self.reader.event(event_id)
        return self._events[event_id]

    async def event_of(self, run: Run) -> EventRow | None:
        """The first event of a run."""
        return await self.event(run.event_ids[0]) if run.event_ids else None


def context_of(info: Any) -> Context:
    """The context of a resolver's call."""
    context: Context = info.context
    return context


def time(ms: int | None) -> str | None:
    """A time as it is shown."""
    return None if ms is None else time_text(ms)


def moment(text: Any, name: str) -> int | None:
    """A time that was given. Raises `ProtocolError`."""
    if text is None:
        return None
    ms = parse_date_ms(text) if isinstance(text, str) else None
    if ms is None:
        raise ProtocolError(f"{name} is {text!r}; it must be a date like 2026-01-31T08:00:00Z")
    return ms


def page_size(first: int) -> int:
    """How many things a page has. Raises `ProtocolError`."""
    if not 1 <= first <= PAGE_MAX:
        raise ProtocolError(f"first is {first}; it must be from 1 to {PAGE_MAX}")
    return first


def text_of(body: bytes | None) -> str | None:
    """A JSON body as text."""
    return None if body is None else body.decode()
