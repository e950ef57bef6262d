"""The `ctx` of an object, and its `storage`: keys and values, an alarm, transactions.

Storage methods are done when they are called, awaited or not, as far as they need not read; what they write is one unit with all that is
written before the next wait for something else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.actors import ALARM_MS_MAX, ENTRY_BYTES_MAX
from stepwell.sdk.actors.activation import Activation
from stepwell.sdk.actors.file import FileMemory
from stepwell.sdk.actors.storage import bounds, checked_key
from stepwell.workers.bindings.calling import at_once, number_of, options_of
from stepwell.workers.errors import BindingError
from stepwell.workers.objects.ids import ObjectId
from stepwell.workers.objects.sql import ObjectSql
from stepwell.workers.rpc import Record
from stepwell.workers.values import packed, unpacked

NO_ALARM = "Your Durable Object class must have an alarm() handler in order to call setAlarm()"
NO_SQL = (
    "SQL is not enabled for this Durable Object class. To enable it, declare the class under new_sqlite_classes of a migration in the "
    "wrangler file, not under new_classes."
)
NO_KV = (
    "The storage.kv (synchronous KV) API is only available for SQLite-backed Durable Objects, whose class is declared under "
    "new_sqlite_classes of a migration."
)
_MISSING: Any = object()


class ObjectState:
    """The `ctx` of an object."""

    def __init__(self, activation: Activation, id: ObjectId, *, sql: bool, has_alarm: bool, clears_alarm: bool) -> None:
        self._activation, self.id = activation, id
        self.storage = ObjectStorage(activation, sql=sql, has_alarm=has_alarm, clears_alarm=clears_alarm)
        self.props = Record()

    def waitUntil(self, other: Awaitable[Any]) -> None:
        """Have work done that no call waits for; the object stays until it is."""
        if not inspect.isawaitable(other):
            raise TypeError(f"waitUntil({other!r}): give what can be awaited, such as the coroutine of a call: waitUntil(work())")
        self._activation.wait_until(other)

    def blockConcurrencyWhile(self, fn: Callable[[], Any]) -> Awaitable[Any]:
        """Let nothing else in until `fn` has ended; what it raises resets the object. From the constructor nobody need await it."""

        async def work() -> Any:
            result = fn()
            return await result if inspect.isawaitable(result) else result

        return self._activation.block_while(work())

    def abort(self, reason: Any = None) -> NoReturn:
        """Reset the object at once: what was written and not synced is lost, as all that is in memory."""
        self._activation.abort(reason)


class ObjectStorage:
    """What one object has stored."""

    def __init__(self, activation: Activation, *, sql: bool, has_alarm: bool, clears_alarm: bool) -> None:
        self._activation, self._memory = activation, activation.memory
        self._has_sql, self._has_alarm, self._clears_alarm = sql, has_alarm, clears_alarm

    @property
    def sql(self) -> ObjectSql:
        """SQL on the object's own database."""
        if not isinstance(self._memory, FileMemory):
            raise BindingError(NO_SQL)
        return ObjectSql(self._memory)

    @property
    def kv(self) -> SyncKv:
        """The same keys and values without await."""
        if not isinstance(self._memory, FileMemory):
            raise BindingError(NO_KV)
        return SyncKv(self._memory)

    @at_once
    async def get(self, key: Any, options: Any = None, **named: Any) -> Any:
        """The value of a key, `None` where there is none; of a list of keys, those that have one, sorted."""
        if isinstance(key, list):
            found = await self._memory.values([_key(one) for one in key])
            return {name: decoded(raw) for name, raw in found.items()}
        raw = await self._memory.value(_key(key))
        return None if raw is None else decoded(raw)

    @at_once
    async def put(self, key: Any, value: Any = _MISSING, options: Any = None, **named: Any) -> None:
        """Set a key, or those of a dict, all or none."""
        if isinstance(key, dict):
            entries = {_key(name): encoded(name, one) for name, one in key.items()}
        elif value is _MISSING:
            raise TypeError("put() called with undefined value.")
        else:
            entries = {_key(key): encoded(key, value)}
        await self._memory.has_room()
        for name, raw in entries.items():
            self._memory.put(name, raw)

    @at_once
    async def delete(self, key: Any, options: Any = None, **named: Any) -> Any:
        """Take a key away: whether it was there. Of a list of keys: how many were."""
        if isinstance(key, list):
            found = await self._memory.values([_key(one) for one in key])
            for name in found:
                self._memory.remove(name)
            return len(found)
        name = _key(key)
        if await self._memory.value(name) is None:
            return False
        self._memory.remove(name)
        return True

    @at_once
    async def list(self, options: Any = None, **named: Any) -> dict[str, Any]:
        """Entries in the order of their keys: `start`, `startAfter`, `end`, `prefix`, `reverse`, `limit`."""
        found = await self._memory.range(*_range(options_of(options, named)))
        return {name: decoded(raw) for name, raw in found.items()}

    @at_once
    async def deleteAll(self, options: Any = None, **named: Any) -> None:
        """Take everything away; the alarm as well, as the compatibility date says."""
        self._memory.clear()
        if self._clears_alarm:
            self._memory.set_alarm(None)

    @at_once
    async def sync(self) -> None:
        """Returns when all that was written so far is durable."""
        await self._memory.durable()

    async def transaction(self, fn: Callable[[Transaction], Any]) -> Any:
        """Write in one unit what `fn` writes, whatever it waits for; nothing else enters meanwhile. What it raises undoes it all."""
        with self._activation.held(), self._memory.transaction() as roll_back:
            handle = Transaction(self, roll_back)
            result = fn(handle)
            return await result if inspect.isawaitable(result) else result

    def transactionSync(self, fn: Callable[[], Any]) -> Any:
        """The same of a function without await."""
        if not isinstance(self._memory, FileMemory):
            raise BindingError(NO_KV)
        with self._memory.transaction():
            return fn()

    # The alarm.

    @at_once
    async def getAlarm(self, options: Any = None, **named: Any) -> int | None:
        """When the pending alarm is due, in milliseconds; `None` while it runs, unless another was set."""
        return self._memory.alarm_ms

    @at_once
    async def setAlarm(self, scheduledTime: Any, options: Any = None, **named: Any) -> None:
        """Have the alarm go off at a time: milliseconds, or a `datetime`. It takes the place of one that is pending."""
        if not self._has_alarm:
            raise TypeError(NO_ALARM)
        self._memory.set_alarm(max(_alarm_ms(scheduledTime), self._activation.now_ms()))

    @at_once
    async def deleteAlarm(self, options: Any = None, **named: Any) -> None:
        """Take the pending alarm back; while it runs, its retries."""
        self._memory.set_alarm(None)


class Transaction:
    """What a transaction is given: the storage, until `rollback()`."""

    def __init__(self, storage: ObjectStorage, roll_back: Callable[[], None]) -> None:
        self._storage, self._roll_back, self._is_over = storage, roll_back, False

    def rollback(self) -> None:
        """Undo what was written since it began; the function goes on, and gives its result."""
        self._is_over = True
        self._roll_back()

    def __getattr__(self, name: str) -> Any:
        if name not in ("get", "put", "delete", "list", "deleteAll", "getAlarm", "setAlarm", "deleteAlarm"):
            raise AttributeError(f"a transaction has no {name!r}")
        if self._is_over:
            raise BindingError(f"Cannot {name}() on rolled back transaction")
        return getattr(self._storage, name)


class SyncKv:
    """Keys and values of an object with SQL, without await."""

    def __init__(self, memory: FileMemory) -> None:
        self._memory = memory

    def get(self, key: Any) -> Any:
        """The value of a key, or `None`."""
        raw = _now(self._memory.value(_key(key)))
        return None if raw is None else decoded(raw)

    def put(self, key: Any, value: Any = _MISSING) -> None:
        """Set a key."""
        if value is _MISSING:
            raise TypeError("put() called with undefined value.")
        self._memory.put(_key(key), encoded(key, value))

    def delete(self, key: Any) -> bool:
        """Take a key away: whether it was there."""
        name = _key(key)
        is_here = _now(self._memory.value(name)) is not None
        if is_here:
            self._memory.remove(name)
        return is_here

    def list(self, options: Any = None, **named: Any) -> Iterator[list[Any]]:
        """Pairs of key and value, in the order of the keys."""
        found = _now(self._memory.range(*_range(options_of(options, named))))
        return iter([[name, decoded(raw)] for name, raw in found.items()])


def _now(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of what has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("a file was waited for")


def _key(key: Any) -> str:
    try:
        return checked_key(str(key))
    except UsageError as error:
        raise TypeError(str(error)) from None


def encoded(key: Any, value: Any) -> bytes:
    """A value as it is stored: a copy. Raises `TypeError` for one that cannot be copied."""
    raw = msgspec.json.encode(packed(value))
    if len(raw) + len(str(key).encode("utf-8", "replace")) > ENTRY_BYTES_MAX:
        raise BindingError(f"the value of {str(key)[:40]!r} has {len(raw)} bytes; a key and its value have {ENTRY_BYTES_MAX} at most")
    return raw


def decoded(raw: bytes) -> Any:
    """A value again, a copy for whoever reads it."""
    return unpacked(msgspec.json.decode(raw))


def _range(options: dict[str, Any]) -> tuple[str, str | None, bool, int | None]:
    limit = options.get("limit")
    if limit is not None and not number_of(limit) > 0:
        raise TypeError("List limit must be positive.")
    start, after = options.get("start"), options.get("startAfter")
    if start is not None and after is not None:
        raise TypeError("list() cannot be called with both start and startAfter values.")
    whole = None if limit is None else int(number_of(limit))
    low, high = bounds(start, after, options.get("end"), options.get("prefix"), whole)
    return (low, low, False, 1) if high is not None and low >= high else (low, high, bool(options.get("reverse")), whole)


def _alarm_ms(when: Any) -> int:
    if isinstance(when, datetime):
        number = when.timestamp() * 1000
    elif isinstance(when, bool) or not isinstance(when, int | float):
        raise TypeError("Failed to execute 'setAlarm' on 'DurableObjectStorage': parameter 1 is not of type 'date'.")
    else:
        number = float(when)
    if not math.isfinite(number):
        raise TypeError("The value cannot be converted because it is not a valid Date.")
    if number <= 0:
        raise TypeError("setAlarm() cannot be called with an alarm time <= 0")
    if number >= ALARM_MS_MAX:
        raise TypeError("This API doesn't support dates after 2189.")
    return int(number)
