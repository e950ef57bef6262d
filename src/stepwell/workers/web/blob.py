"""Blobs and files: immutable bytes with a type, and a name."""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

BlobValue = Any
"""What a blob is made of: a text, bytes, whatever has a buffer, a blob."""


class BlobEnding(StrEnum):
    """What becomes of line endings in texts."""

    TRANSPARENT = "transparent"
    NATIVE = "native"


class Blob:
    """Bytes with a type: `Blob("text")`, `Blob([b"parts", other], content_type="text/plain")`."""

    def __init__(
        self, blob_parts: Iterable[BlobValue] | BlobValue, content_type: str | None = None, endings: BlobEnding | str | None = None
    ) -> None:
        ending = BlobEnding(endings) if endings else BlobEnding.TRANSPARENT
        if _is_single(blob_parts):
            if not content_type and isinstance(blob_parts, Blob):
                content_type = blob_parts.content_type
            blob_parts = [blob_parts]
        self._data = b"".join(_bytes(part, ending) for part in blob_parts)
        self._type = (content_type or "").lower()

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self._data)

    @property
    def content_type(self) -> str:
        """Its media type; empty where nobody said."""
        return self._type

    async def text(self) -> str:
        """The bytes as UTF-8."""
        return decoded(self._data)

    async def bytes(self) -> bytes:
        """The bytes."""
        return self._data

    def slice(self, start: int | None = None, end: int | None = None, content_type: str | None = None) -> Blob:
        """A part of it; negative places count from the end."""
        return Blob([self._data[slice(start, end)]], content_type)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, content_type={self._type!r})"


class File(Blob):
    """A blob with a name and a time, in milliseconds since the epoch."""

    def __init__(
        self,
        blob_parts: Iterable[BlobValue] | BlobValue,
        filename: str,
        content_type: str | None = None,
        endings: BlobEnding | str | None = None,
        last_modified: int | None = None,
    ) -> None:
        if last_modified is None and isinstance(blob_parts, File):
            last_modified = blob_parts.last_modified
        super().__init__(blob_parts, content_type, endings)
        self._name = filename
        self._last_modified = time.time_ns() // 1_000_000 if last_modified is None else last_modified

    @property
    def name(self) -> str:
        """The file's name."""
        return self._name

    @property
    def last_modified(self) -> int:
        """When it was changed last."""
        return self._last_modified


def data_of(blob: Blob) -> bytes:
    """A blob's bytes, for code that cannot wait."""
    return blob._data


def decoded(data: bytes) -> str:
    """Text as browsers read it: UTF-8, a byte order mark left out, what is no UTF-8 replaced."""
    return data.decode("utf-8-sig", "replace")


def _is_single(parts: Any) -> bool:
    if isinstance(parts, str | bytes | bytearray | memoryview | Blob):
        return True
    return not hasattr(parts, "__iter__")


def _bytes(part: Any, ending: BlobEnding) -> bytes:
    if isinstance(part, str):
        return (part.replace("\r\n", "\n") if ending is BlobEnding.NATIVE else part).encode("utf-8", "replace")
    if isinstance(part, Blob):
        return part._data
    try:
        return bytes(memoryview(part))
    except TypeError:
        raise TypeError(f"a blob is made of texts, bytes and blobs, not of {type(part)}") from None
