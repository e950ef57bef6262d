"""A workflow's class as a function of our own: an instance is a run of it.

The engine tries a failing function again as a whole; a workflow has retries of its steps only, so whatever `run` raises is final here.
"""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import Any

from stepwell.protocol.config import RETRIES_MAX
from stepwell.sdk.app import App
from stepwell.sdk.context import Context
from stepwell.sdk.function import Function
from stepwell.workers.bases import WorkflowEntrypoint
from stepwell.workers.entrypoints import accepted
from stepwell.workers.env import env
from stepwell.workers.errors import NonRetryableError
from stepwell.workers.invocation import Invocation
from stepwell.workers.limits import HandlerLimits
from stepwell.workers.rpc import Record
from stepwell.workers.step import WorkflowStep, final
from stepwell.workers.values import packed, unpacked

IMPLICIT = "python_workflows_implicit_dependencies"
"""The compatibility flag by which a step's parameters name the steps whose results it takes."""


def workflow_function(app: App, cls: type[WorkflowEntrypoint], name: str, *, implicit: bool = False) -> Function[Any]:
    """Declare the function of a workflow in an app, under the workflow's name."""

    async def run(ctx: Context[Any]) -> Any:
        told = ctx.event.data
        instance, started_ms = str(told["instanceId"]), int(told["startedMs"])
        event = Record(
            payload=unpacked(told.get("params", {})),
            timestamp=datetime.fromtimestamp(started_ms / 1000),
            instanceId=instance,
            workflowName=name,
        )
        step = WorkflowStep(ctx, name, instance, started_ms, implicit=implicit)
        invocation = Invocation(f"workflow {name}, instance {instance}", HandlerLimits(), None)
        try:
            entrypoint = cls(invocation.ctx, env)
            method = getattr(entrypoint, "run", None)
            if method is None:
                raise TypeError("Method run does not exist")
            result = method(*accepted(method, (event, step)))
            return packed(await result if inspect.isawaitable(result) else result)
        except NonRetryableError as error:
            raise final(
                error,
                "WorkflowFatalError",
                "The execution of the Workflow instance was terminated, as a step threw an NonRetryableError and it was not handled",
            ) from error
        except Exception as error:
            raise final(error) from error

    return app._declare(run, id=name, name=name, retries=RETRIES_MAX)
