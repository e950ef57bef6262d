"""What people change of a function while its runs are under way: that it pauses, drains or goes on, and its limits."""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, Effect, Refuse, RegistryChanged, Reply, SetRow
from stepwell.engine.flow.gates import Rules
from stepwell.engine.inputs import FunctionHeld, FunctionOverridden
from stepwell.engine.lanes import reopen
from stepwell.engine.model import FunctionRow
from stepwell.engine.registry import Function, Registry, compile_function
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import NotFound
from stepwell.protocol.functions import override_json


def select_change(change: FunctionHeld | FunctionOverridden) -> list[Selection]:
    """The function, and the cursor that may be over its lanes already."""
    return [Select("functions", change.function_id), Select("timers", f"reopen/{change.function_id}")]


def on_function_held(view: View, held: FunctionHeld, now_ms: int) -> list[Command | Effect]:
    """Pause: no item of it is claimed. Drain: no run of it begins. Go on: both end, and its lanes are judged anew."""
    row: FunctionRow | None = view.get("functions", held.function_id)
    if row is None or row.archived:
        return [Refuse(NotFound(f"there is no function {held.function_id!r}"))]
    changed = msgspec.structs.replace(row, paused=held.mode == "paused", draining=held.mode == "draining")
    return [SetRow(changed), *reopen(row.id, now_ms), RegistryChanged(), Reply(held.mode)]


def on_function_overridden(registry: Registry, view: View, overridden: FunctionOverridden, now_ms: int) -> list[Command | Effect]:
    """Other limits from now on, for queued work too; `None` goes back to what the app told."""
    row: FunctionRow | None = view.get("functions", overridden.function_id)
    if row is None or row.archived:
        return [Refuse(NotFound(f"there is no function {overridden.function_id!r}"))]
    override = None if overridden.override is None else override_json(overridden.override)
    changed = msgspec.structs.replace(row, override=override)
    rules = compile_function(changed, registry.apps[row.app_name]).rules
    changed = with_keys(changed, rules, registry.functions.get(row.id))
    return [SetRow(changed), *reopen(row.id, now_ms), RegistryChanged(), Reply(overridden.override)]


def with_keys(row: FunctionRow, rules: Rules, earlier: Function | None) -> FunctionRow:
    """The row as it says that runs get keys by these rules, and whether runs of earlier got others."""
    rekeyed = row.rekeyed or (row.keyed and (earlier is None or earlier.rules.shape != rules.shape))
    return msgspec.structs.replace(row, keyed=row.keyed or rules.keyed, rekeyed=rekeyed)
