"""What a project's `env` holds: variables and secrets as they are, and its bindings."""

from __future__ import annotations

from typing import Any

from stepwell.sdk.app import App
from stepwell.workers.bindings.d1 import D1Database
from stepwell.workers.bindings.kv import KvNamespace
from stepwell.workers.bindings.queue import Queue
from stepwell.workers.bindings.service import Service
from stepwell.workers.config import Project
from stepwell.workers.objects.namespace import ObjectNamespace
from stepwell.workers.part import Part, function_name
from stepwell.workers.workflow_binding import Workflow


def bindings_of(app: App, project: Project, part: Part) -> dict[str, Any]:
    """All of them by name. A secret takes the place of a variable of the same name."""
    bound: dict[str, Any] = {**project.vars, **project.secrets}
    bound |= {one.binding: KvNamespace(app, one.id) for one in project.kv_namespaces}
    bound |= {one.binding: Queue(app, one.queue, one.delivery_delay_s) for one in project.producers}
    bound |= {one.binding: D1Database(app, one.name) for one in project.d1_databases}
    bound |= {
        one.binding: Workflow(app, one.name, function_name(one.script or project.name, "workflows", one.name)) for one in project.workflows
    }
    bound |= {one.binding: Service(one.service, part.services.get(one.service), part.token, one.entrypoint) for one in project.services}
    for binding in project.durable_objects:
        script = binding.script or project.name
        kind = part.objects.get(script, {}).get(binding.class_name) or function_name(script, "objects", binding.class_name)
        bound[binding.binding] = ObjectNamespace(app, kind)
    return bound
