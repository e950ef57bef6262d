"""An actor's storage, as users write it: keys are texts, values what the SDK's serializer takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, overload

from stepwell.errors import UsageError
from stepwell.protocol.actors import ALARM_MS_MAX, ENTRY_BYTES_MAX, KEY_BYTES_MAX, KEYS_AT_ONCE
from stepwell.sdk.actors.file import FileMemory
from stepwell.sdk.actors.memory import Memory
from stepwell.sdk.durations import Duration, duration_ms, time_ms
from stepwell.sdk.serializer import ANY, codec_of

T = TypeVar("T")
D = TypeVar("D")


class Storage:
    """What one actor has stored, and nobody else sees. Reads come from memory; what is written is durable before anything leaves."""

    def __init__(self, memory: Memory | FileMemory, now_ms: Callable[[], int]) -> None:
        self._memory, self._now_ms = memory, now_ms

    @overload
    async def get(self, key: str, default: None = None, *, type: None = None) -> Any: ...
    @overload
    async def get(self, key: str, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    async def get(self, key: str, default: D, *, type: None = None) -> D: ...
    @overload
    async def get(self, key: str, default: D, *, type: type[T]) -> T | D: ...
    @overload
    async def get(self, key: list[str], *, type: type[T]) -> dict[str, T]: ...
    @overload
    async def get(self, key: list[str]) -> dict[str, Any]: ...

    async def get(self, key: Any, default: Any = None, *, type: Any = None) -> Any:
        """The value of a key, or `default`; of a list of keys, those that have one. `type`: what it is to become again."""
        codec = ANY if type is None else codec_of(type)
        if isinstance(key, str):
            raw = await self._memory.value(checked_key(key))
            return default if raw is None else codec.decode(raw, marked=True)
        found = await self._memory.values(checked_keys(key, "get"))
        return {name: codec.decode(raw, marked=True) for name, raw in found.items()}

    @overload
    async def put(self, key: str, value: object, /) -> None: ...
    @overload
    async def put(self, entries: Mapping[str, object], /) -> None: ...

    async def put(self, key: Any, value: Any = None, /) -> None:
        """Set a key, or several at once: `put({"a": 1, "b": 2})`."""
        entries = {key: value} if isinstance(key, str) else key
        if not isinstance(entries, Mapping):
            raise UsageError(f'put({key!r}): write put("key", value), or put({{"key": value, …}})')
        checked_keys(entries, "put")
        encoded = {name: encoded_value(name, one) for name, one in entries.items()}
        await self._memory.has_room()
        for name, raw in encoded.items():
            self._memory.put(name, raw)

    @overload
    async def delete(self, key: str, /) -> bool: ...
    @overload
    async def delete(self, keys: list[str], /) -> int: ...

    async def delete(self, key: Any, /) -> Any:
        """Take a key away, or several; says whether it was there, or how many were."""
        if isinstance(key, str):
            here = await self._memory.value(checked_key(key)) is not None
            self._memory.remove(key)
            return here
        found = await self._memory.values(checked_keys(key, "delete"))
        for name in found:
            self._memory.remove(name)
        return len(found)

    @overload
    async def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        type: type[T],
    ) -> dict[str, T]: ...
    @overload
    async def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> dict[str, Any]: ...

    async def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        type: Any = None,
    ) -> Any:
        """Entries in the order of their keys' bytes, from `start` (or behind `start_after`) up to and without `end`."""
        codec = ANY if type is None else codec_of(type)
        low, high = bounds(start, start_after, end, prefix, limit)
        if high is not None and low >= high:
            return {}
        found = await self._memory.range(low, high, reverse, limit)
        return {name: codec.decode(raw, marked=True) for name, raw in found.items()}

    async def delete_all(self) -> None:
        """Take everything away, the alarm too."""
        self._memory.clear()
        self._memory.set_alarm(None)

    async def transaction(self, fn: Callable[[Transaction], Awaitable[T]]) -> T:
        """Write in one unit what `fn` writes, whatever it waits for; nothing of it where it raises, or calls `tx.rollback()`."""
        with self._memory.transaction() as roll_back:
            tx = Transaction(self, roll_back)
            try:
                return await fn(tx)
            finally:
                tx.is_over = True

    async def sync(self) -> None:
        """Returns when all that was written so far is durable."""
        await self._memory.durable()

    # The alarm.

    async def set_alarm(self, when: Duration | datetime) -> None:
        """Have the alarm go off: after a duration, or at a time; in place of the one that is pending."""
        now_ms = self._now_ms()
        due_ms = now_ms + duration_ms(when, "set_alarm") if isinstance(when, str | timedelta) else time_ms(when, "set_alarm")
        if not 0 < due_ms < ALARM_MS_MAX:
            raise UsageError(f"set_alarm({when!r}): an alarm lies between 1970 and 2189")
        self._memory.set_alarm(max(due_ms, now_ms))

    async def get_alarm(self) -> datetime | None:
        """When the pending alarm is due. While the alarm runs there is none, unless another was set."""
        due_ms = self._memory.alarm_ms
        return None if due_ms is None else datetime.fromtimestamp(due_ms / 1000, UTC)

    async def delete_alarm(self) -> None:
        """Take the pending alarm back; in the alarm's own run, the retries that would follow its failure."""
        self._memory.set_alarm(None)


class Transaction:
    """A transaction under way. What is written to the storage while it lasts takes part in it."""

    def __init__(self, storage: Storage, roll_back: Callable[[], None]) -> None:
        self.storage, self._roll_back = storage, roll_back
        self.is_over = False

    def rollback(self) -> None:
        """Undo what was written since it began. The function goes on, and gives its result."""
        if self.is_over:
            raise UsageError("rollback() of a transaction that has ended")
        self._roll_back()


def checked_key(key: object) -> str:
    """A key that can be stored. Raises `UsageError`."""
    if not isinstance(key, str):
        raise UsageError(f"the key {key!r} is no text")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise UsageError(f"the key {key!r} is no text that UTF-8 can write") from None
    if "\0" in key:
        raise UsageError(f"the key {key!r} has a NUL in it, which SQLite's JSON cuts off: leave it out")
    if size > KEY_BYTES_MAX:
        raise UsageError(f"the key {key[:40]!r}… has {size} bytes; at most {KEY_BYTES_MAX} are taken")
    return key


def checked_keys(keys: Iterable[object], what: str) -> list[str]:
    """Several keys. Raises `UsageError`."""
    told = [checked_key(key) for key in keys]
    if len(told) > KEYS_AT_ONCE:
        raise UsageError(f"{what} of {len(told)} keys; at most {KEYS_AT_ONCE} are taken at once")
    return told


def encoded_value(key: str, value: object) -> bytes:
    """A value's bytes. Raises `UsageError` for one that is too large, or cannot be written."""
    raw = ANY.encode(value, mark=True)
    if len(raw) + len(key.encode()) > ENTRY_BYTES_MAX:
        raise UsageError(f"the value of {key[:40]!r} has {len(raw)} bytes; a key and its value have {ENTRY_BYTES_MAX} at most")
    return raw


def bounds(start: str | None, start_after: str | None, end: str | None, prefix: str | None, limit: int | None) -> tuple[str, str | None]:
    """The first key of a list, and the first behind it. Raises `UsageError` for what does not go together."""
    if limit is not None and limit < 1:
        raise UsageError(f"list(limit={limit}): a limit is positive")
    if start is not None and start_after is not None:
        raise UsageError(f"list(start={start!r}, start_after={start_after!r}): give one of them")
    low = start or ""
    if start_after is not None:
        low = start_after + "\0"
    if prefix:
        low = max(low, prefix)
        behind = after_prefix(prefix)
        if behind is not None:
            end = behind if end is None else min(end, behind)
    return low, end


def after_prefix(prefix: str) -> str | None:
    """The first text behind all that begin with a prefix; `None`: there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            following = last + 1
            return prefix[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)
        prefix = prefix[:-1]
    return None
