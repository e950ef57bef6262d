"""The rows of actors. Their machine is in `primitives/actor.py`; what a row is, `model` says."""

from __future__ import annotations

from stepwell.engine.model import Json, Row
from stepwell.engine.model_primitives import Blob


class Actor(Row, frozen=True, kw_only=True):
    """An actor. Its activation is leased: `holder` has it under `fence`, and `written` counts the units it has stored.

    `alarm_ms` is the pending alarm's time as it was set, `alarm_retry` how often it has failed. While it runs, `firing` names the
    holder that runs it and `fired_ms` its time (`None` once it was taken back: then no retry follows); `firings` numbers them all.
    `error`: what the last alarm died of. `entries` and `bytes` measure the entries of this `generation`; clearing begins another one.
    """

    kind: str
    name: str
    fence: int
    holder: str | None = None
    written: int = 0
    generation: int = 0
    entries: int = 0
    bytes: int = 0
    alarm_ms: int | None = None
    alarm_retry: int = 0
    firing: str | None = None
    fired_ms: int | None = None
    fired_retry: int = 0
    firings: int = 0
    error: Json | None = None


class ActorEntry(Row, frozen=True, kw_only=True):
    """What an actor has stored under a key."""

    kind: str
    name: str
    generation: int
    key: str
    value: Blob
