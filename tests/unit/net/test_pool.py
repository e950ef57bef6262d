"""Which connection a call gets, and what becomes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell.net import http_client
from stepwell.net.http_client import Pool
from stepwell.net.http_dial import dial
from stepwell.net.http_errors import HttpError, TimedOut, Unreachable
from tests.unit.net.conftest import Run
from tests.unit.net.peer import Conn, Peer, answer, answering

HANG_S = 0.1


class Gate:
    """A script that holds answers back until told."""

    def __init__(self) -> None:
        self._go = asyncio.Semaphore(0)
        self._arrived = asyncio.Semaphore(0)

    async def __call__(self, conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            self._arrived.release()
            await self._go.acquire()
            await conn.send(answer(request.body))

    async def arrived(self, count: int = 1) -> None:
        """So many requests have come."""
        for _ in range(count):
            await self._arrived.acquire()

    def let(self, count: int = 1) -> None:
        """Answer so many."""
        for _ in range(count):
            self._go.release()


async def turns(count: int = 5) -> None:
    """Let everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_connections_are_bounded_and_handed_on_in_order(run: Run) -> None:
    """Who came first is served first, newcomers included, over no more connections than allowed."""

    async def main() -> None:
        gate, order = Gate(), []
        async with Peer(gate) as peer, Pool(environ={}, connections_per_host_max=2) as client:

            async def call(number: int) -> None:
                await client.request("POST", peer.url, body=b"%d" % number)
                order.append(number)

            calls = []
            for number in range(8):
                calls.append(asyncio.ensure_future(call(number)))
                if number < 2:
                    await gate.arrived()  # the first two have connections: which of them is answered first is told by who came first
                else:
                    await turns()
            for number in range(8):
                gate.let()
                await calls[number]
                if number == 3:
                    calls.append(asyncio.ensure_future(call(8)))
                    await turns()
            gate.let()
            await calls[8]
            assert order == list(range(9))
            assert peer.connections == 2

    run(main())


def test_a_call_in_line_may_leave(run: Run) -> None:
    """By its time limit or by cancellation; those behind it are served, and no slot is lost."""

    async def main() -> None:
        gate = Gate()
        async with Peer(gate) as peer, Pool(environ={}, connections_per_host_max=1) as client:
            first = asyncio.ensure_future(client.request("POST", peer.url))
            await gate.arrived()
            late = asyncio.ensure_future(client.request("POST", peer.url, timeout_s=HANG_S))
            await turns()
            cancelled = asyncio.ensure_future(client.request("POST", peer.url))
            await turns()
            last = asyncio.ensure_future(client.request("POST", peer.url))
            await turns()
            cancelled.cancel()
            with pytest.raises(TimedOut):
                await late
            gate.let(2)
            assert (await first).status == (await last).status == 200
            assert len(peer.requests) == 2 and peer.connections == 1

    run(main())


@pytest.mark.parametrize("kept", ["keep-alive", "close"])
def test_what_is_handed_to_a_cancelled_call_goes_on(run: Run, kept: str) -> None:
    """The hand-over, of a connection or of its slot, and the cancellation fall into one turn: the next in line gets it."""

    async def main() -> None:
        script = answering(answer(b"ok", "200 OK", f"connection: {kept}"))
        async with Peer(script) as peer, Pool(environ={}, connections_per_host_max=1) as client:

            async def call_then_cancel() -> None:
                await client.request("POST", peer.url)
                # In the step of this task that put the connection down, before the next in line has run.
                second.cancel()

            first = asyncio.ensure_future(call_then_cancel())
            await turns(1)
            second = asyncio.ensure_future(client.request("POST", peer.url))
            await turns(1)
            third = asyncio.ensure_future(client.request("POST", peer.url))
            await first
            assert (await third).status == 200
            assert second.cancelled() and len(peer.requests) == 2
            assert (await client.request("POST", peer.url)).status == 200
            assert peer.connections == (1 if kept == "keep-alive" else 3)

    run(main())


def test_a_failed_connection_frees_its_slot(run: Run) -> None:
    """Calls in line for a host that refuses fail one after the other, none waits for ever."""

    async def main() -> None:
        async with Pool(environ={}, connections_per_host_max=2) as client:
            async with Peer(answering(answer())) as peer:
                url = peer.url
            calls = [client.request("POST", url) for _ in range(10)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} == {Unreachable}

    run(main())


def test_a_call_lost_in_line_after_its_connection_broke_opens_one(run: Run) -> None:
    """A connection that is not kept frees its slot for the next, which opens its own."""

    async def main() -> None:
        async with Peer(answering(answer(), close=True)) as peer, Pool(environ={}, connections_per_host_max=1) as client:
            responses = await asyncio.gather(*[client.request("POST", peer.url) for _ in range(5)])
            assert [response.status for response in responses] == [200] * 5

    run(main())


def test_idle_connections_expire(run: Run) -> None:
    """The other side sees them closed; one used meanwhile stays."""

    async def main() -> None:
        ended: asyncio.Queue[int] = asyncio.Queue()

        async def script(conn: Conn) -> None:
            while await conn.request() is not None:
                await conn.send(answer())
            ended.put_nowait(conn.number)

        async with Peer(script) as peer, Pool(environ={}, idle_s=HANG_S) as client:
            await asyncio.gather(*[client.request("POST", peer.url) for _ in range(3)])
            assert sorted([await ended.get() for _ in range(peer.connections)]) == list(range(1, peer.connections + 1))
            assert client._hosts == {}, "hosts that nobody uses are forgotten"
            assert (await client.request("POST", peer.url)).status == 200

    run(main())


def test_idle_connections_are_bounded(run: Run) -> None:
    """Over all hosts; the one unused for longest goes."""

    async def main() -> None:
        made = [Peer(answering(answer())) for _ in range(3)]
        async with Pool(environ={}, idle_max=2) as client, made[0] as one, made[1] as two, made[2] as three:
            for peer in (one, two, three, two, three, one):
                await client.request("POST", peer.url)
            assert (one.connections, two.connections, three.connections) == (2, 1, 1)

    run(main())


def test_closing_while_a_connection_is_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not come to life behind the pool's back."""

    async def main() -> None:
        opening, go = asyncio.Event(), asyncio.Event()

        async def slowly(*args: Any) -> Any:
            opening.set()
            await go.wait()
            return await dial(*args)

        monkeypatch.setattr(http_client, "dial", slowly)
        ended = asyncio.Event()

        async def script(conn: Conn) -> None:
            await conn.ended()
            ended.set()

        async with Peer(script) as peer:
            client = Pool(environ={})
            call = asyncio.ensure_future(client.request("POST", peer.url))
            await opening.wait()
            await client.close()
            go.set()
            with pytest.raises(HttpError):
                await call
            await ended.wait()
            assert peer.requests == []

    run(main())


def test_closing_fails_what_is_out_and_in_line(run: Run) -> None:
    """And refuses what comes later."""

    async def main() -> None:
        gate = Gate()
        async with Peer(gate) as peer:
            client = Pool(environ={}, connections_per_host_max=1)
            out = asyncio.ensure_future(client.request("POST", peer.url))
            await gate.arrived()
            in_line = asyncio.ensure_future(client.request("POST", peer.url))
            await turns()
            await client.close()
            for call in (out, in_line, client.request("POST", peer.url)):
                with pytest.raises(HttpError):
                    await call
            await client.close()

    run(main())


def test_nobody_listens(run: Run) -> None:
    """The message names address and cause."""

    async def main() -> None:
        async with Pool(environ={}) as client:
            with pytest.raises(Unreachable, match=r"^POST http://127.0.0.1:9/: 127.0.0.1 port 9: Connection refused$"):
                await client.request("POST", "http://127.0.0.1:9/")
            with pytest.raises(Unreachable, match=r"the host 'no-such-host.invalid' has no address"):
                await client.request("POST", "http://no-such-host.invalid/")

    run(main())


def test_no_password_in_messages(run: Run) -> None:
    """A URL is shown without its login."""

    async def main() -> None:
        async with Pool(environ={}) as client:
            with pytest.raises(Unreachable) as error:
                await client.request("POST", "http://user:secret@127.0.0.1:9/")
            assert "secret" not in str(error.value)

    run(main())
