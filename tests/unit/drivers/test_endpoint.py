"""Calls to durable endpoints: what is sent, what is signed, and what an answer means (inngest-protocol §5.13)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from stepwell.drivers.endpoint import EndpointDriver
from stepwell.net.http_connection import Response
from stepwell.net.http_errors import Dropped, Unreachable
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint, Failed, Lost, Ops, Returned
from stepwell.protocol.signatures import verify

KEY = "signkey-test-12ab"
SDK = {"x-inngest-sdk": "inngest-js:v4.24.0", "x-inngest-req-version": "2"}
DONE = b'{"op":"RunComplete","id":"end","data":{"status":200,"headers":{},"body":"ok"}}'


class Pool:
    """Notes the request and answers it."""

    def __init__(self, response: Response | Exception) -> None:
        self.response = response
        self.sent: dict[str, Any] = {}

    async def request(self, method: str, url: str, *, headers: dict[str, str], body: bytes, timeout_s: float, resend: bool) -> Response:
        """As the real one."""
        self.sent = {"method": method, "url": url, "headers": headers, "body": body, "timeout_s": timeout_s}
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


async def no_checkpoint(checkpoint: Checkpoint) -> None:
    """Endpoints report by requests of their own."""
    raise AssertionError("an endpoint's call makes no checkpoint")


def call(
    response: Response | Exception, *, key: str | None = None, data: dict[str, Any] | None = None, **fields: Any
) -> tuple[Answer, dict[str, Any]]:
    """The answer, and what was sent."""
    told = {"domain": "http://shop", "method": "GET", "path": "/pay", "_inngest": {"sdk": "inngest-js:v4.24.0"}, **(data or {})}
    event = json.dumps({"name": "inngest/http.request", "data": told}).encode()
    request = {
        "run_id": "R", "function_id": "f", "function_uuid": "u", "app_id": "a", "url": "", "step_id": "step", "attempt": 0,
        "max_attempts": 4, "request_version": 2, "stack": (), "disable_immediate_execution": False, "item_id": "R-sync", "fence": 3,
        "request_id": "Q", "events": (event,), "steps": {},
    }  # fmt: skip
    pool = Pool(response)
    driver = EndpointDriver(pool, kind="cloud" if key else "dev", signing_key=key)  # type: ignore[arg-type]
    answer = asyncio.run(driver.call(CallRequest(**{**request, **fields}), no_checkpoint))
    return answer, pool.sent


def test_a_call_says_whose_it_is_by_its_headers() -> None:
    """And has the run's step, and the wish for a plan, only where there are any."""
    answer, sent = call(Response(206, SDK, DONE))
    assert isinstance(answer, Ops) and [op.op for op in answer.ops] == ["RunComplete"]
    headers = sent["headers"]
    signature = headers.pop("x-inngest-signature")
    assert headers.pop("traceparent").startswith("00-") and "inngest@fn=u" in headers.pop("tracestate")
    assert headers == {
        "x-run-id": "R", "x-inngest-server-kind": "dev", "x-inngest-req-version": "2", "x-request-id": "Q", "x-inngest-job-id": "R-sync",
        "x-inngest-generation-id": "3",
    }  # fmt: skip
    assert signature  # without a key it proves nothing, and is there
    assert (sent["method"], sent["url"], sent["body"]) == ("GET", "http://shop/pay", b"")
    _, sent = call(Response(206, SDK, b"[]"), step_id="abc", disable_immediate_execution=True, fence=0)
    assert sent["headers"]["x-inngest-step-id"] == "abc" and sent["headers"]["x-inngest-force-step-plan"] == "true"
    assert "x-inngest-generation-id" not in sent["headers"]


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        ({"method": "POST", "body": '{"b": 1, "a": 2}'}, b'{"a":2,"b":1}'),
        ({"method": "POST", "body": "a=1"}, b"a=1"),
        ({"method": "PATCH", "body": '{"b": 1}'}, b""),
        ({"method": "PATCH", "body": "eyJiIjogMX0=", "_inngest": {"sdk": "inngest-go:v1"}}, b'{"b":1}'),
        ({"method": "GET"}, b""),
    ],
)
def test_the_signature_is_over_what_sdks_verify(data: dict[str, Any], signed: bytes) -> None:
    """JSON in canonical form, whatever its spelling; what JavaScript's SDK does not read counts as empty. The body is sent as it was."""
    _, sent = call(Response(206, SDK, DONE), key=KEY, data=data)
    signature = sent["headers"]["x-inngest-signature"]
    assert verify(signed, signature, KEY, int(signature.split("&")[0][2:]))


def test_ops_are_ops_whatever_the_status_says() -> None:
    """And whoever sent them; a result of the endpoint's own ends the run with it."""
    for headers in (SDK, {}):
        answer, _ = call(Response(200, headers, b'[{"op":"StepRun","id":"s","data":1}]'))
        assert isinstance(answer, Ops) and answer.ops[0].id == "s"
    answer, _ = call(Response(200, SDK, b'{"op":"none of ours"}'))
    assert isinstance(answer, Returned)
    answer, _ = call(Response(200, {}, b"<html>"))
    assert isinstance(answer, Failed) and answer.retriable and b"not_sdk" in answer.error


def test_what_goes_wrong_is_a_failed_attempt() -> None:
    """The app's own error, an app that is not there, and a run that has no request to repeat, which is final."""
    answer, _ = call(Response(400, {**SDK, "x-inngest-no-retry": "true"}, b'{"name":"E","message":"m"}'))
    assert isinstance(answer, Failed) and not answer.retriable and b'"m"' in answer.error
    answer, _ = call(Unreachable("http://shop cannot be reached"))
    assert isinstance(answer, Failed) and answer.retriable and b"http_unreachable" in answer.error
    answer, _ = call(Dropped("the connection broke"))
    assert isinstance(answer, Lost)
    answer, sent = call(Response(206, SDK, DONE), data={"domain": ""})
    assert isinstance(answer, Failed) and not answer.retriable and not sent
