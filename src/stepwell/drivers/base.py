"""The seam: a driver takes a call request and gives the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from stepwell.protocol.calls import Answer, CallRequest, Checkpoint

CheckpointFn = Callable[[Checkpoint], Awaitable[None]]
"""Makes steps durable; returns when they are. Raises `Superseded` when the call's lease is over, `ProtocolError` beyond a limit."""


class Driver(Protocol):
    """A way to user code."""

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Advance the run once. Failures of user code and of the way to it are answers, not exceptions."""
        ...
