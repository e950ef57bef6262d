"""Checkpoint requests as SDKs send them: read leniently, refused by name; the request that an endpoint's run repeats."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.checkpoints import (
    endpoint_url,
    parse_async_checkpoint,
    parse_new_run,
    parse_sync_steps,
    request_of,
    response_of,
)
from stepwell.protocol.ops import STEP_OUTPUT_BYTES_MAX

RUN_ID = "01J8ZZZZZZZZZZZZZZZZZZZZZZ"
NOW_MS = 1_735_689_600_000
JS, GO = "inngest-js:v4.24.0", "inngest-go:v0.15.0"


def new_run(data: dict[str, Any] | None = None, sdk: str = JS, **fields: Any) -> Any:
    """A request that begins a run."""
    event = {"name": "inngest/http.request", "data": {"domain": "https://shop.example", "method": "post", "path": "/pay", **(data or {})}}
    return parse_new_run(json.dumps({"run_id": RUN_ID, "event": event, "ts": 1, **fields}).encode(), sdk=sdk, received_ms=NOW_MS)


def test_an_endpoint_is_named_by_its_method_and_path_or_by_its_own_name() -> None:
    """The app is the domain; the slug of the function is composite, like every other."""
    new = new_run(retries=3, request_version=2)
    assert (new.app_name, new.function.id, new.function.name) == (
        "https://shop.example", "https://shop.example-POST /pay", "POST /pay",
    )  # fmt: skip
    assert (new.function.url, new.function.retries, new.request_version, new.ops) == ("https://shop.example/pay", 3, 2, ())
    assert new_run({"fn": "pay"}).function.id == "https://shop.example-pay"
    assert new_run({"fn": ""}, steps=None).function.retries == 4
    assert new_run(retries=99).function.retries == 20 and new_run(request_version=-1).request_version == 2


def test_the_same_request_has_the_same_event() -> None:
    """Its id is made of the run's, so that a request that is sent twice is known; the idempotency key is the event's own id."""
    first, again = new_run(), new_run(ts=2)
    assert first.event == again.event and first.event.id == first.event.internal_id
    assert new_run(idempotency="k").event.id == "k"
    assert json.loads(first.event.data)["_inngest"] == {"sdk": JS}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"run_id": "r-1"}, "ULID"),
        ({"event": {"name": "x", "data": {"method": "GET", "path": "/"}}}, "domain"),
        ({"event": {"name": "x", "data": {"domain": "d", "method": 1, "path": "/"}}}, "method"),
        ({"event": {"name": "x", "data": {"domain": "d\n", "method": "GET", "path": "/"}}}, "domain"),
        ({"steps": {"op": "Nap", "id": "x"}}, "Nap"),
        ({"steps": 5}, "steps"),
        ({"idempotency": "k" * 513}, "idempotency"),
        ({"event": None}, "event"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], says: str) -> None:
    """A sentence with the field or the value, 400."""
    with pytest.raises(ProtocolError, match=says) as error:
        new_run(**fields)
    assert error.value.status == 400


def test_an_output_that_is_too_large_is_413() -> None:
    """In every kind of checkpoint."""
    steps = [{"op": "StepRun", "id": "s", "data": "x" * STEP_OUTPUT_BYTES_MAX}]
    for parse, extra in ((parse_async_checkpoint, {"qi_id": "q"}), (parse_sync_steps, {})):
        with pytest.raises(ProtocolError) as error:
            parse(json.dumps({"steps": steps, **extra}).encode())
        assert error.value.status == 413


def test_an_async_checkpoint_names_its_call() -> None:
    """The opaque reference has to be there; the generation need not."""
    body = {"run_id": RUN_ID, "qi_id": "q", "generation_id": 3, "request_started_at": 1, "ts": 2, "steps": [{"op": "StepRun", "id": "s"}]}
    told = parse_async_checkpoint(json.dumps(body).encode())
    assert (told.item_id, told.generation, [op.id for op in told.ops]) == ("q", 3, ["s"])
    assert parse_async_checkpoint(b'{"qi_id":"q","generation_id":null,"steps":null}').generation == 0
    for body_text in (b'{"steps":[]}', b"[]", b"", b'{"qi_id":5}'):
        with pytest.raises(ProtocolError):
            parse_async_checkpoint(body_text)


def test_a_request_is_repeated_as_it_was() -> None:
    """With its query, content type and body, which Go's SDK writes in base64."""
    body = b'{"amount": 12}\xff'
    told = {"query_params": "a=1&b=%2F", "content_type": "application/json", "body": base64.b64encode(body).decode()}
    request = request_of(new_run(told, GO).event.wire())
    assert (request.method, request.url) == ("POST", "https://shop.example/pay?a=1&b=%2F")
    assert (request.content_type, request.body, request.sdk) == ("application/json", body, GO)
    assert request_of(new_run({"body": "cGxhaW4="}, JS).event.wire()).body == b"cGxhaW4="
    assert request_of(new_run({"body": "not base64!"}, GO).event.wire()).body == b"not base64!"
    assert request_of(new_run({"body": {"b": 1, "a": 2}}).event.wire()).body == b'{"a":2,"b":1}'
    assert request_of(new_run().event.wire()).body == b""
    with pytest.raises(ProtocolError, match="no HTTP request"):
        request_of(b'{"data":{"x":1},"name":"shop/paid"}')


@pytest.mark.parametrize(
    ("domain", "url"),
    [
        ("https://a.example", "https://a.example/p"),
        ("http://127.0.0.1:3000/", "http://127.0.0.1:3000/p"),
        ("a.example", "https://a.example/p"),
        ("localhost:3000", "http://localhost:3000/p"),
    ],
)
def test_a_domain_without_a_scheme_is_reached_by_tls_but_on_this_machine(domain: str, url: str) -> None:
    """Whatever stands at its end."""
    assert endpoint_url({"domain": domain, "path": "/p"}) == url == endpoint_url({"domain": domain, "path": "p"})


def test_an_output_is_a_response_or_it_is_not() -> None:
    """Of either SDK; what is none is given as JSON."""
    js = response_of(b'{"body":"{}","headers":{"Content-Type":"application/json","Set":["a","b"]},"status":201,"version":2}', JS)
    assert js is not None and (js.status, js.body) == (201, b"{}")
    assert js.headers == {"content-type": "application/json", "set": "a, b"}
    go = response_of(b'{"body":"aGk=","duration":5,"headers":null,"status_code":200}', GO)
    assert go is not None and (go.status, go.headers, go.body) == (200, {}, b"hi")
    for output in (b'"done"', b'{"status":"ok","body":1}', b'{"status":200}', b'{"body":"","status":99}', b'{"body":"","status":true}'):
        assert response_of(output, JS) is None
