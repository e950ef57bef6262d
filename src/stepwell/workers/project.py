"""The app of a process of a project: `stepwell.workers.project:app`, as the process driver imports it.

Which project, and which kind of its handlers, is in the environment (`part.py`). Nothing here knows a server; the app's way leads there.
"""

from __future__ import annotations

import asyncio
import functools
import io
import os
import site
import sys
from pathlib import Path
from typing import Any

import msgspec

from stepwell.errors import UsageError
from stepwell.sdk.app import App, Background
from stepwell.workers.bindings.table import bindings_of
from stepwell.workers.entrypoints import Worker
from stepwell.workers.kinds import fetch, objects, queue, scheduled, workflows
from stepwell.workers.limits import NO_LIMITS, count_tasks
from stepwell.workers.loading import load_main
from stepwell.workers.part import VARIABLE, Part, app_name
from stepwell.workers.web.fetch import close_fetches
from stepwell.workers.wrangler import read_project

LINE_CHARS_MAX = 1_048_576
"""Longer lines may be printed in several pieces."""


@functools.cache
def made() -> App:
    """The app. Raises `UsageError` where the project cannot be read, or its code not be imported."""
    told = os.environ.get(VARIABLE)
    if told is None:
        raise UsageError(f"{VARIABLE} is not set: stepwell workers dev starts this")
    part = msgspec.json.decode(told, type=Part)
    for stream in (sys.stdout, sys.stderr):
        # Line by line, and each in one piece: the processes of a project print to the same place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)
            stream._CHUNK_SIZE = LINE_CHARS_MAX  # type: ignore[attr-defined]
    project = read_project(Path(part.file), part.environment)
    _add_dependencies(project.folder)
    app = App(app_name(project.name, part.kind))
    worker = Worker(load_main(project.main), bindings_of(app, project, part), part.limits)
    serve: Background | None = None
    match part.kind:
        case "fetch":
            serve = fetch.serving(app, worker, project, part)
        case "queue":
            queue.declare(app, worker, project.consumers)
        case "scheduled":
            scheduled.declare(app, worker, project.crons)
        case "workflows":
            workflows.declare(app, worker, project)
        case "objects":
            objects.declare(app, worker, project)
    app._background = functools.partial(_live, worker, serve)
    return app


async def _live(worker: Worker, serve: Background | None, stopping: asyncio.Event) -> None:
    """What goes on in the process beside calls, to the end of what handlers have left to be done."""
    if worker.limits != NO_LIMITS:
        count_tasks(asyncio.get_running_loop())
    await (stopping.wait() if serve is None else serve(stopping))
    await worker.drain()
    await close_fetches()


def _add_dependencies(folder: Path) -> None:
    """The packages that lie in the project's folder, behind those of this environment, which run what is here."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for place in (folder / "python_modules", folder / ".venv" / "lib" / python / "site-packages"):
        if place.is_dir():
            site.addsitedir(str(place))


def __getattr__(name: str) -> Any:
    if name == "app":
        return made()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
