"""Requests to apps, signed with a key that the app knows (inngest-protocol §1.4).

While keys are being changed, some apps have the new one and some still the old one. An app that answers 401 to a signature has run
nothing, so the same request is sent once more under the next key; which key an app knew is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from stepwell.net.http_client import Pool
from stepwell.net.http_connection import Response
from stepwell.protocol.signatures import sign

UNAUTHORIZED = 401
APPS_MAX = 4096
"""Apps whose key is remembered."""

SigningKeys = Callable[[], Sequence[str]]
"""The keys of the moment, the one to sign with first; none: requests are not signed."""


class Signed:
    """A pool whose requests are signed where there are keys. `app` names who is asked, for whom a key is remembered."""

    def __init__(self, pool: Pool, keys: SigningKeys) -> None:
        self._pool, self._keys = pool, keys
        self._known: dict[str, str] = {}

    async def request(
        self, method: str, url: str, *, app: str, headers: Mapping[str, str], body: bytes, timeout_s: float, resend: bool = True
    ) -> Response:
        """The app's answer. `resend` is as the pool has it, which raises."""
        keys = self._keys()
        if not keys:
            return await self._pool.request(method, url, headers=headers, body=body, timeout_s=timeout_s, resend=resend)
        known = self._known.get(app)
        first: Response | None = None
        for key in sorted(keys, key=lambda key: key != known):
            signed = {**headers, "x-inngest-signature": sign(body, key, int(time.time()))}
            response = await self._pool.request(method, url, headers=signed, body=body, timeout_s=timeout_s, resend=resend)
            if response.status != UNAUTHORIZED:
                if known != key:
                    self._remember(app, key)
                return response
            first = first or response
        assert first is not None
        return first

    def _remember(self, app: str, key: str) -> None:
        if len(self._known) >= APPS_MAX:
            self._known.clear()
        self._known[app] = key
