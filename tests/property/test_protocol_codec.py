"""Canonical JSON against a JCS library, on all that Hypothesis thinks of."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import jcs
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import canonical, canonicalize, decode, number, with_key, without_key

SAFE = 2**53 - 1
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5), max_leaves=20)
floats = st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-(10**25), 10**25, places=6).map(float)


@given(values, st.booleans(), st.sampled_from([None, 2]))
def test_a_text_is_as_the_library_writes_it(value: Any, ascii_only: bool, indent: int | None) -> None:
    """However the text was spelled."""
    spelled = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert canonicalize(spelled) == jcs.canonicalize(value)


@given(values)
def test_a_value_is_as_the_library_writes_it(value: Any) -> None:
    """And is read back as an equal one, by whoever reads numbers as doubles."""
    written = canonical(value)
    assert written == jcs.canonicalize(value)
    assert json.loads(written, parse_int=float) == json.loads(json.dumps(value), parse_int=float)


@given(floats)
def test_floats_are_as_the_library_writes_them(value: float) -> None:
    """And are read back to the bit, but for the sign of zero."""
    assert canonical(value).decode() == number(value) == jcs.canonicalize(value).decode()
    assert float(number(value)) == value


@given(values)
def test_canonical_is_a_fixed_point(value: Any) -> None:
    """So that what is spliced stays as it is."""
    assert canonicalize(canonical(value)) == canonical(value)


@given(st.integers())
def test_whole_numbers_are_kept(value: int) -> None:
    """Of any size."""
    assert canonicalize(str(value).encode()) == canonical(value) == str(value).encode()


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_json_or_refused(raw: bytes) -> None:
    """In no other way."""
    with contextlib.suppress(ProtocolError):
        assert canonicalize(canonicalize(raw)) == canonicalize(raw)


@given(st.text(st.sampled_from('\\"ud8dDcC0a{[}]:,1.eE+- '), max_size=40))
def test_texts_of_escapes_are_json_or_refused(text: str) -> None:
    """Halves of surrogate pairs, and what only looks like them."""
    for spelled in (text, f'"{text}"', f'{{"{text}":"{text}"}}'):
        try:
            assert decode(canonicalize(spelled.encode())) is not None or spelled.strip() == "null"
        except ProtocolError:
            continue


@given(st.dictionaries(keys, values, max_size=5), keys, values)
def test_keys_are_set_and_taken_away(fields: dict[str, Any], key: str, value: Any) -> None:
    """As if the object had been written anew."""
    assert with_key(canonical(fields), key, canonical(value)) == canonical({**fields, key: value})
    assert without_key(canonical(fields), key) == canonical({name: item for name, item in fields.items() if name != key})
