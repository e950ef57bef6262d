"""`stepwell queues` against a real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stepwell.cli import main
from tests.support.processes import Server, running, until

DEADLY = {"maxRetries": 0, "deadLetter": "jobs-dead", "maxBatchTimeout": "0s", "maxBatchSize": 1}


def app_at(url: str) -> dict[str, Any]:
    """An app whose one consumer's failures are dead letters at once."""
    step = {"id": "step", "runtime": {"url": url}, "retries": {"attempts": 0}}
    work = {"id": "a-work", "name": "work", "triggers": [{"queue": "jobs"}], "steps": {"step": step}, "consumer": DEADLY}
    return {"appName": "a", "url": url, "sdk": "py:v1", "functions": [work]}


class Refuses(BaseHTTPRequestHandler):
    """An app that fails whatever it is given."""

    def do_POST(self) -> None:
        """Say so."""
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"name":"Error","message":"not on a Saturday"}'
        self.send_response(500)
        self.send_header("x-inngest-sdk", "py:v1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def app_url() -> Iterator[str]:
    """Where that app listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as app:
        thread = threading.Thread(target=app.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{app.server_port}/x"
        app.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dev server."""
    with running(Server(tmp_path_factory.mktemp("queues"), "--no-poll")) as server:
        yield server


def run(server: Server, *words: str, text: str | None = None) -> Result:
    """A command, against the server."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["queues", *words, "--url", server.url], input=text)


def told(server: Server, *words: str) -> Any:
    """What it prints as JSON."""
    done = run(server, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_a_queue_is_filled_held_shown_and_emptied(server: Server) -> None:
    """Each command says what is so then; a purge asks first."""
    (first,) = run(server, "send", "mail", '{"to": "ann"}').output.split()
    assert told(server, "send", "mail", "not JSON", "--text", "--delay", "1h")["id"] > first
    refused = run(server, "send", "mail", "not JSON")
    assert refused.exit_code != 0 and "--text" in refused.output
    listed = run(server, "messages", "mail").output
    assert first in listed and '{"to": "ann"}' in listed and "not JSON" in listed
    assert [one["id"] for one in told(server, "messages", "mail", "--where", "message.body.to == 'ann'")["messages"]] == [first]
    assert len(told(server, "messages", "mail", "--limit", "1")["messages"]) == 1
    assert run(server, "pause", "mail").output == "mail is paused; 2 messages wait\n"
    assert "mail (paused)" in run(server, "list").output and "2 messages, 20 bytes" in run(server, "show", "mail").output
    assert run(server, "resume", "mail").output == "mail is delivered; 2 messages wait\n"
    told_settings = run(server, "set", "mail", "--retention", "2d", "--max-retries", "7", "--dead-letter", "").output
    assert told_settings == "mail: retention 2d, max_retries 7, dead_letter none\n"
    assert run(server, "purge", "mail", text="n\n").exit_code != 0
    assert told(server, "show", "mail")["waiting"] == 2, "who says no purges nothing"
    assert "2 messages of mail are taken away" in run(server, "purge", "mail", text="y\n").output
    until(lambda: told(server, "show", "mail")["waiting"] == 0, "it is empty")
    assert told(server, "purge", "mail", "--yes") == {"purged": 0}
    assert "there is no queue 'nobody'" in run(server, "show", "nobody").output


def test_dead_letters_are_listed_sent_back_and_deleted(server: Server, app_url: str) -> None:
    """By their ids, by a condition, all; a hint where somebody looks in the wrong queue."""
    server.ask("/fn/register", app_at(app_url))
    for start in range(0, 120, 60):
        server.ask("/queues/jobs/messages", {"messages": [{"body": {"n": n}} for n in range(start, start + 60)]})

    def died() -> bool:
        found = {queue["name"]: queue["waiting"] for queue in told(server, "list")["queues"]}
        return found.get("jobs-dead", 0) == 120

    until(died, "all have died")
    server.ask("/queues/jobs-dead/messages", {"messages": [{"body": "no letter"}]})
    run(server, "pause", "jobs")
    letters = told(server, "dead", "list", "jobs-dead", "--limit", "500")["messages"]
    assert len(letters) == 120 and {one["dead_of"] for one in letters} == {"jobs"}
    shown = run(server, "dead", "list", "jobs-dead", "--where", "message.body.n == 7")
    assert '{"n": 7}' in shown.output and "not on a Saturday" in shown.output
    assert "stepwell queues dead list jobs-dead" in run(server, "dead", "list", "jobs").output
    one, two = (letter["id"] for letter in letters[:2])
    assert run(server, "dead", "retry", "jobs-dead", one).output == "1 dead letters are sent back\n"
    assert told(server, "dead", "retry", "jobs-dead", two, "--to", "slow") == {"moved": 1}
    many = told(server, "dead", "delete", "jobs-dead", "--where", "message.body.n % 2 == 0")["deleted"]
    rest = told(server, "dead", "list", "jobs-dead", "--limit", "500")["messages"]
    assert many + len(rest) == 118 and all(letter["body"]["n"] % 2 for letter in rest)
    ids = [letter["id"] for letter in rest]
    assert told(server, "dead", "retry", "jobs-dead", *ids[:50]) == {"moved": 50}
    assert told(server, "dead", "delete", "jobs-dead", "--all") == {"deleted": len(rest) - 50}
    assert told(server, "show", "jobs-dead")["waiting"] == 1, "what is no dead letter stays"
    assert told(server, "show", "jobs")["waiting"] == 51 and told(server, "show", "slow")["waiting"] == 1
    for words in ((), ("--all", one), ("--all", "--where", "true")):
        refused = run(server, "dead", "retry", "jobs-dead", *words)
        assert refused.exit_code != 0 and "--all" in refused.output
