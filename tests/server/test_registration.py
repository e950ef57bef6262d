"""Registration against a real server: by the app's own call or in its answer, changes in mid-run, removals, refusals (§3)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.protocol.signatures import bearer_hash, verify
from tests.support.processes import Server, ask, refused, until
from tests.support.scripted_app import Answer, Call, ScriptedApp, op, ops, step_hash

KEY, OLD = "signkey-prod-" + "ab" * 32, "signkey-prod-" + "cd" * 32
TOKEN = "an-admin-token"
CLOUD = ("--event-key", "test", "--admin-token", TOKEN)

ECHO = {"id": "echo", "triggers": [{"event": "shop/echo"}], "retries": 0}
NAP = {"id": "nap", "triggers": [{"event": "shop/nap"}], "retries": 0}


def script(call: Call) -> Answer:
    """`nap` waits for a signal of its run's own and says where it ended; `echo` returns its event's data."""
    if call.function.endswith("-nap"):
        if step_hash("gate") not in call.done:
            return ops(op("WaitForSignal", "gate", opts={"signal": call.body["ctx"]["run_id"], "timeout": "1h"}))
        return 200, {}, {"host": call.headers["host"]}
    return 200, {}, call.body["event"]["data"]


Make = Callable[..., ScriptedApp]
Start = Callable[..., Server]


@pytest.fixture
def app() -> Iterator[Make]:
    """Makes apps, and ends them."""
    made: list[ScriptedApp] = []

    def make(*functions: dict[str, Any], name: str = "shop", keys: tuple[str, ...] = ()) -> ScriptedApp:
        made.append(ScriptedApp(name, script, *(functions or (ECHO,)), keys=keys))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server, and ends it."""
    made: list[Server] = []

    def run(*options: str, command: str = "dev") -> Server:
        made.append(Server(tmp_path, *options, command=command))
        return made[-1]

    yield run
    for one in made:
        one.kill()


def apps(server: Server) -> dict[str, Any]:
    """What the server says of apps."""
    answer: dict[str, Any] = server.ask("/api/apps", token=TOKEN)
    return answer


def the_app(server: Server, name: str = "shop") -> Any:
    return next((one for one in apps(server)["apps"] if one["name"] == name), None)


def output(server: Server, event: str, data: dict[str, Any] | None = None, token: str | None = None) -> Any:
    """What the run of an event returned."""
    event_id = server.send(event, data)
    runs = until(lambda: server.ask(f"/v1/events/{event_id}/runs", token=token or KEY)["data"], "the event has a run")
    run_id = runs[0]["run_id"]
    until(lambda: server.ask(f"/v1/runs/{run_id}", token=token or KEY)["data"]["ended_at"], "the run ends")
    run = server.ask(f"/v1/runs/{run_id}", token=token or KEY)["data"]
    assert run["status"] == "Completed", run
    return run["output"]


def waiting_run(server: Server) -> str:
    """The id of a run of `nap` that waits for its signal."""
    run_id = server.run_of(server.send("shop/nap"))
    until(lambda: server.ask(f"/api/runs/{run_id}")["run"]["status"] == "waiting", "the run waits")
    return run_id


def test_in_band(app: Make, start: Start) -> None:
    """A server with keys asks for the functions in the answer, signed; the answer's signature counts (§3.2)."""
    shop = app(keys=(KEY,))
    server = start("-u", shop.url, "--signing-key", KEY, *CLOUD, command="start")
    until(lambda: the_app(server), "the app is synced")
    (sync,) = shop.syncs
    assert (sync["x-inngest-sync-kind"], sync["x-inngest-server-kind"]) == ("in_band", "cloud")
    told = the_app(server)
    assert (told["url"], told["sdk"], told["functions"], told["error"]) == (shop.url, "js:v4.24.0", 1, None)
    assert output(server, "shop/echo", {"x": 1}) == {"x": 1}
    assert verify(
        shop.calls[0].raw, shop.calls[0].headers["x-inngest-signature"], KEY, int(shop.calls[0].headers["x-inngest-signature"][2:12])
    )


def test_in_band_answers_have_to_be_signed(app: Make, start: Start) -> None:
    """What anybody could have answered is not taken; it is when it bears the key's signature."""
    shop = app(keys=(KEY,))
    shop.signs = False
    server = start("-u", shop.url, "--signing-key", KEY, *CLOUD, command="start")
    problem = until(lambda: apps(server)["not_synced"], "the problem is shown")[0]
    assert problem["url"] == shop.url and "has no signature" in problem["error"] and "INNGEST_SIGNING_KEY" in problem["error"]
    assert apps(server)["apps"] == []
    shop.signs = True
    until(lambda: the_app(server), "the app is synced")
    assert apps(server)["not_synced"] == []


def test_an_app_may_answer_out_of_band(app: Make, start: Start) -> None:
    """Asked in band, it registers by a call of its own."""
    shop = app(keys=(KEY,))
    shop.in_band = False
    server = start("--signing-key", KEY, *CLOUD, command="start")
    shop.server_url = server.url
    assert ask(server.url + "/api/apps", {"url": shop.url}, token=TOKEN) == {"ok": True, "url": shop.url}
    assert the_app(server)["functions"] == 1


def test_an_app_that_knows_another_server_is_told_so(app: Make, start: Start) -> None:
    """It says that it has registered, but nothing came here."""
    shop = app()
    server = start("-u", shop.url, "--no-poll")
    problem = until(lambda: apps(server)["not_synced"], "the problem is shown")[0]["error"]
    assert "not here" in problem and "INNGEST_DEV" in problem and problem in server.text()
    shop.server_url = server.url
    until(lambda: the_app(server), "the app is synced")


def test_what_is_no_app_is_told_so(start: Start) -> None:
    """A page at the URL, nothing at the URL, no URL at all."""
    server = start("--no-poll")
    status, answer = refused(server.url + "/api/apps", {"url": server.url + "/health"})
    assert status == 502 and "HTTP 405" in answer["error"]
    assert refused(server.url + "/api/apps", {"url": "http://127.0.0.1:9/x"})[0] == 502
    assert {one["url"] for one in apps(server)["not_synced"]} == {server.url + "/health", "http://127.0.0.1:9/x"}
    status, answer = refused(server.url + "/api/apps", {"url": "shop"})
    assert status == 400 and "'shop'" in answer["error"]
    assert refused(server.url + "/api/apps", {})[0] == 400
    assert len(apps(server)["not_synced"]) == 2


def test_keys_may_change_while_apps_have_the_old_one(app: Make, start: Start) -> None:
    """Calls are signed with the new key, and once more with the older one for an app that does not know the new one; no attempt is used."""
    shop = app(keys=(OLD,))
    server = start("-u", shop.url, "--signing-key", KEY, "--signing-key", OLD, *CLOUD, command="start")
    until(lambda: the_app(server), "the app is synced")
    assert output(server, "shop/echo", {"n": 1}) == {"n": 1}
    assert shop.refused == 2, "one sync and one call were tried with the new key"
    assert output(server, "shop/echo", {"n": 2}) == {"n": 2}
    assert shop.refused == 2, "which key the app knows is remembered"
    assert [call.body["ctx"]["attempt"] for call in shop.calls] == [0, 0]
    shop.keys = (KEY,)
    assert output(server, "shop/echo", {"n": 3}) == {"n": 3}
    for shown in (KEY, OLD, bearer_hash(KEY), bearer_hash(OLD), KEY.removeprefix("signkey-prod-")):
        assert server.ask("/v1/events", token=shown)["data"]
    for header in ({}, {"authorization": "Bearer signkey-prod-00"}, {"authorization": KEY}):
        assert refused(server.url + "/v1/events", headers=header)[0] == 401


def test_an_app_with_another_key_is_refused(app: Make, start: Start) -> None:
    """Its own registration, and what is called with a signature that it does not know; both say so."""
    shop = app(keys=(OLD,))
    server = start("--signing-key", KEY, *CLOUD, command="start")
    shop.server_url = server.url
    status, answer = shop.register()
    assert status == 401 and answer["status"] == 401 and "signing key" in answer["error"]
    status, answer = refused(server.url + "/api/apps", {"url": shop.url}, headers={"authorization": f"Bearer {TOKEN}"})
    assert status == 502 and "refused the server's signature (HTTP 401)" in answer["error"]


def test_kept_keys_change_without_a_restart(app: Make, start: Start, tmp_path: Path) -> None:
    """`stepwell keys rotate`, SIGHUP, `retire`, SIGHUP: first both keys hold, then the new one alone."""
    server = start(command="start")

    def keys(*words: str) -> str:
        args = [sys.executable, "-m", "stepwell", "keys", *words, "--db", str(tmp_path / "test.db")]
        return subprocess.run(args, check=True, capture_output=True, text=True).stdout.strip()

    def hang_up(times: int) -> None:
        server.popen.send_signal(1)
        until(lambda: server.text().count("The keys are read anew") == times, "the keys are read")

    lines = [line.split() for line in keys("show").splitlines()]
    old = {f"{words[0]} {words[1]}": words[2] for words in lines}
    new_event, new_signing, new_token = keys("rotate", "event"), keys("rotate", "signing"), keys("rotate", "admin")
    assert refused(f"{server.url}/e/{new_event}", {"name": "a"})[0] == 401
    hang_up(1)
    for key in (new_event, old["event key"]):
        assert ask(f"{server.url}/e/{key}", {"name": "a"})["ids"]
    for key in (new_signing, old["signing key"]):
        assert server.ask("/v1/events", token=key)["data"]
    assert server.ask("/api/apps", token=new_token) and refused(server.url + "/api/apps")[0] == 401
    keys("retire", "event"), keys("retire", "signing")
    hang_up(2)
    assert refused(f"{server.url}/e/{old['event key']}", {"name": "a"})[0] == 401
    assert refused(server.url + "/v1/events", headers={"authorization": f"Bearer {old['signing key']}"})[0] == 401
    assert server.ask("/v1/events", token=new_signing)["data"]


def test_a_moved_app_answers_for_runs_that_wait(app: Make, start: Start) -> None:
    """The same name from another URL takes the old one's place, for runs that have begun too."""
    old, new = app(ECHO, NAP), app(ECHO, NAP)
    server = start("--no-poll")
    old.server_url = new.server_url = server.url
    assert old.register()[0] == 200
    run_id = waiting_run(server)
    assert new.register()[1]["modified"] is True
    server.ask("/v1/signals", {"signal": run_id, "data": 1})
    assert server.ended(run_id)["run"]["output"] == {"host": new.url.split("/")[2]}
    assert len(apps(server)["apps"]) == 1 and the_app(server)["url"] == new.url


def test_a_function_that_goes_in_mid_run_still_ends_its_run(app: Make, start: Start) -> None:
    """Nothing starts it any more; it comes back with the next version."""
    shop = app(ECHO, NAP)
    server = start("--no-poll")
    shop.server_url = server.url
    shop.register()
    run_id = waiting_run(server)
    shop.functions = [ECHO]
    shop.register()
    event_id = server.send("shop/nap")
    assert server.ended(server.run_of(server.send("shop/echo")))["run"]["status"] == "completed"
    assert server.ask(f"/v1/events/{event_id}/runs")["data"] == []
    server.ask("/v1/signals", {"signal": run_id, "data": 1})
    assert server.ended(run_id)["run"]["status"] == "completed"
    shop.functions = [ECHO, NAP]
    shop.register()
    versions = {one["id"]: one["version"] for one in server.ask("/api/functions")["functions"]}
    assert versions == {"shop-echo": 3, "shop-nap": 2}


def test_apps_are_removed_by_url_and_by_name(app: Make, start: Start) -> None:
    """A removed app is not called for new events, nor looked for again; it may register again."""
    shop = app(ECHO, NAP)
    server = start("--poll-interval", "0.2")
    shop.server_url = server.url
    shop.register()
    assert ask(f"{server.url}/fn/remove?url={shop.url}", method="DELETE") == {"ok": True, "functions": 2}
    assert apps(server)["apps"] == [] and server.ask("/api/functions")["functions"] == []
    assert refused(f"{server.url}/fn/remove?url={shop.url}", method="DELETE")[0] == 404
    event_id = server.send("shop/echo")
    assert server.ask(f"/v1/events/{event_id}/runs")["data"] == []
    assert shop.register()[1]["modified"] is True
    run = subprocess.run([sys.executable, "-m", "stepwell", "apps", "remove", "shop", "--url", server.url], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "shop is removed, with 2 functions\n")
    run = subprocess.run([sys.executable, "-m", "stepwell", "apps", "remove", "shop", "--url", server.url], capture_output=True, text=True)
    assert run.returncode == 1 and "there is no app 'shop'" in run.stderr
    run = subprocess.run([sys.executable, "-m", "stepwell", "apps", "sync", shop.url, "--url", server.url], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"{shop.url} is synced\n")
    run = subprocess.run([sys.executable, "-m", "stepwell", "apps", "list", "--url", server.url], capture_output=True, text=True)
    assert "shop" in run.stdout and "js:v4.24.0" in run.stdout
    run = subprocess.run([sys.executable, "-m", "stepwell", "fn", "list", "--url", server.url], capture_output=True, text=True)
    assert "shop-nap" in run.stdout and "shop/nap" in run.stdout
    for what, mode in (("pause", "paused"), ("drain", "draining"), ("resume", "running")):
        words = ["fn", what, "shop-nap", "--url", server.url]
        run = subprocess.run([sys.executable, "-m", "stepwell", *words], capture_output=True, text=True)
        assert (run.returncode, run.stdout) == (0, f"shop-nap is {mode}\n")


def test_an_app_that_vanishes_and_comes_back_is_seen(app: Make, start: Start) -> None:
    """Polling tells what is wrong, once in the server's output, and when it is well again."""
    shop = app()
    server = start("--poll-interval", "0.1")
    shop.server_url = server.url
    shop.register()
    until(lambda: len(shop.syncs) >= 2, "the app is polled")
    shop.keys = (KEY,)  # it answers 401 from now on
    until(lambda: (the_app(server) or {})["error"], "the problem is shown")
    assert "asks for a signature (HTTP 401)" in the_app(server)["error"]
    shop.keys = ()
    until(lambda: the_app(server)["error"] is None, "it is well again")
    assert server.text().count("could not be synced") == 1 and "is synced" in server.text()


def test_a_registration_is_refused_in_the_protocol_s_shape(app: Make, start: Start) -> None:
    """JSON with `error` and `status`, which SDKs read; nothing of it is taken. A deploy's id passes (§3.1)."""
    shop = app(ECHO, {"id": "bad", "triggers": [{"event": "a", "expression": "event.data ="}]})
    server = start("--no-poll")
    shop.server_url = server.url
    status, answer = shop.register()
    assert status == 400 and {"error", "data", "status"} == answer.keys() and answer["status"] == 400
    assert "function 'shop-bad': triggers[0].expression" in answer["error"] and apps(server)["apps"] == []
    shop.functions = [ECHO]
    status, answer = shop.register(x_inngest_expected_server_kind="cloud")
    assert status == 400 and "this one is dev" in answer["error"]
    shop.sdk = "inngest-js:v3.40.0"
    status, answer = shop.register()
    assert (status, answer["code"]) == (400, "sdk_version_denied")
    shop.sdk = "inngest-js:v4.24.0"
    body = shop.registration()
    assert ask(f"{server.url}/fn/register?deployId=d1", body)["modified"] is True
    answer = ask(f"{server.url}/fn/register?deployId=d2", body)
    assert answer["modified"] is False and "error" not in answer and answer["app_id"] and answer["sync_id"]
    for body in (b"{", b"[]", b"{}", b'{"appName":"x","functions":[{"id":"x-f"}]}'):
        status, answer = refused(f"{server.url}/fn/register", body)
        assert status == 400 and answer["status"] == 400, body


def test_the_server_says_its_kind_in_every_answer(start: Start) -> None:
    """Also where it refuses, has no such route, or takes events."""
    import urllib.error
    import urllib.request

    server = start("--no-poll")
    for method, path in (
        ("GET", "/health"),
        ("GET", "/no/such"),
        ("POST", "/health"),
        ("POST", "/e/x"),
        ("OPTIONS", "/e/x"),
        ("GET", "/v1/runs/x"),
    ):
        request = urllib.request.Request(
            server.url + path, data=b"" if method == "POST" else None, method=method, headers={"host": "0.0.0.0:1"}
        )
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                headers = answer.headers
        except urllib.error.HTTPError as error:
            headers = error.headers
        assert headers["x-inngest-server-kind"] == "dev", (method, path)
    request = urllib.request.Request(server.url + "/api/runs", headers={"host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=15)
    assert (caught.value.code, caught.value.headers["x-inngest-server-kind"]) == (403, "dev")


BROKEN_APP = """
import stepwell

app = stepwell.App("shop")

@app.function(trigger=stepwell.on("shop/paid", where="event.data.nope ="))
async def fulfil(ctx: stepwell.Context) -> None: ...
"""


def test_an_app_in_child_processes_that_is_refused(start: Start, tmp_path: Path) -> None:
    """In development the server says why and waits for the next change; in production it does not start."""
    file = tmp_path / "app.py"
    file.write_text(BROKEN_APP)
    server = start(str(file))
    until(lambda: "cannot be served as it is: function 'shop-fulfil'" in server.text(), "the reason is said")
    file.write_text(BROKEN_APP.replace("nope =", "nope == 1"))
    until(lambda: the_app(server), "the mended app is taken")
    server.kill()
    file.write_text(BROKEN_APP)
    args = [sys.executable, "-m", "stepwell", "start", str(file), "--port", "0", "--db", str(tmp_path / "other.db")]
    done = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "cannot be served: function 'shop-fulfil': triggers[0].expression" in done.stderr
