"""A server with keys, and SDKs in cloud mode."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stepwell.protocol.signatures import bearer_hash, sign, verify
from tests.compat.rig import EVENT_KEY, SIGNING_KEY, Rig
from tests.support.processes import refused

pytestmark = pytest.mark.compat

NEW_KEY = "signkey-test-fedcba9876543210fedcba9876543210"


@pytest.mark.capability("signed")
def test_calls_and_answers_are_signed(rig: Rig) -> None:
    """Both ways, over the very bytes."""
    trace = rig.run("values", {"value": ["ü", 1.5, {"b": 1, "a": 2}]})
    assert trace.output["step"] == ["ü", 1.5, {"b": 1, "a": 2}]
    now_s = int(time.time())
    calls = rig.calls(trace.id)
    assert calls and all(verify(call.body, call.headers["x-inngest-signature"], SIGNING_KEY, now_s) for call in calls)
    assert all(verify(call.answer, call.answer_headers["x-inngest-signature"], SIGNING_KEY, now_s) for call in calls)


@pytest.mark.capability("signed")
def test_a_number_that_an_app_would_change_is_refused(rig: Rig) -> None:
    """An app that parses a whole number beyond 2^53 before it checks the signature could not but refuse it: the run says so, uncalled."""
    error = rig.run("values", {"value": 2**53 + 1}).error
    assert error["name"] == "UnsafeInteger" and str(2**53 + 1) in error["message"]
    assert not rig.records or not [call for call in rig.recorder.all() if str(2**53 + 1).encode() in call.body]


@pytest.mark.capability("signed")
def test_the_app_refuses_what_the_server_did_not_sign(rig: Rig) -> None:
    """Without a signature, or with another key's, nothing runs."""
    (call,) = rig.calls(rig.run("plain").id)
    url = f"{rig.recorder.url}{call.path}"
    rig.notes.clear()
    for signature in ({}, {"x-inngest-signature": sign(call.body, NEW_KEY, int(time.time()))}):
        status, _ = refused(url, call.body, headers={"content-type": "application/json", "x-inngest-server-kind": "cloud", **signature})
        assert status == 401
    assert rig.notes.counts() == {}


@pytest.mark.capability("signed")
def test_the_server_refuses_who_shows_no_key(rig: Rig) -> None:
    """Registration, reading and sending each ask for their key."""
    url, bearer = rig.server.url, {"authorization": f"Bearer {bearer_hash(NEW_KEY)}"}
    for path, body in (
        ("/fn/register", {"appname": "x", "functions": []}),
        ("/v1/events", None),
        ("/v1/signals", {"signal": "x"}),
        ("/invoke/x-f", {}),
    ):
        assert refused(url + path, body)[0] == 401, path
        assert refused(url + path, body, headers=bearer)[0] == 401, path
    status, answer = refused(f"{url}/e/{EVENT_KEY}-not", {"name": "x", "data": {}})
    assert status == 401 and answer["error"] == "Event key not found"


@pytest.mark.capability("fallback-key")
def test_a_key_is_rotated_with_its_fallback(rig: Rig, tmp_path: Path) -> None:
    """An app that has the new key already works with a server that still has the old one: syncs, sends, calls, large state."""
    keys = {"INNGEST_SIGNING_KEY": NEW_KEY, "INNGEST_SIGNING_KEY_FALLBACK": SIGNING_KEY}
    rotating = Rig(rig.spec, tmp_path, keys)
    try:
        trace = rotating.run("whole", {"x": 1})
        assert trace.output[4] == {"x": 1} and trace.attempts == []
        assert rotating.run("big").output == [1_500_000] * 4
    finally:
        rotating.close()
