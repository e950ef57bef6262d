"""Tokens by which the caller of a durable endpoint fetches its response, without a key (inngest-protocol §5.12)."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from typing import Any

import jwt

from stepwell.errors import ProtocolError
from stepwell.server.auth import Keys

ALGORITHM = "HS256"
AUDIENCE = "output"
"""What tokens are for, so that one made for something else opens nothing here."""
TTL_S = 30 * 24 * 3600
"""How long a run's output may be asked for with its token: as long as ended runs are kept."""


def secrets_of(keys: Keys) -> list[bytes]:
    """What tokens are signed with, the one of today first. They follow from the signing keys: every node and every start takes the same."""
    return [hmac.new(key.encode(), b"stepwell output tokens", hashlib.sha256).digest() for key in keys.signing_keys() or ("",)]


def output_token(keys: Keys, run_id: str, now_s: int) -> str:
    """A token for the output of one run."""
    return jwt.encode({"aud": AUDIENCE, "sub": run_id, "iat": now_s, "exp": now_s + TTL_S}, secrets_of(keys)[0], ALGORITHM)


def check_output_token(keys: Keys, run_id: str, token: str | None) -> None:
    """Raises `ProtocolError` (401) where the token is not for this run's output."""
    try:
        claims = _claims(keys, token or "")
    except jwt.PyJWTError as error:
        raise ProtocolError(f"the token is no good: {error}. Use the one that the run was begun with", 401) from None
    if claims["sub"] != run_id:
        raise ProtocolError(f"the token is not for run {run_id}", 401)


def _claims(keys: Keys, token: str) -> dict[str, Any]:
    """What a token says that is signed with a key that holds, a replaced one too. Raises `PyJWTError`."""
    *first, last = secrets_of(keys)
    for secret in first:
        with contextlib.suppress(jwt.InvalidSignatureError):
            return jwt.decode(token, secret, [ALGORITHM], audience=AUDIENCE, options={"require": ["exp", "sub"]})
    return jwt.decode(token, last, [ALGORITHM], audience=AUDIENCE, options={"require": ["exp", "sub"]})
