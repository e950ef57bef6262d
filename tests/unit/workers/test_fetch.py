"""`fetch` against a peer: what is sent, what comes back, redirects, errors."""

from __future__ import annotations

import asyncio
import gzip
from http import HTTPMethod

import pytest

from stepwell.workers.web.fetch import close_fetches, fetch
from stepwell.workers.web.form_data import FormData
from stepwell.workers.web.request import Request
from tests.unit.net.peer import Peer, answer, answering


def test_a_request_goes_out() -> None:
    """Method, headers and body as given; those of the connection are the client's own."""

    async def main() -> None:
        try:
            async with Peer(answering(answer(b'{"a":1}', "201 Created", "x-b: 2", "set-cookie: a=1; Path=/", "set-cookie: b=2"))) as peer:
                response = await fetch(f"{peer.url}/x?q=1", method=HTTPMethod.POST, headers={"X-A": "1", "host": "other"}, body="text")
                assert (response.status, response.status_text, response.ok) == (201, "Created", True)
                assert (response.url, response.redirected, response.headers["x-b"]) == (f"{peer.url}/x?q=1", False, "2")
                assert response.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2"] and await response.json() == {"a": 1}
                request = Request(peer.url, method="PUT", body=FormData({"a": "1"}))
                await fetch(request)
                assert request.body_used
                await fetch(Request(peer.url), method="DELETE", cf={"cacheTtl": 5})
                first, second, third = peer.requests
                assert (first.method, first.target, first.body) == ("POST", "/x?q=1", b"text")
                assert (first.headers["x-a"], first.headers["content-type"]) == ("1", "text/plain;charset=UTF-8")
                assert first.headers["host"] != "other"
                assert (second.method, b'name="a"' in second.body, third.method) == ("PUT", True, "DELETE")
        finally:
            await close_fetches()

    asyncio.run(main())


def test_redirects() -> None:
    """Followed as browsers do, left to the handler, or an error."""

    async def main() -> None:
        try:
            moved = answer(b"", "302 Found", "location: /there")
            async with Peer(answering(moved, answer(b"there"))) as peer:
                response = await fetch(f"{peer.url}/x", method="POST", body="text")
                assert (await response.text(), response.url, response.redirected) == ("there", f"{peer.url}/there", True)
                assert [(one.method, one.target, one.body) for one in peer.requests] == [("POST", "/x", b"text"), ("GET", "/there", b"")]
            async with Peer(answering(moved)) as peer:
                left = await fetch(peer.url, redirect="manual")
                assert (left.status, left.headers["location"], left.redirected) == (302, "/there", False)
                with pytest.raises(OSError, match="redirects to '/there', and redirect is 'error'"):
                    await fetch(peer.url, redirect="error")
        finally:
            await close_fetches()

    asyncio.run(main())


def test_what_was_compressed_is_not_any_more() -> None:
    """The headers say so, for the response may be passed on."""

    async def main() -> None:
        try:
            async with Peer(answering(answer(gzip.compress(b"text"), "200 OK", "content-encoding: gzip"))) as peer:
                response = await fetch(peer.url)
                assert await response.text() == "text" and not {"content-encoding", "content-length"} & set(response.headers)
        finally:
            await close_fetches()

    asyncio.run(main())


def test_no_answer() -> None:
    """An `OSError` that names the address."""

    async def main() -> None:
        try:
            with pytest.raises(OSError, match=r"GET http://127\.0\.0\.1:9/: "):
                await fetch("http://127.0.0.1:9/")
            with pytest.raises(TypeError, match="Invalid URL: nowhere"):
                await fetch("nowhere")
        finally:
            await close_fetches()

    asyncio.run(main())
