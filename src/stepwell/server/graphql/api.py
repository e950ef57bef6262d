"""`POST /v0/gql`: documents are parsed, measured, validated and executed; what goes wrong is told in GraphQL's form, with 200."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import msgspec
from graphql import DocumentNode, GraphQLError, GraphQLObjectType, GraphQLSchema, GraphQLUnionType, build_schema, execute, parse, validate
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.errors import Error, ProtocolError
from stepwell.runtime.node import Node
from stepwell.server.auth import COOKIE, Keys
from stepwell.server.edits import SyncUrl
from stepwell.server.graphql.context import Connections, Context
from stepwell.server.graphql.limits import TEXT_BYTES_MAX, check_size
from stepwell.server.graphql.mutations import MUTATIONS
from stepwell.server.graphql.queries import QUERIES
from stepwell.server.graphql.runs import RUNS
from stepwell.server.graphql.things import THINGS
from stepwell.server.graphql.traces import TRACES, info_type
from stepwell.server.http import Handler

Resolver = Callable[..., Any]
RESOLVERS: tuple[Mapping[str, Mapping[str, Resolver]], ...] = (QUERIES, MUTATIONS, RUNS, TRACES, THINGS)
ERRORS_MAX = 20


@functools.cache
def schema() -> GraphQLSchema:
    """The schema of `schema.graphql`, each field with its resolver. A resolver for no field is a bug, and raises."""
    text = (resources.files("stepwell.server.graphql") / "schema.graphql").read_text()
    made = build_schema(text)
    for group in RESOLVERS:
        for type_name, fields in group.items():
            kind = made.type_map[type_name]
            assert isinstance(kind, GraphQLObjectType)
            for name, resolver in fields.items():
                kind.fields[name].resolve = resolver
    union = made.type_map["StepInfo"]
    assert isinstance(union, GraphQLUnionType)
    union.resolve_type = info_type
    return made


class _Request(msgspec.Struct):
    query: str
    variables: dict[str, Any] | None = None
    operationName: str | None = None


_request = msgspec.json.Decoder(_Request)


class GraphQlApi:
    """The route over a node.

    `sync_url` syncs an app by its URL; `connections` gives the workers that are connected, each as the protocol's `ConnMetadata`
    (§9.6). Without them the server has none.
    """

    def __init__(self, node: Node, keys: Keys, *, sync_url: SyncUrl | None = None, connections: Connections | None = None) -> None:
        self._node, self._keys, self._sync_url, self._connections = node, keys, sync_url, connections

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        return [Route("/v0/gql", self._guarded(self.answer), methods=["POST"])]

    def _guarded(self, handler: Handler) -> Handler:
        """Where the server has keys, whoever asks shows the signing key or the admin token; a dev server answers everybody."""

        async def checked(request: Request) -> Response:
            authorization = request.headers.get("authorization")
            signed = self._keys.signing_key is not None and self._keys.takes_signing_key(authorization)
            if not signed and not self._keys.takes_admin(authorization, request.cookies.get(COOKIE)):
                raise ProtocolError("show the signing key or the admin token: Authorization: Bearer …", 401)
            return await handler(request)

        return checked

    async def answer(self, request: Request) -> Response:
        """Answer one document."""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() not in ("application/json", "application/graphql+json"):
            # Other types are what a page elsewhere can post without being asked for leave.
            raise ProtocolError("send the document as application/json", 415)
        body = await request.body()
        if len(body) > 4 * TEXT_BYTES_MAX:
            raise ProtocolError(f"the request has {len(body)} bytes; at most {4 * TEXT_BYTES_MAX} are taken", 413)
        try:
            asked = _request.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _answer(None, [GraphQLError(f'the body must be {{"query": "…", "variables"?, "operationName"?}}: {error}')], 400)
        context = Context(self._node, self._sync_url, self._connections)
        return await run(asked.query, asked.variables, asked.operationName, context)


async def run(query: str, variables: dict[str, Any] | None, operation: str | None, context: Context) -> Response:
    """Execute a document."""
    try:
        document = parsed(query)
    except GraphQLError as error:
        return _answer(None, [error])
    wrong = validate(schema(), document, max_errors=ERRORS_MAX)
    if wrong:
        return _answer(None, wrong)
    result: Any = execute(schema(), document, context_value=context, variable_values=variables, operation_name=operation)
    if inspect.isawaitable(result):
        result = await result
    return _answer(result.data, result.errors or [])


def parsed(query: str) -> DocumentNode:
    """The document of a text, of a size that is answered. Raises `GraphQLError`."""
    if len(query.encode()) > TEXT_BYTES_MAX:
        raise GraphQLError(f"the document has more than {TEXT_BYTES_MAX} bytes")
    try:
        document = parse(query)
        check_size(document)
    except RecursionError:
        raise GraphQLError("the document is nested too deep") from None
    return document


def _answer(data: Any, errors: Sequence[GraphQLError], status: int = 200) -> Response:
    answer: dict[str, Any] = {"data": data}
    if errors:
        answer["errors"] = [_told(error) for error in errors]
    return Response(msgspec.json.encode(answer), status, media_type="application/json")


def _told(error: GraphQLError) -> dict[str, Any]:
    """An error as it is shown. What is not ours to explain goes to the log, and is told without its insides."""
    cause = error.original_error
    message = error.message
    if cause is not None and not isinstance(cause, Error | GraphQLError):
        traceback.print_exception(cause)
        message = f"the server could not answer this ({type(cause).__name__}); its log has more"
    told: dict[str, Any] = {"message": message}
    if error.path is not None:
        told["path"] = list(error.path)
    if error.locations:
        told["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    return told
