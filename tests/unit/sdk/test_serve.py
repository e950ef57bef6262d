"""The serve handler, spoken to over ASGI as a server would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import stepwell
from stepwell.net.http_client import Response
from stepwell.protocol.calls import Answer, CallRequest, encode_call, parse_answer
from stepwell.protocol.functions import parse_registration
from stepwell.protocol.signatures import bearer_hash, sign, verify
from stepwell.sdk import http

from .fake_engine import FakeEngine

KEY = "signkey-test-12ab34cd"
OTHER = "signkey-test-99ff"
PATH = "/api/stepwell"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing from outside decides the mode."""
    for name in ("DEV", "SIGNING_KEY", "SIGNING_KEY_FALLBACK", "EVENT_KEY", "URL", "SERVE_URL"):
        monkeypatch.delenv(f"STEPWELL_{name}", raising=False)
        monkeypatch.delenv(f"INNGEST_{name}", raising=False)


def shop(**options: Any) -> stepwell.App:
    app = stepwell.App("shop", **options)

    async def one(n: int) -> int:
        return n

    @app.function(trigger="t/e")
    async def work(ctx: stepwell.Context) -> list[int]:
        pair = await asyncio.gather(ctx.step.run("a", one, 1), ctx.step.run("b", one, 2))
        return [*pair, await ctx.step.run("c", one, 3)]

    return app


def ask(app: stepwell.App, method: str, *, body: bytes = b"", headers: dict[str, str] | None = None, query: str = "") -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=stepwell.serve(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
            return await client.request(method, f"{PATH}{query}", content=body, headers=headers)

    return asyncio.run(main())


def signed(body: bytes, key: str = KEY, age_s: int = 0) -> dict[str, str]:
    return {"x-inngest-signature": sign(body, key, int(time.time()) - age_s)}


class Http:
    """An executor for the fake engine that makes each call over HTTP."""

    def __init__(self, app: stepwell.App, **options: Any) -> None:
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app=stepwell.serve(app, **options)), base_url="http://app.test")

    async def call(self, request: CallRequest, checkpoint: object) -> Answer:
        """As the HTTP driver."""
        query = {"fnId": request.function_id, "stepId": request.step_id}
        response = await self._client.post(PATH, params=query, content=encode_call(request))
        return parse_answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content, now_ms=0)

    async def close(self) -> None:
        """The client too."""
        await self._client.aclose()


def test_a_run_over_http() -> None:
    """Planned, targeted, joined, one step a call."""
    app = shop()
    engine = FakeEngine(app, "work", executor=Http(app, max_runtime="0s"), checkpoints=False)  # type: ignore[arg-type]
    assert asyncio.run(engine.run()) == [1, 2, 3]
    assert engine.shapes() == [
        "step:StepPlanned a,StepPlanned b",
        "a:StepRun a",
        "b:StepRun b",
        "step:StepRun c",
        "step:Returned",
    ]


def test_headers_and_an_unknown_function() -> None:
    """Every answer says which SDK gave it and with which request version."""
    app = shop()
    body = encode_call(FakeEngine(app, "work").request("i", "step", 0))
    answer = ask(app, "POST", body=body, query="?fnId=shop-work&stepId=step")
    assert answer.status_code == 206
    assert answer.headers["x-inngest-sdk"] == "stepwell-py:v0.1.0" and answer.headers["x-inngest-req-version"] == "2"
    assert "x-inngest-signature" not in answer.headers
    answer = ask(app, "POST", body=body, query="?fnId=shop-gone&stepId=step")
    assert answer.status_code == 500 and answer.headers["x-inngest-no-retry"] == "false"
    assert "There is no function 'shop-gone'" in answer.json()["message"]
    assert ask(app, "POST", body=b"no json").status_code == 400
    assert ask(app, "DELETE").status_code == 405


def test_cloud_mode_wants_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key, unsigned, wrongly signed and old requests are refused, and answers are signed."""
    app = shop(signing_key=KEY)
    body = encode_call(FakeEngine(app, "work").request("i", "step", 0))
    query = "?fnId=shop-work&stepId=step"
    for headers in ({}, signed(body, OTHER), signed(b"other body"), signed(body, age_s=600)):
        answer = ask(app, "POST", body=body, headers=headers, query=query)
        assert answer.status_code == 401 and answer.json()["message"] == "Unauthorized"
    assert ask(app, "GET").status_code == 401
    answer = ask(app, "POST", body=body, headers=signed(body), query=query)
    assert answer.status_code == 206
    assert verify(answer.content, answer.headers["x-inngest-signature"], KEY, int(time.time()))
    monkeypatch.setenv("STEPWELL_SIGNING_KEY_FALLBACK", OTHER)
    assert ask(app, "POST", body=body, headers=signed(body, OTHER), query=query).status_code == 206
    assert ask(app, "POST", headers=signed(b""), query="?probe=trust").content == b""


def test_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dev by the environment, or without a key next to a local server; never by accident elsewhere."""
    assert ask(shop(), "GET").json()["mode"] == "dev"
    remote = shop(url="https://jobs.example")
    answer = ask(remote, "GET")
    assert answer.status_code == 500 and "no signing key" in answer.json()["message"]
    monkeypatch.setenv("STEPWELL_DEV", "1")
    assert ask(remote, "GET").json()["mode"] == "dev"
    assert ask(shop(signing_key=KEY), "GET").json()["mode"] == "dev"
    monkeypatch.setenv("STEPWELL_DEV", "0")
    assert ask(shop(), "GET").status_code == 500
    monkeypatch.delenv("STEPWELL_DEV")
    answer = ask(shop(), "GET", headers={"x-inngest-server-kind": "cloud"})
    assert answer.status_code == 403 and "the server is in cloud mode, this app in dev mode" in answer.json()["message"]


def test_introspection() -> None:
    """What a server's page wants to know."""
    told = ask(shop(), "GET").json()
    assert told["function_count"] == 1 and told["app_id"] == "shop" and told["schema_version"] == "2024-05-24"
    assert told["has_signing_key"] is False and told["sdk_language"] == "py"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Response], list[tuple[str, str, dict[str, str], bytes]]]:
    """Stands in for the server: gives the answer that is told, and a list of what it was asked."""

    def install(response: Response) -> list[tuple[str, str, dict[str, str], bytes]]:
        asked: list[tuple[str, str, dict[str, str], bytes]] = []

        async def request(method: str, url: str, *, headers: dict[str, str], body: bytes = b"", tries: int = 1) -> Response:
            asked.append((method, url, headers, body))
            return response

        monkeypatch.setattr(http, "request", request)
        return asked

    return install


def test_sync_out_of_band(registered: Any) -> None:
    """A PUT has the app register itself, under the address that the PUT came to."""
    asked = registered(Response(200, {}, b'{"ok":true,"modified":true,"sync_id":"s","app_id":"a"}'))
    answer = ask(shop(), "PUT", query="?deployId=d1", headers={"x-inngest-server-kind": "dev"})
    assert answer.status_code == 200 and answer.json()["modified"] is True
    method, url, headers, body = asked[0]
    assert (method, url) == ("POST", "http://127.0.0.1:8288/fn/register?deployId=d1")
    assert headers["x-inngest-expected-server-kind"] == "dev" and "authorization" not in headers
    told = parse_registration(body)
    assert told.app_name == "shop" and told.functions[0].url == "http://app.test/api/stepwell?fnId=shop-work&stepId=step"


def test_a_refused_sync_says_why(registered: Any) -> None:
    """The server's words come through."""
    registered(Response(400, {}, b'{"error":"function is wrong","data":null,"status":400}'))
    answer = ask(shop(), "PUT")
    assert answer.status_code == 400 and "function is wrong" in answer.json()["message"]


def test_sync_in_band(registered: Any) -> None:
    """Signed and asked for, the answer itself is the registration."""
    asked = registered(Response(500, {}, b""))
    answer = ask(shop(signing_key=KEY), "PUT", headers={**signed(b""), "x-inngest-sync-kind": "in_band"})
    assert answer.status_code == 200 and answer.headers["x-inngest-sync-kind"] == "in_band" and not asked
    assert parse_registration(answer.content).functions[0].id == "shop-work"
    assert answer.json()["inspection"]["authentication_succeeded"] is True


def test_keys_are_shown_as_hashes_when_state_is_fetched(registered: Any) -> None:
    """A call whose state is too large is completed over the API (§4.10)."""
    asked = registered(Response(200, {}, b"{}"))
    app = shop(signing_key=KEY)
    request = FakeEngine(app, "work").request("i", "step", 0)
    body = encode_call(request).replace(b'"use_api":false', b'"use_api":true')
    answer = ask(app, "POST", body=body, headers=signed(body), query="?fnId=shop-work&stepId=step")
    assert answer.status_code >= 400, "the events are no array"
    assert [url for _, url, _, _ in asked] == [f"http://127.0.0.1:8288/v0/runs/{request.run_id}/{what}" for what in ("actions", "batch")]
    assert asked[0][2] == {"authorization": f"Bearer {bearer_hash(KEY)}"}


def test_lifespan_is_answered() -> None:
    """A server that sends lifespan events is not refused."""

    async def main() -> list[str]:
        events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        sent: list[str] = []

        async def receive() -> Any:
            return next(events)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await stepwell.serve(shop())({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(main()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_forms_of_the_address() -> None:
    """Mounts and proxies are seen through."""
    from stepwell.sdk.handler import address

    headers = {"host": "a.example:8080"}
    assert address("http", "h", "", "/x", headers) == "http://a.example:8080/x"
    assert address("http", "h", "/m", "/x", headers) == "http://a.example:8080/m/x"
    assert address("http", "h", "/m", "/m/", {**headers, "x-forwarded-proto": "https"}) == "https://a.example:8080/m/"
    assert address("http", "h", "", "/x", {}) == "http://h/x"
