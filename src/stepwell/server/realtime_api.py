"""Realtime over HTTP: tokens, publishing, and subscriptions by WebSocket and by server-sent events (inngest-protocol §5.11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from stepwell.errors import ProtocolError
from stepwell.protocol.ids import is_ulid
from stepwell.protocol.realtime import (
    MESSAGE_BYTES_MAX,
    PING,
    PONG,
    REQUEST_BYTES_MAX,
    RUN_TOPIC,
    STREAM_TOPIC,
    TEE_BYTES_MAX,
    TOPICS_PER_PUBLISH_MAX,
    Asked,
    Message,
    Topic,
    checked_name,
    data_of,
    encode_message,
    json_data,
    parse_asked,
    parse_topics,
)
from stepwell.runtime.hub import Parcel, Subscription
from stepwell.runtime.node import Node
from stepwell.server.auth import Keys
from stepwell.server.http import Guard, Receive, Scope, Send, error_response, json_response, read_body
from stepwell.server.realtime_tokens import TTL_MAX_S, TTL_S, Tokens

PING_S = 25.0
"""How often a silent connection hears of us, so that nothing between takes it for dead."""
SSE_MAX_S = 15 * 60.0
"""How long a stream of server-sent events lasts; the client connects again."""
FLUSH_S = 10.0
"""How long a subscriber that was dropped has to read what was queued for it."""
METADATA_BYTES_MAX = 16 * 1024
MISUSED, TRY_LATER = 1008, 1013
"""Codes that a WebSocket is closed with: the subscriber broke the protocol; it was too slow, or the server stops."""
REASON_BYTES_MAX = 123
"""What a WebSocket's close frame has room for."""
STREAM_TYPE = "text/stream"

SendParcel = Callable[[Parcel], Awaitable[None]]


class RealtimeApi:
    """The routes over a node."""

    def __init__(self, node: Node, keys: Keys, tokens: Tokens) -> None:
        self._node, self._realtime, self._keys, self._tokens = node, node.realtime, keys, tokens

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key, where one is needed."""
        return [
            Route("/v1/realtime/token", guard(self.token), methods=["POST"]),
            Route("/v1/realtime/publish", self.publish, methods=["POST"]),
            Route("/v1/realtime/publish/tee", self.tee, methods=["POST"]),
            Route("/v1/realtime/sse", self.sse),
            WebSocketRoute("/v1/realtime/connect", self.connect),
        ]

    async def token(self, request: Request) -> Response:
        """A token for topics: to read them, or, asked for by `{"publish": true, "topics": […]}`, to publish to them."""
        body = await read_body(request.receive, REQUEST_BYTES_MAX)
        try:
            asked = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"the body is no JSON: {error}") from None
        if not isinstance(asked, dict):
            return json_response({"jwt": self._tokens.make(parse_topics(asked))}, 201)
        publish, ttl_s = asked.get("publish", False), asked.get("ttl", TTL_S)
        if not isinstance(publish, bool):
            raise ProtocolError(f"publish is {publish!r}; it must be true or false")
        if not isinstance(ttl_s, int) or isinstance(ttl_s, bool) or not 1 <= ttl_s <= TTL_MAX_S:
            raise ProtocolError(f"ttl is {ttl_s!r}; it must be a whole number of seconds from 1 to {TTL_MAX_S}")
        topics = () if publish and not asked.get("topics") else parse_topics(asked.get("topics"))
        return json_response({"jwt": self._tokens.make(topics, publish=publish, ttl_s=ttl_s)}, 201)

    # Publishing.

    async def publish(self, request: Request) -> Response:
        """Send the body to whoever listens; `text/stream` is sent on part by part as it comes."""
        query = request.query_params
        channel = checked_name(query.get("channel"), "channel")
        names = tuple(dict.fromkeys(checked_name(name, "topic", publishes=True) for name in query.getlist("topic")))
        if not names:
            raise ProtocolError("the topic is missing: say it as ?channel=…&topic=…")
        if len(names) > TOPICS_PER_PUBLISH_MAX:
            raise ProtocolError(f"{len(names)} topics are named; a message goes to at most {TOPICS_PER_PUBLISH_MAX} at once")
        self._check(request, channel, names)
        run_id, metadata = query.get("run_id", ""), metadata_of(query.get("metadata"))
        if run_id and not is_ulid(run_id):
            raise ProtocolError(f"run_id is {run_id!r}, which is no run id")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == STREAM_TYPE:
            stream = self._realtime.stream(channel, names, run_id=run_id, metadata=metadata)
            try:
                async for part in parts(request.receive):
                    stream.write(part)
            finally:
                stream.close()
        else:
            data = data_of(await read_body(request.receive, MESSAGE_BYTES_MAX))
            self._realtime.publish(channel, names, data, run_id=run_id, metadata=metadata)
        return Response(status_code=200)

    async def tee(self, request: Request) -> Response:
        """Forward the body's bytes, as they come, to whoever listens to the channel's stream."""
        channel = checked_name(request.query_params.get("channel"), "channel")
        self._check(request, channel, (STREAM_TOPIC,))
        size = 0
        async for part in parts(request.receive):
            size += len(part)
            if size > TEE_BYTES_MAX:
                raise ProtocolError(f"more than {TEE_BYTES_MAX} bytes were sent; what came before was forwarded", 413)
            self._realtime.tee(channel, part)
        return Response(status_code=200)

    def _check(self, request: Request, channel: str, names: tuple[str, ...]) -> None:
        """Whether the request may publish: by the signing key, or by a token for it. Raises `ProtocolError`."""
        authorization = request.headers.get("authorization")
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and presented.count(".") == 2:
            claims = self._tokens.claims(presented.strip())
            if not claims.publish:
                raise ProtocolError("the token is for subscribing; publishing needs the signing key, or a token with publish", 403)
            if not claims.lets_publish(channel, names):
                raise ProtocolError(f"the token does not let one publish to {', '.join(names)} of the channel {channel!r}", 403)
        elif not self._keys.takes_signing_key(authorization):
            raise ProtocolError("publishing needs the signing key, or a token with publish: send it as Authorization: Bearer …", 401)

    # Subscribing.

    async def connect(self, socket: WebSocket) -> None:
        """A subscription by WebSocket: JSON text messages, until either side closes it."""
        try:
            topics = self._tokens.topics(socket.query_params.get("token"))
            subscription = self._realtime.subscribe(topics)
        except ProtocolError as error:
            await socket.send_denial_response(error_response(error))
            return
        try:
            await socket.accept()
            await self._greet(subscription, topics)

            async def send(parcel: Parcel) -> None:
                await (socket.send_bytes(parcel.body) if parcel.raw else socket.send_text(parcel.text))

            misused = False

            async def listen() -> None:
                nonlocal misused
                while (message := await socket.receive())["type"] != "websocket.disconnect":
                    try:
                        await self._do(subscription, parse_asked(message.get("text") or message.get("bytes") or b""))
                    except ProtocolError as error:
                        misused = True
                        subscription.close(str(error))
                        return

            if await carry(subscription, send, listen(), Parcel(PING)):
                code = MISUSED if misused else TRY_LATER if subscription.reason else 1000
                await socket.close(code, subscription.reason.encode()[:REASON_BYTES_MAX].decode("utf-8", "ignore"))
        except (WebSocketDisconnect, RuntimeError):
            return  # the other side has gone meanwhile
        finally:
            subscription.close()

    async def _do(self, subscription: Subscription, asked: Asked) -> None:
        match asked.kind:
            case "sub":
                topics = self._tokens.topics(asked.data if isinstance(asked.data, str) else None)
                self._realtime.add(subscription, topics)
                await self._greet(subscription, topics)
            case "unsub":
                topics = parse_topics(asked.data)
                subscription.remove(topics)
            case "ping":
                subscription.put(Parcel(PONG))
                return
            case "pong":
                return
            case _:
                raise ProtocolError(f"a subscriber sends sub, unsub and ping, and not {asked.kind}")
        told = json_data([topic.wire() for topic in subscription.topics])
        subscription.put(Parcel(encode_message(Message(kind=asked.kind, data=told))))

    async def _greet(self, subscription: Subscription, topics: Iterable[Topic]) -> None:
        """Tell how the runs stand that somebody has begun to listen to."""
        for topic in topics:
            if topic.name == RUN_TOPIC and is_ulid(topic.channel):
                await self._realtime.greet(subscription, topic.channel, self._node.reader.run)

    async def sse(self, request: Request) -> Response:
        """A subscription by server-sent events, for a quarter of an hour at most."""
        topics = self._tokens.topics(request.query_params.get("token"))
        subscription = self._realtime.subscribe(topics)
        try:
            await self._greet(subscription, topics)
        except BaseException:
            subscription.close()
            raise
        return _Events(subscription)


class _Events(Response):
    """A subscription as the body of an answer."""

    media_type = "text/event-stream"

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send parcels as they come."""

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def send_parcel(parcel: Parcel) -> None:
            body = parcel.body if parcel.raw else b"data: " + parcel.body + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})

        over = f"a stream of server-sent events ends after {SSE_MAX_S / 60:g} minutes: connect again"
        end = asyncio.get_running_loop().call_later(SSE_MAX_S, self._subscription.close, over)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b": connected\n\n", "more_body": True})
            if await carry(self._subscription, send_parcel, gone(), Parcel(b": ping\n\n", raw=True)):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            end.cancel()
            self._subscription.close()


async def carry(subscription: Subscription, send: SendParcel, listen: Coroutine[Any, Any, None], ping: Parcel) -> bool:
    """Send what comes for a subscriber until it is closed, or `listen` ends. Says whether all was sent: else the other side has gone.

    A subscription that is closed while its reader does not read is given up after `FLUSH_S`.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    async def pump() -> None:
        while (parcel := await subscription.next()) is not None:
            await send(parcel)

    def tick() -> None:
        nonlocal timer
        if not subscription.waiting:
            subscription.put(ping)
        timer = loop.call_later(PING_S, tick)

    sending, listening = loop.create_task(pump()), loop.create_task(listen)
    timer = loop.call_later(PING_S, tick)
    cuts: list[asyncio.TimerHandle] = []
    subscription.on_closed = lambda: cuts.append(loop.call_later(FLUSH_S, sending.cancel))
    if subscription.closed:
        subscription.on_closed()
    try:
        await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
        if subscription.closed:
            await asyncio.wait((sending,))
        return sending.done() and not sending.cancelled() and sending.exception() is None
    finally:
        timer.cancel()
        subscription.close()
        for cut in cuts:
            cut.cancel()
        for task in (sending, listening):
            task.cancel()
        await asyncio.gather(sending, listening, return_exceptions=True)


async def parts(receive: Receive) -> AsyncIterator[bytes]:
    """The parts of a request's body as they come, until its end or the client's."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if body := message.get("body"):
            yield body
        if not message.get("more_body"):
            return


def metadata_of(text: str | None) -> Raw | UnsetType:
    """What goes along with a message: JSON, or a text. Raises `ProtocolError` where it is too long."""
    if text is None:
        return UNSET
    if len(text) > METADATA_BYTES_MAX:
        raise ProtocolError(f"the metadata has {len(text)} characters; at most {METADATA_BYTES_MAX} are taken")
    return data_of(text.encode())
