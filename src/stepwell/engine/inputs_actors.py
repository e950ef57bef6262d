"""What happens to actors: inputs like all others, whose machine is in `primitives/actor.py`."""

from __future__ import annotations

import msgspec

from stepwell.engine.input import Input
from stepwell.engine.model import Json
from stepwell.engine.model_primitives import Blob
from stepwell.protocol.actors import Outcome

RELEASED_MAX = 100
"""Activations that one input gives back."""


class ActorActivated(Input, frozen=True):
    """A node wants to have an actor in memory."""

    kind: str
    name: str
    holder: str


class ActorWrote(Input, frozen=True, kw_only=True):
    """An activation stores a unit: its `number`th. A stale fence, or a unit behind one that was refused, is refused."""

    kind: str
    name: str
    fence: int
    number: int
    puts: tuple[tuple[str, Blob], ...] = ()
    deletes: tuple[str, ...] = ()
    clear: bool = False
    alarm: int | msgspec.UnsetType | None = msgspec.UNSET


class AlarmAnswered(Input, frozen=True):
    """An alarm's run has ended. `firing` numbers it; `error`: what it raised."""

    kind: str
    name: str
    firing: int
    outcome: Outcome
    error: Json | None = None


class ActorsReleased(Input, frozen=True):
    """Activations have left memory: kind, name and fence of each."""

    actors: tuple[tuple[str, str, int], ...]


class Activated(msgspec.Struct, frozen=True):
    """The reply to `ActorActivated`: the fence of the activation, and what it begins with."""

    fence: int
    alarm_ms: int | None
    entries: tuple[tuple[str, bytes], ...]
    whole: bool
