"""Calls in this process: the executor is handed in, so that nothing here knows the SDK."""

from __future__ import annotations

from stepwell.drivers.base import CheckpointFn, Driver
from stepwell.protocol.calls import Answer, CallRequest, failed


class LocalDriver:
    """Apps in this process, by name, each with its executor, which is a driver of the one app."""

    def __init__(self) -> None:
        self._executors: dict[str, Driver] = {}

    def add(self, app_name: str, executor: Driver) -> None:
        """Calls of this app go to this executor, in place of an earlier one."""
        self._executors[app_name] = executor

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Hand it over. A run of an app that is not here now fails an attempt: the app may be back before the next."""
        executor = self._executors.get(request.app_id)
        if executor is None:
            here = ", ".join(sorted(self._executors)) or "none"
            return failed(
                "AppNotFound", f"The app {request.app_id!r} does not run in this process; here are: {here}.", code="app_not_found"
            )
        return await executor.call(request, checkpoint)
