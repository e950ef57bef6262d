"""Answers that no SDK gives, or only in bad moments: what becomes of the run, word for word, and after how many calls."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from stepwell.net.content_encoding import brotli
from stepwell.protocol.codec import canonicalize
from tests.compat.rig import Trace
from tests.support.processes import Server
from tests.support.replies import SDK, Received, Reply, ReplyingApp, Script, answer, ops, step_run

pytestmark = pytest.mark.compat

DONE = answer("done")
HTML = b"<html><h1>Bad gateway</h1></html>"
STEP = step_run("a", {"n": 1})
OVER = 8 * 1024 * 1024 + 1


@dataclass(frozen=True)
class Fails:
    """A script that fails its run: the error's name, what its message says, and the number of calls. One retry is allowed.

    A call over a kept connection that is closed without a byte is made once more over a new one, and that is no new attempt.
    """

    script: Script
    name: str
    says: str = ""
    calls: int | range = 2
    stack: str = ""


@dataclass(frozen=True)
class Passes:
    """A script that its run survives, with this output."""

    script: Script
    output: Any = "done"
    calls: int = 2


def encoded(reply: Reply, body: bytes, encoding: str) -> Reply:
    """The reply with its body compressed."""
    return Reply(reply.status, body, {**reply.headers, "content-encoding": encoding})


def stream(envelope: Any, *, breaks_off: bool = False) -> Reply:
    """A 201 stream: white space to keep the connection alive, then the answer in an envelope."""
    text = json.dumps(envelope).encode()
    chunks = (b" ", b"\n ", text[:20]) if breaks_off else (b" ", b"\n ", text[:20], text[20:])
    return Reply(201, headers=SDK, chunks=chunks, pause_s=0.1, breaks_off=breaks_off)


def later(call: Received) -> Reply:
    """Fails once with a date to try again at, two seconds from now, in the form that the run's event asks for."""
    if call.request["ctx"]["attempt"]:
        return DONE
    at = datetime.now(UTC) + timedelta(seconds=2)
    forms = {"seconds": "2", "rfc3339": at.isoformat(), "http": format_datetime(at + timedelta(seconds=1), usegmt=True)}
    return answer({"name": "Busy", "message": "later"}, 500, retry_after=forms[call.request["event"]["data"]["form"]])


INNER = {"x-inngest-sdk": SDK["x-inngest-sdk"], "x-inngest-req-version": "2"}
ERROR = {"name": "Mine", "message": "mine", "stack": None, "code": "unknown", "extra": [1]}

CASES: dict[str, Fails | Passes] = {
    # Generator answers that cannot be read (§4.5).
    "unknown-op": Fails([ops({"op": "Teleport", "id": "x"})], "invalid_response", "unknown op 'Teleport'"),
    "null-entry": Fails([ops(None)], "invalid_response", "no array of ops"),
    "empty-206": Fails([Reply(206, b"")], "invalid_response", "empty body"),
    "no-json-206": Fails([Reply(206, HTML)], "invalid_response", "no array of ops"),
    "text-206": Fails([Reply(206, b'"text"')], "invalid_response", "no array of ops"),
    "op-without-id": Fails([ops({"op": "StepRun", "data": 1})], "invalid_response", "without an id"),
    "error-without-error": Fails([ops({"op": "StepError", "id": "x"})], "invalid_response", "has no error"),
    "nothing-to-do": Fails([ops()], "NothingToDo", "nothing to do"),
    "only-none": Fails([ops({"op": "None", "id": ""})], "NothingToDo", "nothing to do"),
    "large-step": Fails([ops(step_run("a", "x" * (4 * 1024 * 1024)))], "output_too_large", "4194304"),
    "deep": Fails([Reply(206, b'[{"op":"StepRun","id":"a","data":' + b"[" * 5000 + b"]" * 5000 + b"}]")], "invalid_response"),
    "endless-sleep": Fails([ops({"op": "Sleep", "id": "x", "name": "367d"})], "InngestErrTimeoutTooLong", "366d", calls=1),
    "bad-sleep": Fails([ops({"op": "Sleep", "id": "x", "name": "soon"})], "InvalidSleep", "'soon'"),
    "many-ops": Fails([ops(*({"op": "StepPlanned", "id": f"s{n}"} for n in range(1001)))], "InngestErrFunctionOverflowed", "1000", calls=1),
    # Generator answers that are legal, though no SDK gives them today.
    "single-op": Passes([Reply(206, json.dumps(STEP).encode()), DONE]),
    "old-step": Passes([ops({**STEP, "op": "Step", "data": {"data": 7}}), DONE]),
    "no-version": Passes([Reply(206, json.dumps([STEP]).encode(), {"x-inngest-sdk": "inngest-js:v3.0.0"}), DONE]),
    "handled-header": Passes([Reply(206, json.dumps([STEP]).encode(), {"x-inngest-sdk-handled": "true"}), DONE]),
    "step-twice": Passes([ops(STEP, step_run("a", {"n": 2})), answer("x"), DONE], output="x"),
    "discovery-request": Passes([ops({"op": "DiscoveryRequest", "id": "again-1"}), DONE]),
    "run-complete": Passes([ops(STEP, {"op": "RunComplete", "id": "end", "data": [1]})], output=[1], calls=1),
    "past-sleep": Passes([ops({"op": "Sleep", "id": "x", "name": "2020-01-01T00:00:00Z"}), DONE]),
    "sleep-by-opts": Passes([ops({"op": "Sleep", "id": "x", "name": "nap", "opts": {"duration": "10ms"}}), DONE]),
    # Results.
    "nothing": Passes([Reply(200, b"")], output=None, calls=1),
    "text": Passes([Reply(200, b"plain text", {**SDK, "content-type": "text/plain"})], output="plain text", calls=1),
    # Errors of the function (§4.4, §4.7).
    "error": Fails([answer(ERROR, 500)], "Mine", "mine"),
    "error-400": Fails([answer(ERROR, 400)], "Mine", "mine"),
    "error-401": Fails([answer({"message": "Unauthorized"}, 401)], "Error", "Unauthorized"),
    "no-retry": Fails([answer(ERROR, 500, x_inngest_no_retry="true")], "Mine", "mine", calls=1),
    "retry": Fails([answer(ERROR, 400, x_inngest_no_retry="false")], "Mine", "mine"),
    "no-retry-200": Fails([answer(ERROR, 200, x_inngest_no_retry="true")], "Mine", "mine", calls=1),
    "step-not-found": Fails([answer({"error": "no step x", "requestedStep": "x", "foundSteps": []}, 500)], "Error", "no step x"),
    "error-text": Fails([answer("just text", 500)], "Error", "just text"),
    "error-in-text": Fails([answer(json.dumps(ERROR), 500)], "Mine", "mine"),
    "error-nothing": Fails([Reply(500, b"")], "Error", "The app answered HTTP 500 without a message."),
    "error-html": Fails([Reply(500, HTML)], "Error", "Bad gateway"),
    "step-error-final": Fails(
        [ops({**STEP, "op": "StepError", "error": {"name": "E", "message": "m"}}, x_inngest_no_retry="true"), answer(ERROR, 500)],
        "Mine",
        calls=3,
    ),
    # Not from an SDK (§4.7).
    "foreign-200": Fails([Reply(200, HTML, {})], "not_sdk", "did not come from an SDK", stack="Bad gateway"),
    "foreign-206": Fails([Reply(206, json.dumps([STEP]).encode(), {})], "not_sdk", "did not come from an SDK"),
    "foreign-201": Fails([Reply(201, b"created", {})], "not_sdk", "did not come from an SDK"),
    "foreign-502": Fails(
        [Reply(502, HTML, {"content-type": "text/html"})],
        "Server returned a fatal error",
        "Your server returned HTTP 502 before the SDK responded.",
        stack="Bad gateway",
    ),
    "foreign-404": Fails([Reply(404, b"not here", {})], "Server returned a fatal error", "HTTP 404", stack="not here"),
    "recovers": Passes([Reply(502, HTML, {}), DONE]),
    # The connection itself.
    "hangs-up": Fails([Reply(raw=b"")], "http_unreachable", "http://127.0.0.1", calls=range(2, 5)),
    "no-http": Fails([Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n")], "invalid_response", "not HTTP"),
    "breaks-off": Fails([Reply(200, chunks=(b'{"half":',), breaks_off=True)], "http_unreachable"),
    "too-large": Fails([Reply(200, b'"' + b"x" * OVER + b'"')], "output_too_large", "at most 8388608"),
    "too-large-chunks": Fails([Reply(200, chunks=(b"x" * (OVER // 2),) * 3)], "output_too_large"),
    "too-large-packed": Fails([encoded(DONE, gzip.compress(b" " * OVER), "gzip")], "output_too_large"),
    # Streams (§4.9).
    "stream": Passes([stream({"status": 206, "headers": INNER, "body": json.dumps([STEP])}), DONE]),
    "stream-json-body": Passes([stream({"status": 206, "headers": INNER, "body": [STEP]}), DONE]),
    "stream-result": Passes([stream({"status": 200, "headers": INNER, "body": '"streamed"'})], output="streamed", calls=1),
    "stream-error": Fails([stream({"status": 500, "headers": INNER, "body": json.dumps(ERROR)})], "Mine", "mine"),
    "stream-no-retry": Fails(
        [stream({"status": 400, "headers": {**INNER, "x-inngest-no-retry": "true"}, "body": json.dumps(ERROR)})], "Mine", calls=1
    ),
    "stream-own-error": Fails([stream({"error": "it went wrong"})], "Error", "it went wrong"),
    "stream-breaks-off": Fails([stream({"status": 206, "headers": INNER, "body": "[]"}, breaks_off=True)], "http_unreachable"),
    "stream-without-end": Fails([Reply(201, headers=SDK, chunks=(b" ", b" "))], "stream_broken", "broke off"),
    # Compression (§4.1).
    "gzip": Passes([encoded(DONE, gzip.compress(b'"packed"'), "gzip")], output="packed", calls=1),
    "deflate": Passes([encoded(DONE, zlib.compress(b'"packed"'), "deflate")], output="packed", calls=1),
    "unknown-encoding": Fails([encoded(DONE, b"x", "zstd")], "invalid_response", "zstd"),
    "broken-gzip": Fails([encoded(DONE, b"no gzip", "gzip")], "invalid_response", "not compressed as it says"),
    # Redirects (§4.1): the call stays a POST with its body.
    "redirected": Passes([Reply(307, b"", {"location": "/api?fnId=scripted-redirected&stepId=step"}), DONE]),
    "redirected-302": Passes([Reply(302, b"", {"location": "/api?fnId=scripted-redirected-302&stepId=step"}), DONE]),
    "redirects-for-ever": Fails(
        [Reply(308, b"", {"location": "/api?fnId=scripted-redirects-for-ever&stepId=step"})], "http_unreachable", "redirects", calls=12
    ),
}
if brotli is not None:
    CASES["br"] = Passes([encoded(DONE, brotli.compress(b'"packed"'), "br")], output="packed", calls=1)


class Stage:
    """A server that knows the scripted app."""

    def __init__(self, server: Server, app: ReplyingApp) -> None:
        self.server, self.app = server, app

    def run(self, name: str, data: dict[str, Any] | None = None) -> Trace:
        """Start the function, and give its trace when it has ended."""
        return Trace(self.server.ended(self.server.run_of(self.server.send(f"{self.app.name}/{name}", data))))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One server and app for all shapes."""
    scripts = {name: case.script for name, case in CASES.items()}
    app = ReplyingApp({**scripts, "later": later, "asks": [ops(STEP), DONE], "sessions": [DONE]})
    server = Server(tmp_path_factory.mktemp("raw"), "--no-poll", "--retry-interval", "0.05")
    try:
        assert server.ask("/fn/register", app.registration())["ok"] is True
        yield Stage(server, app)
    finally:
        server.kill()
        app.close()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case, Fails)])
def test_it_fails_the_run(stage: Stage, name: str) -> None:
    """With this error, after so many calls; the run is shown with it, in the page and in the public API."""
    case = CASES[name]
    assert isinstance(case, Fails)
    trace = stage.run(name)
    assert trace.error["name"] == case.name and case.says in trace.error["message"], trace.error
    assert case.stack in (trace.error.get("stack") or "")
    assert len(stage.app.calls(name)) in (case.calls if isinstance(case.calls, range) else (case.calls,))
    assert stage.server.ask(f"/v1/runs/{trace.id}")["data"]["output"] == trace.error


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case, Passes)])
def test_the_run_survives_it(stage: Stage, name: str) -> None:
    """With this output, after so many calls."""
    case = CASES[name]
    assert isinstance(case, Passes)
    assert stage.run(name).output == case.output
    assert len(stage.app.calls(name)) == case.calls


def test_an_error_is_kept_word_for_word(stage: Stage) -> None:
    """With every field that the app gave it."""
    assert stage.run("error").error == ERROR


@pytest.mark.parametrize("form", ["seconds", "rfc3339", "http"])
def test_retry_after_is_heeded(stage: Stage, form: str) -> None:
    """In seconds or as a date of two kinds: the next attempt comes then, and not by the server's own table."""
    before = len(stage.app.calls("later"))
    assert stage.run("later", {"form": form}).output == "done"
    first, second = stage.app.calls("later")[before:]
    assert 1.0 <= second.at - first.at < 15.0


def test_what_a_call_tells(stage: Stage) -> None:
    """The headers and fields that SDKs read, over canonical JSON."""
    now_ms = time.time() * 1000
    trace = stage.run("asks", {"b": 1.0, "a": "ü"})
    first, second = stage.app.calls("asks")
    assert first.query == {"fnId": "scripted-asks", "stepId": "step"}
    told = {name: first.headers[name] for name in ("content-type", "x-inngest-server-kind", "x-run-id", "x-inngest-step-id")}
    assert told == {"content-type": "application/json", "x-inngest-server-kind": "dev", "x-run-id": trace.id, "x-inngest-step-id": "step"}
    assert [call.headers["x-inngest-req-version"] for call in (first, second)] == ["-1", "2"]
    assert [call.request["version"] for call in (first, second)] == [-1, 2]
    assert all(call.body == canonicalize(call.body) for call in (first, second))
    body = first.request
    context = body["ctx"]
    assert (context["run_id"], context["attempt"], context["max_attempts"], context["step_id"]) == (trace.id, 0, 2, "step")
    assert context["fn_id"] and context["qi_id"] and context["disable_immediate_execution"] is False
    assert context["use_api"] is body["use_api"] is False
    assert context["request_id"] == first.headers["x-request-id"] and context["generation_id"] >= 1
    event = body["event"]
    assert (event["name"], event["data"]) == ("scripted/asks", {"a": "ü", "b": 1.0}) and abs(event["ts"] - now_ms) < 60_000
    assert body["events"] == [event] and body["steps"] == {}
    assert second.request["steps"] == {STEP["id"]: {"data": {"n": 1}}}
    assert second.request["ctx"]["stack"] == {"stack": [STEP["id"]], "current": 1}


def test_an_events_sessions_reach_the_function(stage: Stage) -> None:
    """Inherited ones too; what the sender says itself wins, and null takes an inherited one away (§2.1)."""
    meta = {"sessions": {"chat": "c-1", "gone": None}, "propagated_sessions": {"chat": "c-0", "gone": "g", "user": "u-1"}}
    event_id = stage.server.send("scripted/sessions", {}, meta=meta)
    stage.server.ended(stage.server.run_of(event_id))
    (call,) = stage.app.calls("sessions")
    assert call.request["event"]["meta"] == {"sessions": {"chat": "c-1", "user": "u-1"}}


def test_an_app_that_is_gone_fails_the_run(stage: Stage) -> None:
    """An app that answers nothing is a failed attempt, visible on the run; nothing else is disturbed."""
    url = "http://127.0.0.1:9/api"
    body = {**stage.app.registration(), "appName": "gone", "url": url}
    (function,) = [one for one in body["functions"] if one["name"] == "asks"]
    function["id"], function["triggers"] = "gone-asks", [{"event": "gone/asks"}]
    function["steps"]["step"]["runtime"]["url"] = f"{url}?fnId=gone-asks&stepId=step"
    assert stage.server.ask("/fn/register", {**body, "functions": [function]})["ok"] is True
    trace = Trace(stage.server.ended(stage.server.run_of(stage.server.send("gone/asks"))))
    assert trace.error["name"] == "http_unreachable" and url in trace.error["message"] and len(trace.attempts) == 2
    assert stage.run("recovers").output == "done"
