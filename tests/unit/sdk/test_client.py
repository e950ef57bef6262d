"""Sending events, by each way there is."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import stepwell
from stepwell.errors import CallError, ProtocolError
from stepwell.sdk import http


class Paid(stepwell.Event, name="shop/paid"):
    """An event."""

    amount: float
    at: datetime


@dataclass
class Plain:
    """Data of an event that is sent by name."""

    n: int


class Nameless(stepwell.Event):
    """Has no name."""


class Server:
    """A server's event API: answers with the statuses told, then with 200; keeps what came."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.asked: list[tuple[str, str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, self.headers["x-inngest-event-id-seed"], body))
                status = outer.statuses.pop(0) if outer.statuses else 200
                count = len(body) if isinstance(body, list) else 1
                answer: dict[str, Any] = {"ids": [f"id-{n}" for n in range(count)], "status": status}
                if status != 200:
                    answer["error"] = "not today"
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and tries without waits."""
    monkeypatch.setattr(http, "BACKOFF_S", 0.0)
    monkeypatch.setenv("STEPWELL_EVENT_KEY", "key 1")
    running = Server()
    yield running
    running.close()


def in_loop(work: Any) -> Any:
    async def main() -> Any:
        try:
            return await work
        finally:
            await http.close_pool()

    return asyncio.run(main())


def test_every_form_of_event(server: Server) -> None:
    """A name and data, an Event, a list; ids, times and keys where they belong."""
    app = stepwell.App("shop", url=server.url)
    at = datetime(2030, 1, 31, 8, tzinfo=UTC)
    assert in_loop(app.send("shop/a", {"x": 1}, id="a-1")) == ["id-0"]
    in_loop(app.send(Paid(amount=1.5, at=at), at=at))
    assert in_loop(app.send([Paid(amount=1, at=at), {"name": "shop/b", "data": Plain(2), "id": "b-1"}])) == ["id-0", "id-1"]
    in_loop(app.send("shop/c", Plain(3)))
    paths, seeds, bodies = zip(*server.asked, strict=True)
    assert set(paths) == {"/e/key%201"} and len(set(seeds)) == 4
    assert bodies[0] == {"name": "shop/a", "data": {"x": 1}, "id": "a-1"}
    assert bodies[1] == {"name": "shop/paid", "data": {"amount": 1.5, "at": "2030-01-31T08:00:00Z"}, "ts": 1896076800000}
    assert [event["name"] for event in bodies[2]] == ["shop/paid", "shop/b"] and bodies[2][1]["id"] == "b-1"
    assert bodies[3]["data"] == {"n": 3}


def test_a_failing_server_is_asked_again_with_the_same_seed(server: Server) -> None:
    """Five times at most, so that a repeated send starts nothing twice; a refusal is final."""
    app = stepwell.App("shop", url=server.url)
    server.statuses = [500, 503]
    assert in_loop(app.send("shop/a")) == ["id-0"]
    assert len(server.asked) == 3 and len({seed for _, seed, _ in server.asked}) == 1
    server.statuses = [500] * 5
    with pytest.raises(ProtocolError, match="the server refused the events: not today"):
        in_loop(app.send("shop/a"))
    assert len(server.asked) == 8
    server.statuses = [401]
    with pytest.raises(ProtocolError, match="not today"):
        in_loop(app.send("shop/a"))
    assert len(server.asked) == 9


def test_no_server() -> None:
    """The address is in the message."""
    server = Server()
    server.close()
    with pytest.raises(CallError, match=server.url):
        in_loop(http.request("POST", f"{server.url}/e/k", headers={}, tries=1))


def test_send_sync(server: Server) -> None:
    """From plain code, and from code that an event loop has called."""
    app = stepwell.App("shop", url=server.url)
    assert app.send_sync("shop/a") == ["id-0"]

    async def in_a_loop() -> list[str]:
        return app.send_sync("shop/a")

    assert asyncio.run(in_a_loop()) == ["id-0"]


class Hook:
    """An engine in this process."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.bodies: list[Any] = []

    async def send(self, events_body: bytes) -> list[str]:
        """Keep it."""
        self.bodies.append(json.loads(events_body))
        return ["here"]


def test_an_engine_in_this_process_comes_first() -> None:
    """Also from threads; in its own loop `send_sync` would stand still, and says so."""
    app = stepwell.App("shop", url="http://nowhere.invalid")

    async def main() -> None:
        hook = app._engine = Hook()
        assert await app.send("shop/a") == ["here"]
        assert await asyncio.to_thread(app.send_sync, "shop/b") == ["here"]
        with pytest.raises(stepwell.UsageError, match="would block the event loop that the engine runs in"):
            app.send_sync("shop/c")
        assert [body["name"] for body in hook.bodies] == ["shop/a", "shop/b"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3,), {}, "3 is no event"),
        (("shop/a", 3), {}, "the data of event 'shop/a' is 3; it must be an object"),
        (("", {}), {}, "an event's name must be a string that is not empty"),
        ((Nameless(),), {}, "event class Nameless has no name"),
        ((Paid(amount=1, at=datetime(2030, 1, 1, tzinfo=UTC)), {"x": 1}), {}, "an Event holds its data"),
        (("shop/a",), {"at": "2030-01-01", "after": "1h"}, "give one of them"),
        (("shop/a",), {"after": 60}, "send: after is 60, which does not say its unit"),
        (("shop/a",), {"at": "tomorrow"}, "send: at is 'tomorrow': write it as a datetime"),
        (([{"name": "shop/a", "payload": {}}],), {}, "an event has no field 'payload'"),
        (([], {"x": 1}), {}, r"send\(\[…\]\) takes events only"),
        (("shop/a", {"x": object()}), {}, "cannot be written as JSON"),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    """They are refused before anything is sent."""
    with pytest.raises(stepwell.UsageError, match=message):
        stepwell.App("shop", url="http://nowhere.invalid").send_sync(*arguments, **options)


def test_the_servers_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's, the environment's, the default; it must be absolute."""
    from stepwell.sdk.client import server_url

    monkeypatch.delenv("STEPWELL_URL", raising=False)
    assert server_url(stepwell.App("a")) == "http://127.0.0.1:8288"
    monkeypatch.setenv("STEPWELL_URL", "https://jobs.example/")
    assert server_url(stepwell.App("a")) == "https://jobs.example"
    assert server_url(stepwell.App("a", url="http://other")) == "http://other"
    with pytest.raises(stepwell.UsageError, match="must be absolute"):
        server_url(stepwell.App("a", url="localhost:8288"))
