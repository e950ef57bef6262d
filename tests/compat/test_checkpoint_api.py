"""The checkpoint API over HTTP, with requests as Go's SDK writes them, against an endpoint that stands for its app (§5.12, §5.13)."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stepwell.protocol.ids import step_hash, ulid
from stepwell.protocol.signatures import sign
from tests.support.processes import Server, ask, refused, running

pytestmark = pytest.mark.compat
COMPLETE = step_hash("complete")
SDK = {"x-inngest-sdk": "inngest-go:v0.15.0", "content-type": "application/json"}


class Endpoint:
    """An HTTP server that notes its calls, and answers each with what is said next."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[Any] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Note the call and answer it."""
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                endpoint.calls.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                answer = json.dumps(endpoint.answers.pop(0)).encode()
                self.send_response(206)
                for name, value in {"x-inngest-sdk": "inngest-go:v0.15.0", "x-inngest-req-version": "2"}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.domain = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kill(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dev server."""
    with running(Server(tmp_path_factory.mktemp("checkpoints"), "--no-poll", "--retry-interval", "0.2")) as made:
        yield made


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint of its own domain."""
    with running(Endpoint()) as made:
        yield made


def new_id(n: int = 0) -> str:
    """A run's id, of this moment."""
    return ulid(time.time_ns() // 10**6 + n, os.urandom(10))


def post(server: Server, path: str, body: Any) -> Any:
    """A request of the SDK."""
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), SDK)
    with urllib.request.urlopen(request, timeout=15) as response:
        return json.loads(response.read() or b"null")


def begin(run_id: str, domain: str, steps: list[dict[str, Any]] | None, **fields: Any) -> dict[str, Any]:
    """A new run as Go tells it: the body in base64, the function by its name."""
    data = {
        "domain": domain, "method": "POST", "path": "/pay", "fn": "pay", "ip": "10.0.0.1", "content_type": "application/json",
        "query_params": "dry=1", "body": base64.b64encode(b'{"z": 1, "amount": 12.0}').decode(),
    }  # fmt: skip
    event = {"name": "inngest/http.request", "data": data}
    told = {"run_id": run_id, "event": event, "request_version": 2, "retries": 1, "ts": 1_735_689_600_000, **fields}
    return told if steps is None else {**told, "steps": steps}


def ran(name: str, data: Any) -> dict[str, Any]:
    """A step with its result."""
    return {"op": "StepRun", "id": step_hash(name), "name": name, "displayName": name, "data": data, "userland": {"id": name}}


def complete(status: int, body: bytes, op: str = "RunComplete") -> dict[str, Any]:
    """The endpoint's response as Go writes it."""
    result = {
        "status": status,
        "headers": {"X-Made-By": "go", "Content-Length": "9"},
        "body": base64.b64encode(body).decode(),
        "duration": 5,
    }
    return {"op": op, "id": COMPLETE, "data": result if op == "RunComplete" else {"data": result}}


def output(server: Server, run_id: str, token: str, prefix: str = "/v1/checkpoint") -> tuple[int, Any, bytes]:
    """The response that is replayed."""
    try:
        with urllib.request.urlopen(f"{server.url}{prefix}/{run_id}/output?token={token}", timeout=20) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.mark.parametrize("prefix", ["/v1/checkpoint", "/v1/http/runs"])
def test_a_run_is_begun_reported_and_ended(server: Server, endpoint: Endpoint, prefix: str) -> None:
    """Its app and function are made by the way; its response is replayed, bytes and headers."""
    run_id = new_id()
    told = post(server, prefix, begin(run_id, endpoint.domain, None))["data"]
    assert told["run_id"] == run_id and "token" not in told and told["realtime_token"].count(".") == 2
    ids = {"fn_id": told["fn_id"], "app_id": told["app_id"]}
    post(server, f"{prefix}/{run_id}/steps", {"run_id": run_id, **ids, "steps": [ran("a", {"n": 1})], "ts": 1})
    again = post(server, prefix, begin(run_id, endpoint.domain, [ran("a", {"n": 1})]))["data"]
    assert {name: again[name] for name in ids} == ids
    post(server, f"{prefix}/{run_id}/steps", {"run_id": run_id, **ids, "steps": [complete(201, b"\xffpaid", "SyncRunComplete")], "ts": 2})
    status, headers, body = output(server, run_id, again["token"], prefix)
    assert (status, headers["x-made-by"], headers["content-length"], body) == (201, "go", "5", b"\xffpaid")
    trace = server.ended(run_id)
    assert trace["run"]["function"] == {"id": f"{endpoint.domain}-pay", "name": "pay", "app": endpoint.domain}
    assert [step["output"] for step in trace["steps"]] == [{"n": 1}] and endpoint.calls == []


def test_the_engine_repeats_the_request(server: Server, endpoint: Endpoint) -> None:
    """The user's own body and query; who calls, and what for, in headers. State is fetched by the app."""
    run_id = new_id()
    planned = [{"op": "StepPlanned", "id": step_hash(name), "name": name} for name in "xy"]
    endpoint.answers = [[ran("x", 1)], [ran("y", 2)], complete(200, b"done")]
    token = post(server, "/v1/checkpoint", begin(run_id, endpoint.domain, [ran("a", 0), *planned]))["data"]["token"]
    status, _, body = output(server, run_id, token)
    assert (status, body) == (200, b"done") and len(endpoint.calls) == 3
    for method, path, headers, sent in endpoint.calls:
        assert (method, path, sent) == ("POST", "/pay?dry=1", b'{"z": 1, "amount": 12.0}')
        assert headers["x-run-id"] == run_id and headers["content-type"] == "application/json"
        assert headers["x-inngest-req-version"] == "2" and headers["x-inngest-generation-id"] == "1"
        assert headers["x-request-id"] and headers["x-inngest-job-id"].startswith(run_id)
        # Over the canonical form of the body, as SDKs verify it.
        at = int(headers["x-inngest-signature"].split("&")[0].removeprefix("t="))
        assert headers["x-inngest-signature"] == sign(b'{"amount":12,"z":1}', "", at)
    targeted, joined = endpoint.calls[:2], endpoint.calls[2]
    assert {headers["x-inngest-step-id"] for _, _, headers, _ in targeted} == {step_hash("x"), step_hash("y")}
    assert all(headers["x-inngest-force-step-plan"] == "true" for _, _, headers, _ in targeted)
    assert "x-inngest-step-id" not in joined[2] and "x-inngest-force-step-plan" not in joined[2]


def test_the_state_comes_in_the_order_in_which_steps_finished(server: Server, endpoint: Endpoint) -> None:
    """An app that fetches it knows the order by nothing else."""
    run_id = new_id()
    names = ["c", "a", "d", "b"]
    post(server, "/v1/checkpoint", begin(run_id, endpoint.domain, [ran(name, name) for name in names]))
    with urllib.request.urlopen(f"{server.url}/v0/runs/{run_id}/actions", timeout=15) as response:
        steps = json.loads(response.read())
    assert list(steps) == [step_hash(name) for name in names] and steps[step_hash("c")] == {"data": "c"}
    (event,) = ask(f"{server.url}/v0/runs/{run_id}/batch")
    assert event["name"] == "inngest/http.request" and event["data"]["path"] == "/pay"


def test_what_is_wrong_is_refused(server: Server, endpoint: Endpoint) -> None:
    """409 for another request of a run or key, 404 and 400 for runs that are not to be reported of, 413 for too much, 401 for a token."""
    run_id, body = new_id(), {"content-type": "application/json"}
    token = post(server, "/v1/checkpoint", begin(run_id, endpoint.domain, [ran("a", 1)], idempotency=run_id))["data"]["token"]
    other = begin(run_id, endpoint.domain, [ran("a", 1)])
    other["event"]["data"]["path"] = "/other"

    def refusal(path: str, told: Any) -> tuple[int, str]:
        status, answer = refused(server.url + path, told, headers={**SDK, **body})
        assert answer["status"] == status and answer["data"] is None
        return status, answer["error"]

    assert refusal("/v1/checkpoint", other)[0] == 409
    status, says = refusal("/v1/checkpoint", begin(new_id(1), endpoint.domain, [ran("a", 1)], idempotency=run_id))
    assert status == 409 and run_id in says
    assert refusal("/v1/checkpoint", {"run_id": "x"})[0] == 400
    assert refusal(f"/v1/checkpoint/{new_id()}/steps", {"steps": [ran("a", 1)]})[0] == 404
    assert refusal(f"/v1/checkpoint/{run_id}/steps", {"steps": [ran("a", "x" * 4 * 1024 * 1024)]})[0] == 413
    assert refusal(f"/v1/checkpoint/{run_id}/async", {"steps": [ran("a", 1)], "qi_id": f"{run_id}-start"})[0] == 409
    assert refusal(f"/v1/checkpoint/{new_id()}/async", {"steps": [ran("a", 1)], "qi_id": "q", "generation_id": 1})[0] == 400
    server.ask(f"/v1/runs/{run_id}", method="DELETE")
    assert refusal(f"/v1/checkpoint/{run_id}/steps", {"steps": [ran("b", 1)]})[0] == 400
    assert output(server, run_id, "x")[0] == 401 and output(server, new_id(), token)[0] == 401
    status, _, text = output(server, run_id, token)
    assert (status, json.loads(text)["status"]) == (500, "Cancelled")


def test_an_async_checkpoint_is_judged_by_its_generation(server: Server, endpoint: Endpoint) -> None:
    """Of a call that is out: its own generation, none told, and an old one, on either route."""
    seen = threading.Event()
    go_on = threading.Event()

    class Slow(list[Any]):
        def pop(self, index: Any = 0) -> Any:
            seen.set()
            go_on.wait(20)
            return super().pop(index)

    endpoint.answers = Slow([[complete(200, b"ok")]])
    run_id = new_id()
    post(server, "/v1/checkpoint", begin(run_id, endpoint.domain, [{"op": "DiscoveryRequest", "id": "more"}]))
    assert seen.wait(20)
    item_id = endpoint.calls[0][2]["x-inngest-job-id"]
    for n, (prefix, generation) in enumerate(
        (("/v1/checkpoint", 1), ("/v1/http/runs", 1), ("/v1/checkpoint", None), ("/v1/checkpoint", 0))
    ):
        told = {"qi_id": item_id, "generation_id": generation, "steps": [ran(f"s{n}", n)]}
        assert post(server, f"{prefix}/{run_id}/async", told)
    old = {"qi_id": item_id, "generation_id": 2, "steps": [ran("late", 1)]}
    assert refused(f"{server.url}/v1/checkpoint/{run_id}/async", old, headers=SDK)[0] == 409
    wrong = {"qi_id": item_id, "generation_id": 1, "steps": [{"op": "Sleep", "id": "z", "name": "1s"}]}
    assert refused(f"{server.url}/v1/checkpoint/{run_id}/async", wrong, headers=SDK)[0] == 400
    go_on.set()
    trace = server.ended(run_id)
    assert sorted(step["output"] for step in trace["steps"]) == [0, 1, 2, 3]
    assert refused(f"{server.url}/v1/checkpoint/{run_id}/async", {**old, "generation_id": 1}, headers=SDK)[0] == 400
