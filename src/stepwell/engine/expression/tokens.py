"""The text of an expression, cut into tokens."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from stepwell.errors import ExpressionError

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<uint>(?:0[xX][0-9a-fA-F]+|\d+)[uU])
  | (?P<int>0[xX][0-9a-fA-F]+|\d+)
  | (?P<string>(?P<flags>[rRbB]{0,2})(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<op>\|\||&&|==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|X[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.)", re.DOTALL)


class Token(NamedTuple):
    """A token: what it is (`op` and `name` by their text, literals by their kind), its value, and where it stands."""

    kind: str
    value: Any
    at: int


def tokenize(text: str) -> list[Token]:
    """The tokens of a text, with an `end` behind them. Raises `ExpressionError` at a letter that begins none."""
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"{text!r}: {text[at]!r} at {at + 1} is not part of an expression")
        kind = match.lastgroup or ""
        if kind == "flags":
            kind = "string"
        if kind != "space":
            tokens.append(_token("string" if match["string"] is not None else kind, match, text))
        at = match.end()
    tokens.append(Token("end", None, len(text)))
    return tokens


def _token(kind: str, match: re.Match[str], text: str) -> Token:
    at, found = match.start(), match[0]
    match kind:
        case "int":
            return Token("literal", int(found, 0 if found[:2].lower() == "0x" else 10), at)
        case "uint":
            return Token("literal", int(found[:-1], 0 if found[:2].lower() == "0x" else 10), at)
        case "float":
            return Token("literal", float(found), at)
        case "string":
            return Token("literal", _string(found, text, at), at)
        case "name" if found in ("true", "false", "null"):
            return Token("literal", {"true": True, "false": False, "null": None}[found], at)
        case "name" if found == "in":
            return Token("op", "in", at)
        case _:
            return Token(kind, found, at)


def _string(found: str, text: str, at: int) -> str | bytes:
    start = min(i for i, letter in enumerate(found) if letter in "'\"")
    flags = found[:start].lower()
    body = found[start:]
    quotes = 3 if body[:3] in ('"""', "'''") else 1
    body = body[quotes:-quotes]
    if "r" not in flags:
        body = _ESCAPE.sub(lambda escape: _unescape(escape[1], text, at), body)
    return body.encode() if "b" in flags else body


def _unescape(code: str, text: str, at: int) -> str:
    if code[0] in "xXuU" and len(code) > 1:
        number = int(code[1:], 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise ExpressionError(f"{text!r}: the escape \\{code} in the string at {at + 1} is no character")
        return chr(number)
    if len(code) == 3:
        return chr(int(code, 8))
    if code in _ESCAPES:
        return _ESCAPES[code]
    if code in "\\'\"`?":
        return code
    raise ExpressionError(f"{text!r}: \\{code} in the string at {at + 1} is no escape")
