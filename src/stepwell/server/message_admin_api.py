"""What people do with the messages of a queue: look at them, send one by hand, and look after dead letters: edit, delete, send back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs import AnyInput
from stepwell.engine.inputs_primitives import MessageEdited, MessagesDeleted, MessagesMoved, NewMessage
from stepwell.engine.model_primitives import Message, Queue
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.durations import parse_duration_ms
from stepwell.protocol.queues import MESSAGE_BYTES_MAX, Consumer, checked_name, is_message_id, message_id
from stepwell.runtime.node import Node
from stepwell.server.http import Guard, json_response
from stepwell.server.message_filters import LOOKED_MAX, MESSAGES_AT_ONCE, Page, compiled, cursor_of, ids_in, pages, shown_message
from stepwell.server.queue_api import body_of, content_type, send_messages
from stepwell.server.run_api import fields
from stepwell.server.sdk_api import whole

MESSAGES_DEFAULT = 25


class MessageAdminApi:
    """The routes over a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the admin token."""
        base = "/api/queues/{queue}/messages"
        return [
            Route(base, guard(self.messages)),
            Route(base, guard(self.send), methods=["POST"]),
            Route(f"{base}/move", guard(self.move), methods=["POST"]),
            Route(f"{base}/delete", guard(self.delete), methods=["POST"]),
            Route(f"{base}/{{message_id}}", guard(self.message)),
            Route(f"{base}/{{message_id}}", guard(self.edit), methods=["PUT"]),
        ]

    async def messages(self, request: Request) -> Response:
        """Messages that wait, in their order; those for which `where` holds. A page may be short: its cursor goes on."""
        query = request.query_params
        queue = (await named_queue(self._node, request.path_params["queue"])).id
        limit = whole(query.get("limit"), "limit", MESSAGES_DEFAULT, MESSAGES_AT_ONCE)
        where = compiled(query["where"]) if query.get("where") else None
        looked_max = limit if where is None else LOOKED_MAX
        found: list[Message] = []
        cursor: str | None = query.get("cursor", "")
        async for page in pages(self._node.reader, queue, where, cursor or "", self._node.clock.now_ms(), looked_max):
            found += page.meant
            cursor = page.cursor
            if len(found) >= limit:
                if len(found) > limit:
                    found = found[:limit]
                    cursor = cursor_of(found[-1])
                break
        return json_response({"messages": [shown_message(one) for one in found], "cursor": cursor})

    async def message(self, request: Request) -> Response:
        """One message, be it waiting or out. `raw` is the text of a JSON body, for those who cannot hold all of its numbers."""
        message = await self._named(request)
        raw = message.body.decode() if message.content_type == "json" else None
        return json_response({**shown_message(message), "raw": raw})

    async def _named(self, request: Request) -> Message:
        queue, wanted = checked_name(request.path_params["queue"]), request.path_params["message_id"]
        message = await self._node.reader.message(wanted) if is_message_id(wanted) else None
        if message is None or message.queue != queue:
            raise NotFound(f"there is no message {wanted!r:.80} in queue {queue!r}: it was consumed, deleted or moved")
        return message

    async def send(self, request: Request) -> Response:
        """Send a message by hand: `{"body": …, "content_type"?, "delay"?}`."""
        body = await fields(request)
        told, kind = read_body(body)
        message = NewMessage(id="", body=told, content_type=kind, delay_ms=read_delay(body))
        sent = await send_messages(self._node, request.path_params["queue"], [message])
        return json_response({"id": sent.ids[0]})

    async def edit(self, request: Request) -> Response:
        """Give it another body. It gets another id with that, which the answer tells."""
        body, kind = read_body(await fields(request))
        if len(body) > MESSAGE_BYTES_MAX:
            raise ProtocolError(f"the message has {len(body)} bytes; at most {MESSAGE_BYTES_MAX} are taken", 413)
        message = await self._named(request)
        clock = self._node.clock
        new_id = message_id((clock.now_ms() << 80) | int.from_bytes(clock.entropy(10), "big"))
        if not await self._node.submit(MessageEdited(message.queue, message.id, new_id, body, kind)):
            raise ProtocolError(f"message {message.id} is out with a consumer: it cannot be edited before it comes back", 409)
        return json_response({"id": new_id})

    async def move(self, request: Request) -> Response:
        """Send dead letters back to where they came from, or messages to the queue `to`: by `ids`, or those for which `where` holds."""
        body = await fields(request)
        queue = (await named_queue(self._node, request.path_params["queue"])).id
        to = body.get("to")
        if to is not None and checked_name(to) == queue:
            raise ProtocolError(f"the messages are in queue {queue!r} already: name another one in `to`")
        return await self._each(queue, body, "moved", lambda ids: MessagesMoved(queue, ids, to))

    async def delete(self, request: Request) -> Response:
        """Take messages away: by `ids`, or those for which `where` holds."""
        queue = (await named_queue(self._node, request.path_params["queue"])).id
        return await self._each(queue, await fields(request), "deleted", lambda ids: MessagesDeleted(queue, ids))

    async def _each(self, queue: str, body: dict[str, Any], what: str, input_of: Callable[[tuple[str, ...]], AnyInput]) -> Response:
        """Do it to the messages that are meant, in inputs of a bounded size. Says how many were; `cursor`: where to go on."""
        if ("ids" in body) == ("where" in body):
            raise ProtocolError('either ids or where says which messages are meant; {"where": "true"} means all')
        if "ids" in body:
            done = await self._node.submit(input_of(ids_in(body["ids"])))
            return json_response({what: len(done), "looked": len(body["ids"]), "cursor": None})
        where, cursor = compiled(body["where"]), body.get("cursor") or ""
        if not isinstance(cursor, str):
            raise ProtocolError(f"cursor is {cursor!r:.80}; it must be the text from the answer before")
        many = looked = 0
        page = Page(0, [], None)
        async for page in pages(self._node.reader, queue, where, cursor, self._node.clock.now_ms(), LOOKED_MAX):
            looked += page.looked
            if page.meant:
                many += len(await self._node.submit(input_of(tuple(one.id for one in page.meant))))
        return json_response({what: many, "looked": looked, "cursor": page.cursor})


async def named_queue(node: Node, name: str) -> Queue:
    """The queue of that name; one that only dead letters of another will go to is there as well. Raises `NotFound`."""
    found = await node.reader.queue(checked_name(name))
    if found is not None:
        return found
    if any((function.config.consumer or Consumer()).dead_letter == name for function in node.registry.consumers.values()):
        return Queue(id=name)
    raise NotFound(f"there is no queue {name!r}: a queue is there from its first message on, or from the sync of its consumer")


def read_body(told: dict[str, Any]) -> tuple[bytes, Any]:
    """The body that a request tells, and its content type. Raises `ProtocolError`."""
    if "body" not in told:
        raise ProtocolError('a message needs a body: {"body": …}')
    kind = content_type(told.get("content_type", "json"))
    return body_of(msgspec.json.encode(told["body"]), kind), kind


def read_delay(told: dict[str, Any]) -> int:
    """The delay that a request tells, in milliseconds."""
    delay = told.get("delay")
    return 0 if delay is None else parse_duration_ms(str(delay))
