"""Actors over HTTP: an app elsewhere calls a method (`/v1/actors`), people and the page look at them (`/api/actors`)."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.model_actors import Actor
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.actors import ACTOR_RAISED, ARGS_BYTES_MAX, CHAIN_MAX, NAME_BYTES_MAX, ActorFailed
from stepwell.protocol.codec import decode
from stepwell.runtime.node import Node
from stepwell.server.http import Guard, json_response
from stepwell.server.sdk_api import whole

COUNT_MAX = 1_000_000
"""How far actors are counted."""

PAGE_DEFAULT, PAGE_MAX = 50, 200


class ActorsApi:
    """The routes over a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard, admin: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key, `admin` for the admin token, where one is needed."""
        return [
            Route("/v1/actors/{kind}/{name:path}/{method}", guard(self.call), methods=["POST"]),
            Route("/api/actors", admin(self.kinds)),
            Route("/api/actors/{kind}", admin(self.actors)),
            Route("/api/actors/{kind}/{name:path}", admin(self.actor)),
        ]

    async def call(self, request: Request) -> Response:
        """Call a method: the body is its arguments, the answer its result, or with status 424 what it raised."""
        kind, name, method = (request.path_params[part] for part in ("kind", "name", "method"))
        if not name or len(name.encode()) > NAME_BYTES_MAX:
            raise ProtocolError(f"an actor's name has 1 to {NAME_BYTES_MAX} bytes")
        args = await request.body() or b"{}"
        if len(args) > ARGS_BYTES_MAX:
            raise ProtocolError(f"the arguments have {len(args)} bytes; at most {ARGS_BYTES_MAX} are taken", 413)
        told = request.query_params.get("chain", "")
        chain = tuple(told.split(",")) if told else ()
        if len(chain) > CHAIN_MAX:
            raise ProtocolError(f"{len(chain)} actors call each other in a chain; at most {CHAIN_MAX} may")
        try:
            result = await self._node.actors.call(kind, name, method, args, chain)
        except ActorFailed as failed:
            failure = failed.failure
            body = {"error": f"{failure.name}: {failure.message}", "failure": failure, "status": ACTOR_RAISED}
            return Response(msgspec.json.encode(body), ACTOR_RAISED, media_type="application/json")
        return Response(result, media_type="application/json")

    async def kinds(self, request: Request) -> Response:
        """The kinds: how many actors each has, how many are in memory, how many alarms are pending."""
        here = self._node.actors.in_memory()
        counts = {count.kind: count for count in await self._node.reader.actor_kinds(COUNT_MAX)}
        told = []
        for kind in sorted({*here, *counts}):
            count = counts.get(kind)
            told.append(
                {
                    "kind": kind,
                    "actors": count.actors if count is not None else 0,
                    "in_memory": here.get(kind, 0),
                    "alarms": count.alarms if count is not None else 0,
                    "next_alarm_ms": count.next_alarm_ms if count is not None else None,
                    "served": kind in here,
                }
            )
        return json_response({"kinds": told, "alarms_waiting": self._node.actors.alarms_waiting})

    async def actors(self, request: Request) -> Response:
        """A page of a kind's actors, by name."""
        query = request.query_params
        limit = whole(query.get("limit"), "limit", PAGE_DEFAULT, PAGE_MAX)
        found = await self._node.reader.actors(request.path_params["kind"], limit + 1, query.get("after", ""))
        page = found[:limit]
        return json_response({"actors": [shape(actor) for actor in page], "after": page[-1].name if len(found) > limit else None})

    async def actor(self, request: Request) -> Response:
        """One actor."""
        kind, name = request.path_params["kind"], request.path_params["name"]
        found = await self._node.reader.actor(kind, name)
        if found is None:
            raise NotFound(f"actor {kind}/{name} has nothing stored")
        return json_response(shape(found))


def shape(actor: Actor) -> dict[str, Any]:
    """An actor as people see it."""
    return {
        "kind": actor.kind,
        "name": actor.name,
        "in_memory": actor.holder is not None,
        "entries": actor.entries,
        "bytes": actor.bytes,
        "alarm_ms": actor.alarm_ms,
        "alarm_retry": actor.alarm_retry,
        "alarm_running": actor.firing is not None,
        "alarm_error": None if actor.error is None else decode(actor.error),
    }
