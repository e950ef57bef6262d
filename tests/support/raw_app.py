"""An app without an SDK: answers call requests as one would, at the least cost, so that a benchmark measures the server.

A bare protocol of asyncio over httptools, with answers made beforehand; it uses nothing of Stepwell's, so it runs against any server
of the protocol. Functions, each started by the event `<app>/<name>`: `none` (no step), `one`, `five`, `twenty` (steps in a row), `ten`
and `fifty` (parallel steps, planned and called each by itself).

    python -m tests.support.raw_app --server http://127.0.0.1:8288 --port 0
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote

import httptools
import msgspec

SERIAL = {"none": 0, "one": 1, "five": 5, "twenty": 20}
PARALLEL = {"ten": 10, "fifty": 50}
PATH = "/api/inngest"
SDK = "inngest-py:v0.5.19"
REASONS = {200: "OK", 206: "Partial Content", 404: "Not Found"}


class _Context(msgspec.Struct):
    attempt: int = 0


class _Call(msgspec.Struct):
    ctx: _Context
    steps: dict[str, msgspec.Raw] = {}


_decode = msgspec.json.Decoder(_Call).decode


def step_hash(name: str) -> str:
    """The hashed id of a step."""
    return hashlib.sha1(name.encode()).hexdigest()


def _op(kind: str, name: str, data: Any = None) -> dict[str, Any]:
    userland = {"id": name, "index": None}
    return {"op": kind, "id": step_hash(name), "name": name, "displayName": name, "opts": None, "data": data, "userland": userland}


def _answer(status: int, body: Any) -> bytes:
    content = json.dumps(body, separators=(",", ":")).encode()
    lines = ["content-type: application/json", f"content-length: {len(content)}", f"x-inngest-sdk: {SDK}", "x-inngest-req-version: 2"]
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode() + content


class Function:
    """A function's answers, made beforehand. A step's data is its number."""

    def __init__(self, steps: int, *, parallel: bool) -> None:
        names = [f"step-{i}" for i in range(steps)]
        self.steps, self.parallel = {step_hash(name): _answer(206, [_op("StepRun", name, i)]) for i, name in enumerate(names)}, parallel
        self.serial = list(self.steps.values())
        self.plan = _answer(206, [_op("StepPlanned", name) for name in names])
        self.nothing = _answer(206, [])
        self.done = _answer(200, "done")

    def answer(self, step_id: str, body: bytes) -> tuple[str, bytes]:
        """What is done (`step`, `plan`, `nothing`, `done`), and the answer that says so."""
        if step_id != "step":
            return "step", self.steps[step_id]
        finished = len(_decode(body).steps)
        if finished >= len(self.serial):
            return "done", self.done
        if not self.parallel:
            return "step", self.serial[finished]
        return ("plan", self.plan) if finished == 0 else ("nothing", self.nothing)


class RawApp:
    """The app. `counts` tells how many calls of each kind were answered; `on_done` is told of every run's last call."""

    def __init__(self, name: str = "raw", *, retries: int = 4, on_done: Callable[[], None] | None = None) -> None:
        self.name, self.retries, self.on_done = name, retries, on_done
        functions = {key: Function(steps, parallel=False) for key, steps in SERIAL.items()}
        functions |= {key: Function(steps, parallel=True) for key, steps in PARALLEL.items()}
        self.functions = {f"{name}-{key}": function for key, function in functions.items()}
        self.counts: Counter[str] = Counter()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._targets: dict[bytes, tuple[Function, str] | None] = {}
        self._connections: set[asyncio.Transport] = set()

    async def start(self, port: int = 0) -> str:
        """Listen on this machine; gives the app's URL."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", port, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{PATH}"
        return self.url

    async def stop(self) -> None:
        """Close the port and all connections."""
        assert self._server is not None
        self._server.close()
        for transport in list(self._connections):
            transport.abort()
        await self._server.wait_closed()

    def registration(self) -> dict[str, Any]:
        """The register body."""
        functions = []
        for slug in self.functions:
            runtime = {"type": "http", "url": f"{self.url}?fnId={quote(slug)}&stepId=step"}
            step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": self.retries}}
            event = slug.replace(f"{self.name}-", f"{self.name}/", 1)
            functions.append({"id": slug, "name": slug, "triggers": [{"event": event}], "steps": {"step": step}})
        told = {"url": self.url, "deployType": "ping", "appName": self.name, "sdk": SDK.removeprefix("inngest-"), "v": "0.1"}
        return {**told, "framework": "raw", "functions": functions}

    async def register(self, server: str, *, signing_key_hash: str | None = None) -> dict[str, Any]:
        """Sync the app with a server. `signing_key_hash` is what a server with keys wants to see as the bearer."""
        headers = {"content-type": "application/json", "x-inngest-sdk": SDK}
        if signing_key_hash is not None:
            headers["authorization"] = f"Bearer {signing_key_hash}"
        request = urllib.request.Request(f"{server}/fn/register", json.dumps(self.registration()).encode(), headers)

        def post() -> dict[str, Any]:
            with urllib.request.urlopen(request, timeout=15) as response:
                answer: dict[str, Any] = json.loads(response.read())
                return answer

        return await asyncio.to_thread(post)

    def answer(self, method: bytes, url: bytes, body: bytes) -> bytes:
        """The answer to a request: a call, or a server's wish that the app register itself (answered in band)."""
        if method == b"PUT":
            told = {**self.registration(), "app_id": self.name, "sdk_language": "py", "sdk_version": "0.5.19", "env": None}
            return _answer(200, told).replace(b"\r\n", b"\r\nx-inngest-sync-kind: in_band\r\n", 1)
        target = self._targets[url] if url in self._targets else self._target(url)
        if method != b"POST" or target is None:
            return _answer(404, {"name": "NotFound", "message": f"{method.decode()} {url.decode()}"})
        function, step_id = target
        kind, answer = function.answer(step_id, body)
        self.counts[kind] += 1
        if kind == "done" and self.on_done is not None:
            self.on_done()
        return answer

    def _target(self, url: bytes) -> tuple[Function, str] | None:
        query = parse_qs((httptools.parse_url(url).query or b"").decode())
        function, step_id = self.functions.get(query.get("fnId", [""])[0]), query.get("stepId", [""])[0]
        found = None if function is None or (step_id != "step" and step_id not in function.steps) else (function, step_id)
        self._targets[url] = found
        return found


class _Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, app: RawApp) -> None:
        self._app = app
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._app._connections.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._app._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        url, body = self._url, b"".join(self._parts)
        self._url, self._parts = b"", []
        self._transport.write(self._app.answer(self._parser.get_method(), url, body))


async def serve(server: str | None, port: int, name: str) -> None:
    """Serve until the process ends, registered with the server if one is named."""
    app = RawApp(name)
    url = await app.start(port)
    if server is not None:
        await app.register(server)
    print(f"The raw app is ready: {url}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--server", help="register with this server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="raw")
    options = parser.parse_args()
    with contextlib.suppress(ImportError, KeyboardInterrupt):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options.server, options.port, options.name))


if __name__ == "__main__":
    main()
