"""A queue as a Worker sends to it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from stepwell.protocol.queues import CONTENT_TYPES, DELAY_S_MAX
from stepwell.workers.batch import DELAY_MAX, DELAY_MIN
from stepwell.workers.bindings.calling import begins, number_of, options_of
from stepwell.workers.errors import BindingError
from stepwell.workers.rpc import Record, python_to_rpc

if TYPE_CHECKING:
    from stepwell.sdk.app import App

_KINDS = {bool: "boolean", int: "number", float: "number", str: "string"}
_MISSING: Any = object()


class Queue:
    """A queue. A message is durable when `send` returns."""

    def __init__(self, app: App, name: str, delivery_delay_s: int = 0) -> None:
        self._app, self._name, self._delay_s = app, name, delivery_delay_s

    @begins
    async def send(self, body: Any = _MISSING, options: Any = None, **named: Any) -> Record:
        """Send a message, as `contentType` says (`json`, `text`, `bytes`), to be delivered after `delaySeconds`."""
        if body is _MISSING:
            raise TypeError("Message body cannot be undefined")
        return await self._send([self._wire(body, options_of(options, named), self._delay_s)])

    @begins
    async def sendBatch(self, messages: Iterable[Any], options: Any = None, **named: Any) -> Record:
        """Send messages, all or none: dicts with `body`, and perhaps `contentType` and `delaySeconds` of their own."""
        chosen = options_of(options, named)
        delay = chosen.get("delaySeconds", self._delay_s)
        wires = []
        for one in messages:
            if not isinstance(one, dict) or "body" not in one:
                raise TypeError(f'sendBatch() takes messages like {{"body": …}}, not {one!r:.60}')
            wires.append(self._wire(one["body"], one, delay))
        if not wires:
            raise TypeError("sendBatch() requires at least one message")
        return await self._send(wires)

    def _wire(self, body: Any, chosen: dict[str, Any], delay: Any) -> dict[str, Any]:
        kind = chosen.get("contentType") or "json"
        return {"body": _body(body, kind), "content_type": kind, "delay_ms": _delay_ms(chosen.get("delaySeconds", delay))}

    async def _send(self, wires: list[dict[str, Any]]) -> Record:
        path = f"/queues/{quote(self._name, safe='')}/messages"
        data = json.dumps({"messages": wires}, ensure_ascii=False).encode("utf-8", "replace")
        status, answer = await self._app.way.ask("POST", path, data, once=True)
        told = json.loads(answer)
        if status >= 300:
            raise BindingError(str(told.get("error")))
        before = told["backlog"]
        return Record(metadata=Record(metrics=Record(backlogCount=before["messages"], backlogBytes=before["bytes"])))

    def __repr__(self) -> str:
        return f"<queue {self._name}>"


def _body(body: Any, kind: str) -> Any:
    """A body as the server takes it."""
    shown = _KINDS.get(type(body), "object")
    match kind:
        case "json":
            return _json(python_to_rpc(body))
        case "text":
            if not isinstance(body, str):
                raise TypeError(f'Content Type "text" requires a value of type string, but received: {shown}')
            return body
        case "bytes":
            if not isinstance(body, bytes | bytearray | memoryview):
                raise TypeError(f'Content Type "bytes" requires a value of type ArrayBufferView, but received: {shown}')
            return base64.b64encode(body).decode()
        case "v8":
            raise TypeError(f'Content Type "v8" is a form that only JavaScript has: send {" or ".join(CONTENT_TYPES)}')
    raise TypeError(f"Unsupported queue message content type: {kind}")


def _json(value: Any) -> Any:
    """A value as `JSON.stringify` writes it."""
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        return {str(place): byte for place, byte in enumerate(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {}


def _delay_ms(seconds: Any) -> int:
    """Whole seconds. Raises as the platform does for what is out of bounds."""
    number = number_of(seconds)
    if math.isnan(number):
        number = 0.0
    if not DELAY_MIN <= number <= DELAY_MAX:
        raise TypeError(f"Value out of range. Must be between {DELAY_MIN} and {DELAY_MAX} (inclusive).")
    if not 0 <= int(number) <= DELAY_S_MAX:
        raise BindingError(f"delaySeconds is {cast(object, seconds)!r}; it must be from 0 to {DELAY_S_MAX}")
    return int(number) * 1000
