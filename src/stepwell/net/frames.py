"""Frames over a stream socket: four bytes of length, most significant first, then as many bytes. What they hold is not known here.

Frames sent within one turn of the event loop leave in one write, and those that arrive together are taken out of one read: at
thousands of small frames a second, system calls are what costs. A side that sends faster than the other reads is told by `drain`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from stepwell.errors import ProtocolError

HEAD_BYTES = 4
FRAME_BYTES_MAX = 64 * 1024 * 1024
FLUSH_BYTES = 256 * 1024
"""What waits for the turn's end at most."""
READ_BYTES = 256 * 1024


class FrameConnection(asyncio.Protocol):
    """One end of a framed connection.

    `on_frame` is told each frame, in order, as soon as it is whole. `on_closed` is told once: `None` when the other side closed the
    connection between two frames or this side did, else why it ended. What `on_frame` raises ends the connection with that error.
    """

    def __init__(
        self,
        on_frame: Callable[[bytes], None],
        on_closed: Callable[[Exception | None], None] | None = None,
        *,
        bytes_max: int = FRAME_BYTES_MAX,
    ) -> None:
        self._on_frame, self._on_closed, self._bytes_max = on_frame, on_closed, bytes_max
        self._frames = FrameReader(bytes_max)
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flushes = False
        self._error: Exception | None = None
        self._closing = False
        self._may_write: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a frame may be sent."""
        return self._transport is not None and not self._closing and not self._transport.is_closing()

    def send(self, frame: bytes) -> None:
        """Send a frame with the others of this turn. Raises `ConnectionError` on a closed connection, `ProtocolError` if too long."""
        if not self.is_open or self._loop is None:
            raise ConnectionError("the connection is closed")
        self._out.append(framed(frame, self._bytes_max))
        self._out_bytes += HEAD_BYTES + len(frame)
        if self._out_bytes >= FLUSH_BYTES:
            self._flush()
        elif not self._flushes:
            self._flushes = True
            self._loop.call_soon(self._end_of_turn)

    async def drain(self) -> None:
        """Wait until the other side has read enough. Raises `ConnectionError` when that will not be."""
        if not self.is_open:
            raise ConnectionError("the connection is closed")
        if self._may_write is not None:
            await asyncio.shield(self._may_write)

    def close(self) -> None:
        """Send what is to be sent, and close. Frames that arrive meanwhile are not told any more."""
        if self._transport is not None and not self._closing:
            self._flush()
            self._closing = True
            self._transport.close()

    def abort(self, error: Exception | None = None) -> None:
        """Close at once, with what is to be sent unsent."""
        if self._transport is not None and self._closed is not None and not self._closed.done():
            self._error = self._error or error
            self._closing = True
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Returns when the connection is gone and `on_closed` was told."""
        if self._closed is not None:
            await asyncio.shield(self._closed)

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport  # type: ignore[assignment]
        self._closed = self._loop.create_future()

    def data_received(self, data: bytes) -> None:
        """Tell the frames that are whole."""
        try:
            for frame in self._frames.feed(data):
                if self._closing:
                    return
                self._on_frame(frame)
        except Exception as error:
            self.abort(error)

    def pause_writing(self) -> None:
        """The other side reads too slowly."""
        assert self._loop is not None
        self._may_write = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._may_write is not None:
            self._may_write.set_result(None)
            self._may_write = None

    def connection_lost(self, error: Exception | None) -> None:
        """Tell that it is over, and why."""
        assert self._closed is not None
        was_closed_here, self._closing = self._closing, True
        if self._error is None and not was_closed_here:
            cut = self._frames.missing
            self._error = error or (ConnectionError(f"the connection ended in a frame, {cut} bytes before its end") if cut else None)
        if self._may_write is not None:
            self._may_write.set_exception(self._error or ConnectionError("the connection is closed"))
            self._may_write.exception()  # seen, even where nobody drains
            self._may_write = None
        self._out.clear()
        self._closed.set_result(None)
        if self._on_closed is not None:
            self._on_closed(self._error)

    def _end_of_turn(self) -> None:
        self._flushes = False
        if not self._closing:
            self._flush()

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()
            self._out_bytes = 0


class FrameReader:
    """Takes frames out of bytes, however these are cut."""

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._rest = bytearray()
        self._wanted = HEAD_BYTES

    @property
    def missing(self) -> int:
        """How many bytes at least the frame wants that has begun; 0 between two frames."""
        return self._wanted - len(self._rest) if self._rest else 0

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole now. Raises `ProtocolError` for one that is too long."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []  # of a long frame, most of it to come: not looked at again until it is whole
            data = bytes(self._rest)
            self._rest.clear()
        frames: list[bytes] = []
        start, end = 0, len(data)
        self._wanted = HEAD_BYTES
        while end - start >= HEAD_BYTES:
            size = int.from_bytes(data[start : start + HEAD_BYTES])
            if size > self._bytes_max:
                raise ProtocolError(f"a frame of {size} bytes was announced; at most {self._bytes_max} are taken", 413, "frame_too_large")
            body = start + HEAD_BYTES
            if end - body < size:
                self._wanted = HEAD_BYTES + size
                break
            start = body + size
            frames.append(data[body:start])
        if start < end:
            self._rest += data[start:] if start else data
        return frames


def framed(frame: bytes, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """A frame as it is sent. Raises `ProtocolError` if it is too long."""
    if len(frame) > bytes_max:
        raise ProtocolError(f"a frame of {len(frame)} bytes cannot be sent; at most {bytes_max} can", 413, "frame_too_large")
    return len(frame).to_bytes(HEAD_BYTES) + frame


async def connect(path: str | Path, connection: FrameConnection) -> FrameConnection:
    """Connect to a Unix socket."""
    await asyncio.get_running_loop().create_unix_connection(lambda: connection, str(path))
    return connection


async def adopt(sock: socket.socket, connection: FrameConnection) -> FrameConnection:
    """Use a socket that is connected already, such as half of a pair."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    if sock.family == socket.AF_UNIX:
        await loop.create_unix_connection(lambda: connection, sock=sock)
    else:
        await loop.create_connection(lambda: connection, sock=sock)
    return connection


async def listen(path: str | Path, make: Callable[[], FrameConnection]) -> asyncio.Server:
    """Serve a Unix socket; `make` gives the connection for whoever connects."""
    return await asyncio.get_running_loop().create_unix_server(make, str(path))


class BlockingFrames:
    """One end of a framed connection for plain threads: any may send, one receives."""

    def __init__(self, sock: socket.socket, *, bytes_max: int = FRAME_BYTES_MAX) -> None:
        sock.setblocking(True)
        self._sock, self._bytes_max = sock, bytes_max
        self._reader = FrameReader(bytes_max)
        self._ready: list[bytes] = []
        self._sending = threading.Lock()

    def send(self, frame: bytes) -> None:
        """Send a frame; returns when the system has taken it."""
        data = framed(frame, self._bytes_max)
        with self._sending:
            self._sock.sendall(data)

    def receive(self) -> bytes | None:
        """The next frame; `None` when the other side has closed between two. Raises `ConnectionError` where it broke off in one."""
        while not self._ready:
            data = self._sock.recv(READ_BYTES)
            if not data:
                if self._reader.missing:
                    raise ConnectionError(f"the connection ended in a frame, {self._reader.missing} bytes before its end")
                return None
            self._ready = self._reader.feed(data)[::-1]
        return self._ready.pop()

    def close(self) -> None:
        """Close the socket; a thread that receives gets `None`, or an error."""
        with contextlib.suppress(OSError):  # the other side was first
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
