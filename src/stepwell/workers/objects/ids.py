"""Ids of objects: 64 hex digits, made of a name or at random, good for one class.

The server knows an object by its name, or by the digits of an id that was made at random, so that people can read whom they look at.
Digits alone do not tell a name: whoever asks for those of a named id has the name kept under them, in a namespace of the class.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import TYPE_CHECKING, Any

from stepwell.protocol.actors import NAME_BYTES_MAX
from stepwell.workers.bindings.calling import owe
from stepwell.workers.bindings.names import store_name

if TYPE_CHECKING:
    from stepwell.sdk.app import App

BODY_BYTES, CHECK_BYTES = 24, 8
_RANDOM, _NAMED = "#", "#="
"""How the server's names of objects begin: of random ids; of names that would look like one of these, or are empty."""


class ObjectId:
    """An id; `name` is `None` for one that was made at random, or of digits."""

    def __init__(self, names: Names, digits: str, name: str | None) -> None:
        self._names, self._digits, self.name = names, digits, name

    def toString(self) -> str:
        """Its digits."""
        if self.name is not None:
            self._names.keep(self._digits, self.name)
        return self._digits

    __str__ = toString

    def equals(self, other: Any) -> bool:
        """Whether it is the same object's."""
        return isinstance(other, ObjectId) and self._digits == other._digits

    def __eq__(self, other: object) -> bool:
        return self.equals(other)

    def __hash__(self) -> int:
        return hash(self._digits)

    def __repr__(self) -> str:
        return f"<id {self._digits}{'' if self.name is None else f' of {self.name!r}'}>"


class Names:
    """The ids of one class."""

    def __init__(self, app: App, kind: str) -> None:
        self._kind, self._kept = kind, app.kv(store_name(f"{kind}.ids"))
        self._known: dict[str, str | None] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}

    def named(self, name: str) -> ObjectId:
        """The id of a name: always the same."""
        if len(actor_name(name).encode("utf-8", "replace")) > NAME_BYTES_MAX or "\0" in name:
            raise TypeError(f"the name {name[:40]!r}… of a Durable Object has {NAME_BYTES_MAX - 2} bytes at most, and no NUL in it")
        body = bytearray(hashlib.sha256(f"{self._kind}\0{name}".encode("utf-8", "replace")).digest()[:BODY_BYTES])
        body[0] &= 0xFE
        return ObjectId(self, self._whole(bytes(body)), name)

    def random(self) -> ObjectId:
        """The id of a new object."""
        body = bytearray(secrets.token_bytes(BODY_BYTES))
        body[0] |= 1
        return ObjectId(self, self._whole(bytes(body)), None)

    def of_digits(self, text: str) -> ObjectId:
        """The id again. Raises `TypeError` for what is none, or another class's."""
        try:
            raw = bytes.fromhex(text) if len(text) == 2 * (BODY_BYTES + CHECK_BYTES) else b""
        except ValueError:
            raw = b""
        if not raw:
            raise TypeError("Invalid Durable Object ID: must be 64 hex digits")
        if self._whole(raw[:BODY_BYTES]) != raw.hex():
            raise TypeError("Durable Object ID is not valid for this namespace.")
        return ObjectId(self, raw.hex(), None)

    def of_actor(self, name: str) -> ObjectId:
        """The id of an object that the server knows by a name."""
        if name.startswith(_NAMED):
            return self.named(name.removeprefix(_NAMED))
        return ObjectId(self, name.removeprefix(_RANDOM), None) if name.startswith(_RANDOM) else self.named(name)

    def _whole(self, body: bytes) -> str:
        return (body + hashlib.sha256(self._kind.encode() + body).digest()[:CHECK_BYTES]).hex()

    # Names behind digits.

    def keep(self, digits: str, name: str) -> None:
        """Have a name found by its digits from now on."""
        if self._known.get(digits) is None and digits not in self._keeping:
            task = asyncio.get_running_loop().create_task(self._kept.put(digits, name))
            self._keeping[digits] = task
            owe(task)
            task.add_done_callback(lambda done: self._on_kept(digits, name, done))

    def _on_kept(self, digits: str, name: str, done: asyncio.Task[None]) -> None:
        self._keeping.pop(digits, None)
        if not done.cancelled() and done.exception() is None:
            self._known[digits] = name

    async def actor_of(self, id: ObjectId) -> str:
        """The name by which the server knows an id's object."""
        if id.name is not None:
            return actor_name(id.name)
        if int(id._digits[:2], 16) & 1:
            return _RANDOM + id._digits
        if id._digits not in self._known:
            if (keeping := self._keeping.get(id._digits)) is not None:
                await asyncio.wait({keeping})
            found = await self._kept.get(id._digits)
            if found is None:
                return _RANDOM + id._digits
            self._known[id._digits] = found
        name = self._known[id._digits]
        assert name is not None
        return actor_name(name)


def actor_name(name: str) -> str:
    """The server's name of a named object: the name itself, where that may be."""
    return _NAMED + name if not name or name.startswith(_RANDOM) else name
