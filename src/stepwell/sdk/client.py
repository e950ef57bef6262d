"""What an app sends, and from where: the bodies of events, the server's address and key, requests of code that is not async."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json
from stepwell.sdk.durations import Duration, When, duration_ms, time_ms
from stepwell.sdk.event import Event, name_of, outgoing, outgoing_of

if TYPE_CHECKING:
    from stepwell.sdk.app import App

R = TypeVar("R")

URL_DEFAULT = "http://127.0.0.1:8288"


def body_of(event: object, data: object, *, id: str | None, at: When | None, after: Duration | None) -> Json:
    """The body of a `send`: an event, or an array. Raises `UsageError` for arguments that do not go together."""
    if isinstance(event, list | tuple):
        if data is not None or id is not None or at is not None or after is not None:
            raise UsageError("send([…]) takes events only: give data, id and ts with each of them")
        return b"[" + b",".join(outgoing_of(one) for one in event) + b"]"
    if at is not None and after is not None:
        raise UsageError(f"send(at={at!r}, after={after!r}): give one of them")
    ts_ms = None
    if at is not None:
        ts_ms = time_ms(at, "send: at")
    elif after is not None:
        ts_ms = time.time_ns() // 10**6 + duration_ms(after, "send: after")
    if isinstance(event, Event):
        if data is not None:
            raise UsageError(f"send({name_of(event)!r}): an Event holds its data; do not give any beside it")
        return outgoing(name_of(event), event, id=id, ts_ms=ts_ms)
    if isinstance(event, type) and issubclass(event, Event):
        event = name_of(event)
    if not isinstance(event, str):
        raise UsageError(f"{event!r} is no event: give a name and data, an instance of a stepwell.Event class, or a list")
    return outgoing(event, data, id=id, ts_ms=ts_ms)


def blocking(app: App, ask: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Await a request of the app's from code that is not async: in its engine's loop, else in one made for it."""
    loop = getattr(app._engine, "loop", None)
    if loop is None:
        return _in_own_loop(ask)
    if asyncio._get_running_loop() is loop:
        raise UsageError(
            "this would block the event loop that the engine runs in: await app.send(…), app.start(…) and what they give, without _sync"
        )
    return asyncio.run_coroutine_threadsafe(ask(), loop).result()


def _in_own_loop(ask: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """In a thread of its own, for there may be a loop in this one."""
    result: list[R] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(_asked_and_closed(ask)))
        except BaseException as error:
            raised.append(error)

    if asyncio._get_running_loop() is None:
        run()
    else:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    if raised:
        raise raised[0]
    return result[0]


def server_url(app: App) -> str:
    """The server's address: the app's, else the environment's, else the local default."""
    url = app.url or os.environ.get("STEPWELL_URL") or URL_DEFAULT
    if "://" not in url:
        raise UsageError(f'the server\'s url {url!r} must be absolute, like "{URL_DEFAULT}"')
    return url.rstrip("/")


def event_key() -> str:
    """The environment's event key; a server without keys takes any."""
    return os.environ.get("STEPWELL_EVENT_KEY") or os.environ.get("INNGEST_EVENT_KEY") or "NO_EVENT_KEY_SET"


async def _asked_and_closed(ask: Callable[[], Coroutine[Any, Any, R]]) -> R:
    from stepwell.sdk import http

    try:
        return await ask()
    finally:
        await http.close_pool()
