"""The HTTP client against peers that behave, and that do not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from stepwell.errors import CallError, UsageError
from stepwell.net.http_client import Pool, Response
from stepwell.net.http_errors import Broken, Dropped, HttpError, NotHttp, TimedOut, TooLarge, Unreachable
from tests.unit.net.conftest import Run
from tests.unit.net.peer import Conn, Peer, Script, answer, answering

HANG_S = 0.1


def pool(**settings: object) -> Pool:
    """A pool that knows no proxies of the machine's."""
    return Pool(**{"environ": {}, **settings})  # type: ignore[arg-type]


def ask(run: Run, script: Script, *, timeout_s: float = 5.0, method: str = "POST", **settings: object) -> tuple[Response, Peer]:
    """The answer to one request."""

    async def main() -> tuple[Response, Peer]:
        async with Peer(script) as peer, pool(**settings) as client:
            return await client.request(method, f"{peer.url}/x?q=1", body=b"body", timeout_s=timeout_s), peer

    found: tuple[Response, Peer] = run(main())
    return found


def refused(
    run: Run, script: Script, kind: type[HttpError], *, timeout_s: float = 5.0, path: str = "/x?q=1", **settings: object
) -> tuple[str, Peer]:
    """The message of one request's error, which names the URL."""

    async def main() -> tuple[str, Peer]:
        async with Peer(script) as peer, pool(**settings) as client:
            with pytest.raises(kind) as error:
                await client.request("POST", f"{peer.url}/x?q=1", body=b"body", timeout_s=timeout_s)
            assert type(error.value) is kind and isinstance(error.value, CallError)
            assert str(error.value).startswith(f"POST {peer.url}{path}: ")
            return str(error.value), peer

    found: tuple[str, Peer] = run(main())
    return found


def test_a_request_as_it_arrives(run: Run) -> None:
    """Method, target, host, headers in order, length and body; the answer with its names in lower case, repeated ones joined."""

    async def main() -> None:
        async with Peer(answering(answer(b"ok", "200 OK", "X-A: 1", "x-a: 2", "X-B:  b "))) as peer, pool() as client:
            headers: Sequence[tuple[str, str]] = [("x-one", "1"), ("x-two", "ü")]
            response = await client.request("POST", f"{peer.url}/pä th?q=a b%20c#no", headers=headers, body=b"body")
            assert response == Response(200, {"content-length": "2", "x-a": "1, 2", "x-b": "b"}, b"ok")
            (request,) = peer.requests
            assert (request.method, request.target, request.body) == ("POST", "/p%C3%A4%20th?q=a%20b%20c", b"body")
            assert list(request.headers) == ["host", "user-agent", "accept-encoding", "x-one", "x-two", "content-length"]
            assert request.headers["host"] == f"127.0.0.1:{peer.port}"
            await client.request("GET", f"http://us%20er:p%40ss@127.0.0.1:{peer.port}", headers={"x": "y"})
            assert peer.requests[1].target == "/" and "content-length" not in peer.requests[1].headers
            assert peer.requests[1].headers["authorization"] == "Basic dXMgZXI6cEBzcw=="
            assert peer.connections == 1, "kept alive"

    run(main())


@pytest.mark.parametrize("parts", [(b"a", b"b" * 100_000), (b"c" * 3_000_000,)])
def test_long_bodies_arrive_whole(run: Run, parts: tuple[bytes, ...]) -> None:
    """In both directions."""

    async def echo(conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            await conn.send(answer(request.body))

    async def main() -> None:
        async with Peer(echo) as peer, pool() as client:
            for part in parts:
                assert (await client.request("POST", peer.url, body=part)).body == part

    run(main())


# Connections that end.


def test_closed_before_an_answer(run: Run) -> None:
    """A new connection that ends without an answer is not tried again: the request may have been worked on."""
    message, peer = refused(run, Conn.request, Broken)
    assert "before anything of an answer came" in message and len(peer.requests) == 1


def test_closed_in_the_middle_of_the_body(run: Run) -> None:
    """Half an answer is none, and is not asked for again."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")

    message, peer = refused(run, script, Broken)
    assert "after 4 bytes of its body" in message and len(peer.requests) == 1


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nx: y\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"]
)
def test_closed_in_the_middle_of_the_head_or_a_chunk(run: Run, head: bytes) -> None:
    """Wherever it is cut."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(head)

    refused(run, script, Broken)


def test_a_stale_connection_is_tried_once_more_on_a_new_one(run: Run) -> None:
    """The other side closes the kept connection while the second request is under way: it goes out again, on a new connection."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(answer())
        await conn.request()

    async def main() -> None:
        async with Peer(script) as peer, pool() as client:
            await client.request("POST", peer.url)
            assert (await client.request("POST", peer.url)).body == b"ok"
            assert (peer.connections, len(peer.requests)) == (2, 3)

    run(main())


def test_a_stale_connection_is_an_error_where_nothing_may_be_sent_twice(run: Run) -> None:
    """The request went out once; the other kept connections are not trusted either, and the next request gets a new one."""

    async def script(conn: Conn) -> None:
        await conn.request()
        if len(peer.requests) == 2:
            both.set()
        await both.wait()
        await conn.send(answer())
        if conn.number <= 2:
            await conn.request()

    async def main() -> None:
        nonlocal both, peer
        both = asyncio.Event()
        async with Peer(script) as peer, pool() as client:
            await asyncio.gather(*[client.request("POST", peer.url) for _ in range(2)])
            with pytest.raises(Dropped, match="kept connection ended before anything"):
                await client.request("POST", peer.url, resend=False)
            assert (peer.connections, len(peer.requests)) == (2, 3)
            assert (await client.request("POST", peer.url, resend=False)).body == b"ok"
            assert peer.connections == 3

    both: asyncio.Event
    peer: Peer
    run(main())


def test_stale_twice_is_an_error(run: Run) -> None:
    """However many old connections there are, a request is sent twice at most."""
    together = 4

    async def main() -> None:
        async with pool() as client:
            arrived = asyncio.Event()

            async def script(conn: Conn) -> None:
                await conn.request()
                if len(peer.requests) == together:
                    arrived.set()
                if conn.number <= together:
                    await arrived.wait()
                    await conn.send(answer())
                    await conn.request()

            async with Peer(script) as peer:
                await asyncio.gather(*[client.request("POST", peer.url) for _ in range(together)])
                assert peer.connections == together
                with pytest.raises(Broken, match="twice"):
                    await client.request("POST", peer.url)
                assert len(peer.requests) == together + 2

    run(main())


def test_half_an_answer_on_a_kept_connection_is_not_asked_for_again(run: Run) -> None:
    """Something of an answer came: the request was worked on."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(answer())
        await conn.request()
        await conn.send(b"HTTP/1.1 2")

    async def main() -> None:
        async with Peer(script) as peer, pool() as client:
            await client.request("POST", peer.url)
            with pytest.raises(Broken):
                await client.request("POST", peer.url)
            assert len(peer.requests) == 2

    run(main())


@pytest.mark.parametrize("last_words", [b"", answer(b"", "408 Request Timeout")])
def test_an_idle_connection_that_ends_leaves_the_pool(run: Run, last_words: bytes) -> None:
    """The next request goes over a new one at once; what a server says before it hangs up answers nothing."""

    async def main() -> None:
        async with pool() as client:
            gone = asyncio.Event()

            async def script(conn: Conn) -> None:
                await conn.request()
                await conn.send(answer())
                if conn.number == 1:
                    await conn.send(last_words)
                    if not last_words:
                        conn.writer.close()
                    await conn.ended()
                    gone.set()
                else:
                    await conn.ended()

            async with Peer(script) as peer:
                await client.request("POST", peer.url)
                await gone.wait()
                assert (await client.request("POST", peer.url)).status == 200
                assert (peer.connections, len(peer.requests)) == (2, 2)

    run(main())


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"])
def test_an_answer_that_ends_with_its_connection(run: Run, head: bytes) -> None:
    """An answer without a length is whole when the other side closes."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(head + b"until the ")
        await conn.send(b"end")

    assert ask(run, script)[0].body == b"until the end"


@pytest.mark.parametrize("said", ["connection: close", "Connection: Close"])
def test_a_connection_that_is_not_to_be_kept(run: Run, said: str) -> None:
    """`Connection: close` is obeyed."""

    async def main() -> None:
        async with Peer(answering(answer(b"ok", "200 OK", said))) as peer, pool() as client:
            for _ in range(2):
                await client.request("POST", peer.url)
            assert peer.connections == 2

    run(main())


def test_an_early_answer_ends_the_connection(run: Run) -> None:
    """An answer that comes before all of the request was read is given; what is left of the request would be in the next one's way."""

    async def script(conn: Conn) -> None:
        await conn.reader.readuntil(b"\r\n\r\n")
        await conn.send(answer(b"too much", "413 Payload Too Large"))
        await conn.ended()

    async def main() -> None:
        async with Peer(script) as peer, pool() as client:
            for _ in range(2):
                assert (await client.request("POST", peer.url, body=b"x" * 30_000_000)).status == 413
            assert peer.connections == 2

    run(main())


# Time.


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"HTTP/1.1 200"])
def test_no_whole_answer_in_time(run: Run, part: bytes) -> None:
    """Silence before the answer or in its middle; the limit is for the whole call."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(part)
        await conn.ended()

    message, _ = refused(run, script, TimedOut, timeout_s=HANG_S)
    assert message.endswith("no whole answer within 0.1 s")


def test_silence_within_a_call(run: Run) -> None:
    """`read_s` bounds the time without a byte: a stream that goes on may last longer, one that stops is given up."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(HANG_S / 2)
            await conn.send(b".")
        await conn.ended()

    message, _ = refused(run, script, TimedOut, read_s=HANG_S)
    assert message.endswith("the answer stopped coming for 0.1 s")


def test_the_time_limit_is_for_all_redirects(run: Run) -> None:
    """It does not begin anew with each of them."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(answer(b"", "307 Temporary Redirect", "location: /next"))
        await conn.request()
        await conn.ended()

    message, _ = refused(run, script, TimedOut, timeout_s=3 * HANG_S, path="/next")
    assert message.endswith("no whole answer within 0.3 s")


def test_a_cancelled_call_closes_its_connection(run: Run) -> None:
    """So the app sees that nobody waits, and the late answer meets no later request."""

    async def main() -> None:
        asked, left = asyncio.Event(), asyncio.Event()

        async def script(conn: Conn) -> None:
            await conn.request()
            if conn.number == 1:
                asked.set()
                await conn.ended()
                left.set()
            await conn.send(answer(b"%d" % conn.number))

        async with Peer(script) as peer, pool(connections_per_host_max=1) as client:
            call = asyncio.ensure_future(client.request("POST", peer.url))
            await asked.wait()
            call.cancel()
            await left.wait()
            assert call.cancelled()
            assert (await client.request("POST", peer.url)).body == b"2"

    run(main())


# What is no answer.


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 two OK\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", b"\0" * 50]
)
def test_garbage(run: Run, garbage: bytes) -> None:
    """What is not HTTP is said so, with its beginning."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(garbage)
        await conn.ended()

    message, _ = refused(run, script, NotHttp)
    assert repr(garbage[:10])[2:-1] in message


def test_switching_protocols_is_refused(run: Run) -> None:
    """Nobody asked for it."""
    refused(run, answering(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"), NotHttp)


def test_an_html_error_page_is_an_answer(run: Run) -> None:
    """A status is the caller's to judge."""
    response, _ = ask(run, answering(answer(b"<h1>Bad Gateway</h1>", "502 Bad Gateway", "content-type: text/html")))
    assert (response.status, response.body) == (502, b"<h1>Bad Gateway</h1>")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body(run: Run, status: str) -> None:
    """Its head is all of it."""
    response, _ = ask(run, answering(f"HTTP/1.1 {status}\r\n\r\n".encode()))
    assert response.body == b""


def test_head_answers_have_no_body(run: Run) -> None:
    """Though they tell the length that it would have, even one beyond the bound."""
    response, _ = ask(run, answering(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"), method="HEAD")
    assert (response.status, response.body) == (200, b"")


def test_interim_answers_are_passed_over(run: Run) -> None:
    """`100 Continue` and `103 Early Hints` come before the answer."""
    response, _ = ask(run, answering(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer()))
    assert (response.status, response.body, "link" in response.headers) == (200, b"ok", False)


def test_two_answers_to_one_request(run: Run) -> None:
    """The first is taken; a connection with more on it is not used again."""

    async def main() -> None:
        async with Peer(answering(answer(b"1") + answer(b"2"))) as peer, pool() as client:
            for _ in range(2):
                assert (await client.request("POST", peer.url)).body == b"1"
            assert peer.connections == 2

    run(main())


# Bounds.


@pytest.mark.parametrize(
    "sent",
    [
        answer(b"x" * 101),
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"32\r\n"
        + b"x" * 50
        + b"\r\n"
        + b"33\r\n"
        + b"x" * 51
        + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"x" * 101,
    ],
)
def test_too_large(run: Run, sent: bytes) -> None:
    """Whether the length is told, or found out."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(sent)
        await conn.ended()

    if b"9" * 20 in sent:
        refused(run, script, NotHttp)  # not even a number
    else:
        refused(run, script, TooLarge, bytes_max=100)
    assert ask(run, answering(answer(b"x" * 100)), bytes_max=100)[0].body == b"x" * 100


@pytest.mark.parametrize("headers", [["x: " + "y" * 300_000], [f"x-{i}: y" for i in range(300)]])
def test_too_many_headers(run: Run, headers: list[str]) -> None:
    """Heads have their own bounds."""
    refused(run, answering(answer(b"ok", "200 OK", *headers)), TooLarge)


def test_a_stream_that_keeps_alive_with_white_space(run: Run) -> None:
    """The bytes of a 201 stream come one by one before the JSON; all of them are the body (§4.9)."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            await conn.send(b"1\r\n \r\n")
            await asyncio.sleep(0)
        await conn.send(b'11\r\n{"status":200,"b"\r\n4\r\n:1} \r\n0\r\n\r\n')
        await conn.ended()

    response, _ = ask(run, script)
    assert (response.status, response.body.strip()) == (201, b'{"status":200,"b":1}')


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_keep_method_and_body(run: Run, status: int) -> None:
    """All kinds; relative addresses too."""
    response, peer = ask(run, answering(answer(b"", f"{status} Moved", "location: ../there?x=2"), answer(b"there")))
    assert response.body == b"there"
    assert [(r.method, r.target, r.body) for r in peer.requests] == [("POST", "/x?q=1", b"body"), ("POST", "/there?x=2", b"body")]


def test_a_redirect_that_says_no_address_is_an_answer(run: Run) -> None:
    """There is nowhere to go."""
    assert ask(run, answering(answer(b"", "302 Found")))[0].status == 302


def test_a_redirect_loop_ends(run: Run) -> None:
    """After five redirects."""
    message, peer = refused(run, answering(answer(b"", "302 Found", "location: /loop")), Unreachable, path="/loop")
    assert message.endswith("more than 5 redirects") and len(peer.requests) == 6


def test_redirects_may_be_left_to_the_caller(run: Run) -> None:
    """The answer is given as it is; one that was followed says where it came from."""

    async def main() -> None:
        async with Peer(answering(answer(b"", "302 Found", "location: /there"), answer(b"there"))) as peer, pool() as client:
            left = await client.request("GET", f"{peer.url}/x", follow=False)
            assert (left.status, left.headers["location"], left.url) == (302, "/there", "")
            assert (await client.request("GET", f"{peer.url}/x")).url == ""
        async with Peer(answering(answer(b"", "302 Found", "location: /there"), answer(b"there"))) as peer, pool() as client:
            assert (await client.request("GET", f"{peer.url}/x")).url == f"{peer.url}/there"

    run(main())


def test_how_many_redirects_are_followed_can_be_said(run: Run) -> None:
    """One more than that is refused."""
    script = answering(answer(b"", "302 Found", "location: /loop"))
    message, peer = refused(run, script, Unreachable, path="/loop", redirects_max=8)
    assert message.endswith("more than 8 redirects") and len(peer.requests) == 9


@pytest.mark.parametrize("location", ["ftp://example.com/", "http://[", "http://h:99999/", "mailto:x@y"])
def test_a_redirect_to_nowhere(run: Run, location: str) -> None:
    """It is the answer's fault, not the caller's."""
    message, _ = refused(run, answering(answer(b"", "302 Found", f"location: {location}")), NotHttp)
    assert "redirects to where nobody can go" in message


def test_secrets_do_not_follow_to_another_origin(run: Run) -> None:
    """A key meant for one server is not shown to whom it points at; within the origin it is."""

    async def main() -> None:
        async with Peer(answering(answer())) as other, pool() as client:
            script = answering(answer(b"", "302 Found", "location: /again"), answer(b"", "302 Found", f"location: {other.url}/"))
            async with Peer(script) as peer:
                await client.request("POST", peer.url, headers={"Authorization": "Bearer k", "x": "y"})
                assert [request.headers.get("authorization") for request in peer.requests] == ["Bearer k", "Bearer k"]
                assert "authorization" not in other.requests[0].headers and other.requests[0].headers["x"] == "y"

    run(main())


# What cannot be sent.


@pytest.mark.parametrize(
    "url",
    ["", "localhost:80", "ftp://h/", "http://", "http://h:0x/", "http://h:70000/", "http://[::1/", "http://a b/", f"http://{'ü' * 70}/"],
)
def test_no_address(run: Run, url: str) -> None:
    """The caller is told."""

    async def main() -> None:
        async with pool() as client:
            with pytest.raises(UsageError):
                await client.request("GET", url)

    run(main())


@pytest.mark.parametrize("header", [("x", "a\r\ny: b"), ("x\n", "a"), ("x", "a\r"), ("x", "a\0"), ("x", "\u2603")])
def test_headers_that_cannot_be_sent(run: Run, header: tuple[str, str]) -> None:
    """Nothing slips a line into a request."""

    async def main() -> None:
        async with pool() as client:
            with pytest.raises(UsageError):
                await client.request("GET", "http://127.0.0.1:9/", headers=[header])

    run(main())
