"""A notebook for apps under test: what they did, counted across processes and languages, and small services for them to call."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TICK = "tick "


class NoteBook:
    """`POST /note` with a text is answered by `{"count": …}`: how often this text came so far.

    `/gate` is answered when the gate is open, or else after a moment. `/echo` answers any request with what it was; `/ai/…` plays a
    model's provider, which refuses a body with `"refuse": true`.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._lock = threading.Lock()
        self.asked: list[dict[str, Any]] = []
        """The requests to `/echo` and `/ai`: path, headers, body."""
        self.gate = threading.Event()
        book = self

        class Handler(_Handler):
            notebook = book

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def write(self, text: str) -> int:
        """Note a text; says how often it came so far."""
        with self._lock:
            self._texts.append(text)
            return self._texts.count(text)

    def texts(self) -> list[str]:
        """All texts, in order."""
        with self._lock:
            return list(self._texts)

    def count(self, text: str) -> int:
        """How often a text came."""
        return self.texts().count(text)

    def counts(self) -> dict[str, int]:
        """How often each text came, but for those of cron ticks."""
        return {text: count for text, count in Counter(self.texts()).items() if not text.startswith(TICK)}

    def ticks(self) -> dict[str, int]:
        """How often each tick came, by its event's id."""
        return {text.removeprefix(TICK): count for text, count in Counter(self.texts()).items() if text.startswith(TICK)}

    def clear(self) -> None:
        """Forget everything but the ticks: a case counts what it caused, and ticks come by themselves."""
        self.gate.clear()
        with self._lock:
            self._texts = [text for text in self._texts if text.startswith(TICK)]
            self.asked.clear()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    notebook: NoteBook
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.split("?")[0]
        if path == "/note":
            self._send(200, {"count": self.notebook.write(body.decode())})
            return
        if path == "/gate":
            self._send(200, {"open": self.notebook.gate.wait(0.2)})
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = {"method": self.command, "path": self.path, "headers": headers, "body": body.decode()}
        self.notebook.asked.append(asked)
        if path == "/echo":
            self._send(200, {"method": self.command, "path": self.path, "body": body.decode()}, {"x-echo": "yes"})
        elif path.startswith("/ai/"):
            question = json.loads(body)
            if question.get("refuse"):
                self._send(429, {"error": {"message": "too many questions"}})
            else:
                self._send(200, {"model": question.get("model"), "choices": [{"message": {"content": "forty-two"}}]})
        else:
            self._send(404, {"error": f"there is no {path}"})

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)
