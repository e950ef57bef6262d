"""An app without an SDK, in the test's own process, that answers as a test tells it to: for what the protocol allows and SDKs seldom do.

It serves one URL. `PUT` registers it, in its answer or by a call of its own; `POST` is answered by `script`. With keys it is in cloud mode:
it verifies what it is sent, and signs what it answers.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from stepwell.protocol.signatures import bearer_hash, sign, verify

PATH = "/api/inngest"
SDK = "inngest-js:v4.24.0"

Answer = tuple[int, dict[str, str], Any]


class Call:
    """A call as it came: the function's id, the step's, the decoded body, the headers in lower case."""

    def __init__(self, query: dict[str, list[str]], headers: dict[str, str], body: bytes) -> None:
        self.function, self.step = query["fnId"][0], query["stepId"][0]
        self.headers, self.raw = headers, body
        self.body: dict[str, Any] = json.loads(body)

    @property
    def done(self) -> list[str]:
        """The ids of the steps that are memoised."""
        return list(self.body["ctx"]["stack"]["stack"])


def step_hash(name: str) -> str:
    """The hashed id of a step."""
    return hashlib.sha1(name.encode()).hexdigest()


def op(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    """An op of a step of this name."""
    return {"op": kind, "id": step_hash(name), "name": name, "displayName": name, "userland": {"id": name, "index": None}, **fields}


def ops(*told: dict[str, Any]) -> Answer:
    """A generator answer."""
    return 206, {}, list(told)


class ScriptedApp:
    """`functions` are configurations as they are registered, without `id`'s app prefix, name and steps, which are filled in."""

    def __init__(self, name: str, script: Callable[[Call], Answer], *functions: dict[str, Any], keys: tuple[str, ...] = ()) -> None:
        self.name, self.script, self.keys = name, script, keys
        self.functions = list(functions)
        self.in_band = True
        self.signs = True
        self.sdk = SDK
        self.server_url = ""
        self.calls: list[Call] = []
        self.syncs: list[dict[str, str]] = []
        self.refused = 0
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._http.server_port}{PATH}"

    def stop(self) -> None:
        """Close the port."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def registration(self) -> dict[str, Any]:
        """The register body."""
        told = []
        for function in self.functions:
            slug = f"{self.name}-{function['id']}"
            runtime = {"type": "http", "url": f"{self.url}?fnId={quote(slug)}&stepId=step"}
            step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": function.get("retries", 4)}}
            rest = {key: value for key, value in function.items() if key not in ("id", "retries")}
            told.append({"name": function["id"], "triggers": [], **rest, "id": slug, "steps": {"step": step}})
        return {
            "appName": self.name,
            "deployType": "ping",
            "url": self.url,
            "sdk": self.sdk.removeprefix("inngest-"),
            "v": "0.1",
            "functions": told,
        }

    def register(self, **headers: str) -> tuple[int, dict[str, Any]]:
        """Register by a call of its own; gives status and body of the answer."""
        sent = {
            "content-type": "application/json",
            "x-inngest-sdk": self.sdk,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if self.keys and "authorization" not in sent:
            sent["authorization"] = f"Bearer {bearer_hash(self.keys[0])}"
        request = urllib.request.Request(f"{self.server_url}/fn/register", json.dumps(self.registration()).encode(), sent, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def answer(self, method: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes) -> Answer:
        """What it says to a request."""
        key = next((key for key in self.keys if verify(body, headers.get("x-inngest-signature"), key, int(time.time()))), None)
        if self.keys and key is None:
            self.refused += 1
            return 401, {}, {"message": "Unauthorized"}
        match method:
            case "GET":
                return 200, {}, {"function_count": len(self.functions)}
            case "PUT":
                self.syncs.append(headers)
                if self.in_band and headers.get("x-inngest-sync-kind") == "in_band":
                    told = self.registration()
                    del told["appName"]
                    return (
                        200,
                        {"x-inngest-sync-kind": "in_band"},
                        {**told, "app_id": self.name, "sdk_language": "js", "sdk_version": "4.24.0"},
                    )
                status, answer = self.register() if self.server_url else (200, {"modified": False})
                message = {"message": answer.get("error", "Successfully registered"), "modified": answer.get("modified", False)}
                return (200 if status == 200 else 500), {"x-inngest-sync-kind": "out_of_band"}, message
            case _:
                call = Call(query, headers, body)
                self.calls.append(call)
                return self.script(call)


class _Http(ThreadingHTTPServer):
    """A thread a connection, as many as come."""

    daemon_threads = True
    request_queue_size = 1024


def _handler(app: ScriptedApp) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, value = app.answer(self.command, parse_qs(urlsplit(self.path).query), headers, body)
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            told = {"content-type": "application/json", "x-inngest-sdk": app.sdk, "x-inngest-req-version": "2", **more}
            if app.keys and app.signs:
                told["x-inngest-signature"] = sign(content, app.keys[0], int(time.time()))
            self.send_response(status)
            for name, text in told.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = _any

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
