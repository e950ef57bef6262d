"""Singleton: one run of a key's value at a time. A further one is skipped, or ends the one that is there.

The run has a unique name (`Name`) from when it is made until it ends; the name goes with the run's other belongings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.flow.keys import evaluated, of_value
from stepwell.protocol.functions import Singleton

SINGLETON = "singleton/"
"""What the names of singleton runs begin with."""


class SingletonRule(msgspec.Struct, frozen=True):
    """A function's singleton setting."""

    function_id: str
    mode: Literal["skip", "cancel"]
    key: Expression | None

    def name(self, event: Mapping[str, Any], now_ms: int) -> str | None:
        """The unique name of the value that the event has; `None` for the value false, to which the setting does not apply (§10)."""
        if self.key is None:
            return f"{SINGLETON}{self.function_id}/"
        value = evaluated(self.key, event, now_ms)
        return None if value is False else of_value(f"{SINGLETON}{self.function_id}/", value)


def compile_singleton(function_id: str, setting: Singleton) -> SingletonRule:
    """The rule of a setting."""
    return SingletonRule(function_id, setting.mode, None if setting.key is None else compile_expression(setting.key))
