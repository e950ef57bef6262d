"""Requests that handlers send: `await fetch(url, method="POST", body=…)`."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from stepwell.errors import UsageError
from stepwell.net.http_client import Pool
from stepwell.net.http_connection import Response as Answer
from stepwell.net.http_errors import HttpError
from stepwell.workers.web.content import content_of, headers_of
from stepwell.workers.web.headers import received
from stepwell.workers.web.request import Request
from stepwell.workers.web.response import Response
from stepwell.workers.web.streams import Body

ANSWER_BYTES_MAX = 100 * 1024 * 1024
TIME_MAX_S = 900.0
REDIRECTS_MAX = 20
REDIRECTS = (301, 302, 303, 307, 308)
OURS = ("host", "content-length", "transfer-encoding", "connection")
"""Headers that the client writes itself."""

_pools: dict[asyncio.AbstractEventLoop, Pool] = {}


async def fetch(resource: Request | str, **other_options: Any) -> Response:
    """Send a request and give its answer, whatever its status is. Raises `OSError` where none came."""
    request = Request(resource, **other_options) if other_options or not isinstance(resource, Request) else resource
    body = await content_of(request).read()
    headers = [(name, value) for name, value in headers_of(request) if name not in OURS]
    try:
        answer = await pool().request(
            str(request.method), request.url, headers=headers, body=body, timeout_s=TIME_MAX_S, follow=request.redirect == "follow"
        )
    except (HttpError, UsageError) as error:
        raise OSError(str(error)) from error
    if request.redirect == "error" and answer.status in REDIRECTS:
        raise OSError(f"{request.method} {request.url} redirects to {answer.headers.get('location')!r}, and redirect is 'error'")
    return response_of(answer, answer.url or request.url, redirected=bool(answer.url))


def response_of(answer: Answer, url: str, *, redirected: bool = False) -> Response:
    """What came back over HTTP, as a handler gets it."""
    made = Response.__new__(Response)
    made.status, made.status_text = answer.status, _phrase(answer.status)
    made.url, made.redirected = url, redirected
    made._headers, made._body = received(answer.headers), Body(answer.body)
    if "content-encoding" in made._headers:
        # The body is decoded already; its length is another one.
        made._headers.delete("content-encoding")
        made._headers.delete("content-length")
    made._headers.delete("transfer-encoding")
    return made


async def close_fetches() -> None:
    """Close the running loop's connections, before the loop ends."""
    found = _pools.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found.close()


def pool() -> Pool:
    """The running loop's connections."""
    loop = asyncio.get_running_loop()
    found = _pools.get(loop)
    if found is None:
        for old in [old for old in _pools if old.is_closed()]:
            del _pools[old]
        found = _pools[loop] = Pool(bytes_max=ANSWER_BYTES_MAX, as_browsers=True, redirects_max=REDIRECTS_MAX)
    return found


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
