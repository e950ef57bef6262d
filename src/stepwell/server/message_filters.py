"""Which messages of a queue are meant: by their ids, or by a condition over what they are, looked at a page at a time."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from stepwell.engine.expression import Expression, compile_expression
from stepwell.engine.model_primitives import Message
from stepwell.errors import ExpressionError, ProtocolError
from stepwell.primitives.queue_care import place_of
from stepwell.protocol.codec import decode
from stepwell.protocol.queues import is_message_id
from stepwell.store.base import Reader

MESSAGES_AT_ONCE = 100
"""Messages that are read, and that one input names, at a time."""

LOOKED_MAX = 1_000
"""Messages that one request looks at; its answer says where the next one goes on."""

_PLACE = re.compile(r"([0-9]{1,15})\.([0-9a-f]{32})")


def cursor_of(message: Message) -> str:
    """Where a list goes on behind a message, as answers tell it."""
    return place_of(message).replace(" ", ".")


def place_in(cursor: str) -> str:
    """The place that a cursor names. Raises `ProtocolError`."""
    if cursor and not _PLACE.fullmatch(cursor):
        raise ProtocolError(f"cursor {cursor!r:.80} is none: take it from the answer before")
    return cursor.replace(".", " ")


def compiled(where: object) -> Expression:
    """A condition. Raises `ProtocolError` with an example."""
    if not isinstance(where, str) or not where.strip():
        raise ProtocolError(f"where is {where!r:.80}; it must be an expression like message.body.tenant == 'acme'")
    try:
        return compile_expression(where, ("message",))
    except ExpressionError as error:
        raise ProtocolError(f"where: {error}") from None


def ids_in(told: object) -> tuple[str, ...]:
    """The ids that a request names. Raises `ProtocolError`."""
    if not isinstance(told, list) or not all(isinstance(one, str) and is_message_id(one) for one in told):
        raise ProtocolError("ids must be an array of messages' ids, of 32 hex digits each")
    if not 1 <= len(told) <= MESSAGES_AT_ONCE:
        raise ProtocolError(f"{len(told)} ids; from 1 to {MESSAGES_AT_ONCE} are taken at once")
    return tuple(told)


def body_value(message: Message) -> Any:
    """A body as a value: what JSON says, a text, or bytes as base64 text."""
    match message.content_type:
        case "json":
            return decode(message.body)
        case "text":
            return message.body.decode()
        case "bytes":
            return base64.b64encode(message.body).decode()


def shown_message(message: Message) -> dict[str, Any]:
    """A message as people see it, and as conditions are asked of it."""
    return {
        "id": message.id,
        "queue": message.queue,
        "body": body_value(message),
        "content_type": message.content_type,
        "bytes": len(message.body),
        "sent_ms": message.sent_ms,
        "ready_ms": message.ready_ms,
        "attempts": message.attempts,
        "pulled": message.pulled,
        "out": message.delivery,
        "dead_of": message.dead_of,
        "error": None if message.error is None else decode(message.error),
    }


class Page(msgspec.Struct):
    """Messages that were looked at, those of them that are meant, and the cursor behind them (`None`: there are no more)."""

    looked: int
    meant: list[Message]
    cursor: str | None


async def pages(reader: Reader, queue: str, where: Expression | None, cursor: str, now_ms: int, looked_max: int) -> AsyncIterator[Page]:
    """The queue from a cursor on, page by page: until its end, or until so many messages were looked at."""
    looked, place = 0, place_in(cursor)
    while looked < looked_max:
        size = min(MESSAGES_AT_ONCE, looked_max - looked)
        found = await reader.queue_messages(queue, size, place)
        looked += len(found)
        meant = [one for one in found if where is None or where.is_true({"message": shown_message(one)}, now_ms=now_ms)]
        if found:
            place = place_of(found[-1])
        yield Page(len(found), meant, cursor_of(found[-1]) if len(found) == size else None)
        if len(found) < size:
            return
