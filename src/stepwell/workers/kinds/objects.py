"""Durable Objects: a kind of actors for each class of the project."""

from __future__ import annotations

from stepwell.errors import UsageError
from stepwell.sdk.app import App
from stepwell.workers.config import Project
from stepwell.workers.entrypoints import Worker
from stepwell.workers.objects.classes import DELETES_ALARM_SINCE, stored_classes
from stepwell.workers.objects.ids import Names
from stepwell.workers.objects.kind import ObjectKind
from stepwell.workers.part import function_name


def declare(app: App, worker: Worker, project: Project) -> None:
    """Declare all. Raises `UsageError` for a class that the main module has not."""
    for name, stored in stored_classes(project).items():
        cls = worker.objects.get(name)
        if cls is None:
            there = ", ".join(sorted(worker.objects)) or "none"
            raise UsageError(
                f"{project.file}: its Durable Objects have a class {name!r}, which {project.main.name} has not; "
                f"classes of it that derive from DurableObject: {there}"
            )
        kind = function_name(project.name, "objects", stored.key)
        app.actors[stored.key] = ObjectKind(
            kind,
            cls,
            Names(app, kind),
            sql=stored.sql,
            clears_alarm=project.compatibility_date >= DELETES_ALARM_SINCE,
            limits=worker.limits,
        )
