"""A rig: a real server, an app written with an unmodified SDK in a process of its own, a proxy between them, and a notebook.

A `Spec` says how to start one; `Rig` is one that runs, with what the cases ask of it.
"""

from __future__ import annotations

import contextlib
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stepwell.protocol.signatures import bearer_hash
from tests.compat.capabilities import DEV_LACKS
from tests.compat.notes import NoteBook
from tests.compat.recorder import Call, Recorder
from tests.support.processes import Process, Server, ask, free_port, until

EVENT_KEY = "compat-event-key"
SIGNING_KEY = "signkey-test-0123456789abcdef0123456789abcdef"
ADMIN_TOKEN = "compat-admin-token"
START_S = 60.0

Ways = Literal["joined", "each", "checkpointed"]
"""How an SDK goes on: one discovery after a whole parallel group (request version 2), one after each step of it (version 1), or in
one call for many steps (checkpoints)."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """How a rig is started, and what its SDK can.

    `name` is also the app's id. `column` heads the table. `sdk` is what the SDK calls itself in its headers. `command` gets the port.
    `lacks` maps capabilities that the SDK does not have to the reason. `share` is what `make test` runs: everything, nothing, or the
    cases of some capabilities. Where the `transport` is `connect`, the app dials the server, and calls are not recorded.
    """

    name: str
    column: str
    sdk: str
    command: Callable[[int], Sequence[str]]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    path: str = "/api/inngest"
    lacks: Mapping[str, str] = field(default_factory=dict)
    share: Literal["all", "none"] | frozenset[str] = "none"
    ways: Ways = "joined"
    kind: Literal["dev", "cloud"] = "dev"
    transport: Literal["http", "connect"] = "http"

    def reason(self, capability: str) -> str | None:
        """Why the rig does not have a capability, if it does not."""
        return self.lacks.get(capability) or (DEV_LACKS.get(capability) if self.kind == "dev" else None)

    def runs(self, capability: str, *, everything: bool) -> bool:
        """Whether the cases of a capability are run with this rig."""
        if self.reason(capability) is not None:
            return False
        return everything or (self.share == "all" if isinstance(self.share, str) else capability in self.share)


class KeyedServer(Server):
    """`stepwell start` with keys that are known: each request shows the one that its route asks for."""

    def __init__(self, directory: Path, *options: str) -> None:
        keys = ("--signing-key", SIGNING_KEY, "--event-key", EVENT_KEY, "--admin-token", ADMIN_TOKEN)
        super().__init__(directory, *keys, *options, command="start")

    def ask(self, path: str, body: Any = None, *, method: str | None = None, token: str | None = None) -> Any:
        """A JSON request with the admin token or the hashed signing key."""
        token = token or (ADMIN_TOKEN if path.startswith("/api/") else bearer_hash(SIGNING_KEY))
        if path == "/e/test":
            path = f"/e/{EVENT_KEY}"
        return ask(self.url + path, body, method=method, token=token)


@dataclass(frozen=True)
class Trace:
    """A run as `/api/runs/{id}` shows it."""

    shown: dict[str, Any]

    @property
    def id(self) -> str:
        """The run's id."""
        run_id: str = self.run["id"]
        return run_id

    @property
    def run(self) -> dict[str, Any]:
        """The run itself."""
        run: dict[str, Any] = self.shown["run"]
        return run

    @property
    def status(self) -> str:
        """Its status."""
        status: str = self.run["status"]
        return status

    @property
    def output(self) -> Any:
        """What the function returned; fails where the run did not complete."""
        assert self.status == "completed", self.run["error"] or self.run
        return self.run["output"]

    @property
    def error(self) -> dict[str, Any]:
        """The run's error; fails where it did not fail."""
        assert self.status == "failed", self.run
        error: dict[str, Any] = self.run["error"]
        return error

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """The steps by name, the last of each name."""
        return {step["name"]: step for step in self.step_list}

    @property
    def step_list(self) -> list[dict[str, Any]]:
        """The steps in the trace's order."""
        steps: list[dict[str, Any]] = self.shown["steps"]
        return steps

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """Failed tries of the function itself."""
        attempts: list[dict[str, Any]] = self.shown["attempts"]
        return attempts


class Rig:
    """A server with a synced app."""

    def __init__(self, spec: Spec, directory: Path, env: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        self.spec, self.app_id = spec, spec.name
        port = free_port()
        self.notes, self.recorder = NoteBook(), Recorder(port)
        self.app_url = f"{self.recorder.url}{spec.path}"
        self._processes: list[Process] = []
        try:
            reach = ("--connect-gateway-port", str(free_port())) if spec.transport == "connect" else ("-u", self.app_url)
            options = (*reach, "--retry-interval", "0.2", *options)
            self.server = KeyedServer(directory, *options) if spec.kind == "cloud" else Server(directory, "--no-poll", *options)
            self._processes.append(self.server)
            self.app = self.serve(port, directory / "app.log", env or {})
            self._processes.append(self.app)
            until(self._synced, f"the app {spec.name} is synced", START_S)
        except BaseException as error:
            error.add_note(f"the app's log:\n{(directory / 'app.log').read_text() if (directory / 'app.log').exists() else '(none)'}")
            self.close()
            raise

    def _synced(self) -> bool:
        assert self.app.popen.poll() is None, f"the app ended: {self.app.text()}"
        return self.slug("whole") in self.functions()

    def serve(self, port: int, log: Path, env: Mapping[str, str]) -> Process:
        """Start an app of this kind for the server."""
        told = {"SERVER_URL": self.server.url, "NOTES_URL": self.notes.url, "APP_ID": self.app_id, "PORT": str(port)}
        keys = {"INNGEST_SIGNING_KEY": SIGNING_KEY, "INNGEST_EVENT_KEY": EVENT_KEY, "INNGEST_DEV": "0"}
        mode = keys if self.spec.kind == "cloud" else {"INNGEST_DEV": "1"}
        return Process([*self.spec.command(port)], log, env={**told, **mode, **self.spec.env, **env}, cwd=self.spec.cwd)

    @contextlib.contextmanager
    def other_app(self, directory: Path, app_id: str, only: str) -> Iterator[None]:
        """Another app of this kind, with some of the functions, at a port of its own; synced when it is there."""
        port = free_port()
        app = self.serve(port, directory / f"app-{port}.log", {"APP_ID": app_id, "ONLY": only})

        def synced() -> bool:
            if self.spec.transport == "connect":
                there = {one for one in self.functions() if one.startswith(f"{app_id}-")}
                return there == {f"{app_id}-{name}" for name in only.split(",")}
            with contextlib.suppress(urllib.error.URLError, OSError):
                ask(f"http://127.0.0.1:{port}{self.spec.path}", {}, method="PUT")
                return True
            return False

        try:
            until(synced, f"the app {app_id} registers", START_S)
            yield
        finally:
            app.kill()

    def close(self) -> None:
        """End everything."""
        for process in reversed(self._processes):
            process.kill()
        self.recorder.close()
        self.notes.close()

    # Names.

    def slug(self, function: str) -> str:
        """A function's composite id."""
        return f"{self.app_id}-{function}"

    def event(self, name: str) -> str:
        """An event's name with the app in front."""
        return f"{self.app_id}/{name}"

    # Doing.

    def send(self, name: str, data: dict[str, Any] | None = None, **fields: Any) -> str:
        """Send the app's event of this name; gives its internal id."""
        return self.server.send(self.event(name), data, **fields)

    def start(self, function: str, data: dict[str, Any] | None = None, **fields: Any) -> str:
        """Send a function's event; gives the id of the run that it starts."""
        return self.server.run_of(self.send(function, data, **fields))

    def run(self, function: str, data: dict[str, Any] | None = None, **fields: Any) -> Trace:
        """Send a function's event; gives the trace of the run, when it has ended."""
        return self.ended(self.start(function, data, **fields))

    # Looking.

    def ended(self, run_id: str, timeout_s: float = 30.0) -> Trace:
        """A run's trace, when it has ended."""
        return Trace(self.server.ended(run_id, timeout_s))

    def trace(self, run_id: str) -> Trace:
        """A run's trace as it is now."""
        return Trace(self.server.ask(f"/api/runs/{run_id}"))

    def waiting(self, run_id: str, *steps: str) -> Trace:
        """A run's trace, when these steps of it sleep or wait."""

        def look() -> Trace | None:
            trace = self.trace(run_id)
            there = trace.steps
            return trace if all(name in there and there[name]["status"] == "waiting" for name in steps) else None

        return until(look, f"run {run_id} waits at {', '.join(steps)}")  # type: ignore[return-value]

    def runs_of(self, event_id: str) -> list[dict[str, Any]]:
        """The runs that an event started so far."""
        runs: list[dict[str, Any]] = self.server.ask(f"/v1/events/{event_id}/runs")["data"]
        return runs

    def events(self, name: str) -> list[dict[str, Any]]:
        """The newest events of a name."""
        events: list[dict[str, Any]] = self.server.ask(f"/v1/events?limit=50&name={name}")["data"]
        return events

    def told(self, kind: str, run_id: str) -> list[dict[str, Any]]:
        """The system events `inngest/<kind>` whose data names a run."""
        return [event for event in self.events(f"inngest/{kind}") if event["data"].get("run_id") == run_id]

    @property
    def records(self) -> bool:
        """Whether the calls to the app are recorded."""
        return self.spec.transport == "http"

    def calls(self, run_id: str) -> list[Call]:
        """The calls made to the app for a run."""
        assert self.records, f"{self.spec.name} records no calls"
        return self.recorder.of_run(run_id)

    def functions(self) -> set[str]:
        """The ids of the functions that are synced."""
        try:
            return {function["id"] for function in self.server.ask("/api/functions")["functions"]}
        except (urllib.error.URLError, OSError):
            return set()
