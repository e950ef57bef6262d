"""`step.ai.infer` of the unmodified Python SDK: asked by the server, and nothing of its key is ever seen again."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, quote_plus

import pytest

from tests.support.processes import Process, Server, free_port, listens, running, until
from tests.support.provider import Provider

pytestmark = pytest.mark.compat
APPS = Path(__file__).parent / "apps"
KEY = "sk-very/secret+key-0123456789"
FORMS = {form.encode() for form in (KEY, quote(KEY), quote(KEY, safe=""), quote_plus(KEY), json.dumps(KEY)[1:-1], KEY.replace("/", "\\/"))}


class Rig:
    """A server that can be killed and started again, an app whose steps ask, and whom they ask."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port, self.app_port = directory, free_port(), free_port()
        self.provider = Provider()
        env = {"SERVER_URL": f"http://127.0.0.1:{self.port}", "PROVIDER_URL": self.provider.url, "KEY": KEY}
        command = [sys.executable, "-m", "uvicorn", "asking_app:app", "--port", str(self.app_port), "--log-level", "warning"]
        self.app = Process(command, directory / "app.log", env=env, cwd=APPS)
        self.parts = [self.provider, self.app]
        try:
            until(lambda: listens(self.app_port), "the app listens")
            self.server = self.started()
            self.server.synced("asking-asks")
        except BaseException:
            self.kill()
            raise

    def started(self) -> Server:
        """The server, on the same file and port as ever."""
        url = f"http://127.0.0.1:{self.app_port}/api/inngest"
        server = Server(self.directory, "-u", url, "--no-poll", "--retry-interval", "0.2", "--port", str(self.port))
        self.parts.append(server)
        return server

    def run(self, event: str, **data: str) -> dict[str, object]:
        """Send an event and give the ended run's trace."""
        return self.server.ended(self.server.run_of(self.server.send(event, data)))

    def kill(self) -> None:
        """End it all."""
        for part in self.parts:
            part.kill()

    def secrets_seen(self) -> list[str]:
        """Where the key can be read: files of the database, the server's log, answers of its APIs."""
        seen = [str(path) for path in self.directory.rglob("*") if path.is_file() and path.name != "app.log" and shows(path.read_bytes())]
        paths = ["/api/runs", "/api/functions", "/api/set-aside", "/v1/events", "/dev"]
        for run in self.server.ask("/api/runs?limit=100")["runs"]:
            paths += [f"/api/runs/{run['id']}", f"/v1/runs/{run['id']}", f"/v0/runs/{run['id']}/actions", f"/v0/runs/{run['id']}/batch"]
        for path in paths:
            with contextlib.suppress(HTTPError):
                if shows(json.dumps(self.server.ask(path), ensure_ascii=False).encode()):
                    seen.append(path)
        return seen


def shows(content: bytes) -> bool:
    """Whether the key stands there, in any form."""
    return any(form in content for form in FORMS)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for the module's tests."""
    with running(Rig(tmp_path_factory.mktemp("gateway"))) as made:
        yield made


def test_the_check_itself_sees_a_key(tmp_path: Path) -> None:
    """Else the tests below would prove nothing."""
    assert all(shows(b"..." + form + b"...") for form in FORMS) and not shows(b"sk-other")


def test_every_adapter_gets_its_answer(rig: Rig) -> None:
    """The provider sees the key where it wants it; the run's output is what it answered."""
    before = len(rig.provider.asked)
    trace = rig.run("ask/all")
    assert trace["run"]["status"] == "completed", trace["run"]
    assert [one["heard"]["messages"][0]["content"] for one in trace["run"]["output"]] == [
        "openai",
        "anthropic",
        "gemini",
        "deepseek",
        "grok",
    ]
    openai, anthropic, gemini, deepseek, grok = rig.provider.asked[before:]
    for request in (openai, deepseek, grok):
        assert request["headers"]["authorization"] == f"Bearer {KEY}"
        assert request["path"] == "/chat/completions"
    assert anthropic["headers"]["x-api-key"] == KEY and anthropic["headers"]["anthropic-version"]
    assert gemini["path"] == f"/models/m-1:generateContent?key={quote_plus(KEY)}"
    assert "authorization" not in anthropic["headers"] and "authorization" not in gemini["headers"]
    assert rig.secrets_seen() == []


def test_requests_beside_steps(rig: Rig) -> None:
    """Each is a step of its own with its own call; the results come in order."""
    before = len(rig.provider.asked)
    run = rig.run("ask/parallel")["run"]
    assert run["status"] == "completed", run
    first, step, second = run["output"]
    assert (first["heard"]["messages"][0]["content"], step, second["heard"]["messages"][0]["content"]) == ("a", "step", "b")
    assert len(rig.provider.asked) - before == 2
    assert rig.secrets_seen() == []


@pytest.mark.parametrize("adapter", ["openai", "anthropic", "gemini"])
def test_a_refusal_is_tried_again_and_then_caught(rig: Rig, adapter: str) -> None:
    """With the step's own attempts. The provider repeats the whole request, and still no key is stored."""
    before = len(rig.provider.asked)
    trace = rig.run("ask/refused", adapter=adapter)
    message = "Error making AI request: unsuccessful status code: 429"
    assert trace["run"]["output"] == {"name": "AIGatewayError", "message": message}, trace["run"]
    assert len(rig.provider.asked) - before == 2
    (step,) = trace["steps"]
    assert step["status"] == "failed" and len(step["attempts"]) == 2
    assert step["error"]["data"]["error"]["message"] == "no" and "[removed]" in json.dumps(step["error"]["data"])
    assert step["error"]["stack"].startswith('{"error"')
    assert rig.secrets_seen() == []


def test_a_retry_waits_as_long_as_the_provider_asks(rig: Rig) -> None:
    """`Retry-After` goes before the backoff."""
    rig.provider.retry_after = "2"
    try:
        trace = rig.run("ask/refused", adapter="openai")
    finally:
        rig.provider.retry_after = "0"
    first, second = sorted(trace["steps"][0]["attempts"], key=lambda attempt: attempt["attempt"])
    assert second["started_ms"] - first["ended_ms"] >= 2000


def test_a_provider_that_is_not_there(rig: Rig) -> None:
    """The run fails with a sentence; the key, which Gemini has in its URL, is not in it."""
    run = rig.run("ask/unreachable")["run"]
    assert run["status"] == "failed"
    assert "http://127.0.0.1:9/models/m-1:generateContent: " in run["error"]["message"]
    assert rig.secrets_seen() == []


def test_a_server_that_is_killed_in_mid_request_asks_again(rig: Rig) -> None:
    """The request was in memory only: the app tells it once more, the step before it does not run again, and nothing was written."""
    run_id = rig.server.run_of(rig.server.send("ask/patient"))
    asked = len(rig.provider.asked)
    until(lambda: any("hang" in one["body"] for one in rig.provider.asked[asked - 1 :]), "the provider is asked")
    assert rig.secrets_seen() == []
    rig.server.kill()
    rig.server = rig.started()
    until(lambda: sum("hang" in one["body"] for one in rig.provider.asked) == 2, "the provider is asked once more")
    assert rig.secrets_seen() == []
    rig.provider.go_on.set()
    run = rig.server.ended(run_id)["run"]
    assert run["status"] == "completed" and run["output"]["heard"]["messages"][0]["content"] == "hang", run
    assert rig.secrets_seen() == []
