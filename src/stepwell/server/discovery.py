"""Finding apps: syncs of URLs that were named, polling of apps that are known, and, in development, a look at usual ports (§1.6, §3).

What became of each URL is remembered while the server runs (`contacts`), so that people see which app does not answer and why.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import msgspec

from stepwell.drivers.http import unauthorized
from stepwell.drivers.signed import UNAUTHORIZED, Signed
from stepwell.errors import CallError, Error, ProtocolError, UsageError
from stepwell.net.http_client import Pool
from stepwell.net.http_connection import Response
from stepwell.protocol.codec import canonical, decode
from stepwell.protocol.functions import Registration, parse_registration
from stepwell.runtime.node import Node
from stepwell.server.auth import Keys
from stepwell.server.sdk_api import SdkApi

SYNC_TIMEOUT_S = 10.0
PORTS = (80, 443, *range(3000, 3011), 4321, 5000, 5173, 8000, 8080, 8081, 8787, 8888, *range(8910, 8916))
PATHS = ("/api/inngest", "/x/inngest", "/.netlify/functions/inngest", "/.redwood/functions/inngest", "/api/stepwell")
PROBE_S = 0.3
LOOK_S = 5.0
"""How often the usual ports are looked at."""
AGAIN_S = (0.5, 5.0)
"""How soon a named URL that could not be synced is tried again: at first, and at last."""
AGAIN_FACTOR = 1.15
SYNC_KIND = "x-inngest-sync-kind"


class Contact(msgspec.Struct):
    """What became of the syncs of a URL: when the last one went well, and what is wrong since (`None`: nothing)."""

    url: str
    synced_ms: int | None = None
    error: str | None = None
    error_ms: int | None = None


class Discovery:
    """Syncs apps over HTTP. `say` is told what changed, in a line for people."""

    def __init__(self, node: Node, sdk_api: SdkApi, pool: Pool, *, kind: str, keys: Keys, say: Callable[[str], object] = print) -> None:
        self._node, self._sdk_api, self._pool, self._kind, self._keys, self._say = node, sdk_api, pool, kind, keys, say
        self._signed = Signed(pool, keys.signing_keys)
        self._waiting: set[str] = set()
        self._found: set[str] = set()
        self._named = asyncio.Event()
        self._locks: dict[str, asyncio.Lock] = {}
        self.contacts: dict[str, Contact] = {}

    async def watch(self, urls: Iterable[str], *, poll_s: float | None, discover: bool) -> None:
        """Sync the named URLs, poll what is known every `poll_s` (`None`: never), and look for more. Goes on until it is cancelled."""
        self._waiting |= set(urls)
        if self._waiting:
            self._named.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sync_named())
            if poll_s is not None:
                group.create_task(self._poll(poll_s))
            if discover:
                group.create_task(self._look())

    async def add(self, url: str) -> None:
        """Sync a URL now. Raises `Error`; an app that does not answer is tried again until it is synced or removed."""
        try:
            await self.sync(url)
        except UsageError:
            self.contacts.pop(url, None)
            raise
        except CallError:
            # An app that is not there yet may come; what it answered with a refusal is its owner's to change.
            self._waiting.add(url)
            self._named.set()
            raise

    @asynccontextmanager
    async def removing(self, url: str) -> AsyncIterator[None]:
        """While a URL's app is removed, no sync of it is under way that would bring it back; nor is it looked for by itself later."""
        async with self._lock(url):
            self._waiting.discard(url)
            self._found.add(url)
            self.contacts.pop(url, None)
            yield

    # When.

    async def _sync_named(self) -> None:
        pause_s = AGAIN_S[0]
        while True:
            if not self._waiting:
                self._named.clear()
                await self._named.wait()
                pause_s = AGAIN_S[0]
            urls = sorted(self._waiting)
            for url, synced in zip(urls, await self._try_all(urls, self._waiting.__contains__), strict=True):
                if synced:
                    self._waiting.discard(url)
            if self._waiting:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * AGAIN_FACTOR, AGAIN_S[1])

    async def _poll(self, poll_s: float) -> None:
        while True:
            await asyncio.sleep(poll_s)
            await self._try_all(sorted(self._polled()), lambda url: url in self._polled())

    def _polled(self) -> set[str]:
        return {app.url for app in self._node.registry.apps.values() if app.driver == "http" and app.url and not app.archived}

    async def _look(self) -> None:
        """Look at the usual ports and paths of this machine."""
        while True:
            known = {app.url for app in self._node.registry.apps.values() if not app.archived} | self._found
            ports = dict.fromkeys((*PORTS, *(int(port) for port in [os.environ.get("PORT", "")] if port.isdigit())))
            open_ports = [port for port, is_open in zip(ports, await asyncio.gather(*map(_is_open, ports)), strict=True) if is_open]
            for port in open_ports:
                for path in PATHS:
                    url = f"http://localhost:{port}{path}"
                    if url in known:
                        continue
                    try:
                        response = await self._pool.request("GET", url, timeout_s=1.0)
                    except CallError:
                        break
                    is_app = b"function_count" in response.body or "x-inngest-sdk" in response.headers
                    # Once is enough: an app may tell another URL than the one where it was found, and may be found at several.
                    if response.status == 200 and is_app and await self._try(url, lambda url: url not in self._found):
                        self._found.add(url)
            await asyncio.sleep(LOOK_S)

    async def _try_all(self, urls: Iterable[str], wanted: Callable[[str], bool]) -> list[bool]:
        return list(await asyncio.gather(*(self._try(url, wanted) for url in urls)))

    async def _try(self, url: str, wanted: Callable[[str], bool]) -> bool:
        """Sync, if it is still wanted when its turn comes; a problem is said once, until it changes."""
        async with self._lock(url):
            return wanted(url) and await self._tried(url)

    async def _tried(self, url: str) -> bool:
        contact = self.contacts.get(url)
        before = None if contact is None else contact.error
        try:
            await self._noted(url)
        except Error as error:
            if before != str(error):
                self._say(f"{url} could not be synced: {error}")
            return False
        if before is not None:
            self._say(f"{url} is synced")
        return True

    # How.

    async def sync(self, url: str) -> None:
        """Ask an app to register itself: it does so by a call of its own, or in its answer. Raises `Error`; either is remembered."""
        async with self._lock(url):
            await self._noted(url)

    def _lock(self, url: str) -> asyncio.Lock:
        return self._locks.setdefault(url, asyncio.Lock())

    async def _noted(self, url: str) -> None:
        contact = self.contacts.setdefault(url, Contact(url))
        try:
            await self._sync(url)
        except Error as error:
            contact.error, contact.error_ms = str(error), self._node.clock.now_ms()
            raise
        contact.error = contact.error_ms = None
        contact.synced_ms = self._node.clock.now_ms()

    async def _sync(self, url: str) -> None:
        headers = {"content-type": "application/json", "x-inngest-server-kind": self._kind}
        if self._keys.signing_key is not None:
            headers[SYNC_KIND] = "in_band"
        heard = self._sdk_api.registrations
        response = await self._signed.request("PUT", url, app=url, headers=headers, body=canonical({"url": url}), timeout_s=SYNC_TIMEOUT_S)
        if response.status == UNAUTHORIZED:
            raise CallError(unauthorized(self._keys.signing_key is not None), "unauthorized")
        if response.status != 200:
            raise CallError(f"the app answered its sync with HTTP {response.status}: {_reason(response)}", "sync_failed")
        if response.headers.get(SYNC_KIND) == "in_band":
            await self._sdk_api.sync(self._told(url, response), "http")
        elif "x-inngest-sdk" not in response.headers:
            raise CallError(f"what answered the sync with HTTP 200 is no SDK's handler: is the path right? {_reason(response)}", "not_sdk")
        elif self._sdk_api.registrations == heard:
            raise CallError(
                "the app says that it has registered, but not here: it knows another server. "
                "Give it this one's URL (INNGEST_DEV or INNGEST_BASE_URL, for Stepwell's SDK STEPWELL_URL)",
                "sync_failed",
            )

    def _told(self, url: str, response: Response) -> Registration:
        """The registration of an in-band answer, which has to bear the app's signature (§3.2)."""
        signature = response.headers.get("x-inngest-signature")
        if self._keys.signing_key is not None and not self._keys.takes_signature(response.body, signature, int(time.time())):
            shown = "has no signature" if signature is None else "is signed with another key, or at another time"
            fix = "give the app this server's signing key (INNGEST_SIGNING_KEY), and set both clocks right"
            raise ProtocolError(f"the app's answer to its sync {shown}: {fix}")
        told = parse_registration(response.body)
        return told if told.url else msgspec.structs.replace(told, url=url)


def _reason(response: Response) -> str:
    """What the app says is wrong."""
    try:
        told = decode(response.body)
    except ProtocolError:
        told = None
    if isinstance(told, dict):
        for name in ("message", "error"):
            if isinstance(told.get(name), str) and told[name]:
                return str(told[name])[:600]
    return response.body[:300].decode("utf-8", "replace")


async def _is_open(port: int) -> bool:
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
