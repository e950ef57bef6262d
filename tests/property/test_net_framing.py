"""However a stream of bytes is cut, the same comes out of it."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stepwell.net.deadlines import Deadlines
from stepwell.net.frames import FrameReader, framed
from stepwell.net.http_connection import Connection, Response

cuts = st.lists(st.integers(1, 40), max_size=60)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, and the rest."""
    found, start = [], 0
    for size in sizes:
        found.append(data[start : start + size])
        start += size
    return [piece for piece in (*found, data[start:]) if piece]


@given(st.lists(st.binary(max_size=300), max_size=20), cuts)
def test_frames(frames: list[bytes], sizes: list[int]) -> None:
    """Frames come out whole, in order, as soon as their last byte is there, and nothing is left."""
    reader = FrameReader()
    data, fed, told = b"".join(map(framed, frames)), 0, 0
    ends = [sum(len(framed(frame)) for frame in frames[: i + 1]) for i in range(len(frames))]
    for piece in pieces(data, sizes):
        fed += len(piece)
        for frame in reader.feed(piece):
            assert frame == frames[told]
            told += 1
        assert told == sum(end <= fed for end in ends)
        assert (reader.missing == 0) is (fed in (0, *ends))
    assert told == len(frames)


def chunked(body: bytes, sizes: list[int]) -> bytes:
    """The body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces(body, sizes)) + b"0\r\n\r\n"


class _Transport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Into the void."""

    def abort(self) -> None:
        """Note it."""
        self.aborted = True

    def is_closing(self) -> bool:
        """After the end."""
        return self.aborted

    def get_write_buffer_size(self) -> int:
        """All is sent."""
        return 0


@given(st.lists(st.tuples(st.binary(max_size=200), st.sampled_from(("length", "chunked"))), min_size=1, max_size=4), cuts, cuts)
def test_answers(answers: list[tuple[bytes, str]], chunks: list[int], sizes: list[int]) -> None:
    """Answers over one connection are the same however they are cut, with a length or in chunks."""

    async def main() -> None:
        lost: list[Any] = []
        connection = Connection(bytes_max=1000, deadlines=Deadlines(), read_s=None, on_lost=lost.append)
        connection.connection_made(_Transport())  # type: ignore[arg-type]
        for body, framing in answers:
            head = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-Key: Value\r\n"
            if framing == "length":
                data = b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
            else:
                data = b"%stransfer-encoding: chunked\r\n\r\n%s" % (head, chunked(body, chunks))
            waiter = connection.send("POST", b"", b"", asyncio.get_running_loop().time() + 60)
            parts = pieces(data, sizes)
            for i, piece in enumerate(parts):
                assert not waiter.done(), f"after {i} of {len(parts)} pieces"
                connection.data_received(piece)
            response: Response = waiter.result()
            assert (response.status, response.headers["x-key"], response.body) == (200, "Value", body)
            assert "link" not in response.headers and connection.keep and connection.is_open
            connection.settle()

    asyncio.run(main())


@given(st.binary(max_size=400), st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_an_error(data: bytes, tail: bytes) -> None:
    """Nothing that a peer sends raises into the event loop, or leaves a call without an end once the connection is over."""

    async def main() -> None:
        for start in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"):
            connection = Connection(bytes_max=100, deadlines=Deadlines(), read_s=None, on_lost=lambda _: None)
            connection.connection_made(_Transport())  # type: ignore[arg-type]
            waiter = connection.send("POST", b"", b"", asyncio.get_running_loop().time() + 60)
            for piece in (start, data, tail, gzip.compress(data)):
                connection.data_received(piece)
            connection.connection_lost(None)
            assert waiter.done()
            waiter.exception()

    asyncio.run(main())
