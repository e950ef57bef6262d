"""A table of a wrangler file. It gives values of the kind that is asked for, refuses others, and knows which nobody has read."""

from __future__ import annotations

from typing import Any, NoReturn

from stepwell.errors import UsageError

_MISSING: Any = object()


class Table:
    """A table, at a path of its file."""

    def __init__(self, file: str, path: str, value: dict[str, Any]) -> None:
        self.file, self.path, self.value = file, path, value
        self._read: set[str] = set()
        self._inner: list[Table] = []

    def at(self, key: str) -> str:
        """A key as errors name it."""
        return f"{self.file}: {self._path(key)}"

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise the error of a key with its value."""
        raise UsageError(f"{self.at(key)} is {self.value.get(key)!r}; {why}")

    def take(self, key: str) -> Any:
        """A value of any kind; `None` where there is none."""
        self._read.add(key)
        return self.value.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        """A text that is not empty; it has to be there where it has no default."""
        value = self.text_or_none(key)
        if value is not None:
            return value
        if default is None:
            raise UsageError(f"{self.at(key)} is missing; it must be a text")
        return default

    def text_or_none(self, key: str) -> str | None:
        """A text that is not empty, where it is there."""
        value = self.take(key)
        if value is not None and (not isinstance(value, str) or not value):
            self.refuse(key, "it must be a text that is not empty")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.take(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            self.refuse(key, "it must be a list of texts")
        return tuple(value)

    def whole(self, key: str, low: int, high: int, default: int) -> int:
        """A whole number within bounds."""
        value = self.whole_or_none(key, low, high)
        return default if value is None else value

    def whole_or_none(self, key: str, low: int, high: int) -> int | None:
        """A whole number within bounds, where it is there."""
        value = self.take(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
            self.refuse(key, f"it must be a whole number from {low} to {high}")
        return value

    def table(self, key: str) -> Table | None:
        """A table inside, where it is there."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(key, "it must be a table")
        return self._add(key, value)

    def tables(self, key: str) -> list[Table]:
        """A list of tables."""
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            self.refuse(key, "it must be a list of tables")
        return [self._add(f"{key}[{i}]", one) for i, one in enumerate(value)]

    def unread(self) -> list[str]:
        """The keys, inner ones by their path from here, that nobody has asked for."""
        here = [key for key in self.value if key not in self._read]
        return here + [f"{inner.path.removeprefix(self._path(''))}.{key}" for inner in self._inner for key in inner.unread()]

    def _add(self, key: str, value: dict[str, Any]) -> Table:
        inner = Table(self.file, self._path(key), value)
        self._inner.append(inner)
        return inner

    def _path(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key
