"""Syncs: an app tells its functions, and the registry's rows follow."""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, Effect, RegistryChanged, Reply, SetRow
from stepwell.engine.inputs import AppSynced, Synced
from stepwell.engine.model import AppRow, FunctionRow
from stepwell.engine.registry import Registry, compile_function
from stepwell.engine.schedules import reschedule, select_schedules
from stepwell.engine.view import Select, Selection, View
from stepwell.protocol.functions import config_json
from stepwell.protocol.ids import app_uuid, derived_ulid, function_uuid


def select_sync(registry: Registry, synced: AppSynced) -> list[Selection]:
    """The app's row, and those of the functions it has or had."""
    registration = synced.registration
    ids = {function.id for function in registration.functions} | {f.id for f in registry.of_app(registration.app_name)}
    configs = {function.id: function.config for function in registry.of_app(registration.app_name)}
    return [
        Select("apps", registration.app_name),
        *(Select("functions", function_id) for function_id in sorted(ids)),
        *(selection for function_id, config in configs.items() for selection in select_schedules(function_id, config)),
        *(selection for config in registration.functions for selection in select_schedules(config.id, config)),
    ]


def on_app_synced(registry: Registry, view: View, synced: AppSynced, now_ms: int) -> list[Command | Effect]:
    """Write what changed: new and changed functions get the next version, missing ones are archived (§3.1)."""
    registration = synced.registration
    before: AppRow | None = view.get("apps", registration.app_name)
    reply = Synced(
        modified=True,
        app_id=app_uuid(registration.app_name),
        sync_id=derived_ulid(now_ms, registration.app_name, registration.checksum),
    )
    same = (
        before is not None
        and not before.archived
        and (before.checksum, before.driver, before.url) == (registration.checksum, synced.driver, registration.url)
    )
    if same:
        return [Reply(Synced(modified=False, app_id=reply.app_id, sync_id=reply.sync_id))]
    app = AppRow(
        name=registration.app_name,
        id=reply.app_id,
        driver=synced.driver,
        url=registration.url,
        sdk=registration.sdk,
        framework=registration.framework,
        checksum=registration.checksum,
        synced_ms=now_ms,
    )
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
            paused=row is not None and row.paused,
        )
        if not new.keyed and compile_function(new, app).limits:
            new = msgspec.structs.replace(new, keyed=True)
        commands.append(SetRow(new))
        earlier = registry.functions.get(config.id)
        was = earlier.config if earlier is not None and not earlier.row.archived else None
        commands += reschedule(view, config.id, was, config, now_ms)
    for function in registry.of_app(app.name):
        if function.id not in told and not function.row.archived:
            commands.append(SetRow(msgspec.structs.replace(function.row, archived=True)))
            commands += reschedule(view, function.id, function.config, None, now_ms)
    return [*commands, RegistryChanged(), Reply(reply)]
