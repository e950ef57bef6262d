"""Keys and signatures (inngest-protocol §1.4)."""

from __future__ import annotations

import hashlib
import hmac
import re

_PREFIX = re.compile(r"^signkey-[A-Za-z0-9_]+-")


def split_key(key: str) -> tuple[str, str]:
    """The key's prefix (perhaps empty) and its hex."""
    match = _PREFIX.match(key)
    return (match[0], key[match.end() :]) if match else ("", key)


def hash_key(key: str) -> str:
    """What is presented as a bearer: the prefix and the hash of the decoded hex. Raises `ValueError` for a key that is no hex."""
    prefix, remainder = split_key(key)
    return prefix + hashlib.sha256(bytes.fromhex(remainder)).hexdigest()


def is_authorized(header: str | None, key: str | None) -> bool:
    """Whether an `Authorization` header shows the key, raw or hashed, with or without its prefix. No key: everybody is."""
    if not key:
        return True
    if not header or not header.lower().startswith("bearer "):
        return False
    presented = split_key(header[7:].strip())[1]
    wanted = split_key(key)[1], split_key(hash_key(key))[1]
    return any(hmac.compare_digest(presented.encode(), good.encode()) for good in wanted)


def sign(body: bytes, key: str, now_s: int) -> str:
    """The `X-Inngest-Signature` of a body."""
    stamp = str(now_s)
    digest = hmac.new(split_key(key)[1].encode(), body + stamp.encode(), hashlib.sha256).hexdigest()
    return f"t={stamp}&s={digest}"


def verify(body: bytes, signature: str | None, key: str, now_s: int, *, age_max_s: int = 300) -> bool:
    """Whether the signature is this key's over this body, and not older or newer than `age_max_s`."""
    match = re.fullmatch(r"t=(\d+)&s=([0-9a-f]+)", signature or "")
    if match is None or abs(now_s - int(match[1])) > age_max_s:
        return False
    return hmac.compare_digest(sign(body, key, int(match[1])), match[0])
