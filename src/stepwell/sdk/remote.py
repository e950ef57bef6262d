"""A server's API as an app asks it: over HTTP, or through whatever else carries a method, a path and a body."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from stepwell.errors import NotFound, ProtocolError, RunHasEnded
from stepwell.protocol.actors import ACTOR_RAISED, ActorFailed, ActorFailure
from stepwell.protocol.codec import Json, canonicalize, decode, text
from stepwell.protocol.lifecycle import RUN_WAIT_MS_MAX
from stepwell.sdk import http
from stepwell.sdk.actors.activation import settled
from stepwell.sdk.keys import signing_keys
from stepwell.sdk.way import RunState

if TYPE_CHECKING:
    from stepwell.sdk.app import App

STATUSES = {
    "Scheduled": "queued",
    "Running": "running",
    "Completed": "completed",
    "Failed": "failed",
    "Cancelled": "cancelled",
    "Skipped": "skipped",
}


class _Run(msgspec.Struct):
    status: str
    event_id: str = ""
    output: msgspec.Raw = msgspec.Raw()
    paused: str | None = None


class _RunAnswer(msgspec.Struct):
    data: _Run


class _Event(msgspec.Struct):
    name: str
    id: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")
    user: msgspec.Raw = msgspec.Raw(b"{}")
    ts: int = 0
    v: str | None = None


class _EventAnswer(msgspec.Struct):
    data: _Event


class Api(ABC):
    """The requests, and what their answers mean."""

    @abstractmethod
    async def ask(self, method: str, path: str, body: bytes = b"", *, once: bool = False) -> tuple[int, bytes]:
        """One request: the answer's status and body. `once`: never made a second time."""

    async def start(self, function_id: str, event: Json) -> str:
        """`POST /invoke/{slug}`. An id makes a try whose answer was lost start nothing twice."""
        if b'"id":' not in event:
            event = event[:-1] + b',"id":' + text(f"start-{secrets.token_hex(12)}") + b"}"
        answer = await self._asked("POST", f"/invoke/{quote(function_id, safe='')}", event)
        if answer.get("run_id"):
            return str(answer["run_id"])
        # A server that does not tell the run's id tells its event's.
        runs = (await self._asked("GET", f"/v1/events/{quote(str(answer['id']), safe='')}/runs")).get("data") or []
        if not runs:
            raise ProtocolError(f"the server started function {function_id!r}, but tells of no run of event {answer['id']}", 502)
        return str(runs[0]["run_id"])

    async def run_state(self, run_id: str, wait_s: float = 0.0) -> RunState:
        """`GET /v1/runs/{id}`; a server that knows no `wait` answers at once."""
        wait_ms = min(int(wait_s * 1000), RUN_WAIT_MS_MAX)
        wait = f"?wait={wait_ms}ms" if wait_ms else ""
        body = await self._body("GET", f"/v1/runs/{quote(run_id, safe='')}{wait}")
        run = msgspec.json.decode(body, type=_RunAnswer).data
        output = canonicalize(bytes(run.output)) if bytes(run.output) else None
        event_ids = (run.event_id,) if run.event_id else ()
        return RunState(status=STATUSES.get(run.status, run.status.lower()), output=output, event_ids=event_ids, paused=run.paused)

    async def event(self, event_id: str) -> Json:
        """`GET /v1/events/{id}`."""
        body = await self._body("GET", f"/v1/events/{quote(event_id, safe='')}")
        return msgspec.json.encode(msgspec.json.decode(body, type=_EventAnswer).data)

    async def cancel(self, run_id: str) -> None:
        """`DELETE /v1/runs/{id}`."""
        await self._body("DELETE", f"/v1/runs/{quote(run_id, safe='')}")

    async def signal(self, name: str, data: Json) -> str | None:
        """`POST /v1/signals`; nobody waits: 404 (§5.5)."""
        try:
            answer = await self._asked("POST", "/v1/signals", b'{"data":' + data + b',"signal":' + text(name) + b"}")
        except NotFound:
            return None
        return str(answer["data"]["run_id"])

    async def publish(self, channel: str, topic: str, data: Json, run_id: str) -> None:
        """`POST /v1/realtime/publish` (§5.11)."""
        query = urlencode({"channel": channel, "topic": topic, "run_id": run_id})
        await self._body("POST", f"/v1/realtime/publish?{query}", data)

    async def _asked(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        answer = decode(await self._body(method, path, body))
        if not isinstance(answer, dict):
            raise ProtocolError(f"the server answered {method} {path} with no JSON object", 502)
        return answer

    async def _body(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of a good answer. Raises what a bad one says."""
        status, answer = await self.ask(method, path, body)
        if status < 300:
            return answer
        raise refusal(method, path, status, answer)


def refusal(method: str, path: str, status: int, body: bytes) -> Exception:
    """The exception that tells of an answer which refuses a request."""
    try:
        told = decode(body)
    except ProtocolError:
        told = None
    reason = told.get("error") if isinstance(told, dict) else None
    message = str(reason or f"the server answered {method} {path.partition('?')[0]} with HTTP {status}")
    if status == 404:
        return NotFound(message)
    if status == 409:
        return RunHasEnded(message)
    return ProtocolError(message, status)


class _ActorAnswer(msgspec.Struct):
    failure: ActorFailure | None = None


class Remote(Api):
    """A server over HTTP."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def ask(self, method: str, path: str, body: bytes = b"", *, once: bool = False) -> tuple[int, bytes]:
        """With the signing key, where the app has one."""
        from stepwell.sdk.client import server_url

        headers = {"content-type": "application/json"}
        url, tries = server_url(self._app) + path, 1 if once else http.TRIES_MAX
        await settled()
        response = await http.authorized(method, url, signing_keys(self._app), headers=headers, body=body, tries=tries)
        return response.status, response.body

    async def call_actor(self, kind: str, name: str, method: str, args: bytes, chain: tuple[str, ...]) -> bytes:
        """`POST /v1/actors/{kind}/{name}/{method}`; never twice, since a call may have been made whose answer was lost."""
        path = f"/v1/actors/{quote(kind, safe='')}/{quote(name, safe='')}/{quote(method, safe='')}"
        if chain:
            path += "?" + urlencode({"chain": ",".join(chain)})
        status, body = await self.ask("POST", path, args, once=True)
        if status < 300:
            return body
        if status == ACTOR_RAISED:
            failure = msgspec.json.decode(body, type=_ActorAnswer).failure
            if failure is not None:
                raise ActorFailed(failure)
        raise refusal("POST", path, status, body)

    async def send(self, events_body: Json) -> list[str]:
        """`POST /e/{key}`."""
        from stepwell.sdk.client import event_key, server_url

        return await http.send_events(server_url(self._app), self._app.event_key or event_key(), events_body)
