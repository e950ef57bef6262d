"""The HTTP driver: what a request looks like, and what becomes of everything that can go wrong with it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any

import msgspec
import pytest

from stepwell.drivers.http import HttpDriver, call_url, in_header
from stepwell.net.http_client import Pool
from stepwell.protocol.calls import CALL_TIMEOUT_MS, Answer, CallRequest, Checkpoint, Failed, Lost, Ops, Returned, encode_call
from stepwell.protocol.signatures import verify
from tests.unit.net.peer import Conn, Peer, Script, answer, answering

SDK = "x-inngest-sdk: inngest-py:v0.5.19"
KEY = "signkey-test-12ab34cd"


def request(url: str, **fields: Any) -> CallRequest:
    """A call request."""
    defaults: dict[str, Any] = {
        "run_id": "01JRUN",
        "function_id": "shop-charge",
        "function_uuid": "u",
        "app_id": "shop",
        "url": f"{url}/api/inngest?fnId=shop-charge&stepId=step",
        "step_id": "step",
        "attempt": 1,
        "max_attempts": 5,
        "request_version": 2,
        "stack": (),
        "disable_immediate_execution": False,
        "item_id": "01JITEM",
        "fence": 3,
        "request_id": "01JREQUEST",
        "events": (b'{"data":{},"id":"e","name":"shop/paid","ts":1,"user":{}}',),
        "steps": {},
    }
    return CallRequest(**(defaults | fields))


async def unused(checkpoint: Checkpoint) -> None:
    """Apps over HTTP report checkpoints by themselves."""
    raise AssertionError


def called(
    script: Script, *, pool: dict[str, Any] | None = None, driver: dict[str, Any] | None = None, **fields: Any
) -> tuple[Answer, Peer]:
    """The answer to a call."""

    async def main() -> tuple[Answer, Peer]:
        async with Peer(script) as peer, Pool(environ={}, **(pool or {})) as client:
            return await HttpDriver(client, **(driver or {})).call(request(peer.url, **fields), unused), peer

    return asyncio.run(main())


def failure(answer: Answer) -> dict[str, Any]:
    """The error of a failed attempt that may be retried."""
    assert isinstance(answer, Failed) and answer.retriable, answer
    error: dict[str, Any] = json.loads(answer.error)
    return error


def test_a_request_as_it_arrives() -> None:
    """Address, headers and body as the protocol says (§1.3, §4.1); without a key, without a signature."""
    got, peer = called(answering(answer(b'"done"', "200 OK", SDK)), step_id="a1b2")
    assert got == Returned(data=b'"done"')
    (sent,) = peer.requests
    assert (sent.method, sent.target) == ("POST", "/api/inngest?fnId=shop-charge&stepId=a1b2")
    assert sent.body == encode_call(request(peer.url, step_id="a1b2"))
    headers = {name: value for name, value in sent.headers.items() if name.startswith("x-") or name == "content-type"}
    assert headers == {
        "content-type": "application/json",
        "x-inngest-server-kind": "dev",
        "x-inngest-req-version": "2",
        "x-run-id": "01JRUN",
        "x-request-id": "01JREQUEST",
        "x-inngest-job-id": "01JITEM",
        "x-inngest-generation-id": "3",
        "x-inngest-step-id": "a1b2",
    }


def test_a_signed_request() -> None:
    """The signature covers the body's very bytes, and the time; generation 0 is left out."""
    _, peer = called(answering(answer(b"1", "200 OK", SDK)), driver={"signing_keys": lambda: (KEY,), "kind": "cloud"}, fence=0)
    (sent,) = peer.requests
    assert verify(sent.body, sent.headers["x-inngest-signature"], KEY, int(time.time()))
    assert sent.headers["x-inngest-server-kind"] == "cloud"
    assert "x-inngest-generation-id" not in sent.headers


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/p", "http://h/p?fnId=a%2Fb&stepId=step"),
        ("http://h/p?fnId=old&stepId=old", "http://h/p?fnId=a%2Fb&stepId=step"),
        ("https://h:1/p?x=1&fnId=old&y=%20", "https://h:1/p?x=1&y=%20&fnId=a%2Fb&stepId=step"),
        ("http://h?fnIdx=1", "http://h?fnIdx=1&fnId=a%2Fb&stepId=step"),
    ],
)
def test_the_address(url: str, expected: str) -> None:
    """Function and step stand in the query, in place of what registration wrote there; the rest stays."""
    assert call_url(url, "a/b", "step") == expected


def test_a_step_id_that_is_no_hash() -> None:
    """No id slips a line into the headers."""
    assert in_header("a1b2") == "a1b2"
    assert in_header("a\r\nx: y") == "a%0D%0Ax%3A%20y"
    got, peer = called(answering(answer(b"[]", "206 Partial Content", SDK)), step_id="ü\r\nx: y&z")
    assert isinstance(got, Ops)
    assert peer.requests[0].target.endswith("&stepId=%C3%BC%0D%0Ax%3A%20y%26z")
    assert peer.requests[0].headers["x-inngest-step-id"] == "%C3%BC%0D%0Ax%3A%20y%26z"


def test_a_compressed_answer_behind_a_redirect() -> None:
    """Both are the pool's business; here they arrive as ops."""
    ops = gzip.compress(b'[{"op":"StepRun","id":"a","data":1}]')
    final = answer(ops, "206 Partial Content", SDK, "content-encoding: gzip", "x-inngest-req-version: 2")
    got, peer = called(answering(answer(b"", "308 Permanent Redirect", "location: /moved?fnId=shop-charge&stepId=step"), final))
    assert isinstance(got, Ops) and [(op.op, op.id, op.data) for op in got.ops] == [("StepRun", "a", b"1")]
    assert peer.requests[1].body == peer.requests[0].body


def test_a_streamed_answer() -> None:
    """White space keeps a 201 stream alive; the answer is inside (§4.9)."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(f"HTTP/1.1 201 Created\r\n{SDK}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(10):
            await conn.send(b"1\r\n \r\n")
            await asyncio.sleep(0)
        envelope = json.dumps({"status": 200, "headers": {"x-inngest-sdk": "x"}, "body": '"streamed"'}).encode()
        await conn.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(envelope), envelope))
        await conn.ended()

    assert called(script)[0] == Returned(data=b'"streamed"')


def test_a_stream_that_breaks_off() -> None:
    """A failed attempt, to be tried again."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(f"HTTP/1.1 201 Created\r\n{SDK}\r\ntransfer-encoding: chunked\r\n\r\n1\r\n \r\n".encode())

    assert failure(called(script)[0])["code"] == "http_unreachable"


# Failures, by their codes (§4.7).


def test_nobody_listens() -> None:
    """The message names the address, the cause, and what to look at."""

    async def main() -> Answer:
        async with Pool(environ={}) as pool:
            return await HttpDriver(pool).call(request("http://127.0.0.1:9"), unused)

    error = failure(asyncio.run(main()))
    assert (error["name"], error["code"]) == ("http_unreachable", "http_unreachable")
    assert error["message"] == (
        "POST http://127.0.0.1:9/api/inngest?fnId=shop-charge&stepId=step: 127.0.0.1 port 9: Connection refused. "
        "Is the app running, and is its URL right?"
    )


@pytest.mark.parametrize("url", ["", "ftp://h", "http://[", "http://h:port"])
def test_an_address_that_is_none(url: str) -> None:
    """Also a failed attempt: the app may register a better one."""

    async def main() -> Answer:
        async with Pool(environ={}) as pool:
            return await HttpDriver(pool).call(msgspec.structs.replace(request(""), url=url), unused)

    assert failure(asyncio.run(main()))["code"] == "http_unreachable"


@pytest.mark.parametrize(("limit", "capped"), [({"timeout_ms": 100}, {}), ({}, {"timeout_ms": 100})])
def test_the_time_is_over(limit: dict[str, int], capped: dict[str, int]) -> None:
    """The request's limit, or the driver's where that is shorter."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.ended()

    error = failure(called(script, driver=capped, **limit)[0])
    assert error["code"] == "request_duration_too_long" and "no whole answer within 0.1 s" in error["message"]
    assert request("").timeout_ms == CALL_TIMEOUT_MS == 7_200_000


def test_too_large_an_answer() -> None:
    """The message says the bound, and what to do instead."""
    error = failure(called(answering(answer(b"x" * 101, "200 OK", SDK)), pool={"bytes_max": 100})[0])
    assert error["code"] == "output_too_large" and "at most 100 are taken" in error["message"] and "Store what is large" in error["message"]


def test_the_connection_breaks() -> None:
    """Before or in the middle of the answer; the app may have worked on the call."""
    for said in (b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"):

        async def script(conn: Conn, said: bytes = said) -> None:
            await conn.request()
            await conn.send(said)

        assert failure(called(script)[0])["code"] == "http_unreachable"


def test_a_kept_connection_breaks() -> None:
    """Over a second call: it is lost, without a second try of the same request, for the app may have saved steps since."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(answer(b"1", "200 OK", SDK))
        await conn.request()

    async def main() -> None:
        async with Peer(script) as peer, Pool(environ={}) as pool:
            driver = HttpDriver(pool)
            assert await driver.call(request(peer.url), unused) == Returned(data=b"1")
            lost = await driver.call(request(peer.url), unused)
            assert isinstance(lost, Lost) and peer.url in lost.reason and len(peer.requests) == 2
            assert await driver.call(request(peer.url), unused) == Returned(data=b"1")

    asyncio.run(main())


def test_garbage() -> None:
    """Somebody else listens there."""
    assert failure(called(lambda conn: conn.send(b"220 mail ESMTP\r\n"))[0])["code"] in ("http_unreachable", "invalid_response")

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(b"220 mail ESMTP\r\n")
        await conn.ended()

    assert failure(called(script)[0])["code"] == "invalid_response"


def test_a_proxy_answers_for_the_app() -> None:
    """An error page is told with its beginning (§4.7, 6)."""
    error = failure(called(answering(answer(b"<h1>Bad Gateway</h1>", "502 Bad Gateway", "content-type: text/html")))[0])
    assert error["name"] == "Server returned a fatal error"
    assert error["message"] == "Your server returned HTTP 502 before the SDK responded."
    assert error["stack"] == "<h1>Bad Gateway</h1>"


def test_another_server_answers() -> None:
    """A 2xx answer without the SDK's header is none (§4.7, 5)."""
    assert failure(called(answering(answer(b"hello")))[0])["code"] == "not_sdk"


def test_a_cancelled_call_is_cancelled() -> None:
    """It is not a failure; the app sees its connection close."""

    async def main() -> None:
        asked, left = asyncio.Event(), asyncio.Event()

        async def script(conn: Conn) -> None:
            await conn.request()
            asked.set()
            await conn.ended()
            left.set()

        async with Peer(script) as peer, Pool(environ={}) as pool:
            call = asyncio.ensure_future(HttpDriver(pool).call(request(peer.url), unused))
            await asked.wait()
            call.cancel()
            await left.wait()
            assert call.cancelled()

    asyncio.run(main())
