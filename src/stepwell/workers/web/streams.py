"""Bodies: bytes that are there, or a stream of them that is read once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any


class Buffer(bytes):
    """Bytes with the methods of JavaScript's buffers, which handlers may call on what they read."""

    def to_bytes(self) -> bytes:
        """The bytes."""
        return bytes(self)

    def to_py(self) -> memoryview:
        """A view of the bytes."""
        return memoryview(self)

    def to_string(self) -> str:
        """The bytes as UTF-8."""
        return self.decode()


class ReadableStream:
    """A stream of bytes, read once: `async for chunk in stream`, or by a reader as JavaScript has it."""

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._source = aiter(source)
        self.locked = False

    def __aiter__(self) -> AsyncIterator[Buffer]:
        self._lock()
        return self._chunks()

    def getReader(self) -> Reader:
        """The one reader of the stream."""
        self._lock()
        return Reader(self._chunks())

    async def cancel(self, reason: Any = None) -> None:
        """Nobody reads it: its source may stop."""
        self._lock()
        await self._close()

    async def _chunks(self) -> AsyncIterator[Buffer]:
        try:
            async for chunk in self._source:
                yield Buffer(chunk.encode() if isinstance(chunk, str) else chunk)
        finally:
            await self._close()

    async def _close(self) -> None:
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def _lock(self) -> None:
        if self.locked:
            raise OSError("Body already used: a stream is read once")
        self.locked = True


class Reader:
    """What `getReader` gives."""

    def __init__(self, chunks: AsyncIterator[Buffer]) -> None:
        self._chunks = chunks

    async def read(self) -> Chunk:
        """The next chunk, or the end."""
        try:
            return Chunk(await anext(self._chunks), done=False)
        except StopAsyncIteration:
            return Chunk(None, done=True)

    def releaseLock(self) -> None:
        """Nobody else can read on: nothing to do."""


class Chunk:
    """A step of a reader: `value`, or `done`."""

    def __init__(self, value: Buffer | None, *, done: bool) -> None:
        self.value, self.done = value, done


class Body:
    """The body of a request or response. Whole bytes can be read by several; a stream by one, unless it is shared."""

    def __init__(self, content: bytes | AsyncIterable[Any] | None) -> None:
        self.used = False
        self._content: bytes | ReadableStream | _Shared | None
        if content is None or isinstance(content, bytes | ReadableStream):
            self._content = content
        else:
            self._content = ReadableStream(content)

    @property
    def is_empty(self) -> bool:
        """Whether there is no body."""
        return self._content is None

    @property
    def whole(self) -> bytes | None:
        """The bytes, where they are there already; taking them counts as no use."""
        return self._content if isinstance(self._content, bytes) else None

    async def read(self) -> bytes:
        """All bytes. Raises `OSError` the second time."""
        self._use()
        content = self._content
        if content is None or isinstance(content, bytes):
            return content or b""
        if isinstance(content, _Shared):
            return await content.read()
        return b"".join([chunk async for chunk in content])

    @property
    def stream(self) -> ReadableStream | None:
        """The body as a stream; reading it is the one use."""
        return None if self._content is None else ReadableStream(self._streamed())

    async def _streamed(self) -> AsyncIterator[bytes]:
        self._use()
        content = self._content
        if isinstance(content, ReadableStream):
            async for chunk in content:
                yield chunk
            return
        whole = await content.read() if isinstance(content, _Shared) else content
        if whole:
            yield whole

    def share(self) -> Body:
        """A second body of the same bytes; a stream is then read as a whole by whoever comes first."""
        self.refuse_used()
        if isinstance(self._content, ReadableStream):
            self._content = _Shared(self._content)
        made = Body(None)
        made._content = self._content
        return made

    async def discard(self) -> None:
        """Nobody will read it."""
        if isinstance(self._content, ReadableStream) and not self.used and not self._content.locked:
            self.used = True
            await self._content.cancel()

    def refuse_used(self) -> None:
        """Raise `OSError` where it has been read."""
        if self.used:
            raise OSError("Body already used")

    def _use(self) -> None:
        self.refuse_used()
        self.used = self._content is not None


class _Shared:
    """A stream that several read: each is given all of it."""

    def __init__(self, stream: ReadableStream) -> None:
        self._stream, self._whole = stream, b""
        self._read = False
        self._lock = asyncio.Lock()

    async def read(self) -> bytes:
        async with self._lock:
            if not self._read:
                self._whole = b"".join([chunk async for chunk in self._stream])
                self._read = True
        return self._whole
