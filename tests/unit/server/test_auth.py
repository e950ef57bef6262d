"""Keys: which hold, which are kept, and what becomes of a file that cannot be used."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.realtime import Topic
from stepwell.protocol.signatures import bearer_hash, sign
from stepwell.runtime.clock import SystemClock
from stepwell.server.auth import Given, KeyFile, Keys
from stepwell.server.output_tokens import check_output_token, output_token
from stepwell.server.realtime_tokens import Tokens

KEY, OLD = "signkey-test-12ab", "signkey-prod-34cd"


def test_a_server_without_keys_takes_everybody() -> None:
    """Development."""
    keys = Keys()
    assert keys.takes_event_key("x") and keys.takes_signing_key(None) and keys.takes_admin(None, None) and keys.signing_keys() == ()


def test_every_key_lets_in() -> None:
    """Event keys, signing keys raw and hashed, the token as bearer and as cookie."""
    keys = Keys(event_keys=("a", "b"), signing_key=KEY, fallback_keys=(OLD,), admin_token="t")
    assert [keys.takes_event_key(key) for key in ("a", "b", "c", "", "ab")] == [True, True, False, False, False]
    for key in (KEY, OLD, bearer_hash(KEY), bearer_hash(OLD), "12ab"):
        assert keys.takes_signing_key(f"Bearer {key}")
    for header in (None, "", KEY, "Basic 12ab", "Bearer ", "Bearer 12", "Bearer signkey-test-"):
        assert not keys.takes_signing_key(header)
    assert keys.takes_admin("Bearer t", None) and keys.takes_admin(None, "t")
    assert not keys.takes_admin("Bearer u", "") and not keys.takes_admin("t", None)
    assert keys.takes_signature(b"x", sign(b"x", OLD, 1000), 1000)
    assert not keys.takes_signature(b"x", sign(b"y", OLD, 1000), 1000) and not keys.takes_signature(b"x", None, 1000)


def test_keys_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    """What is kept is read again; nothing is made where it is there, or all is given."""
    file = KeyFile(tmp_path / "x.db")
    made = file.made()
    assert made is not None and file.made() is None and file.keys() == made
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    given = Given.checked(("e",), (KEY, OLD), "t")
    assert KeyFile(tmp_path / "y.db", given).made() is None and not (tmp_path / "y.db.d").exists()
    assert KeyFile(tmp_path / "y.db", given).keys() == Keys(event_keys=("e",), signing_key=KEY, fallback_keys=(OLD,), admin_token="t")


def test_given_keys_go_before_kept_ones(tmp_path: Path) -> None:
    """Kind by kind."""
    made = KeyFile(tmp_path / "x.db").made()
    assert made is not None
    keys = KeyFile(tmp_path / "x.db", Given.checked((), (OLD,), None)).keys()
    assert keys == Keys(event_keys=made.event_keys, signing_key=OLD, fallback_keys=(), admin_token=made.admin_token)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"event_keys":1}', b'{"signing_key":"signkey-prod-xyz"}'])
def test_a_file_that_cannot_be_used_says_so(tmp_path: Path, content: bytes) -> None:
    """And is not overwritten."""
    file = KeyFile(tmp_path / "x.db")
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    assert file.made() is None
    with pytest.raises(UsageError):
        file.keys()
    assert file.path.read_bytes() == content


@pytest.mark.parametrize(
    "given", [(("a/b",), (), None), (("ä",), (), None), ((), ("signkey-prod-xyz",), None), ((), ("abc",), None), ((), (), " ")]
)
def test_keys_that_cannot_be_are_refused(given: tuple[tuple[str, ...], tuple[str, ...], str | None]) -> None:
    """Without repeating them."""
    with pytest.raises(UsageError) as caught:
        Given.checked(*given)
    assert "xyz" not in str(caught.value) and "a/b" not in str(caught.value)


def test_keys_change_in_place() -> None:
    """Whoever holds the keys sees the new ones."""
    keys = Keys(signing_key=KEY)
    held = keys.signing_keys
    keys.adopt(Keys(signing_key=OLD, fallback_keys=(KEY,), event_keys=("e",)))
    assert held() == (OLD, KEY) and keys.event_keys == ("e",)


def test_realtime_tokens_follow_the_keys() -> None:
    """What an earlier key has signed is taken as long as that key is a fallback; a server without keys takes its own."""
    keys = Keys(signing_key=KEY)
    tokens = Tokens(SystemClock(), keys)
    before = tokens.make([Topic("c", "t")])
    keys.adopt(Keys(signing_key=OLD, fallback_keys=(KEY,)))
    after = tokens.make([Topic("c", "t")])
    assert tokens.topics(before) == tokens.topics(after) == (Topic("c", "t"),)
    assert Tokens(SystemClock(), Keys(signing_key=OLD)).topics(after)
    keys.adopt(Keys(signing_key=OLD))
    assert tokens.topics(after)
    with pytest.raises(ProtocolError, match="not one of this server's") as refused:
        tokens.topics(before)
    assert refused.value.status == 401
    own, other = Tokens(SystemClock(), Keys()), Tokens(SystemClock(), Keys())
    assert own.topics(own.make([Topic("c", "t")]))
    with pytest.raises(ProtocolError, match="not one of this server's"):
        other.topics(own.make([Topic("c", "t")]))


def test_output_tokens_follow_the_keys() -> None:
    """As long as runs are kept, a rotation of keys with a fallback takes nobody's output away."""
    now_s = int(time.time())
    keys = Keys(signing_key=KEY)
    before = output_token(keys, "run", now_s)
    keys.adopt(Keys(signing_key=OLD, fallback_keys=(KEY,)))
    check_output_token(keys, "run", before)
    check_output_token(keys, "run", output_token(keys, "run", now_s))
    with pytest.raises(ProtocolError, match="not for run other"):
        check_output_token(keys, "other", before)
    keys.adopt(Keys(signing_key=OLD))
    with pytest.raises(ProtocolError, match="no good"):
        check_output_token(keys, "run", before)
    check_output_token(Keys(), "run", output_token(Keys(), "run", now_s))
