"""What an actor raises, on its way to the caller: name, text, own properties; and there an exception again.

It is an `ActorError`, and at the same time an instance of the type that was raised, where that type is known there: `except
ValueError` holds for an actor as for a function.
"""

from __future__ import annotations

import functools
import sys
import traceback
from typing import Any

from stepwell.errors import ActorError, ActorLost, UsageError
from stepwell.protocol.actors import ActorFailure
from stepwell.sdk.serializer import ANY

LOST = ("ActorLost", "ActorDied")
STACK_CHARS_MAX = 16_000


def failure_of(error: BaseException, *, reset: bool = False) -> ActorFailure:
    """What an exception says."""
    if isinstance(error, ActorError) and not isinstance(error, ActorLost):
        # It has come from another actor, and goes on as what it was there.
        return ActorFailure(
            name=error.name, message=error.message, type=error.type, stack=error.stack, properties=_json(error.properties), reset=reset
        )
    kind = type(error)
    return ActorFailure(
        name=kind.__name__,
        message=_text(error),
        type=f"{kind.__module__}:{kind.__qualname__}",
        stack="".join(traceback.format_exception(error))[-STACK_CHARS_MAX:],
        properties=_json(vars(error)),
        reset=reset,
    )


def _text(error: BaseException) -> str:
    if isinstance(error, KeyError) and len(error.args) == 1:
        return str(error.args[0])
    return str(error)


def _json(properties: dict[str, Any]) -> str:
    """Those properties that can be told."""
    told: dict[str, Any] = {}
    for name, value in properties.items():
        if name.startswith("__"):
            continue
        try:
            ANY.encode(value, mark=True)
        except UsageError:
            continue
        told[name] = value
    return ANY.encode(told, mark=True).decode()


def exception_of(failure: ActorFailure) -> ActorError:
    """The exception to raise at the caller."""
    base = ActorLost if failure.name in LOST else ActorError
    kind = _known(failure.type)
    made: type[ActorError] = base if kind is None else _both(base, kind)  # type: ignore[arg-type]
    error = made.__new__(made)
    Exception.__init__(error, failure.message)
    properties = ANY.decode(failure.properties.encode(), marked=True)
    error.name, error.message, error.stack = failure.name, failure.message, failure.stack
    error.type, error.properties, error.reset = failure.type, properties, failure.reset
    for name, value in properties.items():
        vars(error).setdefault(name, value)
    return error


def _known(path: str) -> type[Exception] | None:
    """The exception's type, where its module is loaded here."""
    module, _, qualname = path.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split(".") if qualname else ():
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, ActorError):
        return found
    return None


@functools.lru_cache(maxsize=1024)
def _both(base: type[ActorError], kind: type[Exception]) -> type[ActorError]:
    try:
        return type(kind.__name__, (base, kind), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})
    except TypeError:
        # Two layouts that do not go together.
        return base
