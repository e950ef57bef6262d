"""Publishers and subscribers of the unmodified SDKs: npm `inngest` 3 and 4, `@inngest/realtime`, PyPI `inngest`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inngest
import pytest
from inngest.experimental import realtime as python_sdk
from websockets.sync.client import ClientConnection as Connection
from websockets.sync.client import connect

from tests.support.npm import NODE, installed
from tests.support.processes import Process, Server, free_port, listens, running, until
from tests.support.provider import Provider

pytestmark = pytest.mark.compat
APPS = Path(__file__).parent / "apps"


class Rig:
    """A dev server, and an app of the JavaScript SDK in each of two versions."""

    def __init__(self, directory: Path) -> None:
        self.folder, self.directory = installed(APPS / "realtime_js"), directory
        ports = {"v3": free_port(), "v4": free_port()}
        urls = [word for port in ports.values() for word in ("-u", f"http://127.0.0.1:{port}/api/inngest")]
        port = free_port()
        self.url, self.subscribers = f"http://127.0.0.1:{port}", 0
        self.parts = [self.node("app.mjs", f"{sdk}.log", SDK=sdk, PORT=str(app_port)) for sdk, app_port in ports.items()]
        try:
            until(lambda: all(listens(app_port) for app_port in ports.values()), "both apps listen")
            self.server = Server(directory, *urls, "--no-poll", "--retry-interval", "0.2", "--port", str(port))
            self.parts.append(self.server)
            for sdk in ports:
                self.server.synced(f"rt-{sdk}-publisher")
        except BaseException:
            self.kill()
            raise

    def node(self, script: str, log: str, **env: str) -> Process:
        """A script of the folder, in a process of its own, in the SDK's development mode."""
        told = {"SERVER_URL": self.url, "INNGEST_DEV": "1", "INNGEST_BASE_URL": self.url, **env}
        return Process([NODE, script], self.directory / log, env=told, cwd=self.folder)

    def subscriber(self, sdk: str, channel: str, topics: list[str], key: str = "") -> Subscriber:
        """A subscriber that listens."""
        self.subscribers += 1
        names = {"SDK": sdk, "CHANNEL": channel, "TOPICS": ",".join(topics), "KEY": key}
        made = Subscriber(self.node("subscriber.mjs", f"subscriber-{self.subscribers}.log", **names))
        try:
            until(lambda: {"open": True} in made.lines(), "the subscriber is connected")
        except BaseException:
            made.kill()
            raise
        return made

    def both_run(self, name: str) -> list[str]:
        """Both apps' publishers run for the order; gives their runs."""
        event_id = self.server.send("rt/go", {"id": name})
        runs = until(lambda: found if len(found := self.server.ask(f"/v1/events/{event_id}/runs")["data"]) == 2 else None, "both apps run")
        return [run["run_id"] for run in runs]

    def kill(self) -> None:
        """End it all."""
        for process in self.parts:
            process.kill()


class Subscriber:
    """A subscriber's process, and what it has read."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def lines(self) -> list[dict[str, Any]]:
        """Everything it printed."""
        assert self.process.popen.poll() in (None, 0), self.process.text()
        return [json.loads(line) for line in self.process.text().splitlines() if line.startswith("{")]

    def messages(self, count: int) -> list[dict[str, Any]]:
        """The first messages, when so many have come."""
        return until(lambda: found if len(found := self.lines()[1:]) >= count else None, f"{count} messages in {self.process.text()}")[
            :count
        ]

    def kill(self) -> None:
        """End it."""
        self.process.kill()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One server with its apps for the module's tests."""
    with running(Rig(tmp_path_factory.mktemp("realtime"))) as made:
        yield made


def listen(server: Server, *topics: tuple[str, str]) -> Connection:
    """A subscriber of ours, which reads every kind of message."""
    jwt = server.ask("/v1/realtime/token", [{"channel": channel, "name": name, "kind": "run"} for channel, name in topics])["jwt"]
    return connect(f"{server.url.replace('http', 'ws')}/v1/realtime/connect?token={jwt}")


def read(connection: Connection, count: int) -> list[dict[str, Any]]:
    """The next messages."""
    return [json.loads(connection.recv(timeout=20)) for _ in range(count)]


@pytest.mark.parametrize("sdk", ["realtime", "v4"])
def test_what_functions_publish_reaches_a_subscriber(rig: Rig, sdk: str) -> None:
    """In order, as it was published: as a step and from inside a step, by functions of either SDK."""
    channel = f"orders:{sdk}"
    with running(rig.subscriber(sdk, channel, ["status"])) as subscriber:
        for run_id in rig.both_run(sdk):
            assert rig.server.ended(run_id)["run"]["status"] == "completed"
            messages = [one for one in subscriber.messages(4) if one["runId"] == run_id]
            assert [(one["kind"], one["channel"], one["topic"]) for one in messages] == [("data", channel, "status")] * 2
            assert [one["data"] for one in messages] == [{"at": "start", "n": 1}, {"at": "inside", "n": 2}]


def test_a_function_s_stream_comes_in_parts(rig: Rig) -> None:
    """A start, the chunks, an end, under one id. (The SDKs' own subscribers fail at a stream's start, whatever the server.)"""
    with listen(rig.server, ("orders:stream", "words")) as connection:
        for run_id in rig.both_run("stream"):
            assert rig.server.ended(run_id)["run"]["status"] == "completed"
        messages, ends = [], 0
        while ends < 2:
            (message,) = read(connection, 1)
            messages.append(message)
            ends += message["kind"] == "datastream-end"
    for stream_id in {one["stream_id"] for one in messages}:
        first, *chunks, last = [one for one in messages if one["stream_id"] == stream_id]
        assert (first["kind"], first["data"]) == ("datastream-start", stream_id)
        assert (last["kind"], last["data"]) == ("datastream-end", stream_id)
        assert {one["kind"] for one in chunks} == {"chunk"}
        assert "".join(one["data"] for one in chunks) == "one zwei ü three"


@pytest.mark.parametrize("sdk", ["realtime", "v4"])
def test_a_token_made_elsewhere_opens_a_subscription(rig: Rig, sdk: str) -> None:
    """The Python SDK makes the token and publishes; a JavaScript one subscribes with it, as a browser would."""
    client = inngest.Inngest(app_id="py", api_base_url=rig.server.url, event_api_base_url=rig.server.url, is_production=False)
    token = python_sdk.get_subscription_token_sync(client, f"py:{sdk}", ["a", "b"])
    with running(rig.subscriber(sdk, f"py:{sdk}", ["a", "b"], key=str(token["key"]))) as subscriber:
        for i in range(3):
            python_sdk.publish_sync(client, f"py:{sdk}", "ab"[i % 2], {"i": i, "text": "ü"})
        python_sdk.publish_sync(client, f"py:{sdk}", "c", {"nobody": "listens"})
        python_sdk.publish_sync(client, f"py:{sdk}", "b", {"last": True})
        messages = subscriber.messages(4)
    assert [(one["topic"], one["data"]) for one in messages] == [
        ("a", {"i": 0, "text": "ü"}),
        ("b", {"i": 1, "text": "ü"}),
        ("a", {"i": 2, "text": "ü"}),
        ("b", {"last": True}),
    ]


def test_a_run_s_own_topics_tell_of_it(rig: Rig) -> None:
    """npm 4's subscriber reads `run` messages: how the run stands now, and its end with its output."""
    (run_id,) = [rig.server.run_of(rig.server.send("rt/slow"))]
    until(lambda: rig.server.ask(f"/api/runs/{run_id}")["run"]["status"] == "waiting", "the run waits")
    with running(rig.subscriber("v4", run_id, ["$run"])) as subscriber, listen(rig.server, (run_id, "$run"), (run_id, "$step")) as ours:
        assert subscriber.messages(1)[0]["data"]["status"] == "running"
        rig.server.send("rt/release")
        rig.server.ended(run_id)
        told = subscriber.messages(2)[1]
        assert (told["kind"], told["data"]["status"], told["data"]["output"]) == ("run", "completed", {"done": True})
        greeting, *steps = read(ours, 4)
    assert greeting["kind"] == "run"
    assert [(one["kind"], one["data"]["name"], one["data"]["status"]) for one in steps[:2]] == [
        ("step", "hold", "completed"),
        ("step", "last", "completed"),
    ]
    assert steps[1]["data"]["memo"] == {"data": {"done": True}}
    assert steps[2]["kind"] == "run" and steps[2]["data"]["status"] == "completed"


def test_an_answer_of_a_model_is_published_and_fetch_fetches(rig: Rig) -> None:
    """npm 4's `ai.infer` with `publish`, and its `fetch`: the answer goes to the topic when it is stored."""
    with running(Provider()) as provider, listen(rig.server, ("answers", "ai")) as connection:
        run_id = rig.server.run_of(rig.server.send("rt/ask", {"provider": provider.url, "key": "sk-0123456789"}))
        (message,) = read(connection, 1)
        run = rig.server.ended(run_id)["run"]
        asked, put, plain = provider.asked
    assert run["status"] == "completed", run
    heard = {"messages": [{"role": "user", "content": "hello"}], "schema": {"z": 1, "a": 2}, "model": "m-1"}
    assert run["output"]["asked"] == message["data"] == {"heard": heard, "path": "/chat/completions"}
    assert (message["kind"], message["channel"], message["topic"], message["run_id"]) == ("data", "answers", "ai", run_id)
    assert asked["headers"]["authorization"] == "Bearer sk-0123456789"
    assert asked["body"] == json.dumps(heard, separators=(",", ":"))  # keys as the app wrote them
    assert run["output"]["fetched"] == [200, "application/json", {"heard": {}, "path": "/echo"}]
    assert (put["method"], put["path"], put["headers"]["x-mine"], put["body"]) == ("PUT", "/echo?q=1", "1", "{}")
    assert (plain["method"], run["output"]["plain"]) == ("GET", 200)
