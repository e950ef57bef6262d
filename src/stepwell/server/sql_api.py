"""Users' databases by HTTP: statements there, results in D1's shapes back."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.errors import SqlError
from stepwell.protocol.sql import Form, SqlCount, SqlMeta, checked_name, parse_query, parse_script, result
from stepwell.runtime.node import Node
from stepwell.server.http import Guard
from stepwell.store.databases import Result

ANSWER_BYTES_MAX = 48 * 1024 * 1024
"""What a query may give, all of its statements together, as it is sent."""


class SqlApi:
    """The routes over a node's databases."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key, where one is needed."""
        return [
            Route("/sql", guard(self.databases)),
            Route("/sql/{database}/query", guard(self.query), methods=["POST"]),
            Route("/sql/{database}/exec", guard(self.exec), methods=["POST"]),
        ]

    async def databases(self, request: Request) -> Response:
        """The databases by name, with the bytes of their files."""
        found = await self._node.databases.names()
        return _json(msgspec.json.encode({"databases": [{"name": one.name, "file_size": one.size_bytes} for one in found]}))

    async def query(self, request: Request) -> Response:
        """Statements, all or none. A database is made by its first query."""
        name, query = checked_name(request.path_params["database"]), parse_query(await request.body())
        asked = [(statement.sql, statement.params) for statement in query.statements]
        return _json(await self._node.databases.query(name, asked, lambda results: _answer(results, query.form)))

    async def exec(self, request: Request) -> Response:
        """The statements of a text, one a line, all or none."""
        name, script = checked_name(request.path_params["database"]), parse_script(await request.body())
        count, duration_ms = await self._node.databases.script(name, script.sql)
        return _json(msgspec.json.encode(SqlCount(count=count, duration=round(duration_ms, 3))))


def _answer(results: list[Result], form: Form) -> bytes:
    """The answer's body. Raises `SqlError` for one that is too large."""
    body = msgspec.json.encode({"results": [result(one.rows.columns, one.rows.rows, _meta(one), form) for one in results]})
    if len(body) > ANSWER_BYTES_MAX:
        size = f"{ANSWER_BYTES_MAX // 2**20} MiB"
        raise SqlError(f"the results are larger than {size}: ask for fewer rows, with LIMIT: SQLITE_TOOBIG", "SQLITE_TOOBIG")
    return body


def _meta(one: Result) -> SqlMeta:
    return SqlMeta(
        duration=round(one.duration_ms, 3),
        changes=one.rows.changes,
        last_row_id=one.rows.last_row_id,
        changed_db=one.rows.changed,
        size_after=one.size_bytes,
        rows_read=len(one.rows.rows),
        rows_written=one.rows.rows_written,
    )


def _json(body: bytes) -> Response:
    """Not in canonical form, in which `1.0` would be `1`."""
    return Response(body, media_type="application/json")
