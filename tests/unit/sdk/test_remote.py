"""What an app asks of a server over HTTP: runs, signals, topics; what it makes of answers, good and bad."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import stepwell
from stepwell.net.http_client import Response
from stepwell.protocol.signatures import bearer_hash
from stepwell.sdk import http, runs

from .test_serve import KEY, OTHER, clean_environment

__all__ = ["clean_environment"]

RUN = {"run_id": "01JRUN", "status": "Running", "event_id": "01JEVENT"}


class Server:
    """Answers by method and path, the same each time, or from a list in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.tries: list[int] = []
        monkeypatch.setattr(http, "request", self.request)

    async def request(self, method: str, url: str, *, headers: dict[str, str], body: bytes = b"", tries: int = 5) -> Response:
        what = f"{method} {url.removeprefix('http://127.0.0.1:8288')}"
        self.asked.append((what, headers, body))
        self.tries.append(tries)
        answer = self.answers[what] if what in self.answers else self.answers[what.partition("?")[0]]
        status, value = answer.pop(0) if isinstance(answer, list) and len(answer) > 1 else answer[0] if isinstance(answer, list) else answer
        return Response(status, {}, value if isinstance(value, bytes) else json.dumps(value).encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server at the default address."""
    return Server(monkeypatch)


def test_a_start_tells_the_run(server: Server) -> None:
    """Its id; an id of the user's goes along, and where there is none one is made, so that a repeated try is one start."""
    server.answers["POST /invoke/shop-work"] = (200, {"id": "01JEVENT", "run_id": "01JRUN", "status": 200})
    app = stepwell.App("other")

    async def main() -> None:
        assert (await app.start("shop-work", {"n": 1}, id="o-1")).id == "01JRUN"
        assert (await app.start("shop-work")).id == "01JRUN"
        assert (await app.start("shop-work")).id == "01JRUN"

    asyncio.run(main())
    first, second, third = (json.loads(body) for _, _, body in server.asked)
    assert first == {"data": {"n": 1}, "id": "o-1"}
    assert second["data"] == {} and second["id"] and second["id"] != third["id"]


def test_a_server_that_tells_the_event_only(server: Server) -> None:
    """The run is looked up by it."""
    server.answers["POST /invoke/shop-work"] = (200, {"id": "01JEVENT", "status": 200})
    server.answers["GET /v1/events/01JEVENT/runs"] = [(200, {"data": [RUN]}), (200, {"data": []})]
    app = stepwell.App("other")
    assert app.start_sync("shop-work").id == "01JRUN"
    with pytest.raises(stepwell.ProtocolError, match="no run of event 01JEVENT"):
        app.start_sync("shop-work")


def test_an_output_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """By requests that wait, as long as a server lets them; one that answers at once is asked less often. Numbers keep their digits."""
    monkeypatch.setattr(runs, "POLL_FIRST_S", 0.001)
    done = {"data": {**RUN, "status": "Completed", "output": {"n": 12345678901234567890}}}
    server.answers["GET /v1/runs/01JRUN"] = (200, {"data": {**RUN, "status": "Scheduled"}})
    server.answers["GET /v1/runs/01JRUN?wait=25000ms"] = [*[(200, {"data": RUN})] * 3, (200, done)]
    app = stepwell.App("other")
    handle: stepwell.RunHandle[Any] = stepwell.RunHandle(app, "01JRUN")

    async def main() -> None:
        assert await handle.status() == "queued"
        assert await handle.output("1m") == {"n": 12345678901234567890}

    asyncio.run(main())
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        ({"status": "Failed", "output": {"name": "ValueError", "message": "no", "stack": "s"}}, stepwell.InvokeError, "no"),
        ({"status": "Failed", "output": "a text"}, stepwell.InvokeError, "a text"),
        ({"status": "Failed"}, stepwell.InvokeError, ""),
        ({"status": "Cancelled"}, stepwell.Cancelled, "01JRUN was cancelled"),
        ({"status": "Skipped"}, stepwell.Cancelled, "01JRUN was skipped"),
        ({"status": "Running"}, TimeoutError, "is running after 0.01 s"),
    ],
)
def test_what_an_output_raises(server: Server, run: dict[str, Any], error: type[Exception], words: str) -> None:
    """By how the run ended, or that it has not."""
    server.answers["GET /v1/runs/01JRUN"] = (200, {"data": {**RUN, **run}})
    handle: stepwell.RunHandle[Any] = stepwell.RunHandle(stepwell.App("other"), "01JRUN")
    with pytest.raises(error) as raised:
        asyncio.run(handle.output("10ms"))
    assert words in str(raised.value)
    if run["status"] == "Failed" and isinstance(run.get("output"), dict):
        assert isinstance(raised.value, stepwell.InvokeError) and (raised.value.name, raised.value.stack) == ("ValueError", "s")


def test_events_signals_and_topics(server: Server) -> None:
    """As the protocol has them; nobody waiting is no error."""
    event = {"internal_id": "01JEVENT", "id": "o-1", "name": "shop/paid", "data": {"n": 1}, "user": {}, "ts": 5, "received_at": "…"}
    server.answers |= {
        "GET /v1/runs/01JRUN": (200, {"data": RUN}),
        "GET /v1/events/01JEVENT": (200, {"data": event}),
        "POST /v1/signals": [(200, {"data": {"run_id": "01JRUN"}}), (404, {"error": "nobody", "status": 404})],
        "POST /v1/realtime/publish?channel=a+b&topic=t&run_id=01JRUN": (200, b""),
        "DELETE /v1/runs/01JRUN": [(200, b""), (409, {"error": "it has ended", "status": 409}), (404, {"error": "none", "status": 404})],
    }
    app = stepwell.App("other")
    handle: stepwell.RunHandle[Any] = stepwell.RunHandle(app, "01JRUN")

    async def main() -> None:
        (event,) = await handle.events()
        assert (event.name, event.id, event.data, event.ts) == ("shop/paid", "o-1", {"n": 1}, 5)
        assert await app.way.signal("go", b'{"n":1}') == "01JRUN"
        assert await app.way.signal("go", b"null") is None
        await app.way.publish("a b", "t", b"1", "01JRUN")
        await handle.cancel()
        with pytest.raises(stepwell.RunHasEnded, match="it has ended"):
            await handle.cancel()
        with pytest.raises(stepwell.NotFound, match="none"):
            await handle.cancel()

    asyncio.run(main())
    assert json.loads(server.asked[2][2]) == {"signal": "go", "data": {"n": 1}}


def test_keys_are_shown_as_hashes_and_the_fallback_is_tried(server: Server) -> None:
    """Where the server does not take the first; without keys nothing is shown; a refusal is told with its words."""
    server.answers["GET /v1/runs/01JRUN"] = [(401, {"error": "no", "status": 401}), (200, {"data": RUN}), (401, {"error": "wrong key"})]
    app = stepwell.App("other", signing_key=KEY, signing_key_fallback=OTHER)
    assert asyncio.run(app.way.run_state("01JRUN")).status == "running"
    assert [headers["authorization"] for _, headers, _ in server.asked] == [f"Bearer {bearer_hash(KEY)}", f"Bearer {bearer_hash(OTHER)}"]
    with pytest.raises(stepwell.ProtocolError, match="wrong key") as refused:
        asyncio.run(stepwell.App("none").way.run_state("01JRUN"))
    assert refused.value.status == 401 and "authorization" not in server.asked[-1][1]
    server.answers["GET /v1/runs/01JRUN"] = (502, b"<html>")
    with pytest.raises(stepwell.ProtocolError, match="HTTP 502"):
        asyncio.run(app.way.run_state("01JRUN"))


def test_what_may_be_done_once_only_is_asked_once(server: Server) -> None:
    """Everything else is tried again; what a bad answer says is for the one who asked."""
    server.answers["POST /x?y=1"] = [(200, {"ok": True}), (503, {"error": "later"})]
    app = stepwell.App("other")
    assert asyncio.run(app.way.ask("POST", "/x?y=1", b"{}")) == (200, b'{"ok": true}')
    assert asyncio.run(app.way.ask("POST", "/x?y=1", b"{}", once=True)) == (503, b'{"error": "later"}')
    assert server.tries == [http.TRIES_MAX, 1]


def test_what_cannot_be_started_is_told() -> None:
    """With value and fix, before anything is sent."""
    app = stepwell.App("other")
    for function, options, words in (
        ("work", {}, "shop-charge"),
        (print, {}, "no function"),
        ("shop-work", {"data": [1]}, "must be an object"),
        ("shop-work", {"id": ""}, "id is ''"),
    ):
        with pytest.raises(stepwell.UsageError, match=words):
            app.start_sync(function, **options)  # type: ignore[call-overload]
