"""HTTP for a Worker's `fetch`: requests of clients and of other projects, and ticks by hand, as an ASGI application.

What a handler raises is answered with its traceback: this is a server for development.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import logging
import traceback
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from stepwell.protocol.codec import canonical
from stepwell.workers import wire
from stepwell.workers.bindings.calling import paid
from stepwell.workers.bindings.service import ENTRYPOINT, RPC, TOKEN, URL
from stepwell.workers.entrypoints import Worker
from stepwell.workers.limits import LimitExceeded
from stepwell.workers.web.content import NULL_BODY, content_of, headers_of
from stepwell.workers.web.request import Request, incoming
from stepwell.workers.web.response import FetchResponse

log = logging.getLogger("stepwell.workers")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fire = Callable[[str, int | None], Awaitable[dict[str, Any]]]
"""Fires the `scheduled` handler, given a line and a time; gives its report."""
SCHEDULED = ("/cdn-cgi/handler/scheduled", "/cdn-cgi/local/scheduled", "/__scheduled")
"""Where a tick is fired by hand: newer, newest and oldest tools ask at one each."""
_OWN = (TOKEN, ENTRYPOINT, URL)


class Serving:
    """The application."""

    def __init__(self, worker: Worker, fire: Fire, token: str) -> None:
        self._worker, self._fire, self._token = worker, fire, token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        named = dict(headers)
        is_ours = self._token != "" and hmac.compare_digest(named.get(TOKEN, "").encode(), self._token.encode())
        if scope["path"] in SCHEDULED:
            await self._scheduled(scope, send)
        elif is_ours and scope["path"] == RPC:
            await self._call(receive, send)
        else:
            entrypoint = named.get(ENTRYPOINT, "Default") if is_ours else "Default"
            url = named[URL] if is_ours and URL in named else _url(scope, named)
            if is_ours:
                headers = [(name, value) for name, value in headers if name not in _OWN]
            elif scope.get("client") and "cf-connecting-ip" not in named:
                headers.append(("cf-connecting-ip", scope["client"][0]))
            client = _Client(receive)
            body = client.chunks() if _has_body(named) else None
            await self._fetch(incoming(scope["method"], url, headers, body), entrypoint, client, send)

    async def _fetch(self, request: Request, entrypoint: str, client: _Client, send: Send) -> None:
        head = str(request.method) == "HEAD"
        try:
            response = await self._worker.call_fetch(request, entrypoint)
            await paid()
        except LimitExceeded as error:
            log.error("%s", error)
            await _plain(send, 503, f"{error}\n", head=head)
        except Exception as error:
            log.error("fetch of %s %s failed: %s: %s", request.method, request.url, type(error).__name__, error, exc_info=error)
            await _plain(send, 500, "".join(traceback.format_exception(error)), head=head)
        else:
            await _answer(send, response, client, head=head)

    async def _scheduled(self, scope: Message, send: Send) -> None:
        """A tick: `cron` is any text, `time` is in milliseconds."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        try:
            at_ms = int(float(query["time"])) if "time" in query else None
        except (ValueError, OverflowError):
            await _plain(send, 500, "TypeError: The value cannot be converted because it is not a valid Date.")
            return
        report = await self._fire(query.get("cron", ""), at_ms)
        status = 200 if report["outcome"] == "ok" else 500
        if query.get("format") == "json":
            await _plain(send, status, canonical(report).decode(), kind="application/json")
        else:
            await _plain(send, status, report["outcome"])

    async def _call(self, receive: Receive, send: Send) -> None:
        """A call of a method by another project."""
        body = b"".join([chunk async for chunk in _Client(receive).chunks()])
        try:
            call = wire.decode_call(body)
            value = await self._worker.call_method(call.method, call.args, call.kwargs, call.entrypoint)
            await paid()
            answer = await wire.encode(wire.Outcome(value))
        except (Exception, LimitExceeded) as error:
            answer = await wire.encode(wire.Outcome(error=(type(error).__name__, str(error))))
        await _whole(send, 200, [("content-type", "application/vnd.msgpack")], answer)


def _url(scope: Message, named: dict[str, str]) -> str:
    """The address that a client asked for."""
    host = named.get("host")
    if host is None:
        name, port = scope["server"]
        host = f"{name}:{port}"
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    return f"{scope['scheme']}://{host}{path.decode('latin-1')}{'?' + query.decode('latin-1') if query else ''}"


def _has_body(named: dict[str, str]) -> bool:
    return "transfer-encoding" in named or named.get("content-length", "0") != "0"


class _Client:
    """Who has sent a request: the parts of its body, and whether somebody still waits for the response."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._reads = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The parts of the body."""
        self._reads = True
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise OSError("the client has gone before its request was read")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                self._reads = False
                return

    async def gone(self) -> None:
        """Returns when nobody waits any more. While the body is being read it does not: whoever reads it is told."""
        while not self._reads:
            if (await self._receive())["type"] == "http.disconnect":
                return
        await asyncio.get_running_loop().create_future()


async def _answer(send: Send, response: FetchResponse, client: _Client, *, head: bool) -> None:
    """A response: whole, or chunk by chunk as it comes, for as long as somebody takes it."""
    headers, body = headers_of(response).copy(), content_of(response)
    headers.delete("transfer-encoding")
    encode = _encoder(headers.get("content-encoding")) if response.encode_body == "automatic" else None
    if encode is None and response.encode_body == "automatic":
        headers.delete("content-encoding")
    pairs = [(name, value) for name, value in headers if name != "content-length"]
    if body.is_empty or response.status in NULL_BODY or head:
        await body.discard()
        length = headers.get("content-length") if head else None
        await _whole(send, response.status, pairs, b"", length=length or ("0" if response.status not in NULL_BODY and not head else None))
        return
    whole = body.whole
    if whole is not None:
        await _whole(send, response.status, pairs, whole if encode is None else encode(whole))
        return
    stream = body.stream
    assert stream is not None
    await send({"type": "http.response.start", "status": response.status, "headers": _raw(pairs)})
    packer = None if encode is None else _packer(headers.get("content-encoding"))
    chunks, gone = aiter(stream), asyncio.ensure_future(client.gone())
    try:
        while True:
            coming = asyncio.ensure_future(_next(chunks))
            await asyncio.wait({coming, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
                return
            if (chunk := coming.result()) is None:
                break
            part = bytes(chunk) if packer is None else packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH)
            await send({"type": "http.response.body", "body": part, "more_body": True})
    finally:
        gone.cancel()
        await _close(chunks)
    await send({"type": "http.response.body", "body": b"" if packer is None else packer.flush()})


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        return None


async def _close(chunks: AsyncIterator[bytes]) -> None:
    """Let the source of a stream clean up, whoever has left."""
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()


def _encoder(name: str | None) -> Callable[[bytes], bytes] | None:
    """What compresses a body whose headers say that it is compressed; `None` where nothing here does, and it is sent as it is."""
    if name == "gzip":
        return gzip.compress
    return zlib.compress if name == "deflate" else None


def _packer(name: str | None) -> Any:
    return zlib.compressobj(wbits=31 if name == "gzip" else 15)


async def _plain(send: Send, status: int, text: str, *, kind: str = "text/plain;charset=UTF-8", head: bool = False) -> None:
    body = text.encode("utf-8", "replace")
    await _whole(send, status, [("content-type", kind)], b"" if head else body, length=str(len(body)))


async def _whole(send: Send, status: int, headers: list[tuple[str, str]], body: bytes, *, length: str | None = "") -> None:
    told = str(len(body)) if length == "" else length
    pairs = [*headers, *([("content-length", told)] if told is not None else [])]
    await send({"type": "http.response.start", "status": status, "headers": _raw(pairs)})
    await send({"type": "http.response.body", "body": body})


def _raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1", "replace"), value.encode("utf-8", "replace")) for name, value in headers]
