"""The signing keys of an app: its own, or the environment's; a fallback while one is being replaced."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from stepwell.protocol.signatures import bearer_hash

if TYPE_CHECKING:
    from stepwell.sdk.app import App


class SigningKeys(msgspec.Struct, frozen=True):
    """What calls are checked by, and what requests to the server show."""

    key: str | None = None
    fallback: str | None = None

    @property
    def authorizations(self) -> list[dict[str, str]]:
        """The headers to try, in turn: with the key, with the fallback where the server does not take it (§1.4)."""
        return [{"authorization": f"Bearer {bearer_hash(key)}"} for key in (self.key, self.fallback) if key] or [{}]


def signing_keys(app: App) -> SigningKeys:
    """The app's keys."""
    env = os.environ.get
    return SigningKeys(
        app.signing_key or env("STEPWELL_SIGNING_KEY") or env("INNGEST_SIGNING_KEY") or None,
        app.signing_key_fallback or env("STEPWELL_SIGNING_KEY_FALLBACK") or env("INNGEST_SIGNING_KEY_FALLBACK") or None,
    )
