"""Calls of a real server as its app sees them: never more of a key at a time than its limit, and no key behind another's backlog."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Server, until
from tests.support.scripted_app import Answer, Call, ScriptedApp

TOGETHER_S = 15.0
"""How long a call waits for the others that should be under way with it."""


class Watch:
    """Counts the calls of each key that are under way. Each goes on when so many of its key have come together, or been there."""

    def __init__(self, together: int) -> None:
        self.together = together
        self.most: Counter[str] = Counter()
        self.done: list[str] = []
        self._now: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __call__(self, call: Call) -> Answer:
        """Answer a call."""
        key = str(call.body["event"]["data"]["key"])
        with self._changed:
            self._now[key] += 1
            self.most[key] = max(self.most[key], self._now[key])
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most[key] >= self.together, TOGETHER_S)
            self.done.append(key)
            self._now[key] -= 1
        return 200, {}, None


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server, and an app whose calls are watched."""
    made: list[tuple[Server, ScriptedApp]] = []

    def run(watch: Callable[[Call], Answer], concurrency: list[dict[str, Any]]) -> Server:
        app = ScriptedApp("t", watch, {"id": "one", "triggers": [{"event": "t/one"}], "concurrency": concurrency})
        server = Server(tmp_path, "--no-poll")
        made.append((server, app))
        app.server_url = server.url
        assert app.register()[0] == 200
        return server

    yield run
    for server, app in made:
        server.kill()
        app.stop()


def send(server: Server, keys: list[str]) -> None:
    """An event of each key, in as few requests as may be."""
    for start in range(0, len(keys), 500):
        body = json.dumps([{"name": "t/one", "data": {"key": key}} for key in keys[start : start + 500]]).encode()
        request = urllib.request.Request(f"{server.url}/e/test", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=15) as response:
            assert response.status == 200


@pytest.mark.parametrize(("keys", "limit", "each"), [(1, 3, 12), (10, 2, 6), (1000, 1, 3)])
def test_calls_of_a_key_are_as_many_as_its_limit(begin: Callable[..., Server], keys: int, limit: int, each: int) -> None:
    """Every key comes to its limit, and none goes beyond."""
    watch = Watch(together=limit)
    server = begin(watch, [{"limit": limit, "key": "event.data.key"}])
    names = [f"k{n}" for n in range(keys)]
    send(server, names * each)
    until(lambda: len(watch.done) == keys * each, "all calls have come", 60)
    assert watch.most == Counter(dict.fromkeys(names, limit))


def test_a_key_with_one_event_waits_for_one_call_of_a_key_with_many(begin: Callable[..., Server]) -> None:
    """One call at a time: the small tenant's comes after at most one more of the large one's."""
    first, go = threading.Event(), threading.Event()
    order: list[str] = []

    def script(call: Call) -> Answer:
        order.append(call.body["event"]["data"]["key"])
        first.set()
        go.wait(TOGETHER_S)
        return 200, {}, None

    server = begin(script, [{"limit": 1}, {"limit": 1, "key": "event.data.key"}])
    send(server, ["large"] * 1000)
    assert first.wait(TOGETHER_S)
    send(server, ["small"])
    go.set()
    until(lambda: "small" in order, "the small tenant's call has come")
    assert order.index("small") <= 2, order
