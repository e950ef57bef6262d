"""What a server and a place where actors live say to each other: a child process, over its socket, or the server's own process.

An **activation** is one actor in memory, under one fence; it has a number that is good for this server's life. A place is told calls
and alarms in order, and tells units of writes and answers in order; the server lets no answer leave before the units that were told
before it are durable. Arguments, results and stored values are bytes here: what they hold is between the two ends of a stub.
"""

from __future__ import annotations

from typing import Literal

import msgspec

KIND_CHARS_MAX = 200
NAME_BYTES_MAX = 1024
KEY_BYTES_MAX = 2048
ENTRY_BYTES_MAX = 2 * 1024 * 1024
"""A key and its value together."""
KEYS_AT_ONCE = 128
"""Keys of one `get`, `put` or `delete`."""
UNIT_KEYS_MAX = 10_000
"""Keys that one unit of writes may touch."""
UNIT_BYTES_MAX = 16 * 1024 * 1024
"""What one unit of writes may hold."""
ARGS_BYTES_MAX = 32 * 1024 * 1024
"""Arguments, or a result, of one call."""
ACTOR_RAISED = 424
"""The HTTP status of a call whose actor raised; the body tells what."""
CHAIN_MAX = 32
"""Actors that call each other in one chain."""
RETRIES_MAX = 6
"""How often an alarm that fails goes off again."""
ALARM_MS_MAX = 6_911_654_400_000
"""The last time that an alarm may have: the beginning of 2189."""


class ActorKind(msgspec.Struct, frozen=True, omit_defaults=True):
    """A class of actors. `sql`: each has a file of its own."""

    id: str
    sql: bool = False


class ActorFailure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An exception that travels to the caller: its type's name, its place (`module:name`), its text, its own properties.

    These are a text of JSON, for a failure goes in frames of MessagePack as well.
    `reset`: the activation is gone, and what was in memory with it.
    """

    name: str
    message: str
    type: str = ""
    stack: str = ""
    properties: str = "{}"
    reset: bool = False


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an activation begins with: the pending alarm, and its entries, all of them where it is `whole`."""

    alarm_ms: int | None = None
    entries: tuple[tuple[str, bytes], ...] = ()
    whole: bool = False


class ActorMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """What every message about actors is."""


# To a place.


class ActorOpened(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """An actor lives here from now on, under this fence. `path`: its file, where its kind has SQL."""

    activation: int
    kind: str
    name: str
    fence: int
    snapshot: Snapshot
    path: str = ""


class ActorCalled(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """A method is to be called. `chain`: the turns that wait for its answer, the first caller's first."""

    activation: int
    call_id: int
    method: str
    args: bytes
    chain: tuple[str, ...] = ()


class ActorAlarmed(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """The alarm goes off."""

    activation: int
    call_id: int
    scheduled_ms: int
    retry_count: int = 0


class ActorEntries(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """What an `ActorRead` of the same `seq` found. `more`: there may be more behind the last one."""

    activation: int
    seq: int
    entries: tuple[tuple[str, bytes], ...] = ()
    more: bool = False


class ActorDurable(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """All units that were told before the `ActorSync` of the same `seq` are durable."""

    activation: int
    seq: int


class ActorClosed(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """The actor lives here no longer. `reason`: why what it does now counts no more; "" where it was idle."""

    activation: int
    reason: str = ""


class ActorReturned(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to an `ActorAsked` of the same `seq`."""

    seq: int
    result: bytes = b""
    failure: ActorFailure | None = None


# From a place.


class ActorAsked(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """A stub's call: of any actor, wherever it lives."""

    seq: int
    kind: str
    name: str
    method: str
    args: bytes
    chain: tuple[str, ...] = ()


class ActorAnswered(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """What came of an `ActorCalled` or `ActorAlarmed`."""

    activation: int
    call_id: int
    result: bytes = b""
    failure: ActorFailure | None = None


class ActorStored(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """A unit of writes, the `number`th of the activation: all of it or nothing. `clear` comes before the puts.

    `alarm`: its new time, or `None` for one that is taken back.
    """

    activation: int
    number: int
    puts: dict[str, bytes] = {}
    deletes: tuple[str, ...] = ()
    clear: bool = False
    alarm: int | msgspec.UnsetType | None = msgspec.UNSET


class ActorRead(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """Entries are asked for: these keys, or else the first of a range, or the last ones of it where it is read in reverse."""

    activation: int
    seq: int
    keys: tuple[str, ...] | None = None
    start: str = ""
    end: str | None = None
    reverse: bool = False
    limit: int = 0


class ActorSync(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """Tell when what was told so far is durable."""

    activation: int
    seq: int


class ActorsIdle(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """These have had nothing to do for a while, and may go."""

    activations: tuple[int, ...]


class ActorReset(ActorMessage, frozen=True, kw_only=True, omit_defaults=True):
    """The activation has ended itself; calls that it has not answered were not begun."""

    activation: int


ToActors = ActorOpened | ActorCalled | ActorAlarmed | ActorEntries | ActorDurable | ActorClosed | ActorReturned
FromActors = ActorAsked | ActorAnswered | ActorStored | ActorRead | ActorSync | ActorsIdle | ActorReset
Outcome = Literal["ok", "failed", "lost"]
"""What came of an alarm: it ran, it raised, or its process was taken from under it."""


class ActorFailed(Exception):
    """A call of an actor failed, with what its caller is to be told."""

    def __init__(self, failure: ActorFailure) -> None:
        super().__init__(f"{failure.name}: {failure.message}")
        self.failure = failure
