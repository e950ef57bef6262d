"""Real processes for tests: started, waited for by condition, and always ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
LOOK_S = 0.02


def until(condition: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """The condition's value, as soon as it is true. Fails naming what did not come about."""
    end = time.monotonic() + timeout_s
    # Both ends are kept: a socket whose other end is closed does not wait.
    pause, silent = socket.socketpair()
    pause.settimeout(LOOK_S)
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        with contextlib.suppress(TimeoutError):
            pause.recv(1)
    pause.close()
    silent.close()
    return value


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody answers at a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A child process with its output in a file."""

    def __init__(self, args: list[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                args, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, cwd=cwd, start_new_session=True
            )

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, and nothing of it is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def stop(self, timeout_s: float = 15.0) -> int:
        """SIGTERM, and wait for its end."""
        self.popen.terminate()
        try:
            return self.popen.wait(timeout_s)
        finally:
            self.kill()


class Server(Process):
    """`stepwell dev` or `start` on a free port."""

    def __init__(self, directory: Path, *options: str, command: str = "dev", env: Mapping[str, str] | None = None) -> None:
        log = directory / "server.log"
        said = log.stat().st_size if log.exists() else 0
        args = [
            sys.executable,
            "-m",
            "stepwell",
            command,
            *([] if "--port" in options else ["--port", "0"]),
            "--db",
            str(directory / "test.db"),
            *options,
        ]
        if command == "dev":
            args.append("--no-discovery")
        super().__init__(args, log, env=env)

        def ready() -> re.Match[str] | None:
            new = log.read_bytes()[said:].decode(errors="replace")
            assert self.popen.poll() is None, f"the server ended: {new}"
            return re.search(r"Stepwell is ready: (http://\S+)", new)

        try:
            self.url = until(ready, "the server says that it is ready")[1]
        except BaseException:
            self.kill()
            raise

    def ask(self, path: str, body: Any = None, *, method: str | None = None, token: str | None = None) -> Any:
        """A JSON request. Raises `HTTPError` for refusals."""
        return ask(self.url + path, body, method=method, token=token)

    def send(self, name: str, data: dict[str, Any] | None = None, **fields: Any) -> str:
        """Send an event; gives its id."""
        answer = self.ask("/e/test", {"name": name, "data": data or {}, **fields})
        event_id: str = answer["ids"][0]
        return event_id

    def run_of(self, event_id: str) -> str:
        """The id of the run that the event started."""
        runs = until(lambda: self.ask(f"/v1/events/{event_id}/runs")["data"], f"event {event_id} has a run")
        run_id: str = runs[0]["run_id"]
        return run_id

    def ended(self, run_id: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """The trace of a run, when it has ended."""

        def look() -> dict[str, Any] | None:
            trace: dict[str, Any] = self.ask(f"/api/runs/{run_id}")
            return trace if trace["run"]["ended_ms"] is not None else None

        return until(look, f"run {run_id} ends", timeout_s)

    def synced(self, function_id: str) -> None:
        """Wait until a function is known."""
        until(lambda: any(f["id"] == function_id for f in self.ask("/api/functions")["functions"]), f"{function_id} is synced")


def ask(url: str, body: Any = None, *, method: str | None = None, token: str | None = None) -> Any:
    """A JSON request and its decoded answer."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, data=data, headers=headers, method=method or ("GET" if body is None else "POST"))
    with urllib.request.urlopen(request, timeout=15) as response:
        return json.loads(response.read() or b"null")


def refused(url: str, body: Any = None, *, method: str | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Status and body of a request that is answered with an error."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=dict(headers or {}), method=method or ("GET" if body is None else "POST"))
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            raise AssertionError(f"{url} was answered with {response.status}")
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text[:1] in b"{[" else text.decode()


@contextlib.contextmanager
def running(process: T) -> Iterator[T]:
    """End it, whatever happens."""
    try:
        yield process
    finally:
        process.kill()  # type: ignore[attr-defined]
