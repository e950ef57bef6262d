"""Durable endpoints, checkpoints and defers with the unmodified npm `inngest` 4, which has all three (inngest-protocol §5.10 to §5.13)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import pytest

from stepwell.engine.inputs import AnyInput, HolderRenewed
from stepwell.runtime.node import Node
from stepwell.server.host import HostOptions, run_host
from tests.support.npm import NODE, installed
from tests.support.processes import Process, Server, ask, free_port, running, until

pytestmark = pytest.mark.compat
APP = Path(__file__).parent / "apps" / "endpoints_js"
KEY = "signkey-test-" + "a1" * 32
Answer = tuple[int, str, HTTPMessage, Any]


def node_app(port: int, log: Path, server_url: str, **env: str) -> Process:
    """The app in Node, ready."""
    told = {"INNGEST_DEV": "1", "INNGEST_BASE_URL": server_url, "NO_COLOR": "1", **env}
    app = Process([NODE, "app.mjs", str(port)], log, env=told, cwd=installed(APP))
    try:
        until(lambda: "ready" in app.text(), "the app listens")
    except BaseException:
        app.kill()
        raise
    return app


class Rig:
    """A server and the app. `command` is `dev` or `start`, which asks for keys."""

    def __init__(self, directory: Path, command: str, retry_interval: str = "0.2") -> None:
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        options = ["--retry-interval", retry_interval, *(["--signing-key", KEY] if command == "start" else [])]
        self.server = (
            Server(directory, "--no-poll", *options, command=command) if command == "dev" else Server(directory, *options, command=command)
        )
        env = {} if command == "dev" else {"INNGEST_DEV": "0", "INNGEST_SIGNING_KEY": KEY}
        try:
            self.app = node_app(port, directory / "app.log", self.server.url, **env)
        except BaseException:
            self.server.kill()
            raise

    def visit(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Status, final URL, headers and body of a request, redirects followed."""
        request = urllib.request.Request(self.base + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.url, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.url, error.headers, error.read().decode()

    def counts(self) -> dict[str, int]:
        """How often each step of the app has run."""
        told: dict[str, int] = json.loads(self.visit("/counts")[3])
        return told

    def kill(self) -> None:
        """End both."""
        self.app.kill()
        self.server.kill()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A dev server and the app, with its functions synced."""
    with running(Rig(tmp_path_factory.mktemp("endpoints"), "dev")) as made:
        ask(f"{made.base}/api/inngest", b"", method="PUT")
        yield made


def run_in(url: str) -> str:
    """The run whose output a client was sent to fetch."""
    path = urllib.parse.urlsplit(url).path
    assert path.startswith("/v1/http/runs/") and path.endswith("/output"), url
    return path.split("/")[4]


def test_an_endpoint_that_need_not_wait_answers_itself(rig: Rig) -> None:
    """Its caller gets its own response, and the run is there with its steps, its app and its function."""
    status, url, headers, body = rig.visit("/fast?n=1")
    assert (status, url, json.loads(body)) == (200, f"{rig.base}/fast?n=1", {"a": 1, "b": 2})
    assert headers["content-type"] == "application/json"
    trace = until(lambda: ended_of(rig, "GET /fast"), "the run is told of")
    assert (trace["run"]["status"], trace["run"]["function"]["app"]) == ("completed", rig.base)
    assert [(step["name"], step["output"]) for step in trace["steps"]] == [("a", 1), ("b", 2)]
    assert json.loads(rig.visit("/value")[3]) == {"a": "one"}
    event = trace["run"]["events"][0]
    assert event["name"] == "inngest/http.request" and event["data"]["query_params"] == "n=1"


def ended_of(rig: Rig, name: str) -> Any:
    """The trace of an endpoint's run that has ended."""
    runs = rig.server.ask(f"/api/runs?function={urllib.parse.quote(f'{rig.base}-{name}')}")["runs"]
    return rig.server.ended(runs[0]["id"]) if runs and runs[0]["ended_ms"] else None


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b'{"b": 1,  "a": [1.0, "\xc3\xbc"]}')])
def test_an_endpoint_that_sleeps_goes_on_in_the_engine(rig: Rig, method: str, body: bytes | None) -> None:
    """Its caller is sent to the output, and waits there; the engine repeats the request, with query, body and content type."""
    before = rig.counts().get("naps a", 0)
    status, url, headers, text = rig.visit("/naps?x=1&y=%2F", body, **({"content-type": "application/json"} if body else {}))
    trace = rig.server.ended(run_in(url))
    assert status == 200 and headers["access-control-allow-origin"] == "*"
    # The SDK puts the text of a Response that comes from the engine into a JSON response of its own.
    assert json.loads(json.loads(text)) == {
        "a": before + 1, "b": before + 2, "method": method, "query": "?x=1&y=%2F", "type": "application/json" if body else None,
    }  # fmt: skip
    assert rig.counts()["naps a"] == before + 1
    assert [(step["name"], step["op"], step["tries"]) for step in trace["steps"]] == [("a", "run", 1), ("nap", "sleep", 1), ("b", "run", 1)]


def test_a_step_that_fails_is_tried_again_by_the_engine(rig: Rig) -> None:
    """As attempts 1 and 2 of the same step."""
    _, url, _, body = rig.visit("/flaky")
    trace = rig.server.ended(run_in(url))
    assert json.loads(json.loads(body)) == {"a": 3} and rig.counts()["flaky"] == 3
    assert [(one["name"], one["tries"], len(one["attempts"])) for one in trace["steps"]] == [("a", 3, 2)]


def test_a_function_that_fails_is_tried_again(rig: Rig) -> None:
    """Its own error is no step of it."""
    _, url, _, body = rig.visit("/throws")
    trace = rig.server.ended(run_in(url))
    assert json.loads(body) == {"tries": 3} and [step["name"] for step in trace["steps"]] == ["a"]
    assert [one["attempt"] for one in trace["attempts"]] == [0, 1]


def test_parallel_steps_are_planned(rig: Rig) -> None:
    """Each is run once, by a call of its own, and one call joins them."""
    _, url, _, body = rig.visit("/wide")
    trace = rig.server.ended(run_in(url))
    assert json.loads(body) == {"x": 1, "y": 1, "z": 2} and trace["run"]["status"] == "completed"
    assert {name: rig.counts()[name] for name in "xy"} == {"x": 1, "y": 1}


def test_a_run_that_fails_says_so_to_its_caller(rig: Rig) -> None:
    """500, with the error."""
    status, url, _, body = rig.visit("/hopeless")
    told = json.loads(body)
    assert (status, told["status"], told["error"]["message"]) == (500, "Failed", "never")
    assert rig.server.ended(run_in(url))["run"]["status"] == "failed"


def test_the_sdks_proxy_fetches_an_output(rig: Rig) -> None:
    """`endpointProxy`, with the run's token; another token opens nothing."""
    _, url, _, _ = rig.visit("/wide")
    query = {"runId": run_in(url), **dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))}
    status, _, _, body = rig.visit(f"/poll?{urllib.parse.urlencode(query)}")
    assert status == 200 and json.loads(body)["z"] > 0
    assert rig.visit(f"/poll?{urllib.parse.urlencode({**query, 'token': 'no'})}")[0] == 401


def test_a_stream_goes_on_where_the_client_is_sent(rig: Rig) -> None:
    """Server-sent events from the app at first, then from the server, to which the app pushes them (§5.13)."""
    _, _, headers, body = rig.visit("/streams", accept="text/event-stream")
    assert headers["content-type"] == "text/event-stream" and "early" in body and "inngest.redirect_info" in body
    (told,) = [line for line in body.split("\n\n") if "inngest.redirect_info" in line]
    url = json.loads(told.split("data: ", 1)[1])["url"]
    request = urllib.request.Request(url, headers={"accept": "text/event-stream"})
    with urllib.request.urlopen(request, timeout=20) as response:
        read = b""
        while b"inngest.response" not in read:
            part = response.read1()
            assert part, read
            read += part
    assert b"late" in read and b"streamed" in read


def test_a_function_with_checkpoints_and_what_it_defers(rig: Rig) -> None:
    """One call runs all of its steps; what it deferred runs after it, what it took back does not; a failed run's runs too."""
    trace = rig.server.ended(rig.server.run_of(rig.server.send("js/five")))
    assert trace["run"]["output"] == 15 and [step["name"] for step in trace["steps"]] == [f"s{n}" for n in range(1, 6)]
    trace = rig.server.ended(rig.server.run_of(rig.server.send("js/defers")))
    assert {one["name"]: one["status"] for one in trace["defers"]} == {"kept": "scheduled", "gone": "aborted"}
    failed = rig.server.ended(rig.server.run_of(rig.server.send("js/failing")))
    assert failed["run"]["status"] == "failed" and [one["status"] for one in failed["defers"]] == ["scheduled"]

    def tidied() -> Any:
        runs = rig.server.ask("/api/runs?function=js-tidy")["runs"]
        return runs if len(runs) == 2 and all(run["ended_ms"] for run in runs) else None

    outputs = [rig.server.ended(run["id"])["run"]["output"] for run in until(tidied, "both deferred runs end")]
    told = {one["data"]["n"]: one for one in outputs}
    assert told == {
        1: {"data": {"n": 1}, "parent": "js-defers", "session": {"user": "u1"}},
        3: {"data": {"n": 3}, "parent": "js-failing", "session": None},
    }


def test_the_guides_endpoint_answers_as_the_guide_says(rig: Rig, tmp_path: Path) -> None:
    """Its code, as it stands there."""
    guide = (APP.parents[3] / "docs/guides/durable-endpoints.md").read_text()
    (code,) = re.findall(r"^```js\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.mjs").write_text(code)
    (tmp_path / "node_modules").symlink_to(installed(APP) / "node_modules")
    port = free_port()
    env = {"INNGEST_DEV": "1", "INNGEST_BASE_URL": rig.server.url, "PORT": str(port)}
    with running(Process([NODE, "shop.mjs"], tmp_path / "shop.log", env=env, cwd=tmp_path)) as shop:
        until(lambda: "ready" in shop.text(), "the shop listens")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/receipt?order=o-1", timeout=30) as response:
            told = response.read().decode()
    assert told in guide.splitlines()


def test_an_endpoint_that_was_killed_is_called_when_its_app_is_back(tmp_path: Path) -> None:
    """Its run sleeps in the engine meanwhile."""
    with running(Rig(tmp_path, "dev", retry_interval="5")) as rig:

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *args: Any) -> None:
                return None

        with pytest.raises(urllib.error.HTTPError) as redirect:
            urllib.request.build_opener(NoRedirect).open(f"{rig.base}/naps")
        rig.app.kill()
        assert redirect.value.code == 302
        url = redirect.value.headers["location"]
        run_id = run_in(url)
        until(lambda: rig.server.ask(f"/api/runs/{run_id}")["attempts"], "a call has failed")
        rig.app = node_app(int(rig.base.rsplit(":", 1)[1]), tmp_path / "again.log", rig.server.url)
        with urllib.request.urlopen(url, timeout=30) as response:
            assert json.loads(json.loads(response.read()))["b"] == 2


def test_keys_are_asked_for_and_signatures_fit(tmp_path: Path) -> None:
    """In cloud mode the app verifies what the engine sends, whatever the body's spelling; nobody begins a run without the key."""
    with running(Rig(tmp_path, "start")) as rig:
        for body in (None, b'{"b": 1,  "a": [1.0, "\xc3\xbc"]}'):
            status, url, _, text = rig.visit("/naps", body, **({"content-type": "application/json"} if body else {}))
            assert status == 200 and run_in(url) and json.loads(json.loads(text))["method"] == ("POST" if body else "GET")
        with pytest.raises(urllib.error.HTTPError) as refusal:
            ask(f"{rig.server.url}/v1/checkpoint", {})
        assert refusal.value.code == 401


def test_five_checkpointed_steps_cost_seven_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From claim to end: one claim, five checkpoints, one answer. Counted where every input comes through."""
    submitted: list[str] = []
    submit = Node.submit

    def counted(self: Node, input: AnyInput) -> Any:
        if not isinstance(input, HolderRenewed):
            submitted.append(type(input).__name__)
        return submit(self, input)

    monkeypatch.setattr(Node, "submit", counted)
    port = free_port()

    async def main() -> None:
        ready: asyncio.Future[tuple[Node, str]] = asyncio.get_running_loop().create_future()
        options = HostOptions(kind="dev", db=tmp_path / "count.db", port=0, drain_s=1.0)
        host = asyncio.create_task(run_host(options, lambda line: None, lambda node, url: ready.set_result((node, url))))
        try:
            node, url = await ready
            app = await asyncio.to_thread(node_app, port, tmp_path / "app.log", url)
            with running(app):
                await asyncio.to_thread(ask, f"http://127.0.0.1:{port}/api/inngest", b"", method="PUT")
                changes = node.watch()
                change = asyncio.ensure_future(anext(changes))
                await asyncio.to_thread(ask, f"{url}/e/key", {"name": "js/five"})
                run_id = await change
                ending = node.run_end(run_id)
                run = await node.reader.run(run_id)
                if run is None or run.ended_ms is None:
                    async with asyncio.timeout(30):
                        await ending
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await host

    asyncio.run(main())
    course = submitted[submitted.index("EventsReceived") + 1 :]
    assert course[: course.index("CallAnswered") + 1] == ["Claim", *["StepsCheckpointed"] * 5, "CallAnswered"]
    assert Counter(course)["CallAnswered"] == 1
