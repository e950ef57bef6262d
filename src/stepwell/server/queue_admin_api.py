"""What people do with queues: look at them, pause and resume them, purge them, say how they are kept."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs_primitives import QueuePurged, QueueSet
from stepwell.engine.model_primitives import Delivery, Queue
from stepwell.engine.registry import Function
from stepwell.errors import ProtocolError
from stepwell.protocol.durations import format_duration, parse_duration_ms
from stepwell.protocol.queues import (
    CONCURRENCY_MAX,
    MAX_RETRIES_MAX,
    RETENTION_MS_MAX,
    RETENTION_MS_MIN,
    VISIBILITY_MS_MAX,
    checked_name,
)
from stepwell.runtime.node import Node
from stepwell.server.http import Guard, json_response
from stepwell.server.message_admin_api import MessageAdminApi, named_queue
from stepwell.server.run_api import fields
from stepwell.server.sdk_api import whole

QUEUES_DEFAULT, QUEUES_MAX = 50, 100
SETTINGS = ("retention", "visibility", "max_retries", "dead_letter")
PURGE_LOOK_S = 0.001


class QueueAdminApi:
    """The routes over a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the admin token."""
        return [
            Route("/api/queues", guard(self.queues)),
            Route("/api/queues/{queue}", guard(self.queue)),
            Route("/api/queues/{queue}/pause", guard(self.pause), methods=["POST"]),
            Route("/api/queues/{queue}/resume", guard(self.resume), methods=["POST"]),
            Route("/api/queues/{queue}/purge", guard(self.purge), methods=["POST"]),
            Route("/api/queues/{queue}/settings", guard(self.set), methods=["POST"]),
            *MessageAdminApi(self._node).routes(guard),
        ]

    async def queues(self, request: Request) -> Response:
        """Queues by name, a page at a time."""
        limit = whole(request.query_params.get("limit"), "limit", QUEUES_DEFAULT, QUEUES_MAX)
        found = await self._node.reader.queues(limit + 1, request.query_params.get("cursor", ""))
        shown = await asyncio.gather(*map(self._shown, found[:limit]))
        return json_response({"queues": shown, "cursor": found[limit - 1].id if len(found) > limit else None})

    async def queue(self, request: Request) -> Response:
        """One queue, with the batches that are out."""
        queue = await named_queue(self._node, request.path_params["queue"])
        deliveries = await self._node.reader.deliveries_of(queue.id, CONCURRENCY_MAX)
        return json_response({**await self._shown(queue), "deliveries": [shown_delivery(one) for one in deliveries]})

    async def pause(self, request: Request) -> Response:
        """Deliver nothing of it, to pull consumers neither; batches that are out finish."""
        return await self._pause(request, True)

    async def resume(self, request: Request) -> Response:
        """Go on."""
        return await self._pause(request, False)

    async def _pause(self, request: Request, paused: bool) -> Response:
        queue = await named_queue(self._node, request.path_params["queue"])
        set_: Queue = await self._node.submit(QueueSet(queue=queue.id, paused=paused))
        return json_response(await self._shown(set_))

    async def purge(self, request: Request) -> Response:
        """Take away every message that waits; what is out may come back. Says how many waited when this was asked."""
        queue = await named_queue(self._node, request.path_params["queue"])
        clock = self._node.clock
        mark_ms = clock.now_ms()
        await self._node.submit(QueuePurged(queue.id, mark_ms))
        # What is sent after the answer must not bear a time that is purged.
        while clock.now_ms() <= mark_ms:  # noqa: ASYNC110 - it waits for the clock alone
            await asyncio.sleep(PURGE_LOOK_S)
        return json_response({"purged": queue.waiting})

    async def set(self, request: Request) -> Response:
        """Say how it is kept: `{"retention": "4d", "visibility": "30s", "max_retries": 3, "dead_letter": "q"}`; what is not told stays."""
        name = checked_name(request.path_params["queue"])
        wanted = read_settings(name, await fields(request), self._node.registry.consumers.get(name))
        set_: Queue = await self._node.submit(wanted)
        return json_response(await self._shown(set_))

    async def _shown(self, queue: Queue) -> dict[str, Any]:
        function = self._node.registry.consumers.get(queue.id)
        out = await self._node.reader.deliveries_of(queue.id, CONCURRENCY_MAX)
        return {
            "name": queue.id,
            "paused": queue.paused,
            "waiting": queue.waiting,
            "waiting_bytes": queue.waiting_bytes,
            "deliveries_out": len(out),
            "messages_out": sum(len(delivery.messages) for delivery in out),
            "retention": format_duration(queue.retention_ms),
            "visibility": format_duration(queue.visibility_ms),
            "max_retries": queue.max_retries,
            "dead_letter": queue.dead_letter,
            "consumer": None if function is None else shown_consumer(function),
        }


def read_settings(queue: str, body: dict[str, Any], consumer: Function | None) -> QueueSet:
    """What a request says of how a queue is kept. Raises `ProtocolError` naming what is wrong."""
    unknown = sorted(body.keys() - set(SETTINGS))
    if unknown or not body:
        what = f"nothing to set named {unknown[0]!r}" if unknown else "nothing set"
        raise ProtocolError(f"queue {queue!r}: {what}; there are {', '.join(SETTINGS)}")
    if consumer is not None and (told := [name for name in ("max_retries", "dead_letter") if name in body]):
        raise ProtocolError(
            f"queue {queue!r} is consumed by the function {consumer.id!r}, whose app tells {told[0]}: change it there; here it is set for "
            f"pull consumers only",
            409,
        )
    retries, dead_letter = body.get("max_retries"), body.get("dead_letter")
    if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MAX_RETRIES_MAX):
        raise ProtocolError(f"max_retries is {retries!r}; it must be a whole number from 0 to {MAX_RETRIES_MAX}")
    if dead_letter:
        checked_name(dead_letter, "a dead-letter queue")
        if dead_letter == queue:
            raise ProtocolError(f"the dead-letter queue of queue {queue!r} cannot be itself: name another queue")
    return QueueSet(
        queue=queue,
        retention_ms=_duration(body, "retention", RETENTION_MS_MIN, RETENTION_MS_MAX),
        visibility_ms=_duration(body, "visibility", 0, VISIBILITY_MS_MAX),
        max_retries=retries,
        dead_letter=dead_letter,
    )


def _duration(body: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    ms = parse_duration_ms(str(value))
    if not least <= ms <= most:
        raise ProtocolError(f"{name} is {value!r}; it must be from {format_duration(least)} to {format_duration(most)}")
    return ms


def shown_consumer(function: Function) -> dict[str, Any]:
    """Who has a queue's messages, and how: in batches, or each as a run."""
    shown = {"function": function.id, "app": function.row.app_name, "paused": function.row.paused}
    consumer = function.config.consumer
    if consumer is None:
        return {**shown, "kind": "runs"}
    return {
        **shown,
        "kind": "batches",
        "max_batch_size": consumer.max_batch_size,
        "max_batch_timeout": format_duration(consumer.max_batch_timeout_ms),
        "max_retries": consumer.max_retries,
        "retry_delay": format_duration(consumer.retry_delay_ms),
        "max_concurrency": consumer.max_concurrency,
        "dead_letter": consumer.dead_letter,
    }


def shown_delivery(delivery: Delivery) -> dict[str, Any]:
    """A batch that is out."""
    return {
        "id": delivery.id,
        "function": delivery.function_id,
        "holder": delivery.holder,
        "messages": list(delivery.messages),
        "out_since_ms": delivery.leased_ms,
    }
