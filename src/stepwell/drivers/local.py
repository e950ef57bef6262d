"""Calls in this process: the executor is handed in, so that nothing here knows the SDK."""

from __future__ import annotations

from stepwell.drivers.base import CheckpointFn, Driver
from stepwell.protocol.calls import Answer, CallRequest


class LocalDriver:
    """Apps in this process, by name, each with its executor."""

    def __init__(self) -> None:
        self._executors: dict[str, Driver] = {}

    def add(self, app_name: str, executor: Driver) -> None:
        """Calls of this app go to this executor."""
        self._executors[app_name] = executor

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Hand it over."""
        return await self._executors[request.app_id].call(request, checkpoint)
