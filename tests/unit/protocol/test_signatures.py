"""Keys and signatures, against the protocol's worked shape."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from stepwell.errors import UsageError
from stepwell.protocol.signatures import bearer_hash, check_key, is_authorized, sign, split_key, verify

KEY, OTHER = "signkey-test-12ab", "signkey-prod-34cd"
NOW_S = 1_735_689_600
HASH = hashlib.sha256(b"\x12\xab").hexdigest()


def test_a_key_has_a_prefix_and_hex() -> None:
    """The prefix may be missing."""
    assert split_key(KEY) == ("signkey-test-", "12ab")
    assert split_key("12ab") == ("", "12ab")
    assert split_key("signkey-a_b-12ab") == ("signkey-a_b-", "12ab")


def test_the_bearer_is_the_prefix_and_the_hash_of_the_bytes() -> None:
    """§1.4's worked shape."""
    assert bearer_hash(KEY) == f"signkey-test-{HASH}"
    assert bearer_hash("12ab") == HASH


@pytest.mark.parametrize("key", ["", "signkey-test-", "xyz", "signkey-test-123", "12 ab", "signkey-test-12ab-34"])
def test_what_is_no_key_is_refused_and_not_repeated(key: str) -> None:
    """Wrong configuration fails at start-up; a key does not belong in a log."""
    with pytest.raises(UsageError) as caught:
        check_key(key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (f"Bearer {bearer_hash(KEY)}", True),
        (f"Bearer {HASH}", True),
        (f"bearer  {KEY}", True),
        ("Bearer 12ab", True),
        (f"Bearer signkey-else-{HASH}", True),
        (f"Bearer {bearer_hash(OTHER)}", False),
        ("Bearer ", False),
        ("Bearer é\udcff", False),
        (f"Basic {HASH}", False),
        (HASH, False),
        ("", False),
        (None, False),
    ],
)
def test_authorization(header: str | None, shown: bool) -> None:
    """The key raw or hashed, its prefix apart."""
    assert is_authorized(header, KEY) is shown


def test_without_a_key_everybody_is_authorized() -> None:
    """A dev server has none; a fallback is as good as the key."""
    assert is_authorized(None, None) and is_authorized(None, "")
    assert is_authorized(f"Bearer {bearer_hash(OTHER)}", KEY, OTHER)


def test_a_signature_is_the_protocol_s() -> None:
    """HMAC over body and time, with the hex itself as key; t before s."""
    digest = hmac.new(b"12ab", b"{}" + str(NOW_S).encode(), hashlib.sha256).hexdigest()
    assert sign(b"{}", KEY, NOW_S) == f"t={NOW_S}&s={digest}"


def test_verification() -> None:
    """Of the body, the key, and the time."""
    good = sign(b"{}", KEY, NOW_S)
    assert verify(b"{}", good, KEY, NOW_S)
    assert verify(b"{}", good, KEY, NOW_S + 300) and verify(b"{}", good, KEY, NOW_S - 300)
    assert not verify(b"{}", good, KEY, NOW_S + 301)
    assert verify(b"{}", good, KEY, NOW_S + 10_000, age_max_s=10_000)
    assert not verify(b"{ }", good, KEY, NOW_S)
    assert not verify(b"{}", good, OTHER, NOW_S)
    assert verify(b"{}", good, OTHER, NOW_S, fallback=KEY)
    assert not verify(b"{}", good, OTHER, NOW_S, fallback=OTHER)


@pytest.mark.parametrize("signature", [None, "", "x", "s=ab&t=1", "t=1&s=xyz", f"t=1735689600&s={'a' * 63}", f"t={'1' * 20}&s={'a' * 64}"])
def test_what_is_no_signature(signature: str | None) -> None:
    """Verifies nothing."""
    assert not verify(b"{}", signature, KEY, NOW_S)
