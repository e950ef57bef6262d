"""Signed requests while keys are being changed: an app that refuses one key is asked under the next, and which it knew is remembered."""

from __future__ import annotations

import asyncio
import time

from stepwell.drivers.signed import Signed
from stepwell.net.http_client import Pool
from stepwell.protocol.signatures import verify
from tests.unit.net.peer import Conn, Peer, Request, answer

NEW, OLD, OTHER = "signkey-a-11", "signkey-a-22", "signkey-a-33"
BODY = b'{"a":1}'


class App:
    """An app that knows some keys."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    async def __call__(self, conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            signature = request.headers.get("x-inngest-signature")
            known = any(verify(request.body, signature, key, int(time.time())) for key in self.keys)
            await conn.send(answer(b"1", "200 OK" if known or not self.keys else "401 Unauthorized"))


def asked(app: App, keys: tuple[str, ...], times: int = 1) -> tuple[list[int], list[Request]]:
    """The statuses of several requests, and what arrived."""

    async def main() -> tuple[list[int], list[Request]]:
        async with Peer(app) as peer, Pool(environ={}) as pool:
            signed = Signed(pool, lambda: keys)
            statuses = [
                (await signed.request("POST", peer.url, app="shop", headers={"x-a": "b"}, body=BODY, timeout_s=5)).status
                for _ in range(times)
            ]
            return statuses, peer.requests

    return asyncio.run(main())


def test_without_keys_nothing_is_signed() -> None:
    """Development."""
    statuses, requests = asked(App(), ())
    assert statuses == [200] and "x-inngest-signature" not in requests[0].headers


def test_the_first_key_signs() -> None:
    """Once, with the headers that were given."""
    statuses, requests = asked(App(NEW, OLD), (NEW, OLD))
    assert statuses == [200] and len(requests) == 1 and requests[0].headers["x-a"] == "b"
    assert verify(BODY, requests[0].headers["x-inngest-signature"], NEW, int(time.time()))


def test_the_next_key_is_tried_and_remembered() -> None:
    """The refusal is paid once."""
    statuses, requests = asked(App(OLD), (NEW, OLD), times=3)
    assert statuses == [200, 200, 200] and len(requests) == 4


def test_an_app_that_knows_none_is_told_so_by_its_own_answer() -> None:
    """Every key is tried; the answer is 401."""
    statuses, requests = asked(App(OTHER), (NEW, OLD))
    assert statuses == [401] and len(requests) == 2
