"""Realtime in a real Chromium, from a page of another origin."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.test_page import FLAGS
from tests.support.processes import Server, running

pytestmark = pytest.mark.browser

LISTEN = """async (server) => {
  const headers = { "content-type": "application/json", authorization: "Bearer none" };
  const body = JSON.stringify([{ channel: "c", name: "t", kind: "run" }]);
  const { jwt } = await (await fetch(`${server}/v1/realtime/token`, { method: "POST", headers, body })).json();
  window.heard = { socket: [], events: [] };
  const socket = new WebSocket(`${server.replace("http", "ws")}/v1/realtime/connect?token=${jwt}`);
  socket.onmessage = ({ data }) => heard.socket.push(JSON.parse(data).data);
  const events = new EventSource(`${server}/v1/realtime/sse?token=${jwt}`);
  events.onmessage = ({ data }) => heard.events.push(JSON.parse(data).data);
  await Promise.all([socket, events].map((one) => new Promise((resolve) => (one.onopen = resolve))));
}"""
PUBLISH = """async (server) => {
  const answer = await fetch(`${server}/v1/realtime/publish?channel=c&topic=t`, { method: "POST", body: JSON.stringify({ n: 1 }) });
  return answer.status;
}"""
API = """async (server) => fetch(`${server}/api/runs`).then(() => "read", () => "refused")"""


class Elsewhere(BaseHTTPRequestHandler):
    """An empty page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The URL of a page of another origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def test_a_page_of_another_origin_listens_and_publishes(tmp_path: Path, elsewhere: str) -> None:
    """By WebSocket and by server-sent events, with preflights; the page's own API stays shut to it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "Chromium is missing; `make test` installs it when root (Debian: apt-get install chromium)"
    with running(Server(tmp_path)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            page = browser.new_page()
            page.set_default_timeout(10_000)
            page.goto(elsewhere)
            page.evaluate(LISTEN, server.url)
            assert page.evaluate(PUBLISH, server.url) == 200
            page.wait_for_function("heard.socket.length && heard.events.length")
            assert page.evaluate("heard") == {"socket": [{"n": 1}], "events": [{"n": 1}]}
            assert page.evaluate(API, server.url) == "refused"
        finally:
            browser.close()
