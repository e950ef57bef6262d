"""Tokens by which the caller of a durable endpoint fetches its response, without a key (inngest-protocol §5.12)."""

from __future__ import annotations

import hashlib
import hmac

import jwt

from stepwell.errors import ProtocolError
from stepwell.server.auth import Keys

ALGORITHM = "HS256"
AUDIENCE = "output"
"""What tokens are for, so that one made for something else opens nothing here."""
TTL_S = 30 * 24 * 3600
"""How long a run's output may be asked for with its token: as long as ended runs are kept."""


def secret_of(keys: Keys) -> bytes:
    """What tokens are signed with. It follows from the signing key, so that every node and every start takes the same ones."""
    return hmac.new((keys.signing_key or "").encode(), b"stepwell output tokens", hashlib.sha256).digest()


def output_token(keys: Keys, run_id: str, now_s: int) -> str:
    """A token for the output of one run."""
    return jwt.encode({"aud": AUDIENCE, "sub": run_id, "iat": now_s, "exp": now_s + TTL_S}, secret_of(keys), ALGORITHM)


def check_output_token(keys: Keys, run_id: str, token: str | None) -> None:
    """Raises `ProtocolError` (401) where the token is not for this run's output."""
    try:
        claims = jwt.decode(token or "", secret_of(keys), [ALGORITHM], audience=AUDIENCE, options={"require": ["exp", "sub"]})
    except jwt.PyJWTError as error:
        raise ProtocolError(f"the token is no good: {error}. Use the one that the run was begun with", 401) from None
    if claims["sub"] != run_id:
        raise ProtocolError(f"the token is not for run {run_id}", 401)
