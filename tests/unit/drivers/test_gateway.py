"""Requests of steps: what goes to whom with which key, what comes back, and what nobody gets to see."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from stepwell.drivers.gateway import ERROR_BODY_BYTES_MAX, Gateway, cleaned
from stepwell.net.addresses import is_public
from stepwell.net.http_client import Pool
from stepwell.protocol.calls import Ops
from stepwell.protocol.ops import Op, parse_ops
from tests.unit.net.peer import Peer, Request, Script, answer, answering

KEY = "sk-proj-very/secret+key 1"


def op(kind: str, **opts: Any) -> Op:
    """The op as an app answers with it."""
    (parsed,) = parse_ops(json.dumps([{"op": kind, "id": "s1", "displayName": "ask", "opts": opts}]).encode())
    return parsed


def performed(script: Script, kind: str, pool: dict[str, Any] | None = None, **opts: Any) -> tuple[Ops, list[Request]]:
    """The answer to an op, and what the other side was asked. `{url}` in the op's URL is the other side's."""

    async def main() -> tuple[Ops, list[Request]]:
        async with Peer(script) as peer, Pool(environ={}, as_browsers=True, **(pool or {})) as client:
            told = {**opts, "url": opts["url"].format(url=peer.url)} if "url" in opts else opts
            found = await Gateway(client, timeout_s=5).perform(op(kind, **told))
            assert isinstance(found, Ops)
            return found, peer.requests

    return asyncio.run(main())


def result(found: Ops) -> Any:
    """The step's result."""
    (one,) = found.ops
    assert one.op == "StepRun" and one.id == "s1" and one.data is not None, one
    return msgspec.json.decode(one.data)


def error(found: Ops) -> dict[str, Any]:
    """The step's error."""
    (one,) = found.ops
    assert one.op == "StepError" and one.id == "s1" and one.error is not None, one
    decoded: dict[str, Any] = msgspec.json.decode(one.error)
    return decoded


ANSWER = answer(b'{"choices": [{"text": "hi", "n": 1.0}]}', "200 OK", "content-type: application/json")


@pytest.mark.parametrize(
    ("kind", "url", "headers", "target", "key_headers"),
    [
        ("openai-chat", "{url}/v1/chat/completions", {}, "/v1/chat/completions", {"authorization": f"Bearer {KEY}"}),
        ("grok", "{url}/v1/x", {}, "/v1/x", {"authorization": f"Bearer {KEY}"}),
        ("", "{url}/v1/x?a=1", {}, "/v1/x?a=1", {"authorization": f"Bearer {KEY}"}),
        (
            "anthropic",
            "{url}/v1/messages",
            {"anthropic-version": "2023-06-01"},
            "/v1/messages",
            {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        ),
        ("bedrock", "{url}/model/m/invoke", {}, "/model/m/invoke", {"authorization": KEY}),
        ("gemini", "{url}/m:generateContent", {}, "/m:generateContent?key=sk-proj-very%2Fsecret%2Bkey+1", {}),
        ("gemini", "{url}/m:g?a=b&key=old", {}, "/m:g?a=b&key=sk-proj-very%2Fsecret%2Bkey+1", {}),
    ],
)
def test_each_format_gets_its_key_where_it_wants_it(
    kind: str, url: str, headers: dict[str, str], target: str, key_headers: dict[str, str]
) -> None:
    """The body is posted as the app wrote it: the order of a schema's keys is the order in which models answer."""
    body = {"z": 1, "schema": {"properties": {"second": {}, "first": {}}}, "t": 0.50}
    found, (request,) = performed(answering(ANSWER), "AIGateway", url=url, headers=headers, auth_key=KEY, format=kind, body=body)
    assert result(found) == {"choices": [{"text": "hi", "n": 1}]}
    assert (request.method, request.target, request.headers["content-type"]) == ("POST", target, "application/json")
    assert request.body == json.dumps(body, separators=(",", ":")).encode()
    shown = {name: value for name, value in request.headers.items() if name in ("authorization", "x-api-key", "anthropic-version")}
    assert shown == key_headers


def test_headers_of_the_op_come_after_the_key_s() -> None:
    """So an app may say its own authorization; but not what belongs to the connection."""
    headers = {"Authorization": "Basic x", "Content-Length": "3", "Host": "elsewhere", "User-Agent": "mine", "X-Many": ["a", "b"]}
    _, (request,) = performed(answering(ANSWER), "AIGateway", url="{url}/x", auth_key=KEY, headers=headers, body={})
    told = {name: request.headers[name] for name in ("authorization", "content-length", "user-agent", "x-many")}
    assert told == {"authorization": "Basic x", "content-length": "2", "user-agent": "mine", "x-many": "a, b"}
    assert request.headers["host"].startswith("127.0.0.1")


@pytest.mark.parametrize(
    ("status", "body", "data", "stack"),
    [
        (
            "429 Too Many Requests",
            b'{"error":{"message":"slow down"}}',
            {"error": {"message": "slow down"}},
            '{"error":{"message":"slow down"}}',
        ),
        ("500 Oops", b"no json", "no json", "no json"),
        ("304 Not Modified", b"", None, None),
    ],
)
def test_a_refusal_is_an_error_word_for_word(status: str, body: bytes, data: Any, stack: str | None) -> None:
    """`AIGatewayError` with the provider's answer as data and stack, to be tried again."""
    found, _ = performed(answering(answer(body, status)), "AIGateway", url="{url}/x", body={})
    code = status.partition(" ")[0]
    expected = {"name": "AIGatewayError", "message": f"Error making AI request: unsuccessful status code: {code}", "data": data}
    assert error(found) == (expected if stack is None else {**expected, "stack": stack})
    assert not found.no_retry and found.retry_after_ms is None


def test_retry_after_is_kept() -> None:
    """In seconds."""
    found, _ = performed(answering(answer(b"{}", "429 Slow", "retry-after: 7")), "AIGateway", url="{url}/x", body={})
    assert found.retry_after_ms == 7_000 and not found.no_retry


def test_a_long_refusal_is_cut_visibly() -> None:
    """With how long it was."""
    body = b"x" * (ERROR_BODY_BYTES_MAX + 10)
    found, _ = performed(answering(answer(body, "500 Oops")), "AIGateway", url="{url}/x", body={})
    assert error(found)["stack"].endswith(f"x… ({len(body)} characters in all)")


@pytest.mark.parametrize("kind", ["openai-chat", "anthropic", "gemini", "bedrock"])
def test_a_key_that_the_provider_repeats_is_removed(kind: str) -> None:
    """From errors and from results, in whichever form it comes back."""
    forms = (KEY, "sk-proj-very%2Fsecret%2Bkey%201", "sk-proj-very%2Fsecret%2Bkey+1")
    repeated = json.dumps({"error": f"bad key {', '.join(forms)}", "of": "header-secret-1"}).encode()
    headers = {"x-api-key-extra": "header-secret-1"}
    for status in ("401 Unauthorized", "200 OK"):
        told = {"url": "{url}/x?a=1", "auth_key": KEY, "format": kind, "headers": headers, "body": {}}
        found, _ = performed(answering(answer(repeated, status)), "AIGateway", **told)
        text = repr(found)
        assert not any(form in text for form in (*forms, "header-secret-1")), text
        assert "[removed]" in text


def test_a_failed_connection_shows_neither_key_nor_query() -> None:
    """Only where it did not get to; another try may help."""
    for kind, told in (
        ("AIGateway", {"format": "gemini", "auth_key": KEY, "body": {}}),
        ("Gateway", {"headers": {"authorization": "Bearer abcdefghijk"}}),
    ):
        found, _ = performed(answering(ANSWER), kind, url="http://me:password-1@127.0.0.1:9/x/y?sig=hidden&key=old-key", **told)
        message = error(found)["message"]
        assert "http://127.0.0.1:9/x/y: " in message and not found.no_retry, message
        assert not any(secret in message for secret in ("sk-proj", "hidden", "old-key", "password-1")), message


@pytest.mark.parametrize(
    ("kind", "opts", "says"),
    [
        ("AIGateway", {"body": {}}, "has no url"),
        ("AIGateway", {"url": "ftp://x/?key=hidden-1", "body": {}}, "no address of HTTP"),
        ("AIGateway", {"url": "http://[::1/?key=hidden-1", "auth_key": KEY, "format": "gemini"}, "no address"),
        ("AIGateway", {"url": "{url}", "headers": {"x": "a\nb"}}, "line break"),
        ("AIGateway", {"url": "{url}", "publish": "c"}, "publish"),
        ("AIGateway", {"url": "{url}", "publish": {"channel": "c", "topic": "$run"}}, "the server's own"),
        ("Gateway", {"url": "{url}", "method": "GET /x"}, "method"),
        ("Gateway", {"url": "{url}", "body": {"a": 1}}, "body"),
    ],
)
def test_what_cannot_be_asked_is_a_final_error(kind: str, opts: dict[str, Any], says: str) -> None:
    """No further try would help, and nothing was sent."""
    found, requests = performed(answering(ANSWER), kind, **opts)
    told = error(found)
    assert told["name"] == f"{kind}Error" and says in told["message"] and "hidden-1" not in told["message"], told
    assert found.no_retry and not requests


def test_fetch_takes_any_status() -> None:
    """With headers, the body as a text, the URL without its login; the default method is POST."""
    reply = answer("grün".encode(), "404 Not Found", "x-a: 1", "x-a: 2")
    found, (request,) = performed(answering(reply), "Gateway", url="{url}/x?q=1", headers={"x": "y"}, body="text")
    got = result(found)
    assert (got["status_code"], got["body"], got["headers"]["x-a"]) == (404, "grün", "1, 2")
    assert got["url"].endswith("/x?q=1")
    assert (request.method, request.target, request.body, request.headers["x"]) == ("POST", "/x?q=1", b"text", "y")
    _, (request,) = performed(answering(reply), "Gateway", url="{url}/", method="get")
    assert (request.method, request.body) == ("GET", b"")


def test_redirects_are_followed_as_browsers_do() -> None:
    """A 303 becomes a GET without body, a 307 stays what it was; another origin gets no keys."""
    for status, method, body in (("303 See Other", "GET", b""), ("302 Found", "GET", b""), ("307 Temporary", "POST", b"text")):
        first = answer(b"", status, "location: /there")
        _, (_, second) = performed(answering(first, answer(b"ok")), "Gateway", url="{url}/x", body="text", headers={"content-type": "a/b"})
        assert (second.method, second.target, second.body) == (method, "/there", body)
        assert ("content-type" in second.headers) == (method == "POST")

    async def main() -> Request:
        async with Peer(answering(answer(b"{}"))) as other, Pool(environ={}, as_browsers=True) as client:
            away = answering(answer(b"", "307 Away", f"location: {other.url}/there"))
            async with Peer(away) as peer:
                told = {"url": f"{peer.url}/x", "auth_key": KEY, "format": "anthropic", "headers": {"authorization": "Basic x"}, "body": {}}
                result(await Gateway(client).perform(op("AIGateway", **told)))  # type: ignore[arg-type]
            return other.requests[0]

    elsewhere = asyncio.run(main())
    assert not {"x-api-key", "authorization"} & elsewhere.headers.keys()


def test_an_answer_beyond_the_bound_is_final() -> None:
    """It would be as large the next time."""
    for kind in ("Gateway", "AIGateway"):
        found, _ = performed(answering(answer(b"x" * 2000)), kind, {"bytes_max": 1000}, url="{url}/x")
        assert found.no_retry and "1000" in error(found)["message"]


def test_private_addresses_can_be_shut_out() -> None:
    """By name, by address, and behind a redirect; nothing is sent there."""
    found, requests = performed(answering(ANSWER), "Gateway", {"allows": is_public}, url="{url}/x")
    assert "only public addresses are allowed" in error(found)["message"] and not requests
    for url in ("http://localhost:9/", "http://[::1]:9/", "http://169.254.169.254/latest"):
        found, _ = performed(answering(ANSWER), "Gateway", {"allows": is_public}, url=url)
        assert "only public addresses are allowed" in error(found)["message"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    """Also where one family's address is written as the other's."""
    assert is_public(address) is public


def test_cleaning_keeps_what_is_no_secret() -> None:
    """Queries go from sentences of ours; short keys are no secrets."""
    assert cleaned("GET http://a/b?c=d: no connection", {}) == "GET http://a/b: no connection"
    assert cleaned("GET http://me:pass@a:1/b: late", {}) == "GET http://a:1/b: late"
    assert cleaned("'http://a/b?c=d' is no address", {}) == "'http://a/b' is no address"
    assert cleaned("is it? yes: a?b", {}) == "is it? yes: a?b"
    assert cleaned("test of http://a?b=test", {"auth_key": "test"}, urls=False) == "test of http://a?b=test"
