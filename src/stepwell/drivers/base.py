"""The seam: a driver takes a call request and gives the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from stepwell.protocol.calls import Answer, CallRequest, Checkpoint

CheckpointFn = Callable[[Checkpoint], Awaitable[None]]
"""Makes steps durable; returns when they are. Raises `Superseded` when the call's lease is over, `ProtocolError` beyond a limit."""


class NotTaken(Exception):
    """Nobody takes the call now: it goes back to its queue. It was not made, so that it uses no attempt and counts as no loss."""


class Driver(Protocol):
    """A way to user code."""

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Advance the run once. Failures of user code and of the way to it are answers, not exceptions."""
        ...


class Rooms(Protocol):
    """What a driver knows whose apps take only so many calls at a time."""

    def room(self, app_id: str) -> int:
        """How many more calls the app takes now. What is claimed beyond that waits in the queue."""
        ...

    def on_room(self, told: Callable[[str], None]) -> None:
        """Whom to tell too, by the app's name, when there is more room."""
        ...

    def settled(self, request_id: str, *, recorded: bool) -> None:
        """The answer of a call is recorded; or it will not be, and whoever gave it should keep it."""
        ...
