"""A golden file per message: what we write does not change by accident.

A file that is missing is written, and the test fails once, so that somebody looks at it before it is committed.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.answers import Failed, Lost, Ops, Returned, encode_answer, failed, parse_answer
from stepwell.protocol.calls import encode_call
from stepwell.protocol.codec import canonical, canonicalize
from stepwell.protocol.events import events_answer
from stepwell.protocol.functions import config_json, encode_registration
from stepwell.protocol.lifecycle import deferred_data, invoked_data, lifecycle_data, scheduled_data
from stepwell.protocol.ops import encode_ops
from stepwell.protocol.registration import refused_answer, registered_answer

from .messages import CALL, EVENT, FUNCTIONS, NOW_MS, OPS, RUN_ID, shop

GOLDEN = Path(__file__).parent / "golden"
EVENTS = [EVENT.wire()]


def answer(*parts: object) -> bytes:
    """Status, headers and body of an answer as one JSON text."""
    status, headers, body = parts
    assert isinstance(body, bytes)
    return canonical({"status": status, "headers": headers, "body": body.decode()})


MESSAGES = {
    "call": lambda: encode_call(CALL),
    "call_use_api": lambda: encode_call(msgspec.structs.replace(CALL, use_api=True, request_version=-1, fence=0)),
    "call_targeted": lambda: encode_call(
        msgspec.structs.replace(CALL, step_id=CALL.stack[0], disable_immediate_execution=True, stack=(), steps={}, events=CALL.events[:1])
    ),
    "register": lambda: encode_registration(shop()),
    "register_accepted": lambda: registered_answer(modified=True, app_id="a", sync_id="s"),
    "register_refused": lambda: refused_answer("appName is missing: an app is known by its name", 400),
    "function_config": lambda: config_json(FUNCTIONS[0]),
    "event": EVENT.wire,
    "events_accepted": lambda: events_answer([EVENT.internal_id])[1],
    "events_refused": lambda: events_answer([EVENT.internal_id], ProtocolError("event name is empty"))[1],
    "ops": lambda: encode_ops(OPS),
    "answer_ops": lambda: answer(
        *encode_answer(Ops(ops=OPS[2:], request_version=2, no_retry=False, retry_after_ms=30_000), "stepwell-py:v1")
    ),
    "answer_result": lambda: answer(*encode_answer(Returned(data=b'{"ok":true}'), "stepwell-py:v1")),
    "answer_error": lambda: answer(*encode_answer(failed("MyError", "boom", "Traceback…"), "stepwell-py:v1")),
    "answer_final_error": lambda: answer(*encode_answer(failed("MyError", "boom", retriable=False), "stepwell-py:v1")),
    "answer_lost": lambda: answer(*encode_answer(Lost(reason="the child died"), "stepwell-py:v1")),
    "error_fatal": lambda: error_of(502, b"<h1>Bad gateway</h1>"),
    "error_not_sdk": lambda: error_of(200, b"hello"),
    "lifecycle_completed": lambda: lifecycle_data("shop-charge", RUN_ID, "completed", b'{"ok":true}', EVENTS, f"{RUN_ID}.abc"),
    "lifecycle_failed": lambda: lifecycle_data(
        "shop-charge", RUN_ID, "failed", b'{"message":"boom","name":"MyError","stack":null}', EVENTS
    ),
    "lifecycle_cancelled": lambda: lifecycle_data("shop-charge", RUN_ID, "cancelled", None, EVENTS * 2),
    "invoked": lambda: invoked_data(
        b'{"Z":1,"x":1}',
        fn_id="shop-charge",
        correlation_id=f"{RUN_ID}.abc",
        expire_ms=NOW_MS,
        gid="g",
        name="charge it",
        source_app_id="a",
        source_fn_id="f",
        source_fn_v=1,
    ),
    "scheduled": lambda: scheduled_data("*/5 * * * *", NOW_MS, NOW_MS + 3_000),
    "deferred": lambda: deferred_data(
        b'{"x":1}', fn_slug="shop-cleanup", parent_app_id="a", parent_fn_id="f", parent_fn_slug="shop-charge", parent_run_id=RUN_ID
    ),
}


def error_of(status: int, body: bytes) -> bytes:
    """The error of an answer that no SDK gave."""
    parsed = parse_answer(status, {}, body, now_ms=NOW_MS)
    assert isinstance(parsed, Failed)
    return parsed.error


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_messages_are_written_as_ever(name: str) -> None:
    """Byte for byte."""
    written, path = MESSAGES[name](), GOLDEN / f"{name}.json"
    if not path.exists():
        path.write_bytes(written + b"\n")
        pytest.fail(f"{path.name} was missing and has been written: look at it, then commit it")
    assert written == path.read_bytes().removesuffix(b"\n")


@pytest.mark.parametrize("name", sorted(set(MESSAGES) - {"ops"}))
def test_messages_are_canonical(name: str) -> None:
    """Spliced from parts as they are; only the ops of an SDK's answer stand in the order in which SDKs write them."""
    written = MESSAGES[name]()
    assert canonicalize(written) == written
    assert json.loads(written)


def test_every_golden_file_has_its_message() -> None:
    """None is left behind."""
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(MESSAGES)
