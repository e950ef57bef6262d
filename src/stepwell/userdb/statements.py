"""A text of SQL as its statements, each with what has to be known before SQLite sees it: how it begins, and its parameters."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import msgspec

from stepwell.userdb.tokens import Token, tokens

TEXTS_KEPT = 256
"""Texts whose statements are remembered."""

# How SQLite's own `sqlite3_complete` tells the `;` that ends a statement from those in a trigger's body: a row for each state, in it
# the next state by what comes. 0 is the end of a statement.
_WORDS = {"explain": 1, "create": 2, "temp": 3, "temporary": 3, "trigger": 4, "end": 5}
_SEMICOLON, _OTHER = 6, 0
_NEXT = (
    # other, explain, create, temp, trigger, end, semicolon
    (1, 2, 3, 1, 1, 1, 0),  # 0 start
    (1, 1, 1, 1, 1, 1, 0),  # 1 any statement
    (1, 1, 3, 1, 1, 1, 0),  # 2 explain
    (1, 1, 1, 3, 4, 1, 0),  # 3 create
    (4, 4, 4, 4, 4, 4, 5),  # 4 a trigger's head or body
    (4, 4, 4, 4, 4, 6, 5),  # 5 after a ; in it
    (4, 4, 4, 4, 4, 4, 0),  # 6 after its END
)

_DEFINES = frozenset(["CREATE", "ALTER"])
_NAMES = frozenset(["word", "quoted", "string"])
"""Kinds of tokens that may name something: SQLite takes a text in single quotes for a name where only a name may stand."""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One statement. `defines` has the names that stand in one that makes or alters something, texts in quotes among them.

    `text` has what stands before it (white space, comments) and its `;`. `keyword` is its first word, in capitals. `variables` is how
    many values it takes; `positional` is the text with named parameters as numbered ones, for values that are bound by their place.
    """

    text: str
    keyword: str
    variables: int
    positional: str
    defines: tuple[str, ...] = ()


@functools.lru_cache(TEXTS_KEPT)
def statements(sql: str) -> tuple[Statement, ...]:
    """The statements of a text, without those that are nothing but a `;`."""
    found, begin, state = [], 0, 0
    taken: list[Token] = []
    for token in tokens(sql):
        taken.append(token)
        word = _WORDS.get(token.text.lower(), _OTHER) if token.kind == "word" else _OTHER
        state = _NEXT[state][_SEMICOLON if token.kind == "semicolon" else word]
        if state == 0:
            if len(taken) > 1:
                found.append(_statement(sql, begin, token.end, taken))
            begin, taken = token.end, []
    if taken:
        found.append(_statement(sql, begin, len(sql), taken))
    return tuple(found)


def _statement(sql: str, begin: int, end: int, taken: list[Token]) -> Statement:
    numbers = numbered(taken)
    parts, place = [], begin
    for token, number in numbers:
        if token.text[0] != "?":
            parts += [sql[place : token.start], f"?{number}"]
            place = token.end
    keyword = taken[0].text.upper()
    return Statement(
        text=sql[begin:end],
        keyword=keyword,
        variables=max((number for _, number in numbers), default=0),
        positional="".join([*parts, sql[place:end]]),
        defines=tuple({token.name for token in taken if token.kind in _NAMES}) if keyword in _DEFINES else (),
    )


def numbered(taken: Iterable[Token]) -> list[tuple[Token, int]]:
    """The parameters among tokens with their numbers, by SQLite's rules: `?` is one more than the highest so far, as is a new name."""
    numbers: list[tuple[Token, int]] = []
    names: dict[str, int] = {}
    highest = 0
    for token in taken:
        if token.kind != "variable":
            continue
        if token.text == "?":
            number = highest + 1
        elif token.text[0] == "?":
            # What is out of SQLite's range it refuses by itself; here it only must not become a number of thousands of digits.
            number = int(token.text[1:7])
        else:
            number = names.setdefault(token.text, highest + 1)
        highest = max(highest, number)
        numbers.append((token, number))
    return numbers
