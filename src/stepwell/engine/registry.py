"""The apps and functions that decisions are made with: a snapshot of the synced rows, compiled for lookup, with the settings.

A registry never changes; a sync makes a new one from the rows. Nothing here reads or writes state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from stepwell.engine.expression import Expression, compile_expression, key_text
from stepwell.engine.model import AppRow, FunctionRow
from stepwell.protocol.functions import FunctionConfig, config_from_json

KEY_TEXT_MAX = 256
"""Characters of a key's value that stand in a counter's id; a longer one is hashed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set and decisions depend on. `retry_interval_ms` replaces the backoff table."""

    retry_interval_ms: int | None = None
    steps_max: int = 1000
    state_bytes_max: int = 32 * 1024 * 1024
    losses_max: int = 3


class Limit(msgspec.Struct, frozen=True):
    """A concurrency limit of a function. `prefix` begins the ids of its counters; `key` gives what follows."""

    prefix: str
    limit: int
    key: Expression | None


class Trigger(msgspec.Struct, frozen=True):
    """An event name, exact or ending in `*`, and a condition."""

    event: str
    where: Expression | None


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function as decisions see it."""

    row: FunctionRow
    config: FunctionConfig
    driver: str
    triggers: tuple[Trigger, ...]
    limits: tuple[Limit, ...]

    @property
    def id(self) -> str:
        """The composite slug."""
        return self.row.id

    @property
    def max_attempts(self) -> int:
        """Tries of one item: the first and its retries."""
        return self.config.retries + 1

    @property
    def has_many_lanes(self) -> bool:
        """Whether a limit has a key expression, so that each of its values has a lane."""
        return any(limit.key is not None for limit in self.limits)

    def limit_of(self, counter_id: str) -> int | None:
        """The limit that a stored key stands under today; `None` where its setting is gone and it gates no more."""
        for limit in self.limits:
            if counter_id.startswith(limit.prefix):
                return limit.limit
        return None

    def gating_keys(self, event: Mapping[str, object], now_ms: int) -> tuple[str, ...]:
        """The counter ids of a run that this event starts, in the order of the settings."""
        keys = []
        for limit in self.limits:
            value = "" if limit.key is None else key_text(limit.key.evaluate({"event": event}, now_ms=now_ms))
            if len(value) > KEY_TEXT_MAX:
                value = digest(value)
            keys.append(limit.prefix + value)
        return tuple(keys)


class Registry:
    """Every app and function, with the event names that start them."""

    def __init__(self, apps: Iterable[AppRow] = (), functions: Iterable[FunctionRow] = (), settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.apps = {app.name: app for app in apps}
        self.functions: dict[str, Function] = {}
        self._by_uuid: dict[str, Function] = {}
        self._by_event: dict[str, list[Function]] = {}
        for row in sorted(functions, key=lambda row: row.id):
            function = compile_function(row, self.apps[row.app_name])
            self.functions[row.id] = self._by_uuid[row.uuid] = function
            if not row.archived:
                for name in dict.fromkeys(trigger.event for trigger in function.triggers):
                    self._by_event.setdefault(name, []).append(function)

    def of_app(self, app_name: str) -> list[Function]:
        """An app's functions, archived ones too."""
        return [function for function in self.functions.values() if function.row.app_name == app_name]

    def named(self, name: str) -> Function | None:
        """The function of this slug or UUID, if its app still has it."""
        function = self.functions.get(name) or self._by_uuid.get(name)
        return None if function is None or function.row.archived else function

    def listening(self, event_name: str) -> list[Function]:
        """The functions that have a trigger for an event of this name, each once, by id."""
        patterns = [event_name, *wildcards(event_name)]
        if len(found := [self._by_event[name] for name in patterns if name in self._by_event]) == 1:
            return found[0]
        return sorted({function.id: function for functions in found for function in functions}.values(), key=lambda f: f.id)


def wildcards(event_name: str) -> list[str]:
    """The trigger names with a `*` that an event's name matches (§2.5): `a/b.c.d` → `a/*`, `a/b.*`, `a/b.c.*`."""
    return [event_name[: i + 1] + "*" for i, letter in enumerate(event_name) if letter in "/." and i + 1 < len(event_name)]


def compile_function(row: FunctionRow, app: AppRow) -> Function:
    """The row with its configuration decoded and its expressions compiled."""
    config = config_from_json(row.config)
    triggers = tuple(
        Trigger(trigger.event, None if trigger.expression is None else compile_expression(trigger.expression))
        for trigger in config.triggers
        if trigger.event is not None
    )
    limits = []
    for setting in config.concurrency:
        if setting.limit > 0 and setting.per == "step":
            owner = {"fn": row.id, "env": "env", "account": "account"}[setting.scope]
            prefix = f"{setting.scope}/{owner}/{setting.key or ''}/"
            limits.append(Limit(prefix, setting.limit, None if setting.key is None else compile_expression(setting.key)))
    return Function(row=row, config=config, driver=app.driver, triggers=triggers, limits=tuple(limits))


def digest(text: str) -> str:
    """A short name for a long text."""
    return "#" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
