"""Realtime tokens: signed lists of topics that a browser may be given, so that it needs no key of the server's."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Iterable

import jwt
import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.realtime import AUDIENCE, STREAM_TOPIC, TOKEN_CHARS_MAX, Claims, TokenTopic, Topic
from stepwell.runtime.clock import Clock
from stepwell.server.auth import Keys

ALGORITHM = "HS256"
TTL_S = 15 * 60
"""How long a token can be used to connect with. A connection that is open stays open beyond it."""
TTL_MAX_S = 24 * 3600


class Tokens:
    """Makes and checks tokens.

    The secret is derived from the signing key, so that tokens outlive a restart and every node of a server takes them; those made with a
    key that is being replaced are taken as long as the key is. A server without one (a dev server) makes a secret of its own at each start.
    """

    def __init__(self, clock: Clock, keys: Keys) -> None:
        self._clock, self._keys = clock, keys
        self._own = secrets.token_bytes(32)

    def _secrets(self) -> list[bytes]:
        """By the keys as they are now, the one to sign with first."""
        keys = [key.encode() for key in self._keys.signing_keys()] or [self._own]
        return [hmac.new(key, b"stepwell realtime tokens", hashlib.sha256).digest() for key in keys]

    def make(self, topics: Iterable[Topic], *, publish: bool = False, ttl_s: int = TTL_S) -> str:
        """A token for these topics. Raises `ProtocolError` where it would be too long for a URL."""
        now_s = self._clock.now_ms() // 1000
        claims = Claims(
            jti=secrets.token_hex(8),
            iat=now_s,
            exp=now_s + ttl_s,
            topics=tuple(TokenTopic(topic.channel, topic.name) for topic in topics),
            publish=publish,
        )
        token = jwt.encode(msgspec.to_builtins(claims), self._secrets()[0], algorithm=ALGORITHM)
        if len(token) > TOKEN_CHARS_MAX:
            raise ProtocolError(
                f"a token for {len(claims.topics)} topics would have {len(token)} characters, and a URL takes {TOKEN_CHARS_MAX}: "
                'ask for several tokens, connect with one, and send {"kind": "sub", "data": "<token>"} for each of the others'
            )
        return token

    def of_stream(self, run_id: str, *, ttl_s: int = TTL_S) -> str:
        """A token for what a run streams (`publish/tee`), as a durable endpoint's client gets it."""
        return self.make((Topic(run_id, STREAM_TOPIC),), ttl_s=ttl_s)

    def claims(self, token: str | None) -> Claims:
        """What a token claims. Raises `ProtocolError` (401) for one that is not ours, or is over."""
        if not token:
            raise ProtocolError("a token is needed: make one with POST /v1/realtime/token, and send it as ?token=", 401)
        try:
            claims = msgspec.convert(self._decoded(token), Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError) as error:
            raise ProtocolError(f"the token is not one of this server's: {error}. Ask for a new one", 401) from None
        now_s = self._clock.now_ms() // 1000
        if claims.exp <= now_s:
            raise ProtocolError(f"the token ended {now_s - claims.exp} s ago: ask for a new one", 401)
        return claims

    def _decoded(self, token: str) -> object:
        """What is in a token that is signed with a key that holds. Raises `InvalidTokenError`."""
        # The token's time is judged by the server's clock, and not by PyJWT's.
        options = {"verify_exp": False, "verify_iat": False, "require": ["exp", "aud"]}
        *first, last = self._secrets()
        for secret in first:
            with contextlib.suppress(jwt.InvalidSignatureError):
                return jwt.decode(token, secret, algorithms=[ALGORITHM], audience=AUDIENCE, options=options)  # type: ignore[arg-type]
        return jwt.decode(token, last, algorithms=[ALGORITHM], audience=AUDIENCE, options=options)  # type: ignore[arg-type]

    def topics(self, token: str | None) -> tuple[Topic, ...]:
        """The topics that a token lets one read. Raises `ProtocolError`: 401 as `claims`, 403 for one that lets one read nothing."""
        claims = self.claims(token)
        if not (topics := claims.readable()):
            raise ProtocolError("the token is for publishing; subscribing needs one that lists topics", 403)
        return topics
