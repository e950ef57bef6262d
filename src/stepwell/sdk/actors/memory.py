"""What an actor has stored, as its activation sees it: read from memory, written in units.

What is written without another await between is one **unit**; a wait for the storage itself is no such await. A unit is told to the
server when the task yields, whole; `transaction` makes it larger. What is not in memory is read through the server, after all
that was told before. Values are bytes here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from stepwell.errors import Superseded, UsageError
from stepwell.protocol.actors import UNIT_BYTES_MAX, UNIT_KEYS_MAX, Snapshot

KEPT_BYTES_MAX = 16 * 1024 * 1024
"""What an activation keeps in memory of its entries; beyond it, what is stored is let go of, and read again when it is asked for."""

READ_AT_ONCE = 100
"""Entries of a range that are read at once."""

Entries = list[tuple[str, bytes]]


class Link(Protocol):
    """Where units go and entries come from."""

    def store(self, unit: Unit) -> None:
        """Tell a unit, behind those before it."""
        ...

    async def sync(self) -> None:
        """Returns when the units told so far are durable."""
        ...

    async def values(self, keys: tuple[str, ...]) -> tuple[Entries, bool]:
        """Those of the stored entries that have these keys, in their order; and whether there may be more behind the last one."""
        ...

    async def range(self, start: str, end: str | None, reverse: bool, limit: int) -> tuple[Entries, bool]:
        """The first stored entries of a range, or the last ones; and whether there may be more behind them."""
        ...


class Unit:
    """Writes that are stored together. In `puts`, `None` is a key that goes."""

    __slots__ = ("alarm", "clear", "number", "puts", "size")

    def __init__(self) -> None:
        self.number = 0
        self.puts: dict[str, bytes | None] = {}
        self.clear = False
        self.alarm: int | msgspec.UnsetType | None = msgspec.UNSET
        self.size = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be written."""
        return not self.puts and not self.clear and self.alarm is msgspec.UNSET


_UNKNOWN: Any = object()


class Memory:
    """The entries and the alarm of one activation. `on_open` is told when a wait for the storage is over."""

    def __init__(self, snapshot: Snapshot, link: Link, on_open: Callable[[], None] | None = None) -> None:
        self._link, self._on_open = link, on_open
        self._known: dict[str, bytes | None] = dict(snapshot.entries)
        self._whole = snapshot.whole
        self._alarm_ms = snapshot.alarm_ms
        self._size = sum(len(key) + len(value) for key, value in snapshot.entries)
        self._taken_back = False
        self._running: int | None = None
        self._sorted: list[str] | None = None
        self._unit: Unit | None = None
        self._told = self._durable = 0
        self._clears = 0
        self._undo: list[tuple[Any, ...]] = []
        self._open = 0
        self._flushing = False
        self.waits = 0
        self.closed = False

    async def open(self) -> None:
        """All is here that it begins with."""

    # Reading.

    async def value(self, key: str) -> bytes | None:
        """The value of a key."""
        self._check()
        found = self._known.get(key, _UNKNOWN)
        if found is not _UNKNOWN:
            return found  # type: ignore[no-any-return]
        return None if self._whole else (await self.values((key,))).get(key)

    async def values(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Those keys that have a value, sorted."""
        await self.has_room()
        wanted = sorted(set(keys))
        found: dict[str, bytes | None] = {key: self._known[key] for key in wanted if key in self._known}
        if not self._whole and len(found) < len(wanted):
            found |= await self._fetch(tuple(key for key in wanted if key not in found))
        return {key: value for key in wanted if (value := found.get(key)) is not None}

    async def range(self, start: str, end: str | None, reverse: bool, limit: int | None) -> dict[str, bytes]:
        """The entries of a range, in order."""
        await self.has_room()
        if self._whole:
            return self._of_memory(start, end, reverse, limit)
        found: dict[str, bytes] = {}
        async with self._wait():
            low, high, more, clears = start, end, True, self._clears
            while more and (limit is None or len(found) < limit):
                inside = {key: value for key, value in self._known.items() if low <= key and (high is None or key < high)}
                # Keys that are known to be gone may stand in the store yet, where their unit is not told.
                gone = sum(value is None for value in inside.values())
                asked = READ_AT_ONCE if limit is None else min(READ_AT_ONCE, limit - len(found) + gone)
                entries, more = await self._link.range(low, high, reverse, asked)
                if self._clears != clears:
                    return self._of_memory(start, end, reverse, limit)
                page = {key: value for key, value in entries if self._known.get(key, value) is not None}
                last = entries[-1][0] if more and entries else None
                for key, value in self._known.items():
                    if value is None or key < low or (high is not None and key >= high):
                        continue
                    if last is None or (key >= last if reverse else key <= last):
                        page[key] = value
                found.update(sorted(page.items(), reverse=reverse))
                if last is not None:
                    low, high = (low, last) if reverse else (last + "\0", high)
        return found if limit is None else dict(list(found.items())[:limit])

    def _of_memory(self, start: str, end: str | None, reverse: bool, limit: int | None) -> dict[str, bytes]:
        if self._sorted is None:
            self._sorted = sorted(key for key, value in self._known.items() if value is not None)
        keys = [key for key in self._sorted if key >= start and (end is None or key < end)]
        if reverse:
            keys.reverse()
        return {key: self._known[key] for key in keys[:limit]}  # type: ignore[misc]

    async def _fetch(self, keys: tuple[str, ...]) -> dict[str, bytes | None]:
        """Read entries, into memory too; what was written meanwhile is what it was written as."""
        found: dict[str, bytes | None] = {}
        async with self._wait():
            clears = self._clears
            while keys and self._clears == clears:
                entries, more = await self._link.values(keys)
                stored = dict(entries)
                here = tuple(key for key in keys if key <= entries[-1][0]) if more and entries else keys
                for key in here:
                    if key not in self._known and self._clears == clears:
                        self._keep(key, stored.get(key))
                    found[key] = self._known.get(key)
                keys = keys[len(here) :]
        return found

    def _keep(self, key: str, value: bytes | None) -> None:
        self._known[key] = value
        self._size += len(key) + len(value or b"")
        self._sorted = None

    @contextlib.asynccontextmanager
    async def _wait(self) -> AsyncIterator[None]:
        """A wait for the storage: no unit ends meanwhile, and nothing else is let in."""
        self.waits += 1
        try:
            yield
        finally:
            self.waits -= 1
            if not self.waits:
                self._flush_soon()
                if self._on_open is not None:
                    self._on_open()
        self._check()

    async def has_room(self) -> None:
        """Let go of what is stored, where there is too much in memory. Before every read and write."""
        self._check()
        if self._size <= KEPT_BYTES_MAX or self._open:
            return
        async with self._wait():
            told = self._told
            await self._link.sync()
            self._durable = max(self._durable, told)
            if self._open or self._durable < self._told:
                return
            unit = self._unit
            self._known = {} if unit is None else dict(unit.puts)
            self._size = sum(len(key) + len(value or b"") for key, value in self._known.items())
            self._whole = unit is not None and unit.clear
            self._sorted = None

    # Writing.

    def put(self, key: str, value: bytes) -> None:
        """Set a key."""
        self._set(key, value)

    def remove(self, key: str) -> None:
        """Take a key away that is in memory. One that is not there is not written."""
        if self._known.get(key) is not None:
            self._set(key, None)

    def clear(self) -> None:
        """Take everything away."""
        self._check()
        unit = self._writing()
        if self._open:
            self._undo.append((_UNKNOWN, self._known, self._whole, self._size, unit.puts, unit.clear, unit.size))
        self._known, self._whole, self._size, self._sorted = {}, True, 0, None
        unit.puts, unit.clear, unit.size = {}, True, 0
        self._clears += 1

    @property
    def alarm_ms(self) -> int | None:
        """When the pending alarm is due."""
        self._check()
        return self._alarm_ms

    def set_alarm(self, alarm_ms: int | None) -> None:
        """Another alarm, or none."""
        self._check()
        unit = self._writing()
        if self._open:
            self._undo.append((None, self._alarm_ms, unit.alarm))
        self._alarm_ms = unit.alarm = alarm_ms
        self._taken_back = self._taken_back or alarm_ms is None

    def alarm_due(self, scheduled_ms: int) -> int:
        """The pending alarm has gone off, as the server says: there is none any more."""
        self._alarm_ms, self._taken_back, self._running = None, False, scheduled_ms
        return scheduled_ms

    def alarm_ended(self, *, again: bool) -> None:
        """It has run. One that is tried again is pending, unless another one is, or somebody has taken it back meanwhile."""
        if again and self._alarm_ms is None and not self._taken_back:
            self._alarm_ms = self._running

    def _set(self, key: str, value: bytes | None) -> None:
        self._check()
        unit = self._writing()
        size = len(key) + len(value or b"")
        if len(unit.puts) >= UNIT_KEYS_MAX or unit.size + size > UNIT_BYTES_MAX:
            raise UsageError(
                f"one unit of writes holds at most {UNIT_KEYS_MAX} keys and {UNIT_BYTES_MAX} bytes: "
                "await self.storage.sync() now and then, which ends a unit"
            )
        before = self._known.get(key, _UNKNOWN)
        if self._open:
            self._undo.append((key, before, unit.puts.get(key, _UNKNOWN), unit.size))
        if value is None or before is None or before is _UNKNOWN:
            self._sorted = None
        if before is _UNKNOWN or before is None:
            self._size += size
        else:
            self._size += len(value or b"") - len(before)
        self._known[key] = unit.puts[key] = value
        unit.size += size

    def _writing(self) -> Unit:
        """The unit that is being written; told when the task yields."""
        if self._unit is None:
            self._unit = Unit()
        if not self._open:
            self._flush_soon()
        return self._unit

    # Transactions.

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Callable[[], None]]:
        """What is written inside is one unit, or undone where it raises. Gives what undoes it without raising; they nest."""
        self._check()
        mark = len(self._undo)
        self._open += 1
        try:
            yield lambda: self._roll_back(mark)
        except BaseException:
            self._roll_back(mark)
            raise
        finally:
            self._open -= 1
            if not self._open:
                self._undo.clear()
                self._flush_soon()

    def _roll_back(self, mark: int) -> None:
        while len(self._undo) > mark:
            entry = self._undo.pop()
            unit = self._unit
            assert unit is not None
            self._sorted = None
            match entry:
                case (None, alarm_ms, told):
                    self._alarm_ms, unit.alarm = alarm_ms, told
                case (str() as key, known, told, size):
                    _restore(self._known, key, known)
                    _restore(unit.puts, key, told)
                    unit.size = size
                case (_, known, whole, size, puts, clear, unit_size):
                    self._known, self._whole, self._size = known, whole, size
                    unit.puts, unit.clear, unit.size = puts, clear, unit_size
                    self._clears += 1

    # Units.

    def _flush_soon(self) -> None:
        if self._unit is not None and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        if not self.waits:
            self.flush()

    def flush(self) -> None:
        """End the unit, but not in a transaction: it ends with that."""
        unit = self._unit
        if unit is None or self._open or self.closed:
            return
        self._unit = None
        if not unit.is_empty:
            self._told += 1
            unit.number = self._told
            self._link.store(unit)

    async def durable(self) -> None:
        """End the unit; returns when all units are durable."""
        self._check()
        self.flush()
        if self._durable < self._told:
            told = self._told
            await self._link.sync()
            self._durable = max(self._durable, told)

    def close(self) -> None:
        """Nothing is written any more, the unit that is not told neither."""
        self.closed = True
        self._unit = None

    def _check(self) -> None:
        if self.closed:
            raise Superseded("this activation of the actor is over; what it does changes nothing any more")


def _restore(into: dict[str, Any], key: str, value: Any) -> None:
    if value is _UNKNOWN:
        into.pop(key, None)
    else:
        into[key] = value
