"""Workflows: a function of the server for each class that the project's file names."""

from __future__ import annotations

from stepwell.errors import UsageError
from stepwell.sdk.app import App
from stepwell.workers.config import Project
from stepwell.workers.entrypoints import Worker
from stepwell.workers.workflow import IMPLICIT, workflow_function


def declare(app: App, worker: Worker, project: Project) -> None:
    """Declare all. Raises `UsageError` for a class that the main module has not."""
    for binding in project.workflows:
        if binding.script not in (None, project.name):
            continue
        cls = worker.workflows.get(binding.class_name)
        if cls is None:
            there = ", ".join(sorted(worker.workflows)) or "none"
            raise UsageError(
                f"{project.file}: workflows binds class {binding.class_name!r}, which {project.main.name} has not; "
                f"classes of it that derive from WorkflowEntrypoint: {there}"
            )
        if binding.name not in app.functions:
            workflow_function(app, cls, binding.name, implicit=project.has_flag(IMPLICIT))
