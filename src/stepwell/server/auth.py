"""Who may do what: event keys, the signing key, and the admin token of the page and `/api`."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.signatures import is_authorized, split_key

COOKIE = "stepwell_token"


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """A server's keys. In dev mode there are none, and everybody may do everything from this machine."""

    event_keys: tuple[str, ...] = ()
    signing_key: str | None = None
    admin_token: str | None = None

    def takes_event_key(self, key: str) -> bool:
        """Whether events may be sent with this key."""
        return not self.event_keys or any(hmac.compare_digest(key.encode(), known.encode()) for known in self.event_keys)

    def takes_signing_key(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header shows the signing key."""
        return is_authorized(authorization, self.signing_key)

    def takes_admin(self, authorization: str | None, cookie: str | None) -> bool:
        """Whether a request to the page's API shows the admin token, as a bearer or in the cookie."""
        if self.admin_token is None:
            return True
        bearer = authorization[7:].strip() if authorization and authorization.lower().startswith("bearer ") else ""
        return any(hmac.compare_digest(shown.encode(), self.admin_token.encode()) for shown in (bearer, cookie or ""))


def generated(directory: Path) -> tuple[Keys, bool]:
    """The keys kept in the data directory; made once, readable by the owner alone. Says whether they are new."""
    path = directory / "keys.json"
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=Keys), False
        except msgspec.DecodeError as error:
            raise UsageError(f"{path} holds no keys: {error}. Restore it, or move it away to have new keys made") from None
    keys = Keys(
        event_keys=(secrets.token_hex(16),),
        signing_key=f"signkey-prod-{secrets.token_hex(32)}",
        admin_token=secrets.token_urlsafe(24),
    )
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(keys))
        file.flush()
        os.fsync(file.fileno())
    return keys, True


def checked_signing_key(key: str) -> str:
    """The key, if it is one. Raises `UsageError`."""
    remainder = split_key(key)[1]
    try:
        bytes.fromhex(remainder)
    except ValueError:
        raise UsageError("the signing key must be signkey-<env>-<hex> with an even number of hex digits") from None
    return key
