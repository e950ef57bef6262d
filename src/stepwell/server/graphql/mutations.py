"""The mutations: each is an input, and answers what was committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stepwell.engine.inputs import AppRemoved, FunctionInvoked, RunCancelled, RunRerun
from stepwell.engine.model import AppRow, Run
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import canonical
from stepwell.protocol.events import parse_event
from stepwell.protocol.lifecycle import INVOKED
from stepwell.server.edits import from_step, synced
from stepwell.server.graphql.context import Context, context_of
from stepwell.server.graphql.queries import app as app_named
from stepwell.server.graphql.queries import no_sessions


async def create_app(root: Any, info: Any, input: dict[str, Any]) -> AppRow:
    """Sync an app by its URL."""
    context = context_of(info)
    return await synced(context.reader, context.sync_url, input["url"])


async def update_app(root: Any, info: Any, input: dict[str, Any]) -> AppRow:
    """Sync an app by another URL; it has to be the same app."""
    known = app_named(root, info, input["id"])
    context = context_of(info)
    app = await synced(context.reader, context.sync_url, input["url"])
    if app.name != known.name:
        raise ProtocolError(f"at {input['url']} is the app {app.name!r}, not {known.name!r}; it was synced under its own name")
    return app


async def delete_app(root: Any, info: Any, id: str) -> str:
    """Archive an app and its functions."""
    app = app_named(root, info, id)
    await removed(context_of(info), app)
    return app.id


async def delete_app_by_name(root: Any, info: Any, name: str) -> bool:
    """Archive an app and its functions."""
    context = context_of(info)
    app = context.apps.get(name)
    if app is None:
        raise NotFound(f"there is no app {name!r}")
    await removed(context, app)
    return True


async def removed(context: Context, app: AppRow) -> None:
    """The app and its functions are archived, their schedules stop; its runs stay."""
    await context.node.submit(AppRemoved(app.name))


async def invoke_function(
    root: Any,
    info: Any,
    functionSlug: str,
    data: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
    **debug: Any,
) -> bool:
    """Start a function, whatever its triggers say."""
    node = context_of(info).node
    body = canonical({"data": data or {}, "user": user or {}, **({} if meta is None else {"meta": meta})})
    event = parse_event(body, received_ms=node.clock.now_ms(), internal_id=node.new_id(), name=INVOKED)
    await node.submit(FunctionInvoked(functionSlug, event))
    return True


async def cancel_run(root: Any, info: Any, runID: str) -> Run:
    """End a run."""
    context = context_of(info)
    await context.node.submit(RunCancelled(runID, "API"))
    return await context.run(runID)


async def rerun(root: Any, info: Any, runID: str, fromStep: dict[str, Any] | None = None, **debug: Any) -> str:
    """Run again, from the beginning or from a step."""
    node = context_of(info).node
    begin = None if fromStep is None else await from_step(node.reader, runID, fromStep["stepID"], fromStep.get("input"))
    new_id: str = await node.submit(RunRerun(runID, node.new_id(), begin))
    return new_id


MUTATIONS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "Mutation": {
        "createApp": create_app,
        "updateApp": update_app,
        "deleteApp": delete_app,
        "deleteAppByName": delete_app_by_name,
        "invokeFunction": invoke_function,
        "cancelRun": cancel_run,
        "rerun": rerun,
        "createDebugSession": no_sessions,
    }
}
