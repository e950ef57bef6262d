"""Queues over HTTP: what our SDK sends, and the publish and pull APIs in Cloudflare's shapes, under the paths that theirs have.

What our SDK sends comes in bare ASGI, since every message comes this way: the router and its requests cost more than the send.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs_primitives import LeasesSettled, MessagesPulled, MessagesSent, NewMessage
from stepwell.engine.model_primitives import Message
from stepwell.errors import Error, ProtocolError
from stepwell.primitives.queue import Sent
from stepwell.primitives.queue_pulls import LeasesAnswered, Pulled, lease_of
from stepwell.protocol.codec import canonicalize, decode
from stepwell.protocol.ids import ENTROPY
from stepwell.protocol.queues import (
    BATCH_SIZE_MAX,
    CONTENT_TYPES,
    DELAY_MS_MAX,
    DELAY_S_MAX,
    MESSAGE_BYTES_MAX,
    PULL_SIZE_DEFAULT,
    SEND_BYTES_MAX,
    SEND_MESSAGES_MAX,
    VISIBILITY_MS_MAX,
    ContentType,
    checked_name,
    is_message_id,
    message_id,
)
from stepwell.runtime.node import Node
from stepwell.server.auth import Keys
from stepwell.server.http import Guard, Handler, Receive, Scope, Send, answer, error_response, json_response, read_body, status_of
from stepwell.server.run_api import fields_or_none

ACCOUNTS = ("/accounts/{account}", "/client/v4/accounts/{account}")
"""Where Cloudflare's API has its queues: any account's name is this server's."""


SENDS = ("/queues/", "/messages")
"""What stands around a queue's name where our SDK sends."""


def shown_by(scope: Scope) -> str | None:
    """What a request shows as its key."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)


class _New(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw()
    content_type: str = "json"
    delay_ms: int = 0
    id: str = ""


class _Send(msgspec.Struct):
    messages: list[_New]


_send = msgspec.json.Decoder(_Send)


class QueueApi:
    """The routes over a node."""

    def __init__(self, node: Node, keys: Keys) -> None:
        self._node, self._keys = node, keys

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key, where one is needed. To publish, an event key does as well."""
        publish = self._publishes(guard)
        routes: list[BaseRoute] = [Route("/queues/{queue}/messages", publish(self.send_routed), methods=["POST"])]
        for account in ACCOUNTS:
            base = f"{account}/queues/{{queue}}/messages"
            routes += [
                Route(base, enveloped(publish(resulting(self.publish))), methods=["POST"]),
                Route(f"{base}/batch", enveloped(publish(resulting(self.publish_batch))), methods=["POST"]),
                Route(f"{base}/pull", enveloped(guard(resulting(self.pull))), methods=["POST"]),
                Route(f"{base}/ack", enveloped(guard(resulting(self.ack))), methods=["POST"]),
            ]
        return routes

    def _publishes(self, guard: Guard) -> Guard:
        def checked(handler: Handler) -> Handler:
            guarded = guard(handler)

            async def either(request: Request) -> Response:
                opens = self._opens(request.headers.get("authorization"))
                return await (handler(request) if opens else guarded(request))

            return either

        return checked

    # Our SDK.

    def takes_bare(self, scope: Scope) -> str | None:
        """The queue of a plain send that any key would do for, or that shows an event key: such a request needs no router."""
        path: str = scope["path"]
        if scope["method"] != "POST" or not path.startswith(SENDS[0]) or not path.endswith(SENDS[1]):
            return None
        queue = path[len(SENDS[0]) : -len(SENDS[1])]
        if "/" in queue or not self._opens(shown_by(scope)):
            return None
        return queue

    def _opens(self, shown: str | None) -> bool:
        """Whether what a request shows is enough to send."""
        if self._keys.takes_signing_key(shown):
            return True
        bearer = shown[7:].strip() if shown is not None and shown.lower().startswith("bearer ") else ""
        return bool(self._keys.event_keys and bearer) and self._keys.takes_event_key(bearer)

    async def send_bare(self, queue: str, receive: Receive, send: Send, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer a send."""
        try:
            status, body = 200, await self._sent(queue, await read_body(receive))
        except Exception as error:
            refusal = error_response(error)
            status, body = refusal.status_code, bytes(refusal.body)
        await answer(send, status, body, headers)

    async def send_routed(self, request: Request) -> Response:
        """A send that came by the router: it shows no key that would do, and its guard says so."""
        return Response(await self._sent(request.path_params["queue"], await request.body()), 200, None, "application/json")

    async def _sent(self, queue: str, body: bytes) -> bytes:
        """Store messages, all or none. Ids that come with them make a repeated request the same."""
        try:
            told = _send.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f'the body must be like {{"messages": [{{"body": …}}]}}: {error}') from None
        messages = [self._new(new) for new in told.messages]
        ids = [message.id for message in messages if message.id]
        if len(set(ids)) < len(ids):
            raise ProtocolError(f"the message id {max(ids, key=ids.count)!r} is there twice: each message needs its own")
        sent = await send_messages(self._node, queue, messages)
        listed = '","'.join(sent.ids).encode()
        return b'{"backlog":{"bytes":%d,"messages":%d},"ids":["%s"]}' % (sent.before.bytes, sent.before.messages, listed)

    def _new(self, new: _New) -> NewMessage:
        if new.id and not is_message_id(new.id):
            raise ProtocolError(f"the message id {new.id!r:.50} must have 32 hex digits")
        return NewMessage(
            id=new.id, body=body_of(bytes(new.body), new.content_type), content_type=content_type(new.content_type), delay_ms=new.delay_ms
        )

    # Cloudflare's shapes.

    async def publish(self, request: Request) -> Any:
        """One message."""
        await send_messages(self._node, request.path_params["queue"], [published(await fields_or_none(request), None)])
        return None

    async def publish_batch(self, request: Request) -> Any:
        """Several messages, all or none."""
        body = await fields_or_none(request)
        told = body.get("messages")
        if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
            raise ProtocolError('messages must be an array of objects, like {"messages": [{"body": …}]}')
        await send_messages(self._node, request.path_params["queue"], [published(one, body.get("delay_seconds")) for one in told])
        return None

    async def pull(self, request: Request) -> Any:
        """Take messages for a time."""
        body = await fields_or_none(request)
        queue = checked_name(request.path_params["queue"])
        size = whole_of(body, "batch_size", PULL_SIZE_DEFAULT, 1, BATCH_SIZE_MAX)
        told = body.get("visibility_timeout_ms") is not None
        visibility_ms = whole_of(body, "visibility_timeout_ms", 0, 0, VISIBILITY_MS_MAX) if told else None
        pulled: Pulled = await self._node.submit(MessagesPulled(queue, size, visibility_ms))
        return {"message_backlog_count": pulled.backlog, "messages": [shown(message) for message in pulled.messages]}

    async def ack(self, request: Request) -> Any:
        """Settle pulled messages by their leases; those of leases that are over are named, and nothing happens to them."""
        body = await fields_or_none(request)
        acks = [lease_in(one) for one in listed(body, "acks")]
        retries = [(lease_in(one), delay_of(one.get("delay_seconds"))) for one in listed(body, "retries")]
        if len(acks) + len(retries) > BATCH_SIZE_MAX:
            raise ProtocolError(f"{len(acks) + len(retries)} leases; at most {BATCH_SIZE_MAX} are taken at once")
        queue = checked_name(request.path_params["queue"])
        answer: LeasesAnswered = await self._node.submit(LeasesSettled(queue, tuple(acks), tuple(retries)))
        warnings = [f"the lease {lease} is over: its message was delivered again or is settled" for lease in answer.stale]
        return {"ackCount": answer.acked, "retryCount": answer.retried, "warnings": warnings}


async def send_messages(node: Node, queue: str, messages: list[NewMessage]) -> Sent:
    """Check the bounds and submit; those without an id get one. Raises `ProtocolError`; nothing is stored then."""
    checked_name(queue)
    if not 1 <= len(messages) <= SEND_MESSAGES_MAX:
        raise ProtocolError(f"{len(messages)} messages for queue {queue!r}; from 1 to {SEND_MESSAGES_MAX} are taken at once")
    for message in messages:
        if len(message.body) > MESSAGE_BYTES_MAX:
            raise ProtocolError(f"a message for queue {queue!r} has {len(message.body)} bytes; at most {MESSAGE_BYTES_MAX} are taken", 413)
        if not 0 <= message.delay_ms <= DELAY_MS_MAX:
            raise ProtocolError(f"a message for queue {queue!r} has a delay of {message.delay_ms} ms; it may be 0 to {DELAY_S_MAX} s")
    if (size := sum(len(message.body) for message in messages)) > SEND_BYTES_MAX:
        raise ProtocolError(f"messages for queue {queue!r} have {size} bytes in all; at most {SEND_BYTES_MAX} are taken at once", 413)
    base = (node.clock.now_ms() << 80) | int.from_bytes(node.clock.entropy(10), "big")
    fresh = [
        message if message.id else msgspec.structs.replace(message, id=message_id((base >> 80 << 80) | ((base + n) % ENTROPY)))
        for n, message in enumerate(messages)
    ]
    sent: Sent = await node.submit(MessagesSent(queue, tuple(fresh), fresh=True))
    return sent


def resulting(handler: Callable[[Request], Awaitable[Any]]) -> Handler:
    """A route that answers with what its handler gives, shaped as Cloudflare's API shapes all answers."""

    async def answered(request: Request) -> Response:
        return json_response({"success": True, "errors": [], "messages": [], "result": await handler(request)})

    return answered


def enveloped(handler: Handler) -> Handler:
    """A route whose refusals have the same shape, be they for want of a key."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except Error as error:
            status = status_of(error)
            told = [{"code": status, "message": str(error)}]
            return json_response({"success": False, "errors": told, "messages": [], "result": None}, status)

    return answered


def published(told: dict[str, Any], delay_s: Any) -> NewMessage:
    """A message as the publish API takes it: its own delay, else that of the call."""
    if "body" not in told:
        raise ProtocolError('a message needs a body: {"body": …}')
    kind = content_type(told.get("content_type", "json"))
    own = told.get("delay_seconds")
    return NewMessage(
        id="", body=body_of(msgspec.json.encode(told["body"]), kind), content_type=kind, delay_ms=delay_of(delay_s if own is None else own)
    )


def body_of(raw: bytes, kind: str) -> bytes:
    """A body as it is stored, from the JSON that tells it: canonical JSON, a text's UTF-8, or the bytes behind base64."""
    if not raw:
        raise ProtocolError('a message needs a body: {"body": …}')
    if content_type(kind) == "json":
        return canonicalize(raw)
    value = decode(raw)
    if not isinstance(value, str):
        raise ProtocolError(f'a body of content type "{kind}" must be a string, not {value!r:.60}')
    if kind == "text":
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ProtocolError(f'a body of content type "bytes" must be base64 text: {error}') from None


def content_type(value: Any) -> ContentType:
    """The content type. Raises `ProtocolError` for one that is none."""
    if value not in CONTENT_TYPES:
        raise ProtocolError(f"content type {value!r:.40} is none of {', '.join(CONTENT_TYPES)}")
    return value  # type: ignore[no-any-return]


def shown(message: Message) -> dict[str, Any]:
    """A pulled message: bodies of JSON and bytes as base64 text."""
    body = message.body.decode() if message.content_type == "text" else base64.b64encode(message.body).decode()
    return {
        "id": message.id,
        "timestamp_ms": message.sent_ms,
        "body": body,
        "attempts": message.attempts,
        "lease_id": lease_of(message),
        "metadata": {"CF-Content-Type": message.content_type},
    }


def listed(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A field that is a list of objects, if it is there."""
    value = [] if body.get(name) is None else body[name]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ProtocolError(f"{name} must be an array of objects with a lease_id")
    return value


def lease_in(told: dict[str, Any]) -> str:
    """The lease of an ack or a retry."""
    lease = told.get("lease_id")
    if not isinstance(lease, str) or not lease:
        raise ProtocolError(f"lease_id is {lease!r}; it must be the text that came with the message")
    return lease


def delay_of(seconds: Any) -> int:
    """A delay in seconds as milliseconds. Raises `ProtocolError`."""
    if seconds is None:
        return 0
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= DELAY_S_MAX:
        raise ProtocolError(f"delay_seconds is {seconds!r}; it must be a number from 0 to {DELAY_S_MAX}")
    return int(seconds * 1000)


def whole_of(body: dict[str, Any], name: str, default: int, at_least: int, at_most: int) -> int:
    """A whole number in a body. Raises `ProtocolError`."""
    value = default if body.get(name) is None else body[name]
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
        raise ProtocolError(f"{name} is {value!r}; it must be a whole number from {at_least} to {at_most}")
    return value
