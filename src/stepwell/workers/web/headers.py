"""Headers of requests and responses: kept as pairs, shown as the mapping that Python Workers get."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE_BREAKS = re.compile(r"[\r\n\0]")
_COOKIE = "set-cookie"
_NEXT_COOKIE = re.compile(r",\s*(?=[!#$%&'*+.^_`|~0-9A-Za-z-]+=)")


class HeaderMapping(http.client.HTTPMessage, Mapping):  # type: ignore[type-arg,misc]
    """Headers as a handler reads them: names in lower case and in order, found in any case. It is a copy: changing it changes nothing."""


class HeaderList:
    """Headers by name, each with its values."""

    def __init__(self, given: Any = None) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in _pairs(given):
            self.append(name, value)

    def append(self, name: object, value: object) -> None:
        """Add a value. Raises `TypeError` for what a header cannot hold."""
        key, text = str(name).lower(), str(value).strip(" \t\r\n")
        if not _NAME.fullmatch(key):
            raise TypeError(f"{name!r} is no name of a header")
        if _LINE_BREAKS.search(text):
            raise TypeError(f"the header {name} is {text!r}: a value holds no line breaks and no zeros")
        self._values.setdefault(key, []).append(text)

    def set(self, name: str, value: str) -> None:
        """Put one value in place of those that are there."""
        self.delete(name)
        self.append(name, value)

    def delete(self, name: str) -> None:
        """Remove a header."""
        self._values.pop(name.lower(), None)

    def get(self, name: str) -> str | None:
        """A header's value; several are joined by commas."""
        values = self._values.get(name.lower())
        return None if values is None else ", ".join(values)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Names in order with their values, joined by commas but for cookies, which cannot be."""
        for name in sorted(self._values):
            if name == _COOKIE:
                yield from ((name, value) for value in self._values[name])
            else:
                yield name, ", ".join(self._values[name])

    def copy(self) -> HeaderList:
        """The same headers, for somebody else to change."""
        made = HeaderList()
        made._values = {name: list(values) for name, values in self._values.items()}
        return made

    @property
    def mapping(self) -> HeaderMapping:
        """What a handler is given."""
        made = HeaderMapping()
        for name, value in self:
            made[name] = value
        return made


def received(headers: Mapping[str, str]) -> HeaderList:
    """The headers of an answer whose repeated ones were joined by commas: cookies are taken apart again."""
    made = HeaderList()
    for name, value in headers.items():
        for part in _NEXT_COOKIE.split(value) if name == _COOKIE else (value,):
            made.append(name, part)
    return made


def _pairs(given: Any) -> Iterable[tuple[object, object]]:
    if given is None:
        return ()
    if isinstance(given, HeaderList):
        return given
    items = getattr(given, "items", None)
    if callable(items):
        return items()  # type: ignore[no-any-return]
    if not isinstance(given, list | tuple) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
        raise TypeError(f"headers are {type(given).__name__}: give a dict, or a list of pairs of name and value")
    return given
