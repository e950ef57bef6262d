"""SQLite's tokens, as far as one has to know them to cut a text into statements, count parameters and find a place in it.

What a token means is SQLite's business alone: nothing here says whether a statement is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_ID = r"[A-Za-z0-9_$\u0080-\U0010ffff]"

_TOKEN = re.compile(
    rf"""
      (?P<space>[ \t\n\f\r]+ | --[^\n]* | /\*.*?(?:\*/|\Z))
    | (?P<blob>[xX]'[^']*')
    | (?P<string>'[^']*(?:''[^']*)*')
    | (?P<quoted>"[^"]*(?:""[^"]*)*" | `[^`]*(?:``[^`]*)*` | \[[^\]]*\])
    | (?P<variable>\?[0-9]* | [:@\#$](?:{_ID}|::)*(?:\([^\s)]*\)?)?)
    | (?P<number>(?:[0-9]|\.[0-9])(?:[0-9.]|[eE][+-]?[0-9]|{_ID})*)
    | (?P<word>{_ID}+)
    | (?P<semicolon>;)
    | (?P<open>['"`\[].*)
    | (?P<sign>->>|->|\|\||<<|>>|<=|>=|<>|==|!=|.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A token and where it begins, in characters. Its kind is the name of a group above; `open` is a quote that is never closed."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)

    @property
    def name(self) -> str:
        """What an identifier names, without its quotes; a text likewise."""
        if self.kind not in ("quoted", "string"):
            return self.text
        mark = self.text[0]
        return self.text[1:-1] if mark == "[" else self.text[1:-1].replace(mark * 2, mark)


def tokens(sql: str) -> Iterator[Token]:
    """All but white space and comments."""
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        assert kind is not None
        if kind != "space":
            yield Token(kind, match[0], match.start())
