"""A provider of models that answers as a test wants it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Provider:
    """Listens on this machine. What it is asked decides its answer: `refuse` is a 429 that repeats the request, `hang` waits for
    `go_on`; everything else is answered with what was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.go_on = threading.Event()
        self.retry_after = "0"
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                request = {
                    "method": self.command,
                    "path": self.path,
                    "headers": {k.lower(): v for k, v in self.headers.items()},
                    "body": body.decode(),
                }
                provider.asked.append(request)
                if "hang" in request["body"]:
                    provider.go_on.wait(30)
                if "refuse" in request["body"]:
                    self.answer(429, {"error": {"message": "no", "you_sent": request}})
                else:
                    self.answer(200, {"heard": json.loads(body or b"null"), "path": self.path.partition("?")[0]})

            do_GET = do_PUT = do_POST

            def answer(self, status: int, value: Any) -> None:
                encoded = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(encoded)))
                if status == 429:
                    self.send_header("retry-after", provider.retry_after)
                self.end_headers()
                self.wfile.write(encoded)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kill(self) -> None:
        """End it."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
