"""Requests: the project's address, at a socket that all its `fetch` processes listen at."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from stepwell.sdk.app import App, Background
from stepwell.sdk.lifeline import keep_from_forks
from stepwell.workers.config import Project
from stepwell.workers.entrypoints import Worker
from stepwell.workers.kinds import scheduled
from stepwell.workers.part import Part
from stepwell.workers.serving import Serving

GRACE_S = 4
"""How long requests in hand may go on when their process is to end: what they have begun is lost after that."""

IDLE_S = 75
"""How long a connection may be idle: longer than clients keep one, so that it is they who close it."""


def serving(app: App, worker: Worker, project: Project, part: Part) -> Background:
    """What serves until the process is to end."""
    os.set_inheritable(part.socket, False)
    keep_from_forks(part.socket)
    listener = socket.socket(fileno=part.socket)

    async def fire(cron: str, time_ms: int | None) -> dict[str, Any]:
        if project.crons:
            return await scheduled.fire(app, project.name, cron, time_ms)
        # Without a schedule there are no processes of ticks.
        return await worker.call_scheduled(cron, time_ms)

    async def serve(stopping: asyncio.Event) -> None:
        server = _Uvicorn(
            uvicorn.Config(
                Serving(worker, fire, part.token),
                lifespan="off",
                log_level="warning",
                access_log=False,
                ws="none",
                server_header=False,
                date_header=True,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        work = asyncio.create_task(server.serve(sockets=[listener]))
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait({work, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        server.should_exit = True
        await work

    return serve


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers: the process ends when the server tells it to."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield
