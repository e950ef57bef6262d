"""Event names that something waits for: under which keys their events find waits, and the order in which waits were made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engine.commands import Command, Put, SetRow
from stepwell.engine.expression import compile_expression, equality, field, lookup_text, pruned
from stepwell.engine.model import Topic, Wait
from stepwell.engine.view import View
from stepwell.protocol.codec import canonical

PATHS_MAX = 8
"""Fields of one event name by which its waits are found; a wait for a further one is tried by every event of the name."""

ANY = ""
"""The path of waits that no field's value is known of."""

WAIT_VARIABLES = ("async", "event")


class Topics:
    """The waits that one transition makes, collected so that each event name is written once."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._topics: dict[str, Topic] = {}
        self._waits: list[Wait] = []

    def wait(self, run_id: str, wait_id: str, name: str, where: str | None, own: Mapping[str, Any], expires_ms: int, now_ms: int) -> None:
        """A run waits for an event of a name, or may be ended by one. `own` is the run's own event. Raises `ExpressionError`."""
        topic = self._topics.get(name) or self._view.topic(name) or Topic(name=name, paths=(), serial=0)
        path, text, event = ANY, "", b"{}"
        if where is not None:
            condition = compile_expression(where, WAIT_VARIABLES)
            event = canonical(pruned(condition, own))
            found = equality(condition, own, now_ms)
            if found is not None:
                path, text = path_text(found[0]), found[1]
                if path not in topic.paths and len(topic.paths) >= PATHS_MAX:
                    path, text = ANY, ""
        paths = topic.paths if path in topic.paths else (*topic.paths, path)
        serial = topic.serial + 1
        self._topics[name] = Topic(name=name, paths=paths, serial=serial)
        self._waits.append(
            Wait(
                run_id=run_id,
                id=wait_id,
                name=name,
                lookup=lookup_key(name, path, text),
                serial=serial,
                where=where,
                event=event,
                expires_ms=expires_ms,
            )
        )

    def forget(self, run_id: str) -> None:
        """The run ends with this very transition: it waits for nothing."""
        self._waits = [wait for wait in self._waits if wait.run_id != run_id]

    def commands(self) -> list[Command]:
        """All of it."""
        return [*(SetRow(topic) for topic in self._topics.values()), *(Put(wait) for wait in self._waits)]


def path_text(path: tuple[str, ...]) -> str:
    """A path as it stands in a topic: JSON, since a field's name may hold anything."""
    return msgspec.json.encode(path).decode()


def lookup_key(name: str, path: str, text: str) -> str:
    """What waits for events of a name are found by: the value that a field has to have."""
    return hashlib.blake2b("\n".join((name, path, text)).encode(), digest_size=16).hexdigest()


def lookups(topic: Topic, body: Mapping[str, Any]) -> list[str]:
    """The keys under which an event may find waits, one for each of its topic's paths."""
    keys = []
    for path in topic.paths:
        if path == ANY:
            keys.append(lookup_key(topic.name, ANY, ""))
        elif (text := lookup_text(field(body, tuple(msgspec.json.decode(path))))) is not None:
            keys.append(lookup_key(topic.name, path, text))
    return keys


def holds(wait: Wait, body: Mapping[str, Any], now_ms: int) -> bool:
    """Whether the wait is for this very event, now."""
    if wait.expires_ms <= now_ms:
        return False
    if wait.where is None:
        return True
    condition = compile_expression(wait.where, WAIT_VARIABLES)
    return condition.is_true({"event": msgspec.json.decode(wait.event), "async": body}, now_ms=now_ms)
