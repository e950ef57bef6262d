"""An app without an SDK that answers with whatever bytes a test wants: the n-th call of a function gets the n-th reply of its script."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SDK = {"x-inngest-sdk": "inngest-py:v0.5.19", "x-inngest-req-version": "2", "content-type": "application/json"}
"""The headers of a well-behaved answer."""


@dataclass(frozen=True)
class Reply:
    """An answer. `chunks` are sent one by one, in place of `body`, with a pause before each; `breaks_off` leaves the end away."""

    status: int = 200
    body: bytes = b"null"
    headers: Mapping[str, str] = field(default_factory=lambda: SDK)
    chunks: Sequence[bytes] = ()
    pause_s: float = 0.0
    breaks_off: bool = False
    raw: bytes | None = None
    """These bytes alone, whatever they are; empty means that the connection is closed without an answer."""


@dataclass(frozen=True)
class Received:
    """A call as it came. Header names are lower case."""

    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def request(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


Script = Sequence[Reply] | Callable[[Received], Reply]


def answer(value: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON answer of an SDK; underscores in names of headers are dashes."""
    return Reply(status, json.dumps(value).encode(), {**SDK, **{name.replace("_", "-"): text for name, text in headers.items()}})


def ops(*given: Any, **headers: str) -> Reply:
    """A generator answer."""
    return answer(list(given), 206, **headers)


def step_run(name: str, data: Any = None) -> dict[str, Any]:
    """A finished step."""
    return {"op": "StepRun", "id": f"hash-{name}", "name": name, "displayName": name, "data": data}


class ReplyingApp:
    """`functions` maps names to scripts; each is started by the event `<app>/<name>` and retried `retries` times."""

    def __init__(self, functions: Mapping[str, Script], *, name: str = "scripted", retries: int = 1) -> None:
        self.name, self.functions, self.retries = name, dict(functions), retries
        self._received: dict[str, list[Received]] = {}
        self._lock = threading.Lock()
        replying = self

        class Handler(_Handler):
            app = replying

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def registration(self) -> dict[str, Any]:
        """The register body."""
        functions = []
        for name in self.functions:
            slug = f"{self.name}-{name}"
            runtime = {"type": "http", "url": f"{self.url}?fnId={slug}&stepId=step"}
            step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": self.retries}}
            functions.append({"id": slug, "name": name, "triggers": [{"event": f"{self.name}/{name}"}], "steps": {"step": step}})
        return {"url": self.url, "deployType": "ping", "appName": self.name, "sdk": "py:v0.5.19", "v": "0.1", "functions": functions}

    def calls(self, name: str) -> list[Received]:
        """The calls of a function so far."""
        with self._lock:
            return list(self._received.get(name, ()))

    def reply(self, received: Received) -> Reply:
        """Keep the call, and choose its answer; the last one of a script goes on for ever."""
        name = received.query["fnId"].removeprefix(f"{self.name}-")
        with self._lock:
            calls = self._received.setdefault(name, [])
            calls.append(received)
            script = self.functions[name]
            return script(received) if callable(script) else script[min(len(calls), len(script)) - 1]

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    app: ReplyingApp
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """A call."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.app.reply(Received(query, headers, body, time.time()))
        if reply.raw is not None:
            self.wfile.write(reply.raw)
            self._hang_up()
            return
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if not reply.chunks:
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in reply.chunks:
            # An app that is slow to answer, not a test that waits for luck.
            threading.Event().wait(reply.pause_s)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        if reply.breaks_off:
            self._hang_up()
        else:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_PUT = do_POST

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
