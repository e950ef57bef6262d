"""What handlers give as a body, turned into bytes or a stream with its type; and what they read from one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable
from typing import Any

from stepwell.workers.web.blob import Blob, data_of, decoded
from stepwell.workers.web.form_data import FormData
from stepwell.workers.web.headers import HeaderList
from stepwell.workers.web.multipart import read_form, write_form
from stepwell.workers.web.streams import Body, Buffer

NULL_BODY = frozenset((101, 103, 204, 205, 304))
"""Statuses of answers that have no body."""


def body_of(content: Any, what: str) -> tuple[Body, str | None]:
    """A body and the content type that goes with it, where one does. Raises `TypeError` for what is none."""
    if content is None:
        return Body(None), None
    if isinstance(content, str):
        return Body(content.encode("utf-8", "replace")), "text/plain;charset=UTF-8"
    if isinstance(content, bytes | bytearray | memoryview):
        return Body(bytes(content)), None
    if isinstance(content, FormData):
        return _typed(*write_form(content))
    if isinstance(content, Blob):
        return Body(data_of(content)), content.content_type or None
    if isinstance(content, AsyncIterable):
        return Body(content), None
    raise TypeError(f"Unsupported type in {what}: {type(content).__name__}")


def _typed(data: bytes, content_type: str) -> tuple[Body, str]:
    return Body(data), content_type


class Readable:
    """What requests and responses have in common: a body that is read once, and headers that say what it is."""

    _body: Body
    _headers: HeaderList

    @property
    def headers(self) -> Any:
        """The headers, as a copy: names in lower case, found in any case."""
        return self._headers.mapping

    @property
    def body(self) -> Any:
        """The body as a stream; `None` where there is none."""
        return self._body.stream

    @property
    def body_used(self) -> bool:
        """Whether it has been read."""
        return self._body.used

    async def text(self) -> str:
        """The body as text. Raises `OSError` when it is read a second time."""
        return decoded(await self._body.read())

    async def bytes(self) -> bytes:
        """The body's bytes."""
        return await self._body.read()

    async def buffer(self) -> Buffer:
        """The body's bytes, with the methods of JavaScript's buffers."""
        return Buffer(await self._body.read())

    async def blob(self) -> Blob:
        """The body as a blob of its type."""
        return Blob([await self._body.read()], self._headers.get("content-type"))

    async def form_data(self) -> FormData:
        """The body as a form. Raises `TypeError` for a body that is none."""
        return read_form(await self._body.read(), self._headers.get("content-type"))

    async def _json(self, **options: Any) -> Any:
        return json.loads(await self.text(), **options)


def content_of(readable: Readable) -> Body:
    """The body itself, for those who send it on."""
    return readable._body


def headers_of(readable: Readable) -> HeaderList:
    """The headers themselves, for those who send them on."""
    return readable._headers
