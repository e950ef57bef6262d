"""Canonical JSON: the same bytes as RFC 8785 asks for, and nothing of a value lost."""

from __future__ import annotations

import json

import jcs
import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import (
    NESTING_MAX,
    canonical,
    canonicalize,
    decode,
    first_unsafe_integer,
    join_object,
    number,
    with_key,
    without_key,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b' { "b" : 1 , "a" : [ 1 , 2 ] } ', b'{"a":[1,2],"b":1}'),
        (b"1.0", b"1"),
        (b"-0.0", b"0"),
        (b"-0", b"0"),
        (b"1e2", b"100"),
        (b"0.5", b"0.5"),
        (b"1e21", b"1e+21"),
        (b"1E-7", b"1e-7"),
        (b"0.000001", b"0.000001"),
        (b"123456789012345678901234567890", b"123456789012345678901234567890"),
        (b"9007199254740993", b"9007199254740993"),
        (b'"\\u00e9\\/\\u001f\\n"', b'"\xc3\xa9/\\u001f\\n"'),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b"[]", b"[]"),
        (b"null", b"null"),
    ],
)
def test_a_text_is_written_as_rfc_8785_says(text: bytes, expected: bytes) -> None:
    """White space goes, keys are sorted, numbers are written as ECMAScript does, whole numbers kept."""
    assert canonicalize(text) == expected


def test_the_examples_of_rfc_8785_come_out_as_printed_there() -> None:
    """Appendix of the RFC: property order by UTF-16 code units, and number serialisation."""
    keys = {
        "€": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "😀": "Emoji",
        "\x80": "C",
        "ö": "O",
    }
    assert [*json.loads(canonical(keys))] == ["\r", "1", "\x80", "ö", "€", "😀", "\ufb33"]
    assert canonical([333333333.33333329, 1e30, 4.50, 2e-3, 1e-27]) == b"[333333333.3333333,1e+30,4.5,0.002,1e-27]"


@pytest.mark.parametrize("key", ["\U0001f600", "\ufb33", "\uffff", "ä", "a"])
def test_key_order_is_that_of_utf16_on_every_path(key: str) -> None:
    """An emoji sorts before U+FB33, whether a float is there (slow path), an escape, or neither."""
    value = {key: 1, "\ufb33x": 2, "z": {"\U0001f600": [1.5], "\ue000": 1e-9}}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert canonicalize(text.encode()) == jcs.canonicalize(value)


def test_an_emoji_in_a_value_alone_does_not_disturb() -> None:
    """Only keys decide the order."""
    assert canonicalize('{"b":"😀","a":[{"c":"é"}]}'.encode()) == '{"a":[{"c":"é"}],"b":"😀"}'.encode()


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[1,]", b'"\xff"', b"1e999", b"\xef\xbb\xbf1", b'"\\u12"', b"01", b"9" * 5000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """With a ProtocolError, whatever msgspec or Python raise for it."""
    for read in (canonicalize, decode):
        with pytest.raises(ProtocolError, match="not valid JSON"):
            read(text)


def test_half_a_surrogate_pair_is_read_as_the_replacement_character() -> None:
    """JavaScript writes one when a text was cut inside an emoji; a whole pair, and an escaped backslash, stay."""
    assert decode(b'"a\\ud83d"') == "a�"
    assert canonicalize(b'{"\\uDE00":"\\ud83d\\ude00\\\\ud83d"}') == '{"�":"😀\\\\ud83d"}'.encode()
    assert decode('"\\ud83d"') == "�"


def test_nesting_has_a_bound() -> None:
    """As deep as NESTING_MAX is taken, one deeper is refused; brackets in strings and side by side do not count."""
    assert canonicalize(b"[" * NESTING_MAX + b"]" * NESTING_MAX)
    for text in (b"[" * (NESTING_MAX + 1) + b"]" * (NESTING_MAX + 1), b"[" * 100_000, b'{"a":' * 1000):
        with pytest.raises(ProtocolError, match="deep"):
            canonicalize(text)
    assert canonicalize(b'["' + b"[" * 1000 + b'\\"",[]' + b",{}" * 1000 + b"]")


def test_values_are_written_too() -> None:
    """What is no JSON value by nature, but msgspec knows how to write, is written; keys that are numbers become texts."""
    assert canonical({"b": (1, 2.0), "a": None, 3: True}) == b'{"3":true,"a":null,"b":[1,2]}'


@pytest.mark.parametrize("value", [float("nan"), [None, float("inf")], {"a": {"b": -float("inf")}}, "\ud800", {"\udfff": 1}])
def test_values_that_json_cannot_hold_are_refused(value: object) -> None:
    """NaN would become null, half a surrogate pair cannot be encoded: nothing changes silently."""
    with pytest.raises(ProtocolError, match="cannot be written"):
        canonical(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    """It has no end."""
    value: list[object] = []
    value.append(value)
    with pytest.raises(ProtocolError, match="contains itself"):
        canonical(value)


def test_other_types_are_a_type_error() -> None:
    """So that the SDK can say whose value it was."""
    with pytest.raises(TypeError):
        canonical(object())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (123456.789, "123456.789"),
        (-1.5e-7, "-1.5e-7"),
        (1e-6, "0.000001"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (-0.0, "0"),
        (9007199254740994.0, "9007199254740994"),
        (1.2e22, "1.2e+22"),
    ],
)
def test_numbers_are_written_as_ecmascript_does(value: float, expected: str) -> None:
    """The table of ECMAScript's Number::toString."""
    assert number(value) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_cannot_hold_are_refused(value: float) -> None:
    """RFC 8785 §3.2.2.3."""
    with pytest.raises(ProtocolError):
        number(value)


def test_keys_are_set_and_taken_away_without_touching_the_rest() -> None:
    """The values beside them are spliced as they are; the result is canonical."""
    assert with_key(b'{"Z":1e+30,"z":{"b":[1]}}', "_k", b'{"a":1}') == b'{"Z":1e+30,"_k":{"a":1},"z":{"b":[1]}}'
    assert with_key('{"😀":1}'.encode(), "\ufb33", b"2") == '{"😀":1,"\ufb33":2}'.encode()
    assert with_key(b'{"a":1}', "a", b"2") == b'{"a":2}'
    assert without_key(b'{"_k":[1],"a":1}', "_k") == b'{"a":1}'
    assert without_key(b'{"a":1}', "b") == b'{"a":1}'
    assert join_object({}) == b"{}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":9007199254740993}', "9007199254740993"),
        (b"[-9007199254740993]", "-9007199254740993"),
        (b"9007199254740991", None),
        (b"10000000000000000", None),
        (b'"9007199254740993"', None),
        (b'{"a\\"":"\\\\","b":12345678901234567890}', "12345678901234567890"),
        (b"1234567890123456789.5", None),
        (b"[1,2,3]", None),
    ],
)
def test_whole_numbers_that_javascript_would_change_are_found(text: bytes, expected: str | None) -> None:
    """Only those; a number that JavaScript writes back as it was does not matter, nor do digits in a string."""
    assert first_unsafe_integer(text) == expected
