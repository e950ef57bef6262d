"""The newer REST API, `/v2` (and `/api/v2`): camelCase, `{"data", "metadata", "page"?}`, errors as a list (inngest-protocol §7.3).

What only a hosted product has (accounts, environments, keys by API) is answered with what a server of one's own has: one account, one
environment, keys that are set where the server is started.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs import FunctionInvoked, MetadataTold, RunCancelled, RunRerun
from stepwell.engine.model import AppRow, Run
from stepwell.engine.registry import Function
from stepwell.errors import Error, NotFound, ProtocolError
from stepwell.protocol.codec import canonical
from stepwell.protocol.events import parse_event, parse_events
from stepwell.protocol.ids import is_ulid
from stepwell.protocol.lifecycle import INVOKED
from stepwell.protocol.metadata import SCORE, Note, hashed
from stepwell.runtime.node import Node
from stepwell.server.auth import Keys
from stepwell.server.edits import SyncUrl, asked_step, synced
from stepwell.server.http import Guard, json_response, status_of
from stepwell.server.listing import RunFilter, cursor_of, find_runs, parse_cursor
from stepwell.server.read_api import function_shape
from stepwell.server.run_api import fields, fields_or_none
from stepwell.server.sdk_api import date_ms, whole
from stepwell.server.shapes import ACCOUNT_ID, ENVIRONMENT_ID, is_told, time_text, value_of
from stepwell.server.trace.outputs import read_output
from stepwell.server.trace.reading import read_trace
from stepwell.server.trace.span import Span
from stepwell.server.trace.tree import RUN_STATUS
from stepwell.server.v2_shapes import run_shape, span_shape

RUNS_DEFAULT, RUNS_MAX = 20, 100
SCORE_NAME_BYTES_MAX = 128
PREFIXES = ("/v2", "/api/v2")

Answer = Callable[[Request], Awaitable[Response]]


class V2Api:
    """The routes over a node. `sync_url` syncs an app by its address."""

    def __init__(self, node: Node, keys: Keys | None = None, *, sync_url: SyncUrl | None = None) -> None:
        self._node, self._keys, self._sync_url = node, keys or Keys(), sync_url

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key."""
        paths: list[tuple[str, str, Answer]] = [
            ("GET", "/events/{event_id}/runs", self.runs_of_event),
            ("POST", "/events", self.send),
            ("GET", "/runs", self.runs),
            ("GET", "/runs/{run_id}", self.run),
            ("GET", "/runs/{run_id}/trace", self.trace),
            ("POST", "/runs/{run_id}/cancel", self.cancel),
            ("POST", "/runs/{run_id}/rerun", self.rerun),
            ("POST", "/runs/{run_id}/scores", self.score),
            ("GET", "/apps", self.apps),
            ("GET", "/apps/{app_name}", self.app),
            ("GET", "/apps/{app_name}/functions", self.functions),
            ("GET", "/apps/{app_name}/functions/{function_id}", self.function),
            ("GET", "/apps/{app_name}/functions/{function_id}/runs", self.runs_of_function),
            ("POST", "/apps/{app_name}/functions/{function_id}/invoke", self.invoke),
            ("POST", "/apps/{app_name}/syncs", self.sync),
            ("GET", "/account", self.account),
            ("GET", "/envs", self.environments),
            ("GET", "/keys/events", self.event_keys),
            ("GET", "/keys/signing", self.signing_keys),
        ]
        routes: list[BaseRoute] = [Route(f"{prefix}/health", told(self.health)) for prefix in PREFIXES]
        for prefix in PREFIXES:
            routes += [Route(prefix + path, told(guard(handler)), methods=[method]) for method, path, handler in paths]
        return routes

    def _data(self, value: Any, status: int = 200, **more: Any) -> Response:
        return json_response({"data": value, "metadata": {"fetchedAt": time_text(self._node.clock.now_ms())}, **more}, status)

    async def health(self, request: Request) -> Response:
        """Whether the server answers."""
        return self._data({"status": "ok"})

    # Events and runs.

    async def send(self, request: Request) -> Response:
        """Send one event."""
        body = await fields(request)
        if not isinstance(body.get("name"), str) or not body["name"]:
            raise ProtocolError('an event needs a name: {"name": "…", "data": {…}}')
        node = self._node
        parsed = parse_events(canonical(body), received_ms=node.clock.now_ms(), new_id=lambda n: node.new_id())
        if parsed.error is not None:
            raise parsed.error
        (event_id,) = await node.send(parsed.events, fresh=True)
        return self._data({"eventId": event_id})

    async def runs_of_event(self, request: Request) -> Response:
        """The runs that an event started."""
        event_id: str = request.path_params["event_id"]
        if await self._node.reader.event(event_id) is None:
            raise NotFound(f"there is no event {event_id!r}")
        shown = await self._node.reader.runs_of_event(event_id, RUNS_MAX)
        return self._data([run_shape(run, with_output(request)) for run in shown if is_told(run)])

    async def runs(self, request: Request) -> Response:
        """Runs, newest first."""
        return await self._page(request, None)

    async def runs_of_function(self, request: Request) -> Response:
        """Runs of one function, newest first."""
        return await self._page(request, frozenset((self._function(request).id,)))

    async def _page(self, request: Request, functions: frozenset[str] | None) -> Response:
        query = request.query_params
        names = [name.upper() for value in query.getlist("status") for name in value.split(",") if name]
        unknown = [name for name in names if name not in {str(status) for status in RUN_STATUS.values()}]
        if unknown:
            raise ProtocolError(f"status {unknown[0]!r} is none of {', '.join(sorted({str(status) for status in RUN_STATUS.values()}))}")
        slug = query.get("functionId")
        if slug and functions is None:
            found = self._node.registry.named(slug)
            if found is None:
                raise NotFound(f"there is no function {slug!r}")
            functions = frozenset((found.id,))
        until_ms = date_ms(query.get("until"), "until")
        wanted = RunFilter(
            from_ms=date_ms(query.get("from"), "from") or 0,
            until_ms=1 << 47 if until_ms is None else until_ms,
            statuses=frozenset(status for status, name in RUN_STATUS.items() if name in names),
            function_ids=functions,
        )
        limit = whole(query.get("limit"), "limit", RUNS_DEFAULT, RUNS_MAX)
        page = await find_runs(self._node.reader, wanted, limit=limit, after=parse_cursor(query.get("cursor")))
        cursor = cursor_of(page.end) if page.more and page.end is not None else None
        shown = [run_shape(run, with_output(request)) for _, run in page.found]
        return self._data(shown, page={"cursor": cursor, "hasMore": page.more, "limit": limit})

    async def run(self, request: Request) -> Response:
        """A run; with its output where `includeOutput` asks for it."""
        return self._data(run_shape(await self._run(request), with_output(request)))

    async def trace(self, request: Request) -> Response:
        """A run's trace; with its spans' outputs where `includeOutput` asks for them."""
        run = await self._run(request)
        root = await read_trace(self._node.reader, run)
        return self._data({"runId": run.id, "rootSpan": await self._span(root, with_output(request))})

    async def _span(self, span: Span, outputs: bool) -> dict[str, Any]:
        shown = span_shape(span)
        if outputs and span.output is not None:
            output = await read_output(self._node.reader, span.output)
            shown |= {"output": value_of(output.data), "error": value_of(output.error)}
        shown["children"] = [await self._span(child, outputs) for child in span.children]
        return shown

    async def _run(self, request: Request) -> Run:
        run_id: str = request.path_params["run_id"]
        run = await self._node.reader.run(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}")
        return run

    async def cancel(self, request: Request) -> Response:
        """End a run."""
        run_id = request.path_params["run_id"]
        await self._node.submit(RunCancelled(run_id, "API"))
        return self._data({"runId": run_id, "status": "CANCELLED"})

    async def rerun(self, request: Request) -> Response:
        """Run it again, from its beginning or from a step: `{"fromStep"?: {"stepId", "input"?}}`."""
        run_id = request.path_params["run_id"]
        begin = await asked_step(self._node.reader, run_id, await fields_or_none(request))
        return self._data({"runId": await self._node.submit(RunRerun(run_id, self._node.new_id(), begin))})

    async def score(self, request: Request) -> Response:
        """Give a run, or one of its steps, a score: `{"name", "value", "stepId"?}`."""
        run_id, body = request.path_params["run_id"], await fields(request)
        name, value, step_id = body.get("name"), body.get("value"), body.get("stepId")
        if not isinstance(name, str) or not name.strip() or len(name.encode()) > SCORE_NAME_BYTES_MAX:
            raise ProtocolError(f"a score needs a name of at most {SCORE_NAME_BYTES_MAX} bytes")
        if not isinstance(value, bool | int | float) or not math.isfinite(value):
            raise ProtocolError(f"the score {name!r} is {value!r}; it must be a number or true or false")
        if not is_ulid(run_id):
            raise ProtocolError(f"{run_id!r} is no run id")
        values = canonical({name: {"value": value}})
        if isinstance(step_id, str) and step_id:
            note = Note(scope="step", span=hashed(step_id), kind=SCORE, change="merge", values=values)
        else:
            note = Note(scope="run", span="", kind=SCORE, change="merge", values=values)
        await self._node.submit(MetadataTold(run_id, (note,)))
        return self._data({"runId": run_id, "name": name, "value": value})

    # Apps and functions.

    async def apps(self, request: Request) -> Response:
        """Apps by name."""
        return self._data([self._app_shape(app) for _, app in sorted(self._node.registry.apps.items()) if not app.archived])

    async def app(self, request: Request) -> Response:
        """An app."""
        return self._data(self._app_shape(self._app(request)))

    async def functions(self, request: Request) -> Response:
        """An app's functions."""
        of_app = self._node.registry.of_app(self._app(request).name)
        return self._data([function_shape(function) for function in of_app if not function.row.archived])

    async def function(self, request: Request) -> Response:
        """A function, by its slug, its id in the app, or its UUID."""
        return self._data(function_shape(self._function(request)))

    async def invoke(self, request: Request) -> Response:
        """Start a function, whatever its triggers say. A second call with the same `idempotencyKey` starts no second run."""
        function, body = self._function(request), await fields_or_none(request)
        key = body.get("idempotencyKey")
        event: dict[str, Any] = {name: body[name] for name in ("data", "user", "ts", "v") if name in body}
        if isinstance(key, str) and key:
            event["id"] = key
        node = self._node
        parsed = parse_event(canonical(event), received_ms=node.clock.now_ms(), internal_id=node.new_id(), name=INVOKED)
        return self._data({"runId": await node.submit(FunctionInvoked(function.id, parsed))})

    async def sync(self, request: Request) -> Response:
        """Sync an app by its address: `{"url"}`; without one, by the address that it has."""
        body, name = await fields_or_none(request), request.path_params["app_name"]
        known = self._node.registry.apps.get(name)
        url = body.get("url") or ("" if known is None else known.url)
        if not isinstance(url, str) or not url:
            raise ProtocolError(f'app {name!r} is not known: say where it is: {{"url": "https://…"}}')
        app = await synced(self._node.reader, self._sync_url, url)
        if app.name != name:
            raise ProtocolError(f"at {url} is the app {app.name!r}, not {name!r}; it was synced under its own name")
        return self._data({"appId": app.name, "id": app.id, "url": app.url})

    def _app(self, request: Request) -> AppRow:
        name: str = request.path_params["app_name"]
        apps = self._node.registry.apps
        app = apps.get(name) or next((app for app in apps.values() if app.id == name), None)
        if app is None:
            raise NotFound(f"there is no app {name!r}")
        return app

    def _function(self, request: Request) -> Function:
        app, name = self._app(request), request.path_params["function_id"]
        registry = self._node.registry
        function = registry.named(f"{app.name}-{name}") or registry.named(name)
        if function is None or function.row.app_name != app.name:
            raise NotFound(f"app {app.name!r} has no function {name!r}")
        return function

    def _app_shape(self, app: AppRow) -> dict[str, Any]:
        return {
            "id": app.name,
            "internalId": app.id,
            "url": app.url,
            "sdkLanguage": app.sdk.partition(":")[0],
            "sdkVersion": app.sdk.partition(":")[2],
            "framework": app.framework,
            "method": "CONNECT" if app.driver == "connect" else "SERVE",
            "syncedAt": time_text(app.synced_ms),
            "functionCount": sum(not function.row.archived for function in self._node.registry.of_app(app.name)),
        }

    # What a hosted product administers.

    async def account(self, request: Request) -> Response:
        """The one account."""
        return self._data({"id": ACCOUNT_ID, "name": "Stepwell"})

    async def environments(self, request: Request) -> Response:
        """The one environment."""
        return self._data(
            [{"id": ENVIRONMENT_ID, "name": "default", "type": "PRODUCTION"}], page={"cursor": None, "hasMore": False, "limit": 1}
        )

    async def event_keys(self, request: Request) -> Response:
        """The event keys that the server was started with: how many, and which by their hash; never themselves."""
        return self._data([{"id": hashlib.sha256(key.encode()).hexdigest()[:12], "name": "event key"} for key in self._keys.event_keys])

    async def signing_keys(self, request: Request) -> Response:
        """The signing key that the server was started with, by its hash."""
        key = self._keys.signing_key
        shown = [] if key is None else [{"id": hashlib.sha256(key.encode()).hexdigest()[:12], "name": "signing key"}]
        return self._data(shown)


def told(handler: Answer) -> Answer:
    """A route whose errors are told as a list of codes and messages."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except Error as error:
            status = status_of(error)
            code = getattr(error, "code", None) or CODES.get(status, "error")
            return json_response({"errors": [{"code": code, "message": str(error)}]}, status)

    return answered


CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    409: "conflict",
    413: "too_large",
    500: "internal_error",
    503: "unavailable",
    507: "storage_full",
}


def with_output(request: Request) -> bool:
    """Whether the request asks for outputs too."""
    return request.query_params.get("includeOutput", "").lower() in ("1", "true")
