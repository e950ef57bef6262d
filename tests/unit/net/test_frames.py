"""Framed connections, under both event loops and in plain threads."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from stepwell.errors import ProtocolError
from stepwell.net.frames import BlockingFrames, FrameConnection, adopt, connect, framed, listen
from tests.unit.net.conftest import Run


class End:
    """One end, and what it was told."""

    def __init__(self, bytes_max: int = 1 << 20, on_frame: Callable[[bytes], None] | None = None) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.connection = FrameConnection(on_frame or self.frames.put_nowait, self.closed.set_result, bytes_max=bytes_max)


def with_pair(run: Run, main: Callable[[End, End], Awaitable[None]], right: Callable[[], End] = End) -> None:
    """Run with two connected ends."""

    async def runs() -> None:
        ends = End(), right()
        for end, sock in zip(ends, socket.socketpair(), strict=True):
            await adopt(sock, end.connection)
        await main(*ends)
        for end in ends:
            end.connection.abort()
            await end.connection.wait_closed()

    run(runs())


def test_frames_arrive_whole_and_in_order(run: Run) -> None:
    """Empty, small and long ones, in both directions at once."""
    sent = [b"", b"a", b"x" * 300_000, b"b" * 65_536, *[b"%d" % i for i in range(5000)]]

    async def main(left: End, right: End) -> None:
        for end in (left, right):
            for frame in sent:
                end.connection.send(frame)
        for end in (left, right):
            assert [await end.frames.get() for _ in sent] == sent

    with_pair(run, main)


def test_frames_of_one_turn_leave_in_one_write(run: Run) -> None:
    """Fewer system calls is what makes many small frames cheap; none waits for another turn's, nor behind too many bytes."""

    class Transport:
        def __init__(self) -> None:
            self.writes: list[bytes] = []

        def write(self, data: bytes) -> None:
            self.writes.append(data)

        def is_closing(self) -> bool:
            return False

    async def main() -> None:
        transport, connection = Transport(), FrameConnection(lambda frame: None)
        connection.connection_made(transport)  # type: ignore[arg-type]
        for turn in range(3):
            for frame in (b"a", b"b", b"c"):
                connection.send(frame)
            await asyncio.sleep(0)
            assert transport.writes == [framed(b"a") + framed(b"b") + framed(b"c")] * (turn + 1)
        connection.send(b"x" * 1_000_000)
        assert len(transport.writes) == 4

    run(main())


def test_over_a_unix_socket(run: Run, tmp_path: Path) -> None:
    """As server and children use it."""

    async def main() -> None:
        ends: list[End] = []

        def make() -> FrameConnection:
            ends.append(End())
            return ends[-1].connection

        server = await listen(tmp_path / "s", make)
        client = End()
        await connect(tmp_path / "s", client.connection)
        client.connection.send(b"hello")
        client.connection.close()
        with pytest.raises(ConnectionError):
            client.connection.send(b"more")
        await client.connection.wait_closed()
        assert client.closed.result() is None
        (end,) = ends
        assert await end.closed is None
        assert end.frames.get_nowait() == b"hello", "what was sent before the close arrives"
        with pytest.raises(ConnectionError):
            end.connection.send(b"late")
        server.close()
        await server.wait_closed()

    run(main())


def test_the_other_side_reads_too_slowly(run: Run) -> None:
    """`drain` waits until there is room, or says that there will be none."""

    async def main() -> None:
        near, far = socket.socketpair()
        far.setblocking(False)
        end = End()
        await adopt(near, end.connection)
        frame, sent = b"x" * 100_000, 0
        while end.connection._may_write is None:
            end.connection.send(frame)
            sent += 1
            await asyncio.sleep(0)
        waits = [asyncio.ensure_future(end.connection.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(wait.done() for wait in waits)
        waits[1].cancel()
        received = 0
        while received < sent * len(framed(frame)):
            received += len(await asyncio.get_running_loop().sock_recv(far, 1 << 20))
        await waits[0]
        while end.connection._may_write is None:
            end.connection.send(frame)
            await asyncio.sleep(0)
        wait = asyncio.ensure_future(end.connection.drain())
        await asyncio.sleep(0)
        far.close()
        with pytest.raises(ConnectionError):
            await wait
        with pytest.raises(ConnectionError):
            await end.connection.drain()
        await end.connection.wait_closed()

    run(main())


def test_too_long_a_frame(run: Run) -> None:
    """The sender is told before anything is sent; a receiver with another limit ends the connection, saying why."""

    async def main(left: End, right: End) -> None:
        left.connection.send(b"x" * 100)
        with pytest.raises(ProtocolError, match="a frame of 1048577 bytes cannot be sent; at most 1048576 can"):
            left.connection.send(b"x" * (1 << 20) + b"y")
        left.connection.send(b"x" * 101)
        error = await right.closed
        assert isinstance(error, ProtocolError) and "a frame of 101 bytes was announced; at most 100 are taken" in str(error)
        assert error.code == "frame_too_large"
        await left.closed

    with_pair(run, main, lambda: End(100))


def test_an_error_of_the_reader_ends_the_connection(run: Run) -> None:
    """It is told as the reason; the frames behind it are not."""
    told: list[bytes] = []

    def on_frame(frame: bytes) -> None:
        told.append(frame)
        raise ValueError("no")

    async def main(left: End, right: End) -> None:
        left.connection.send(b"a")
        left.connection.send(b"b")
        assert str(await right.closed) == "no"
        assert told == [b"a"]
        await left.closed

    with_pair(run, main, lambda: End(on_frame=on_frame))


def test_a_frame_that_is_cut_off(run: Run) -> None:
    """The other side died in the middle of it."""

    async def main() -> None:
        near, far = socket.socketpair()
        end = End()
        await adopt(near, end.connection)
        far.sendall(framed(b"whole") + framed(b"x" * 100)[:50])
        far.close()
        assert str(await end.closed) == "the connection ended in a frame, 54 bytes before its end"
        assert end.frames.get_nowait() == b"whole"
        assert not end.connection.is_open

    run(main())


def test_before_it_is_connected() -> None:
    """Nothing can be sent, and closing does nothing."""
    connection = FrameConnection(lambda frame: None)
    connection.close()
    connection.abort()
    assert not connection.is_open
    with pytest.raises(ConnectionError):
        connection.send(b"x")


def test_in_plain_threads() -> None:
    """Several send, one receives; a closed connection is told apart from one that broke."""
    near, far = socket.socketpair()
    left, right = BlockingFrames(near), BlockingFrames(far, bytes_max=1 << 20)
    senders = [threading.Thread(target=lambda: [left.send(b"y" * 10_000) for _ in range(50)]) for _ in range(4)]
    for sender in senders:
        sender.start()
    assert {right.receive() for _ in range(200)} == {b"y" * 10_000}
    for sender in senders:
        sender.join()
    left.close()
    left.close()
    assert right.receive() is None
    right.close()

    near, far = socket.socketpair()
    near.sendall(framed(b"whole") + framed(b"half")[:-1])
    near.close()
    reader = BlockingFrames(far)
    assert reader.receive() == b"whole"
    with pytest.raises(ConnectionError, match="1 bytes before its end"):
        reader.receive()
    reader.close()
