"""The unmodified public Python SDK behind FastAPI, in a process of its own: from an event to the first call, and to a readable output."""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.result import Result, percentile
from tests.support.processes import Process, Server, free_port, listens, until

EVERY_S = 0.05


def latency(folder: Path, scale: int) -> list[Result]:
    """20 events a second, one-step runs."""
    home = folder / "sdk"
    home.mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/inngest"
    server = Server(home, "-u", url)
    args = [sys.executable, "-m", "uvicorn", "bench.sdk_app:app", "--port", str(port), "--log-level", "warning"]
    app = Process(args, home / "app.log", env={"INNGEST_DEV": server.url})
    try:
        until(lambda: listens(port), "the app listens")
        server.synced("sdk-one")
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))

        def ask(method: str, path: str, body: Any = None) -> Any:
            connection.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
            return json.loads(connection.getresponse().read())

        first, readable = [], []
        for n in range(20 + 200 // scale):
            at = time.time()
            (event_id,) = ask("POST", "/e/x", {"name": "sdk/one", "data": {"n": n}})["ids"]
            while not (runs := ask("GET", f"/v1/events/{event_id}/runs")["data"]) or runs[0]["status"] != "Completed":
                assert time.time() - at < 30, runs
                time.sleep(0.001)
            if n >= 20:  # the first ones find everything cold
                first.append(1000 * (runs[0]["output"] - at))
                readable.append(1000 * (time.time() - at))
            time.sleep(max(0.0, EVERY_S - (time.time() - at)))
        return [
            Result("public Python SDK, 20 events/s: event to the step's call, p50", percentile(first, 0.5), "ms"),
            Result("public Python SDK, 20 events/s: event to the step's call, p99", percentile(first, 0.99), "ms"),
            Result("public Python SDK, 20 events/s: event to a readable output, p50", percentile(readable, 0.5), "ms"),
            Result("public Python SDK, 20 events/s: event to a readable output, p99", percentile(readable, 0.99), "ms"),
        ]
    finally:
        app.kill()
        server.kill()


ALL = (latency,)
