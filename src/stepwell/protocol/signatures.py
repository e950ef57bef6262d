"""Keys and signatures (inngest-protocol §1.4)."""

from __future__ import annotations

import hashlib
import hmac
import re

from stepwell.errors import UsageError

AGE_MAX_S = 300
"""How far a signature's time may be from now; JavaScript's SDK holds servers to the same."""

_PREFIX = re.compile(r"signkey-[A-Za-z0-9_]+-")
_SIGNATURE = re.compile(r"t=([0-9]{1,12})&s=([0-9a-f]{64})")


def split_key(key: str) -> tuple[str, str]:
    """The key's prefix (perhaps empty) and its hex."""
    match = _PREFIX.match(key)
    return (match[0], key[match.end() :]) if match else ("", key)


def check_key(key: str) -> None:
    """Raise `UsageError` for what cannot be a signing key; the message does not repeat it."""
    try:
        usable = bool(bytes.fromhex(split_key(key)[1])) and " " not in key
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("the signing key is not usable: it must be an even number of hex digits, perhaps behind signkey-…-")


def bearer_hash(key: str) -> str:
    """What is presented as a bearer: the prefix and the hash of the decoded hex. Raises `UsageError` as `check_key`."""
    check_key(key)
    prefix, remainder = split_key(key)
    return prefix + hashlib.sha256(bytes.fromhex(remainder)).hexdigest()


def is_authorized(header: str | None, *keys: str | None) -> bool:
    """Whether an `Authorization` header shows one of the keys, raw or hashed, with or without its prefix. No key: everybody is."""
    known = [key for key in keys if key]
    if not known:
        return True
    scheme, _, presented = (header or "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    shown = split_key(presented.strip())[1].encode("utf-8", "surrogatepass")
    # Every form is compared, whichever fits: how long it takes tells nothing.
    return (
        sum([hmac.compare_digest(shown, form.encode()) for key in known for form in (split_key(key)[1], split_key(bearer_hash(key))[1])])
        > 0
    )


def sign(body: bytes, key: str, now_s: int) -> str:
    """The `X-Inngest-Signature` of a body, which is signed as it is: a call's body is canonical already."""
    mac = hmac.new(split_key(key)[1].encode(), body, hashlib.sha256)
    mac.update(b"%d" % now_s)
    return f"t={now_s}&s={mac.hexdigest()}"


def verify(body: bytes, signature: str | None, key: str, now_s: int, *, fallback: str | None = None, age_max_s: int = AGE_MAX_S) -> bool:
    """Whether the signature is over this body, with the key or the fallback, and its time at most `age_max_s` from now."""
    match = _SIGNATURE.fullmatch(signature or "")
    if match is None or abs(now_s - int(match[1])) > age_max_s:
        return False
    keys = [key] if fallback is None else [key, fallback]
    return any(hmac.compare_digest(sign(body, known, int(match[1])), match[0]) for known in keys)
