"""Who may do what: event keys, the signing key, and the admin token of the page and `/api`."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.signatures import check_key, is_authorized, verify

COOKIE = "stepwell_token"


class Keys(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A server's keys. In dev mode there are none, and everybody may do everything from this machine.

    Calls are signed with `signing_key`; whoever shows one of the `fallback_keys` is let in too, so that keys can be changed while apps
    still have the old ones. This is the one value that changes while the server runs (`adopt`).
    """

    event_keys: tuple[str, ...] = ()
    signing_key: str | None = None
    fallback_keys: tuple[str, ...] = ()
    admin_token: str | None = None

    def signing_keys(self) -> tuple[str, ...]:
        """The signing keys, the one to sign with first."""
        return () if self.signing_key is None else (self.signing_key, *self.fallback_keys)

    def takes_event_key(self, key: str) -> bool:
        """Whether events may be sent with this key."""
        return not self.event_keys or sum([hmac.compare_digest(key.encode(), known.encode()) for known in self.event_keys]) > 0

    def takes_signing_key(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header shows a signing key."""
        return is_authorized(authorization, *self.signing_keys())

    def takes_signature(self, body: bytes, signature: str | None, now_s: int) -> bool:
        """Whether an app's answer is signed with a key that it may have."""
        return any(verify(body, signature, key, now_s) for key in self.signing_keys())

    def takes_admin(self, authorization: str | None, cookie: str | None) -> bool:
        """Whether a request to the page's API shows the admin token, as a bearer or in the cookie."""
        if self.admin_token is None:
            return True
        bearer = authorization[7:].strip() if authorization and authorization.lower().startswith("bearer ") else ""
        return sum([hmac.compare_digest(shown.encode(), self.admin_token.encode()) for shown in (bearer, cookie or "")]) > 0

    def adopt(self, others: Keys) -> None:
        """Have the keys of others from now on."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(others, name))


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that a server is started with; what is not given is kept in a file."""

    event_keys: tuple[str, ...] = ()
    signing_keys: tuple[str, ...] = ()
    admin_token: str | None = None

    @classmethod
    def checked(cls, event_keys: tuple[str, ...], signing_keys: tuple[str, ...], admin_token: str | None) -> Given:
        """The keys, if they are some. Raises `UsageError`; no message repeats a key."""
        for key in signing_keys:
            check_key(key)
        for key in event_keys:
            if not key or "/" in key or not key.isprintable() or not key.isascii():
                raise UsageError("an event key is not usable: it stands in a path, so it must be of printable ASCII letters without a /")
        if admin_token is not None and not admin_token.strip():
            raise UsageError("the admin token is empty: leave it out to have one made")
        return cls(event_keys=event_keys, signing_keys=signing_keys, admin_token=admin_token)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be kept in a file."""
        return bool(self.event_keys and self.signing_keys and self.admin_token)


class KeyFile:
    """The keys that are kept beside a database, `FILE.d/keys.json`, readable by the owner alone; under those that were given."""

    def __init__(self, db: Path, given: Given | None = None) -> None:
        self.path = Path(f"{db}.d") / "keys.json"
        self._given = given or Given()

    def made(self) -> Keys | None:
        """Make the file, where one is needed and there is none: then its keys, to be shown once."""
        if self.path.exists() or self._given.complete:
            return None
        keys = Keys(event_keys=(new_event_key(),), signing_key=new_signing_key(), admin_token=new_token())
        self.write(keys)
        return keys

    def kept(self) -> Keys:
        """What the file holds; nothing where there is none. Raises `UsageError`."""
        try:
            keys = msgspec.json.decode(self.path.read_bytes(), type=Keys)
        except FileNotFoundError:
            return Keys()
        except (OSError, msgspec.DecodeError) as error:
            fix = "Restore it, or move it away to have new keys made"
            raise UsageError(f"{self.path} holds no keys: {error}. {fix}") from None
        for key in keys.signing_keys():
            check_key(key)
        return keys

    def keys(self) -> Keys:
        """The keys that hold: those given, else those kept."""
        given, kept = self._given, self.kept()
        signing = given.signing_keys or kept.signing_keys()
        return Keys(
            event_keys=given.event_keys or kept.event_keys,
            signing_key=signing[0] if signing else None,
            fallback_keys=signing[1:],
            admin_token=given.admin_token or kept.admin_token,
        )

    def write(self, keys: Keys) -> None:
        """Keep these keys: whole, or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.path.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(keys))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self.path)


def new_event_key() -> str:
    """A key for sending events."""
    return secrets.token_hex(16)


def new_signing_key() -> str:
    """A key for calls and syncs."""
    return f"signkey-prod-{secrets.token_hex(32)}"


def new_token() -> str:
    """A token for the page and `/api`."""
    return secrets.token_urlsafe(24)
