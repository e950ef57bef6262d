"""The apps and functions that decisions are made with: a snapshot of the synced rows, compiled for lookup, with the settings.

A registry never changes; a sync makes a new one from the rows. Nothing here reads or writes state.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.gates import NO_RULES, Rules, compile_rules
from stepwell.engine.flow.keys import OWN
from stepwell.engine.model import AppRow, FunctionRow
from stepwell.protocol.functions import FunctionConfig, Override, config_from_json, overridden, override_from_json

STEPS_MAX = 1000
"""Steps of one run, and ops of one answer, unless the operator says otherwise."""
STEPS_CEILING = 10_000
"""What an operator may say at most."""
STATE_BYTES_MAX = 32 * 1024 * 1024
"""Output of all steps of one run, unless the operator says otherwise."""
STATE_BYTES_CEILING = 1024 * 1024 * 1024
"""What an operator may say at most."""
LOSSES_MAX = 3
"""How often in a row a call may be lost with its process."""


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many steps and how much state a run of one function may have, in place of what all may."""

    steps_max: int | None = None
    state_bytes_max: int | None = None


NAMES_KEPT_MAX = 10_000
"""Event names whose listeners are kept at hand."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set and decisions depend on. `retry_interval_ms` replaces the backoff table, `limits` are by function."""

    retry_interval_ms: int | None = None
    steps_max: int = STEPS_MAX
    state_bytes_max: int = STATE_BYTES_MAX
    losses_max: int = LOSSES_MAX
    limits: dict[str, RunLimits] = {}

    def limits_of(self, function_id: str) -> tuple[int, int]:
        """(steps, bytes of state) that a run of the function may have at most."""
        own = self.limits.get(function_id)
        if own is None:
            return self.steps_max, self.state_bytes_max
        return (
            self.steps_max if own.steps_max is None else own.steps_max,
            self.state_bytes_max if own.state_bytes_max is None else own.state_bytes_max,
        )


class Trigger(msgspec.Struct, frozen=True):
    """An event name, exact or ending in `*`, and a condition."""

    event: str
    where: Expression | None


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function as decisions see it. `conditional`: a trigger has a condition. `gated`: it has a setting of flow control.

    `shares_keys`: one key may stand in several lanes. There are several keys, or had been others, or the scope of one is wider than
    the function.
    """

    row: FunctionRow
    config: FunctionConfig
    driver: str
    triggers: tuple[Trigger, ...]
    conditional: bool
    rules: Rules
    gated: bool
    shares_keys: bool
    override: Override

    @property
    def id(self) -> str:
        """The composite slug."""
        return self.row.id

    @property
    def max_attempts(self) -> int:
        """Tries of one item: the first and its retries."""
        return self.config.retries + 1

    @property
    def weight(self) -> int:
        """The function's share of its app's room, beside that of others."""
        return self.override.weight or 1


class Registry:
    """Every app and function, with the event names that start them, and the one function that each queue goes to."""

    def __init__(self, apps: Iterable[AppRow] = (), functions: Iterable[FunctionRow] = (), settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.apps = {app.name: app for app in apps}
        self.functions: dict[str, Function] = {}
        self._by_uuid: dict[str, Function] = {}
        self._by_event: dict[str, list[Function]] = {}
        self._listening: dict[str, list[Function]] = {}
        self.consumers: dict[str, Function] = {}
        for row in sorted(functions, key=lambda row: row.id):
            function = compile_function(row, self.apps[row.app_name])
            self.functions[row.id] = self._by_uuid[row.uuid] = function
            if not row.archived:
                for name in dict.fromkeys(trigger.event for trigger in function.triggers):
                    self._by_event.setdefault(name, []).append(function)
                for trigger in function.config.triggers:
                    if trigger.queue is not None:
                        self.consumers[trigger.queue] = function

    def of_app(self, app_name: str) -> list[Function]:
        """An app's functions, archived ones too."""
        return [function for function in self.functions.values() if function.row.app_name == app_name]

    def named(self, name: str) -> Function | None:
        """The function of this slug or UUID, if its app still has it."""
        function = self.functions.get(name) or self._by_uuid.get(name)
        return None if function is None or function.row.archived else function

    def listening(self, event_name: str) -> list[Function]:
        """The functions that have a trigger for an event of this name, each once, by id."""
        found = self._listening.get(event_name)
        if found is None:
            patterns = [event_name, *wildcards(event_name)]
            several = {function.id: function for name in patterns for function in self._by_event.get(name, ())}
            found = sorted(several.values(), key=lambda function: function.id)
            if len(self._listening) < NAMES_KEPT_MAX:
                self._listening[event_name] = found
        return found


def wildcards(event_name: str) -> list[str]:
    """The trigger names with a `*` that an event's name matches (§2.5): `a/b.c.d` → `a/*`, `a/b.*`, `a/b.c.*`."""
    return [event_name[: i + 1] + "*" for i, letter in enumerate(event_name) if letter in "/." and i + 1 < len(event_name)]


def compile_function(row: FunctionRow, app: AppRow) -> Function:
    """The row with its configuration decoded and its expressions compiled."""
    override = None if row.override is None else override_from_json(row.override)
    config = config_from_json(row.config) if override is None else overridden(config_from_json(row.config), override)
    triggers = tuple(
        Trigger(trigger.event, None if trigger.expression is None else compile_expression(trigger.expression))
        for trigger in config.triggers
        if trigger.event is not None
    )
    rules = compile_rules(row.id, config)
    return Function(
        row=row,
        config=config,
        driver=app.driver,
        triggers=triggers,
        conditional=any(trigger.where is not None for trigger in triggers),
        rules=rules,
        gated=rules != NO_RULES,
        shares_keys=row.rekeyed or len(rules.shape) > 1 or not all(part.startswith(OWN) for part in rules.shape),
        override=override or Override(),
    )
