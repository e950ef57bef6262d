"""Syncs and removals: an app tells its functions, or goes, and the registry's rows follow.

A row is archived, never deleted, since runs refer to it: what has begun goes on, with the configuration and the URL that were told
last, whether its function is still told or not. Nothing new begins, and no cron line ticks.
"""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, Effect, Refuse, RegistryChanged, Reply, SetRow
from stepwell.engine.flow.changes import with_keys
from stepwell.engine.inputs import AppRemoved, AppSynced, Removed, Synced
from stepwell.engine.lanes import reopen
from stepwell.engine.model import AppRow, FunctionRow, Json
from stepwell.engine.registrations import check_registration
from stepwell.engine.registry import Function, Registry, compile_function
from stepwell.engine.schedules import reschedule, select_schedules
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.functions import Registration, config_json, override_from_json
from stepwell.protocol.ids import app_uuid, derived_ulid, function_uuid

ONE_APP_DRIVERS = frozenset(("http",))
"""Where a URL is one app's: a second name from the same URL takes the first one's place."""


def select_sync(registry: Registry, synced: AppSynced) -> list[Selection]:
    """The app's row, and those of the functions it has or had; the same of apps that it takes the place of."""
    registration = synced.registration
    selections: list[Selection] = [Select("apps", registration.app_name)]
    for config in registration.functions:
        selections += [Select("functions", config.id), *select_schedules(config.id, config)]
    for name in (registration.app_name, *replaced_by(registry, registration, synced.driver)):
        selections += select_app(registry, name)
    return selections


def pinned(row: FunctionRow | None) -> Json | None:
    """What a person has changed of the function and wants kept, whatever its app tells."""
    override = row.override if row is not None else None
    return override if override is not None and override_from_json(override).pinned else None


def on_app_synced(registry: Registry, view: View, synced: AppSynced, now_ms: int) -> list[Command | Effect]:
    """Write what changed: new and changed functions get the next version, missing ones are archived (§3.1). All of it, or nothing."""
    registration = synced.registration
    replaced = replaced_by(registry, registration, synced.driver)
    try:
        check_registration(registry, registration, replaced)
    except ProtocolError as error:
        return [Refuse(error)]
    before: AppRow | None = view.get("apps", registration.app_name)
    app = AppRow(
        name=registration.app_name,
        id=app_uuid(registration.app_name),
        driver=synced.driver,
        url=registration.url,
        sdk=registration.sdk,
        framework=registration.framework,
        checksum=registration.checksum,
        synced_ms=now_ms,
    )
    sync_id = derived_ulid(now_ms, app.name, app.checksum)
    if before is not None and not replaced and msgspec.structs.replace(before, synced_ms=now_ms) == app:
        unchanged: list[Command | Effect] = [Reply(Synced(modified=False, app_id=app.id, sync_id=sync_id))]
        # A sync whose commit's answer was lost comes again: the node that made it has not read the functions yet.
        return unchanged if registry.apps.get(app.name) == before else [RegistryChanged(), *unchanged]
    commands: list[Command | Effect] = [SetRow(app)]
    told = set()
    for config in registration.functions:
        told.add(config.id)
        row: FunctionRow | None = view.get("functions", config.id)
        new = FunctionRow(
            id=config.id,
            uuid=function_uuid(config.id),
            app_name=app.name,
            name=config.name,
            config=config_json(config),
            version=1 if row is None else row.version + 1,
            keyed=row is not None and row.keyed,
            rekeyed=row is not None and row.rekeyed,
            paused=row is not None and row.paused,
            draining=row is not None and row.draining,
            override=pinned(row),
        )
        rules = compile_function(new, app).rules
        earlier = registry.functions.get(config.id)
        commands.append(SetRow(with_keys(new, rules, earlier)))
        if earlier is not None and earlier.row.keyed and earlier.rules != rules:
            commands += reopen(config.id, now_ms)
        was = earlier.config if earlier is not None and not earlier.row.archived else None
        commands += reschedule(view, config.id, was, config, now_ms)
    for name in (app.name, *sorted(replaced)):
        for function in registry.of_app(name):
            if function.id not in told and not function.row.archived:
                commands += archive(view, function, now_ms)
    for name in sorted(replaced):
        commands.append(SetRow(msgspec.structs.replace(registry.apps[name], archived=True)))
    return [*commands, RegistryChanged(), Reply(Synced(modified=True, app_id=app.id, sync_id=sync_id))]


def replaced_by(registry: Registry, registration: Registration, driver: str) -> frozenset[str]:
    """The apps of other names that were told from the same URL: it serves one app, which has another name now."""
    if driver not in ONE_APP_DRIVERS or not registration.url:
        return frozenset()
    return frozenset(
        app.name
        for app in registry.apps.values()
        if app.url == registration.url and app.driver == driver and app.name != registration.app_name and not app.archived
    )


def select_removal(registry: Registry, removed: AppRemoved) -> list[Selection]:
    """The app's row, and those of its functions."""
    return [Select("apps", removed.app_name), *select_app(registry, removed.app_name)]


def on_app_removed(registry: Registry, view: View, removed: AppRemoved, now_ms: int) -> list[Command | Effect]:
    """Archive the app with its functions. Its runs go on; whoever wants them to end cancels them."""
    app: AppRow | None = view.get("apps", removed.app_name)
    if app is None or app.archived:
        return [Refuse(NotFound(f"there is no app {removed.app_name!r}"))]
    commands: list[Command | Effect] = [SetRow(msgspec.structs.replace(app, archived=True))]
    archived = [function for function in registry.of_app(app.name) if not function.row.archived]
    for function in archived:
        commands += archive(view, function, now_ms)
    return [*commands, RegistryChanged(), Reply(Removed(app_name=app.name, functions=len(archived)))]


def select_app(registry: Registry, app_name: str) -> list[Selection]:
    """The rows of an app and its functions, as far as they are known."""
    selections: list[Selection] = [Select("apps", app_name)]
    for function in registry.of_app(app_name):
        selections += [
            Select("functions", function.id),
            Select("timers", f"reopen/{function.id}"),
            *select_schedules(function.id, function.config),
        ]
    return selections


def archive(view: View, function: Function, now_ms: int) -> list[Command | Effect]:
    """Nothing starts the function any more, and its cron lines stop."""
    row = msgspec.structs.replace(function.row, archived=True)
    return [SetRow(row), *reschedule(view, function.id, function.config, None, now_ms)]
