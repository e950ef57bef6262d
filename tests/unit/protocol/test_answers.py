"""Answers: every shape of §4.4 to §4.9 is read, whatever the peer does, and ours are written exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.protocol.answers import (
    ANSWER_BYTES_MAX,
    RETRY_AFTER_MAX_MS,
    Answer,
    Failed,
    Lost,
    Ops,
    Returned,
    encode_answer,
    failed,
    parse_answer,
    parse_retry_after_ms,
)
from stepwell.protocol.ops import Op

NOW_MS = 1_735_689_600_000
SDK = {"x-inngest-sdk": "inngest-py:v0.5.19"}
STEP = b'[{"op":"StepRun","id":"a","data":1}]'
OP = Op(op="StepRun", id="a", data=b"1")


def parse(status: int, body: bytes, **headers: str) -> Answer:
    told = {**SDK, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return parse_answer(status, told, body, now_ms=NOW_MS)


def failure(status: int, body: bytes, **headers: str) -> tuple[dict[str, Any], bool]:
    answer = parse(status, body, **headers)
    assert isinstance(answer, Failed)
    return json.loads(answer.error), answer.retriable


def test_ops() -> None:
    """A 206 with its version, and what it says of retries."""
    assert parse(206, STEP, x_inngest_req_version="2") == Ops(ops=(OP,), request_version=2)
    answer = parse(206, STEP, x_inngest_req_version="1", x_inngest_no_retry="false", retry_after="30")
    assert answer == Ops(ops=(OP,), request_version=1, no_retry=False, retry_after_ms=30_000)
    assert parse(206, b"[]") == Ops(ops=(), request_version=1)


@pytest.mark.parametrize("version", ["", "0", "-1", "two", "²", "9" * 5000])
def test_a_version_that_is_none_is_the_first(version: str) -> None:
    """Never 0: old SDKs would stay on their oldest ways for the whole run (§4.1)."""
    answer = parse(206, STEP, x_inngest_req_version=version)
    assert isinstance(answer, Ops) and answer.request_version == 1


def test_an_error_in_an_op_may_ask_for_no_retry() -> None:
    """Where no header speaks of it; the header goes first."""
    body = b'[{"op":"StepError","id":"a","error":{"name":"E","message":"m","noRetry":true}}]'
    asked, overruled = parse(206, body), parse(206, body, x_inngest_no_retry="false")
    assert isinstance(asked, Ops) and asked.no_retry is True
    assert isinstance(overruled, Ops) and overruled.no_retry is False


@pytest.mark.parametrize("body", [b"", b"null", b"[null]", b'[{"op":"Nonsense","id":"a"}]', b"<html>"])
def test_what_is_no_array_of_ops_is_a_failed_attempt(body: bytes) -> None:
    """Retriable, with the body shown."""
    error, retriable = failure(206, body)
    assert retriable and error["code"] == "invalid_response" and error["message"].startswith("the app answered")


def test_too_large_a_step_is_a_failed_attempt() -> None:
    """By its code."""
    error, retriable = failure(206, json.dumps([{"op": "StepRun", "id": "a", "data": "x" * 4 * 1024 * 1024}]).encode())
    assert retriable and error["code"] == error["name"] == "output_too_large"


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'{"b":1.0,"a":[]}', b'{"a":[],"b":1}'),
        (b"", b"null"),
        (b" \n", b"null"),
        (b"null", b"null"),
        (b' "text" ', b'"text"'),
        (b"plain text", b'"plain text"'),
        (b"caf\xe9", '"caf�"'.encode()),
    ],
)
def test_results(body: bytes, data: bytes) -> None:
    """Any JSON, or a text that is none; nothing is null."""
    assert parse(200, body) == Returned(data=data)


def test_a_result_that_is_too_deep_has_failed() -> None:
    """It is not turned into a text."""
    error, _ = failure(200, b"[" * 300 + b"]" * 300)
    assert error["code"] == "too_deep"


def test_a_result_larger_than_a_step_is_taken() -> None:
    """Up to what an answer may have."""
    assert isinstance(parse(200, b'"' + b"x" * 5 * 1024 * 1024 + b'"'), Returned)


def test_python_s_function_error() -> None:
    """500 with code and stack, kept verbatim."""
    body = b'{"code":"unknown","message":"boom","name":"MyError","stack":"Traceback"}'
    assert parse(500, body) == Failed(error=body, retriable=True)
    assert parse(500, body, x_inngest_no_retry="true") == Failed(error=body, retriable=False)
    assert parse(500, body, retry_after="2025-01-01T00:01:00.000Z") == Failed(error=body, retriable=True, retry_after_ms=60_000)


def test_javascript_s_non_retriable_error() -> None:
    """400 with its header, the object as a text of JSON."""
    error, retriable = failure(400, json.dumps('{"name":"E","message":"m","__serialized":true}').encode(), x_inngest_no_retry="true")
    assert error == {"name": "E", "message": "m", "__serialized": True} and not retriable


def test_an_error_status_alone_is_retriable() -> None:
    """Also a 4xx (§4.4)."""
    for status in (400, 401, 404, 410, 429, 500, 503):
        assert failure(status, b"")[1]


def test_success_with_no_retry_is_a_failure() -> None:
    """§4.7 #4: JavaScript over Connect, for one."""
    assert failure(200, b'{"name":"E","message":"m"}', x_inngest_no_retry="true") == ({"name": "E", "message": "m"}, False)
    assert failure(200, b"", x_inngest_no_retry=" TRUE ")[1] is False
    assert parse(200, b"1", x_inngest_no_retry="false") == Returned(data=b"1")


def test_other_successes_are_failures() -> None:
    """No SDK answers a call with 204."""
    error, retriable = failure(204, b"")
    assert retriable and error["message"] == "The app answered HTTP 204 without a message."


def test_an_error_that_is_no_json_is_shown() -> None:
    """As its message."""
    assert failure(500, b"Internal <b>error</b>")[0] == {"name": "Error", "message": "Internal <b>error</b>"}


def test_an_unauthorized_answer_is_the_sdk_s() -> None:
    """New SDKs drop all their headers but one then."""
    answer = parse_answer(401, {"x-inngest-sdk-handled": "true"}, b'{"message":"Unauthorized"}', now_ms=NOW_MS)
    assert answer == Failed(error=b'{"message":"Unauthorized","name":"Error"}', retriable=True)


@pytest.mark.parametrize("status", [200, 206, 201, 202])
def test_a_success_without_the_sdk_s_header_did_not_come_from_one(status: int) -> None:
    """§4.7 #5."""
    answer = parse_answer(status, {}, b"<html>hello</html>", now_ms=NOW_MS)
    assert isinstance(answer, Failed) and answer.retriable
    error = json.loads(answer.error)
    assert error["code"] == error["name"] == "not_sdk"
    assert error["message"].startswith(f"The answer (HTTP {status}) did not come from an SDK")
    assert error["stack"] == "<html>hello</html>"


def test_a_failure_without_the_sdk_s_header_is_the_server_s() -> None:
    """§4.7 #6: with the beginning of its body, and when it asks for it later."""
    answer = parse_answer(502, {"retry-after": "7"}, b"x" * 10_000, now_ms=NOW_MS)
    assert isinstance(answer, Failed) and answer.retriable and answer.retry_after_ms == 7_000
    error = json.loads(answer.error)
    assert error["name"] == "Server returned a fatal error"
    assert error["message"] == "Your server returned HTTP 502 before the SDK responded."
    assert error["stack"] == "x" * 8192


def envelope(**fields: Any) -> bytes:
    return b"   \n  " + json.dumps(fields).encode()


def test_a_stream_s_envelope_is_opened() -> None:
    """Body as JSON or as a text of it, its headers before those of HTTP (§4.9)."""
    headers = {"X-Inngest-Req-Version": "2", "x-inngest-sdk": "inngest-py:v0.5.19"}
    expected = Ops(ops=(OP,), request_version=2)
    assert parse(201, envelope(status=206, headers=headers, body=STEP.decode())) == expected
    assert parse(201, envelope(status=206, headers=headers, body=json.loads(STEP)), x_inngest_req_version="1") == expected
    assert parse_answer(201, {}, envelope(status=206, headers=headers, body=STEP.decode()), now_ms=NOW_MS) == expected


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"body": "plain"}, b'"plain"'),
        ({"body": '"text"'}, b'"text"'),
        ({"body": {"a": 1.0}}, b'{"a":1}'),
        ({"body": None}, b"null"),
        ({}, b"null"),
    ],
)
def test_a_stream_s_result(fields: dict[str, Any], data: bytes) -> None:
    """As one that comes at once."""
    assert parse(201, envelope(status=200, **fields)) == Returned(data=data)


def test_a_stream_s_failures() -> None:
    """The status inside counts; an error alone is one."""
    assert failure(201, envelope(status=500, body='{"name":"E","message":"m"}', headers={"x-inngest-no-retry": "true"})) == (
        {"name": "E", "message": "m"},
        False,
    )
    assert failure(201, envelope(error="it broke")) == ({"name": "Error", "message": "it broke"}, True)
    answer = parse_answer(201, {}, envelope(error="it broke"), now_ms=NOW_MS)
    assert isinstance(answer, Failed) and json.loads(answer.error)["message"] == "it broke"


@pytest.mark.parametrize("body", [b"", b"   ", b'   {"status":20', b"[]", b"{}", b"1"])
def test_a_stream_that_breaks_off_is_a_failed_attempt(body: bytes) -> None:
    """Retriable."""
    error, retriable = failure(201, body)
    assert retriable and error["code"] == "stream_broken"


@pytest.mark.parametrize("status", ["206", True, 1.5, None])
def test_a_stream_s_status_must_be_a_number(status: Any) -> None:
    """Anything else has failed; odd headers do not matter."""
    assert failure(201, envelope(status=status, headers=[1]))[0]["code"] == "invalid_response"
    assert parse(201, envelope(status=200, headers=[1], body=1)) == Returned(data=b"1")


def test_too_large_an_answer_has_failed() -> None:
    """§4.7 #8: eight mebibytes are taken, one byte more is not."""
    error, retriable = failure(200, b'"' + b"x" * (ANSWER_BYTES_MAX - 1) + b'"')
    assert retriable and error["code"] == "output_too_large" and "8388609 bytes" in error["message"]
    assert isinstance(parse(200, b'"' + b"x" * (ANSWER_BYTES_MAX - 2) + b'"'), Returned)


@pytest.mark.parametrize(
    ("header", "ms"),
    [
        (None, None),
        ("", None),
        ("30", 30_000),
        ("0", 1_000),
        ("-5", 1_000),
        (" 5 ", 5_000),
        ("9999999", RETRY_AFTER_MAX_MS),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("2025-01-01T00:01:00Z", 60_000),
        ("2025-01-01T00:01:00.000Z", 60_000),
        ("Wed, 01 Jan 2025 00:01:00 GMT", 60_000),
        ("2024-01-01T00:00:00Z", 1_000),
        ("2026-01-01T00:00:00Z", RETRY_AFTER_MAX_MS),
        ("whenever you like", None),
    ],
)
def test_retry_after(header: str | None, ms: int | None) -> None:
    """Seconds in up to seven characters, else a date; between a second and a day (§4.8)."""
    assert parse_retry_after_ms(header, NOW_MS) == ms


@pytest.mark.parametrize(
    "answer",
    [
        Ops(ops=(OP,), request_version=2),
        Ops(ops=(), request_version=1, no_retry=True, retry_after_ms=5_000),
        Ops(ops=(OP, OP), request_version=2, no_retry=False),
        Returned(data=b'{"a":1}'),
        Failed(error=b'{"message":"m","name":"E"}', retriable=True),
        Failed(error=b'{"message":"m","name":"E"}', retriable=False, retry_after_ms=1_000),
    ],
)
def test_our_answers_are_read_as_they_were_meant(answer: Answer) -> None:
    """A round trip."""
    status, headers, body = encode_answer(answer, "stepwell-py:v1")
    assert headers["x-inngest-sdk"] == "stepwell-py:v1"
    assert parse_answer(status, headers, body, now_ms=NOW_MS) == answer


def test_statuses_of_our_answers() -> None:
    """As JavaScript's SDK chooses them; a retry is asked for in whole seconds, never early."""
    assert encode_answer(failed("E", "m"))[0] == 500
    assert encode_answer(failed("E", "m", retriable=False))[0] == 400
    assert encode_answer(Ops(ops=(), request_version=2, retry_after_ms=1_001))[1]["retry-after"] == "2"


def test_a_lost_call_looks_like_a_server_that_broke_down() -> None:
    """So that whoever called tries again."""
    status, headers, body = encode_answer(Lost(reason="the child died"))
    answer = parse_answer(status, headers, body, now_ms=NOW_MS)
    assert isinstance(answer, Failed) and answer.retriable and b"the child died" in answer.error
