"""The mutations: each is an input, and answers what was committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stepwell.engine.inputs import AppSynced, FunctionInvoked, RunCancelled, RunRerun
from stepwell.engine.model import AppRow, Run
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import canonical
from stepwell.protocol.events import parse_event
from stepwell.protocol.functions import Registration
from stepwell.protocol.lifecycle import INVOKED
from stepwell.server.edits import from_step
from stepwell.server.graphql.context import Context, context_of
from stepwell.server.graphql.queries import app as app_named
from stepwell.server.graphql.queries import no_sessions


async def create_app(root: Any, info: Any, input: dict[str, Any]) -> AppRow:
    """Sync an app by its URL."""
    return await synced(context_of(info), input["url"])


async def update_app(root: Any, info: Any, input: dict[str, Any]) -> AppRow:
    """Sync an app by another URL; it has to be the same app."""
    known = app_named(root, info, input["id"])
    app = await synced(context_of(info), input["url"])
    if app.name != known.name:
        raise ProtocolError(f"at {input['url']} is the app {app.name!r}, not {known.name!r}; it was synced under its own name")
    return app


async def synced(context: Context, url: str) -> AppRow:
    """Have the app at a URL register itself. Raises `Error` where it does not."""
    if context.sync_url is None:
        raise NotFound("this server syncs no apps by their URL")
    await context.sync_url(url)
    apps = (await context.reader.catalogue()).apps
    app = max((app for app in apps if same_place(app.url, url)), key=lambda app: app.synced_ms, default=None)
    if app is None:
        raise NotFound(f"the app at {url} registered itself under another address; look at the list of apps")
    return app


def same_place(a: str, b: str) -> bool:
    """Whether two addresses are one, as far as a query and the names of this machine go."""
    return _plain(a) == _plain(b)


def _plain(url: str) -> str:
    return url.partition("?")[0].rstrip("/").replace("://127.0.0.1", "://localhost").replace("://0.0.0.0", "://localhost")


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
    """The app has no functions any more: they are archived, their schedules stop; its runs stay."""
    none = Registration(app_name=app.name, url=app.url, sdk=app.sdk, framework=app.framework, app_version="", functions=(), checksum="none")
    await context.node.submit(AppSynced(none, app.driver))


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
