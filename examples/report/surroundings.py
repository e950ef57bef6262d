"""What the report job needs around it: a server of the data set that fails its first answers, and a mail server."""

from __future__ import annotations

import email
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from aiosmtpd.controller import Controller

FAILURES = 2


def data_set() -> bytes:
    """A public data set that ships in a package: Palmer penguins, without its incomplete rows."""
    text = (resources.files("palmerpenguins") / "data" / "penguins.csv").read_text()
    head, *rows = text.splitlines()
    columns = [2, 5]  # bill length and body mass
    names = head.split(",")
    kept = [",".join(row.split(",")[i] for i in columns) for row in rows if "NA" not in row and "" not in row.split(",")]
    return ("\n".join([",".join(names[i] for i in columns), *kept]) + "\n").encode()


class DataServer(ThreadingHTTPServer):
    """Serves the CSV on a free port; its first answers are 503."""

    def __init__(self) -> None:
        self.requests = 0
        self.body = data_set()
        super().__init__(("127.0.0.1", 0), _DataHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where the data set is."""
        return f"http://127.0.0.1:{self.server_address[1]}/penguins.csv"


class _DataHandler(BaseHTTPRequestHandler):
    server: DataServer

    def do_GET(self) -> None:
        """Answer with the data set, but not at first."""
        self.server.requests += 1
        if self.server.requests <= FAILURES:
            self.send_error(503, "not ready yet")
            return
        self.send_response(200)
        self.send_header("content-type", "text/csv")
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


class MailServer:
    """Takes mail on a free port and keeps it."""

    def __init__(self) -> None:
        self.mails: list[email.message.Message] = []
        with socket.socket() as probe:  # the controller cannot say which port it was given: ask for a free one first
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep one mail."""
        self.mails.append(email.message_from_bytes(envelope.content))
        return "250 OK"

    def stop(self) -> None:
        """Take no more."""
        self._controller.stop()
