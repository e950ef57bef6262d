"""Forms: names with values, each a text or a file."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from stepwell.workers.web.blob import Blob, File

FormDataValue = str | Blob
"""What a field of a form holds."""


class FormData(MutableMapping[str, Any]):
    """A form. A name may be there several times: `form[name]` is its first value, or `None`; `get_all` gives all."""

    def __init__(self, form_data: FormData | dict[str, FormDataValue] | None = None) -> None:
        self._fields: list[tuple[str, FormDataValue]] = []
        if isinstance(form_data, FormData):
            self._fields = list(form_data._fields)
        elif isinstance(form_data, dict):
            for name, value in form_data.items():
                self.append(name, value)
        elif form_data is not None:
            raise TypeError(f"a form is made of a dict or another form, not of {type(form_data).__name__}")

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: FormDataValue) -> None:
        field = (key, _value(value))
        places = [i for i, (name, _) in enumerate(self._fields) if name == key]
        if not places:
            self._fields.append(field)
            return
        self._fields[places[0]] = field
        for place in reversed(places[1:]):
            del self._fields[place]

    def __delitem__(self, key: str) -> None:
        self._fields = [field for field in self._fields if field[0] != key]

    def __contains__(self, key: object) -> bool:
        return any(name == key for name, _ in self._fields)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._fields])

    def __len__(self) -> int:
        return len(self._fields)

    def get(self, key: str, default: Any = None) -> Any:
        """The first value of a name."""
        return next((value for name, value in self._fields if name == key), default)

    def append(self, key: str, value: FormDataValue, filename: str | None = None) -> None:
        """Add a value, beside those that the name has."""
        self._fields.append((str(key), _value(value, filename)))

    def delete(self, key: str) -> None:
        """Remove all values of a name."""
        del self[key]

    def get_all(self, key: str) -> list[Any]:
        """All values of a name, in order."""
        return [value for name, value in self._fields if name == key]

    def keys(self) -> Any:
        """The names, as often as they have values."""
        return [name for name, _ in self._fields]

    def values(self) -> Any:
        """The values."""
        return [value for _, value in self._fields]

    def items(self) -> Any:
        """Names and values."""
        return list(self._fields)

    def __repr__(self) -> str:
        return f"FormData({self._fields!r})"


def _value(value: Any, filename: str | None = None) -> FormDataValue:
    if isinstance(value, Blob):
        if isinstance(value, File) and filename is None:
            return value
        return File([value], filename or "blob", value.content_type)
    if isinstance(value, list | tuple | dict) or value is None:
        raise TypeError(f"a field of a form holds one text or one file, not {type(value).__name__}")
    return str(value)
