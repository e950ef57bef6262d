"""How an app reaches its engine: in this process, through its parent's socket, or over HTTP; the same few requests each time."""

from __future__ import annotations

from typing import Protocol

import msgspec

from stepwell.protocol.codec import Json

ENDED = frozenset({"completed", "failed", "cancelled", "skipped"})


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """How a run stands: queued, running, waiting, completed, failed, cancelled or skipped; its output, or its error, as JSON.

    `paused`: it is `paused`, or `pausing` while a call of it is out. A server over HTTP does not tell a waiting run from a running one.
    """

    status: str
    output: Json | None = None
    event_ids: tuple[str, ...] = ()
    paused: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ENDED


class Way(Protocol):
    """What an engine does for an app. In this process it is set on the app as `app._engine`; a `loop` of it serves sync code."""

    async def send(self, events_body: Json) -> list[str]:
        """Store events, the body being an event or an array of them; gives their ids when they are durable."""
        ...

    async def start(self, function_id: str, event: Json) -> str:
        """Start one function with an event that has no name; gives the run's id, that of the earlier run for an id that was there."""
        ...

    async def run_state(self, run_id: str, wait_s: float = 0.0) -> RunState:
        """How a run stands. May wait so long for its end, or less. Raises `NotFound`."""
        ...

    async def event(self, event_id: str) -> Json:
        """A stored event as functions see it."""
        ...

    async def cancel(self, run_id: str) -> None:
        """End a run. Raises `NotFound`, `RunHasEnded`."""
        ...

    async def signal(self, name: str, data: Json) -> str | None:
        """Send a signal; gives the run that waited for it, or `None`."""
        ...

    async def publish(self, channel: str, topic: str, data: Json, run_id: str) -> None:
        """Tell data to those who are subscribed to a topic."""
        ...

    async def call_actor(self, kind: str, name: str, method: str, args: bytes, chain: tuple[str, ...]) -> bytes:
        """Call an actor's method, wherever it lives. `chain`: the turns that wait for it. Raises `ActorFailed` with what it raised."""
        ...

    async def ask(self, method: str, path: str, body: bytes = b"", *, once: bool = False) -> tuple[int, bytes]:
        """One request to the server's API: the answer's status and body, whatever they say. The routes are the same by every way.

        `once`: never made a second time, where doing it twice would do it twice. Else a server over HTTP is asked again after a
        network error or a 5xx. Raises `CallError`, `StoreUnavailable` when it is not known what became of it.
        """
        ...
