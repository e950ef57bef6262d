"""Finding apps: syncs of URLs that were named, polling of apps that are known, and, in development, a look at usual ports (§1.6, §3.1)."""

from __future__ import annotations

import asyncio
import os
import time

from stepwell.errors import CallError, Error
from stepwell.net.http_client import Pool
from stepwell.protocol.codec import canonical
from stepwell.protocol.functions import parse_registration
from stepwell.protocol.signatures import sign
from stepwell.runtime.node import Node
from stepwell.server.sdk_api import SdkApi

SYNC_TIMEOUT_S = 10.0
PORTS = (80, 443, *range(3000, 3011), 4321, 5000, 5173, 8000, 8080, 8081, 8787, 8888, *range(8910, 8916))
PATHS = ("/api/inngest", "/x/inngest", "/.netlify/functions/inngest", "/.redwood/functions/inngest", "/api/stepwell")
PROBE_S = 0.3
NO_APP_RETRY_S = 0.5


class Discovery:
    """Syncs apps over HTTP. `say` is told what changed, in a line for people."""

    def __init__(self, node: Node, sdk_api: SdkApi, pool: Pool, *, kind: str, signing_key: str | None, say: object = print) -> None:
        self._node, self._sdk_api, self._pool, self._kind, self._signing_key = node, sdk_api, pool, kind, signing_key
        self._say = say if callable(say) else print
        self._problems: dict[str, str] = {}

    async def watch(self, urls: tuple[str, ...], *, poll_s: float | None, discover: bool) -> None:
        """Sync the named URLs, then poll what is known every `poll_s` (`None`: never), and look for more."""
        waiting = set(urls)
        while True:
            for url in sorted(waiting):
                if await self._try(url):
                    waiting.discard(url)
            if poll_s is not None:
                for app in list(self._node.registry.apps.values()):
                    if app.driver == "http" and app.url and not app.archived:
                        await self._try(app.url)
            if discover:
                await self._discover()
            if poll_s is None and not waiting and not discover:
                return
            await asyncio.sleep(NO_APP_RETRY_S if waiting else poll_s or 5.0)

    async def _try(self, url: str) -> bool:
        """Sync; a problem is said once, until it changes."""
        try:
            await self.sync(url)
        except Error as error:
            if self._problems.get(url) != str(error):
                self._problems[url] = str(error)
                self._say(f"{url} could not be synced yet: {error}")
            return False
        self._problems.pop(url, None)
        return True

    async def sync(self, url: str) -> None:
        """Ask an app to register itself: it does so by a call of its own, or in its answer. Raises `Error`."""
        body = canonical({"url": url})
        headers = {"content-type": "application/json", "x-inngest-server-kind": self._kind}
        if self._signing_key is not None:
            headers["x-inngest-signature"] = sign(body, self._signing_key, int(time.time()))
        response = await self._pool.request("PUT", url, headers=headers, body=body, timeout_s=SYNC_TIMEOUT_S)
        if response.status != 200:
            shown = response.body[:300].decode("utf-8", "replace")
            raise CallError(f"the app answered its sync with HTTP {response.status}: {shown}", "sync_failed")
        if response.headers.get("x-inngest-sync-kind") == "in_band":
            await self._sdk_api.sync(parse_registration(response.body), "http")

    async def _discover(self) -> None:
        """Look at the usual ports and paths of this machine."""
        known = {app.url for app in self._node.registry.apps.values()}
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
                if response.status == 200 and (b"function_count" in response.body or "x-inngest-sdk" in response.headers):
                    await self._try(url)


async def _is_open(port: int) -> bool:
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
