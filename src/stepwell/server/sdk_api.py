"""What SDKs and their tools call: registration, `/dev`, large payloads, and the read APIs of `/v0` and `/v1` (§1.6, §3, §4.10, §7)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs import AppSynced, RunCancelled, Synced
from stepwell.engine.model import EventRow
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import text
from stepwell.protocol.durations import parse_date_ms, parse_duration_ms
from stepwell.protocol.events import Event
from stepwell.protocol.functions import Registration, parse_registration
from stepwell.protocol.ids import is_ulid
from stepwell.protocol.lifecycle import RUN_WAIT_MS_MAX
from stepwell.runtime.bodies import edited_inputs, event_bodies, told
from stepwell.runtime.node import Node
from stepwell.runtime.questions import pause_of
from stepwell.server.auth import Keys
from stepwell.server.http import Handler, enveloped, json_response
from stepwell.server.shapes import is_told, sdk_event, sdk_run

EVENTS_DEFAULT, EVENTS_MAX = 20, 50
RUNS_OF_EVENT_MAX = 1000
VERSION = "0.1.0-stepwell"


class SdkApi:
    """The routes over a node. `kind` is `dev` or `cloud`. `registrations` counts the apps that came to register themselves."""

    def __init__(self, node: Node, keys: Keys, kind: str, *, urls: tuple[str, ...] = (), discovers: bool = False) -> None:
        self._node, self._keys, self._kind, self._urls, self._discovers = node, keys, kind, urls, discovers
        self.registrations = 0

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        signed = self.signed
        return [
            Route("/health", self.health),
            Route("/ready", self.health),
            Route("/dev", signed(self.dev)),
            Route("/fn/register", signed(self.register), methods=["POST", "PUT"]),
            Route("/v0/runs/{run_id}/actions", signed(self.actions)),
            Route("/v0/runs/{run_id}/batch", signed(self.batch)),
            Route("/v0/runs/{run_id}", signed(self.cancel_v0), methods=["DELETE"]),
            Route("/v1/events", signed(self.events)),
            Route("/v1/events/{event_id}", signed(self.event)),
            Route("/v1/events/{event_id}/runs", signed(self.runs_of_event)),
            Route("/v1/runs/{run_id}", signed(self.run)),
            Route("/v1/runs/{run_id}", signed(self.cancel), methods=["DELETE"]),
        ]

    def signed(self, handler: Handler) -> Handler:
        """A route that asks for the signing key first."""

        async def checked(request: Request) -> Response:
            if not self._keys.takes_signing_key(request.headers.get("authorization")):
                raise ProtocolError("the signing key is missing or wrong: send it as Authorization: Bearer …", 401)
            return await handler(request)

        return checked

    async def health(self, request: Request) -> Response:
        """Whether the server answers."""
        return json_response({"status": 200, "message": "OK"})

    async def dev(self, request: Request) -> Response:
        """What this server is and which functions it knows; of a dev server only (§1.6)."""
        if self._kind == "cloud":
            raise NotFound("this server is not a dev server")
        functions = [
            {
                "id": function.row.uuid,
                "slug": function.id,
                "name": function.row.name,
                "triggers": [
                    {"cron": trigger.cron}
                    if trigger.cron
                    else {"event": trigger.event_name, **({"expression": trigger.expression} if trigger.expression else {})}
                    for trigger in function.config.triggers
                ],
                "steps": [{"id": "step", "name": "step", "uri": function.config.url}],
            }
            for function in self._node.registry.functions.values()
            if not function.row.archived
        ]
        return json_response(
            {
                "version": VERSION,
                "startOpts": {"autodiscover": self._discovers, "urls": list(self._urls)},
                "functions": functions,
                "handlers": [],
                "isSingleNodeService": True,
                "isMissingSigningKey": self._keys.signing_key is None,
                "isMissingEventKeys": not self._keys.event_keys,
                "features": {},
            }
        )

    async def register(self, request: Request) -> Response:
        """An app tells its functions (§3.1). A deploy's id in the query is of no further use here."""
        self.registrations += 1
        expected = request.headers.get("x-inngest-expected-server-kind")
        if expected and expected != self._kind:
            raise ProtocolError(
                f"the app expects a {expected} server, and this one is {self._kind}: set the app's mode (INNGEST_DEV) to fit"
            )
        synced = await self.sync(parse_registration(await request.body()), "http")
        return json_response({"ok": True, "modified": synced.modified, "sync_id": synced.sync_id, "app_id": synced.app_id})

    async def sync(self, registration: Registration, driver: str) -> Synced:
        """Take a registration in."""
        missing = [config.id for config in registration.functions if driver == "http" and not config.url]
        if missing:
            raise ProtocolError(f"function {missing[0]!r} has no runtime.url: the server would not know where to call it")
        synced: Synced = await self._node.submit(AppSynced(registration, driver))
        return synced

    async def actions(self, request: Request) -> Response:
        """The memoised steps of a run, for calls whose body would be too large (§4.10)."""
        run_id = await self._live(request)
        run = await self._node.reader.run(run_id)
        assert run is not None
        inputs = await edited_inputs(self._node.reader, run)
        # In the order in which they finished: an endpoint that fetches them has no other way to know it (§5.13).
        stack = sorted(await self._node.reader.steps(run_id), key=lambda step: step.position)
        memos = {step.id: step.memo for step in stack if step.memo is not None}
        parts = [text(step_id) + b":" + memo for step_id, memo in {**memos, **{k: v for k, v in inputs.items() if k not in memos}}.items()]
        return Response(b"{" + b",".join(parts) + b"}", media_type="application/json")

    async def batch(self, request: Request) -> Response:
        """The events of a run, for the same."""
        run = await self._node.reader.run(await self._live(request))
        assert run is not None
        return Response(b"[" + b",".join(await event_bodies(self._node.reader, run)) + b"]", media_type="application/json")

    async def _live(self, request: Request) -> str:
        run_id: str = request.path_params["run_id"]
        if not is_ulid(run_id):
            raise ProtocolError(f"{run_id!r} is no run id", 400)
        run = await self._node.reader.run(run_id)
        if run is None or run.ended_ms is not None:
            raise ProtocolError(f"the state of run {run_id} is gone: it has ended, or never was", 410)
        return run_id

    async def cancel_v0(self, request: Request) -> Response:
        """Cancel a run; 204, also where it was cancelled already (§7.2)."""
        await self._node.submit(RunCancelled(request.path_params["run_id"], "API"))
        return Response(status_code=204)

    async def cancel(self, request: Request) -> Response:
        """Cancel a run (§7.1)."""
        await self._node.submit(RunCancelled(request.path_params["run_id"], "API"))
        return Response(status_code=200)

    async def events(self, request: Request) -> Response:
        """Events, newest first."""
        query = request.query_params
        limit = whole(query.get("limit"), "limit", EVENTS_DEFAULT, EVENTS_MAX)
        rows = await self._node.reader.events(
            limit=limit,
            cursor=query.get("cursor"),
            name=query.get("name"),
            received_after_ms=date_ms(query.get("received_after"), "received_after"),
            received_before_ms=date_ms(query.get("received_before"), "received_before"),
        )
        # Each receipt of one event stands for itself (§11.6).
        shown = [event for row in rows for event in [sdk_event(await self.full(row))] * row.receipts]
        return self._data(shown[:limit])

    async def event(self, request: Request) -> Response:
        """One event by its internal id."""
        event_id: str = request.path_params["event_id"]
        if not is_ulid(event_id):
            raise ProtocolError(f"{event_id!r} is no event id: use the id that the send was answered with", 400)
        row = await self._node.reader.event(event_id)
        if row is None:
            raise NotFound(f"there is no event {event_id}")
        return self._data(sdk_event(await self.full(row)))

    async def full(self, row: EventRow) -> Event:
        """The event of a row, a lifecycle event's data built from its run."""
        if row.run_id is not None:
            return await told(self._node.reader, row)
        fields = {name: getattr(row, name) for name in ("name", "data", "user", "ts", "v", "meta", "received_ms")}
        return Event(internal_id=row.id, id=row.key, **fields)

    async def runs_of_event(self, request: Request) -> Response:
        """The runs that an event started; empty while there are none."""
        runs = await self._node.reader.runs_of_event(request.path_params["event_id"], RUNS_OF_EVENT_MAX)
        return self._data([sdk_run(run) for run in runs if is_told(run)])

    async def run(self, request: Request) -> Response:
        """One run, with its output; with `wait`, when it has ended, or after so long at most."""
        run_id: str = request.path_params["run_id"]
        if not is_ulid(run_id):
            raise ProtocolError(f"{run_id!r} is no run id", 400)
        run = await self._node.ended_run(run_id, wait_ms(request.query_params.get("wait")) / 1000)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        paused = await pause_of(self._node.reader, run)
        return self._data(sdk_run(run) if paused is None else {**sdk_run(run), "paused": paused})

    def _data(self, value: Any) -> Response:
        return enveloped(value, self._node.clock.now_ms())


def wait_ms(text: str | None) -> int:
    """How long a request may wait for a run's end. Raises `ProtocolError`."""
    if text is None:
        return 0
    ms = parse_duration_ms(text)
    if ms > RUN_WAIT_MS_MAX:
        raise ProtocolError(f"wait is {text!r}; it must be {RUN_WAIT_MS_MAX // 1000}s or less: ask again while the run goes on")
    return ms


def whole(text: str | None, name: str, default: int, most: int) -> int:
    """A query's whole number, from 1 to `most`. Raises `ProtocolError`."""
    if text is None:
        return default
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise ProtocolError(f"{name} is {text!r}; it must be a whole number from 1 to {most}")
    return int(text)


def date_ms(text: str | None, name: str) -> int | None:
    """A query's date. Raises `ProtocolError`."""
    if text is None:
        return None
    ms = parse_date_ms(text)
    if ms is None:
        raise ProtocolError(f"{name} is {text!r}; it must be a date like 2026-01-31T08:00:00Z")
    return ms
