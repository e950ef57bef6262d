"""`POST /e/{key}`: events in, bare ASGI, since every event comes this way (inngest-protocol §2)."""

from __future__ import annotations

from stepwell.errors import Error, ProtocolError
from stepwell.protocol.codec import canonical
from stepwell.protocol.events import EVENT_BYTES_MAX, parse_events
from stepwell.protocol.ids import numbered_ulids, seeded_ulid
from stepwell.runtime.backlog import RETRY_AFTER_S
from stepwell.runtime.node import Node
from stepwell.server.auth import Keys
from stepwell.server.http import Receive, Scope, Send, answer, read_body, status_of

SEED_HEADER = b"x-inngest-event-id-seed"


class Ingest:
    """Takes events for a node. A server in cloud mode that has no event keys takes none."""

    def __init__(self, node: Node, keys: Keys, kind: str, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._node, self._keys, self._kind, self._event_bytes_max = node, keys, kind, event_bytes_max
        self._headers = [(b"x-inngest-server-kind", kind.encode()), (b"access-control-allow-origin", b"*")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: the ids of what was stored, and the error of the first event that was refused."""
        status, body = await self._take(scope, receive)
        later = [(b"retry-after", b"%d" % RETRY_AFTER_S)] if status == 429 else []
        await answer(send, status, body, [*self._headers, *later])

    async def _take(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        if self._kind == "cloud" and not self._keys.event_keys:
            return 503, b'{"error":"This server has no event keys, and takes no events: start it with --event-key","status":503}'
        key = scope["path"][3:].strip("/")
        if not self._keys.takes_event_key(key):
            return 401, b'{"error":"Event key not found","status":401}'
        ids: tuple[str, ...] = ()
        try:
            body = await read_body(receive)
            ids, error = await self.take(body, seed_of(scope))
            if error is not None:
                raise error
        except Error as error:
            status = status_of(error)
            return status, canonical({"ids": list(ids), "status": status, "error": str(error)})
        return 200, b'{"ids":["%s"],"status":200}' % '","'.join(ids).encode() if ids else b'{"ids":[],"status":200}'

    async def take(self, body: bytes, seed: str | None) -> tuple[tuple[str, ...], ProtocolError | None]:
        """Store the events of a body, up to the first bad one: their ids, durable, and what is wrong with that one."""
        clock = self._node.clock
        now_ms = clock.now_ms()
        fresh_id = numbered_ulids(now_ms, clock.entropy(10))

        def new_id(n: int) -> str:
            return (seed and seeded_ulid(seed, n)) or fresh_id(n)

        parsed = parse_events(body, received_ms=now_ms, new_id=new_id, event_bytes_max=self._event_bytes_max)
        self._node.backlog.admit(parsed.events)
        ids = await self._node.send(parsed.events, fresh=seed is None) if parsed.events else ()
        return ids, parsed.error


def seed_of(scope: Scope) -> str | None:
    """The request's id seed, which makes a repeated send the same send (§2.4)."""
    for name, value in scope["headers"]:
        if name == SEED_HEADER:
            return str(value.decode("latin-1"))
    return None
