"""The SDK's own requests to a server: events, registration, large payloads. Network errors and 5xx are tried again."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from stepwell.errors import CallError, ProtocolError
from stepwell.net.http_client import Pool, Response
from stepwell.protocol.codec import Json, decode
from stepwell.sdk.keys import SigningKeys

TRIES_MAX = 5
BACKOFF_S = 0.1
TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""State fetched through the API may be large."""

_pools: dict[asyncio.AbstractEventLoop, Pool] = {}


async def send_events(server: str, key: str, body: Json) -> list[str]:
    """Send events. All tries carry the same seed, so that the server knows a repeated one. Raises `ProtocolError`, `CallError`."""
    seed = f"{time.time_ns() // 10**6},{base64.b64encode(os.urandom(10)).decode()}"
    headers = {"content-type": "application/json", "x-inngest-event-id-seed": seed}
    response = await request("POST", f"{server}/e/{quote(key, safe='')}", headers=headers, body=body)
    answer = _object(response)
    if response.status != 200 or answer.get("error"):
        raise ProtocolError(f"the server refused the events: {answer.get('error') or response.status}", response.status)
    return [str(id) for id in answer.get("ids", ())]


async def request(method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"", tries: int = TRIES_MAX) -> Response:
    """One request, tried again on network errors and 5xx, with growing waits. Raises `CallError` after the last."""
    for n in range(tries):
        last = n == tries - 1
        try:
            response = await _pool().request(method, url, headers=headers, body=body, timeout_s=TIMEOUT_S)
        except CallError:
            if last:
                raise
        else:
            if response.status < 500 or last:
                return response
        await asyncio.sleep(BACKOFF_S * 2**n * (1 + random.random()))
    raise CallError(f"{method} {url}: no try was made")


async def authorized(
    method: str, url: str, keys: SigningKeys, *, headers: Mapping[str, str], body: bytes = b"", tries: int = TRIES_MAX
) -> Response:
    """A request that shows the signing key; the fallback, where the server does not take the first."""
    for authorization in keys.authorizations:
        response = await request(method, url, headers={**headers, **authorization}, body=body, tries=tries)
        if response.status not in (401, 403):
            break
    return response


def _pool() -> Pool:
    """The pool of the running loop; those of closed loops go."""
    loop = asyncio.get_running_loop()
    pool = _pools.get(loop)
    if pool is None:
        for old in [old for old in _pools if old.is_closed()]:
            del _pools[old]
        pool = _pools[loop] = Pool(bytes_max=ANSWER_BYTES_MAX)
    return pool


async def close_pool() -> None:
    """Close the running loop's connections, before the loop ends."""
    pool = _pools.pop(asyncio.get_running_loop(), None)
    if pool is not None:
        await pool.close()


def _object(response: Response) -> dict[str, Any]:
    try:
        answer = decode(response.body)
    except ProtocolError:
        answer = None
    if not isinstance(answer, dict):
        shown = response.body[:200].decode("utf-8", "replace")
        raise ProtocolError(f"the server answered HTTP {response.status} with {shown!r}, which is no JSON object", 502)
    return answer
