"""Call requests: canonical to the byte, within their limits, and read by our own serve handler as they were meant."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.calls import (
    REQUEST_BYTES_MAX,
    STATE_BYTES_INLINE_MAX,
    CallRequest,
    decode_call,
    encode_call,
    encode_list,
    encode_steps,
    encoded_size,
)
from stepwell.protocol.codec import canonicalize

from .messages import CALL, EVENT


def replace(**changes: Any) -> CallRequest:
    return msgspec.structs.replace(CALL, **changes)


def body(**changes: Any) -> dict[str, Any]:
    written = encode_call(replace(**changes))
    assert canonicalize(written) == written
    decoded: dict[str, Any] = json.loads(written)
    return decoded


def test_the_body_whole() -> None:
    """§4.1, every field."""
    told = body()
    assert told["ctx"] == {
        "run_id": CALL.run_id,
        "fn_id": CALL.function_uuid,
        "step_id": "step",
        "env": "",
        "attempt": 1,
        "max_attempts": 5,
        "stack": {"stack": list(CALL.stack), "current": 3},
        "qi_id": CALL.item_id,
        "job_id": CALL.item_id,
        "request_id": CALL.request_id,
        "generation_id": 3,
        "disable_immediate_execution": False,
        "use_api": False,
    }
    assert told["event"] == told["events"][0] == json.loads(EVENT.wire())
    assert told["steps"][CALL.stack[0]] == {"data": {"ok": True, "total": 100}}
    assert (told["defers"], told["use_api"], told["version"]) == ({}, False, 2)


def test_a_first_call() -> None:
    """Nothing finished, no version yet; a generation of 0 is left out."""
    told = body(stack=(), steps={}, request_version=-1, fence=0, disable_immediate_execution=True)
    assert told["ctx"]["stack"] == {"current": 0, "stack": []}
    assert (told["version"], told["steps"], told["ctx"]["disable_immediate_execution"]) == (-1, {}, True)
    assert "generation_id" not in told["ctx"]


@pytest.mark.parametrize("step_id", ['a"b', "a\\b", "é", "\U0001f600", "\ufb33", "a\nb"])
def test_step_ids_are_texts_like_others(step_id: str) -> None:
    """They are an app's, and may hold anything."""
    told = body(steps={step_id: b"1", "\ufb33": b"2", "z": b"3"}, stack=(step_id,), step_id=step_id)
    assert told["steps"][step_id] in (1, 2)
    assert told["ctx"]["stack"]["stack"] == [step_id]


def test_use_api_leaves_out_events_and_steps() -> None:
    """Both places say so; `event` stays (§4.10)."""
    told = body(use_api=True)
    assert told["use_api"] is told["ctx"]["use_api"] is True
    assert (told["events"], told["steps"]) == ([], {})
    assert told["event"] == json.loads(EVENT.wire())


def padded(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'


def test_a_large_state_switches_to_use_api() -> None:
    """Beyond 4 MiB less 1 KiB of steps, whatever the rest."""
    small = {"events": (b"{}",), "stack": (), "item_id": "", "run_id": "", "function_uuid": ""}
    assert body(**small, steps={"a": padded(STATE_BYTES_INLINE_MAX)})["use_api"] is False
    assert body(**small, steps={"a": padded(STATE_BYTES_INLINE_MAX + 1)})["use_api"] is True


def test_a_large_body_switches_to_use_api() -> None:
    """To the byte; a single event of any size is still sent."""
    room = REQUEST_BYTES_MAX - encoded_size(replace(events=(b'""',))) + 4
    assert room % 2 == 0 or room > 0
    for size in (room // 2, room // 2 + 1):
        request = replace(events=(padded(size),))
        assert json.loads(encode_call(request))["use_api"] is (encoded_size(request) > REQUEST_BYTES_MAX)
    told = body(events=(padded(5 * 1024 * 1024),))
    assert told["use_api"] is True and len(told["event"]) == 5 * 1024 * 1024 - 2


def test_what_an_app_fetches_is_canonical_too() -> None:
    """The state and the events alone."""
    assert encode_steps({"b": b"1", "a": b'{"data":1}'}) == b'{"a":{"data":1},"b":1}'
    assert encode_list([b"1", b"{}"]) == b"[1,{}]"


def test_our_serve_handler_reads_what_the_server_wrote() -> None:
    """All but what only the server knows."""
    assert decode_call(encode_call(CALL), "shop-charge", "step") == replace(app_id="", url="")
    assert decode_call(encode_call(replace(use_api=True)), "shop-charge", "") == replace(
        app_id="", url="", use_api=True, steps={}, events=CALL.events[:1]
    )


def test_null_is_absent() -> None:
    """Everywhere but in the run's id; bodies come out canonical."""
    nulls = {"attempt": None, "max_attempts": None, "fn_id": None, "disable_immediate_execution": None, "use_api": None}
    nulls |= {"qi_id": None, "generation_id": None, "request_id": None}
    expected = CallRequest(
        run_id="r",
        function_id="f",
        function_uuid="",
        app_id="",
        url="",
        step_id="step",
        attempt=0,
        max_attempts=5,
        request_version=-1,
        stack=(),
        disable_immediate_execution=False,
        item_id="",
        fence=0,
        request_id="",
        events=(b'{"a":1,"b":2}',),
        steps={},
    )
    for context in ({}, nulls, {"stack": None}, {"stack": {"stack": None}}):
        for rest in ({}, {"events": None, "steps": None, "use_api": None, "version": None}, {"events": []}):
            told = {"ctx": {"run_id": "r", **context}, "event": {"b": 2.0, "a": 1}, **rest}
            assert decode_call(json.dumps(told).encode(), "f", "step") == expected


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"ctx":{},"event":{}}',
        b'{"ctx":{"run_id":"r"}}',
        b'{"ctx":{"run_id":1},"event":{}}',
        b'{"ctx":{"run_id":"\xff"},"event":1}',
    ],
)
def test_what_is_no_call_is_refused(told: bytes) -> None:
    """With what is wrong."""
    with pytest.raises(ProtocolError, match="malformed"):
        decode_call(told, "f", "step")
