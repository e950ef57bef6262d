"""A proxy between the server and an app: passes everything on unchanged, and keeps what was said, so that a case can count and look."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "te", "trailer"})
TIMEOUT_S = 60


@dataclass(frozen=True)
class Call:
    """A request to the app and its answer, decoded. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer_headers: dict[str, str]
    answer: bytes

    @property
    def query(self) -> dict[str, str]:
        """The query's fields."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    @property
    def step_id(self) -> str:
        """`step` for a discovery, else the step that is asked for."""
        return self.query.get("stepId", "")

    @property
    def function_id(self) -> str:
        """The composite id of the function that is called."""
        return self.query.get("fnId", "")

    @property
    def request(self) -> Any:
        """The call request."""
        return json.loads(self.body)

    @property
    def attempt(self) -> int:
        """The attempt, from 0."""
        attempt: int = self.request["ctx"]["attempt"]
        return attempt

    @property
    def ops(self) -> list[str]:
        """The ops of a generator answer."""
        return [op["op"] for op in json.loads(self.answer)] if self.status == 206 else []


class Recorder:
    """Listens on a port of its own; `app_port` is where the app listens. The `Host` is kept, so that apps register this address."""

    def __init__(self, app_port: int) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._open: dict[str, socket.socket] = {}
        self.unreachable = False
        """While true, connections are closed without an answer, as by an app that crashed."""
        recorder = self

        class Handler(_Handler):
            app = ("127.0.0.1", app_port)
            keeps = recorder

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def keep(self, call: Call) -> None:
        """Add one."""
        with self._lock:
            self._calls.append(call)

    def begins(self, run_id: str, connection: socket.socket) -> None:
        """A call for a run came over this connection of the server's."""
        with self._lock:
            self._open[run_id] = connection

    def cut(self, run_id: str) -> None:
        """Break the connection of the run's last call off; the app goes on with it."""
        with self._lock:
            connection = self._open[run_id]
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def all(self) -> list[Call]:
        """Everything so far, in the order of the answers."""
        with self._lock:
            return list(self._calls)

    def of_run(self, run_id: str) -> list[Call]:
        """The calls that were made for a run."""
        return [call for call in self.all() if call.method == "POST" and call.headers.get("x-run-id") == run_id]

    def close(self) -> None:
        """Pass nothing on any more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    app: tuple[str, int]
    keeps: Recorder
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.keeps.unreachable:
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.keeps.begins(headers.get("x-run-id", ""), self.connection)
        connection = http.client.HTTPConnection(*self.app, timeout=TIMEOUT_S)
        try:
            sent = {name: value for name, value in headers.items() if name not in HOP_BY_HOP}
            connection.request(self.command, self.path, body, {**sent, "content-length": str(len(body))})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return
        finally:
            connection.close()
        answer_headers = {name.lower(): value for name, value in response.getheaders()}
        # Kept before it is passed on: whoever has seen the effect of an answer finds the call.
        decoded = gzip.decompress(answer) if answer_headers.get("content-encoding") == "gzip" else answer
        self.keeps.keep(Call(self.command, self.path, headers, body, response.status, answer_headers, decoded))
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        try:
            self.end_headers()
            self.wfile.write(answer)
        except ConnectionError:
            # A server that reads no more: the answer is too large for it.
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on
