"""A real Worker, in Cloudflare's runtime, that hands its work over to Stepwell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compat.cloudflare.configuration import DATE
from tests.compat.rig import EVENT_KEY, SIGNING_KEY, KeyedServer
from tests.support.npm import NODE, installed
from tests.support.processes import Process, running, until

pytestmark = pytest.mark.compat
HERE = Path(__file__).parent
ORDER = {"order": 7, "prices": [1, 2]}


class Worker(Process):
    """A Worker of `from_worker/` in the Workers runtime, with its vars."""

    def __init__(self, directory: Path, module: str, env: Mapping[str, str]) -> None:
        bound = {name: {"type": "text", "value": value} for name, value in env.items()}
        config = {"module": f"from_worker/{module}", "name": "from-worker", "compatibilityDate": DATE, "env": bound}
        (directory / f"{module}.json").write_text(json.dumps(config))
        super().__init__(
            [NODE, str(installed(HERE, optional=True) / "run.mjs"), str(directory / f"{module}.json")], directory / f"{module}.log"
        )

        def listening() -> re.Match[str] | None:
            assert self.popen.poll() is None, f"the Worker ended: {self.text()}"
            return re.search(r"^listening at (\S+)", self.text(), re.MULTILINE)

        try:
            self.url = until(listening, "the Worker listens")[1]  # type: ignore[index]
        except BaseException:
            self.kill()
            raise


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    """A server with keys that runs the shop's functions."""
    with running(KeyedServer(tmp_path_factory.mktemp("server"), f"{HERE / 'from_worker' / 'app.py'}:app")) as made:
        made.synced("shop-fulfil")
        yield made


@pytest.fixture(scope="module")
def worker(server: KeyedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The Worker that posts events, with the server's event key."""
    env = {"STEPWELL_URL": server.url, "STEPWELL_EVENT_KEY": EVENT_KEY}
    with running(Worker(tmp_path_factory.mktemp("worker"), "posts_event.mjs", env)) as made:
        yield made


def output_of(server: KeyedServer, event_id: str) -> Any:
    """What the run that an event started returned."""
    return server.ended(server.run_of(event_id))["run"]["output"]


def test_a_worker_posts_an_event(server: KeyedServer, worker: Worker) -> None:
    """It answers 202 with the event's id; the function runs, durably, where Stepwell is."""
    answer = httpx.post(worker.url, json=ORDER)
    assert answer.status_code == 202, answer.text
    assert output_of(server, answer.json()["event"]) == {"order": 7, "total": 3}


def test_a_request_sent_twice_runs_once(server: KeyedServer, worker: Worker) -> None:
    """The caller's idempotency key is the event's id."""
    answers = [httpx.post(worker.url, json={**ORDER, "order": number}, headers={"idempotency-key": "order-8"}) for number in (8, 9)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert output_of(server, answers[0].json()["event"]) == {"order": 8, "total": 3}
    # Whatever the second had started would have begun before the run of a later order has ended.
    later = httpx.post(worker.url, json={**ORDER, "order": 10}).json()["event"]
    assert output_of(server, later)["order"] == 10
    runs = server.ask("/api/runs?function=shop-fulfil")["runs"]
    orders = [server.ended(run["id"])["run"]["output"]["order"] for run in runs]
    assert 9 not in orders and {8, 10} <= set(orders)


def test_what_is_not_stored_is_not_accepted(server: KeyedServer, tmp_path: Path) -> None:
    """With a wrong key the caller gets no 202."""
    with running(Worker(tmp_path, "posts_event.mjs", {"STEPWELL_URL": server.url, "STEPWELL_EVENT_KEY": "another-key"})) as worker:
        answer = httpx.post(worker.url, json=ORDER)
    assert answer.status_code == 502
    assert answer.json()["error"].startswith("Stepwell answered 401: ")


def queue_worker(server: KeyedServer, directory: Path, queue: str, token: str = SIGNING_KEY) -> Worker:
    """The Worker whose queue is the server's."""
    env = {"QUEUES_URL": server.url, "ACCOUNT_ID": "any", "QUEUE_ID": queue, "QUEUES_TOKEN": token}
    return Worker(directory, "http_queue.mjs", env)


def test_a_worker_has_its_queue_here(server: KeyedServer, tmp_path: Path) -> None:
    """It publishes one and several, pulls them with their bodies, acks two and has one come again, in its delay."""
    with running(queue_worker(server, tmp_path, "pulled")) as worker:
        assert httpx.post(f"{worker.url}/send", json={"body": {"name": "é"}}).status_code == 202
        batch = {"messages": [{"body": {"fails": True}}, {"body": "a text", "contentType": "text"}]}
        assert httpx.post(f"{worker.url}/send-batch", json=batch).status_code == 202
        first = httpx.post(f"{worker.url}/work").json()
        assert [message["body"] for message in first["messages"]] == [{"name": "é"}, {"fails": True}, "a text"]
        assert (first["ackCount"], first["retryCount"], first["warnings"]) == (2, 1, [])
        # Its retry is two seconds away: there is nothing until then.
        assert httpx.post(f"{worker.url}/work").json()["messages"] == []
        again = until(lambda: found if (found := httpx.post(f"{worker.url}/work").json())["messages"] else None, "the retry comes")
        assert again is not None
        assert [(one["id"], one["attempts"]) for one in again["messages"]] == [(first["messages"][1]["id"], 2)]
        assert again["ackCount"] == 1


def test_a_worker_feeds_a_function(server: KeyedServer, tmp_path: Path) -> None:
    """What it publishes is consumed by an app: each message starts a run. To publish, an event key is enough."""
    with running(queue_worker(server, tmp_path, "parcels", EVENT_KEY)) as worker:
        assert httpx.post(f"{worker.url}/send", json={"body": {"weight": 3}}).status_code == 202
        runs = until(lambda: server.ask("/api/runs?function=shop-ship")["runs"], "a run has begun")
        assert server.ended(runs[0]["id"])["run"]["output"] == {"weight": 3}
        refused = httpx.post(f"{worker.url}/work")
        assert refused.status_code == 502 and refused.json()["error"].startswith("401: ")


def test_what_the_queue_refuses(server: KeyedServer, tmp_path: Path) -> None:
    """The Worker is told why, and nothing of the batch is stored."""
    with running(queue_worker(server, tmp_path, "refusing")) as worker:
        batch = {"messages": [{"body": "a"}, {"body": "b", "delaySeconds": 86_401}]}
        answer = httpx.post(f"{worker.url}/send-batch", json=batch)
        assert answer.status_code == 502 and "86401" in answer.json()["error"]
        assert httpx.post(f"{worker.url}/work").json()["messages"] == []
