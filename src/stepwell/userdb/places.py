"""Where in a statement an error is: SQLite knows the offset, and Python's `sqlite3` does not tell it, so it is found again.

An offset is given where it is sure, else none.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence

from stepwell.userdb.limits import VARIABLES_MAX
from stepwell.userdb.statements import numbered
from stepwell.userdb.tokens import Token, tokens

_SYNTAX = re.compile(r'near "(?P<token>.*)": syntax error', re.DOTALL)
_NAMED = re.compile(
    r"(?:no such column: |ambiguous column name: |no such function: |not authorized to use function: "
    r"|wrong number of arguments to function |misuse of aggregate(?: function|:) |misuse of window function )(?P<name>.+?)(?P<call>\(\))?",
    re.DOTALL,
)

Prepared = Callable[[str], str | None]
"""The error of preparing a text, without running it; `None` for one that is right."""


def offset(message: str, sql: str, prepared: Prepared) -> int | None:
    """In bytes of UTF-8 from the statement's beginning."""
    place = _place(message, sql, prepared)
    return None if place is None else len(sql[:place].encode())


def _place(message: str, sql: str, prepared: Prepared) -> int | None:
    found = list(tokens(sql))
    if (match := _SYNTAX.fullmatch(message)) is not None:
        return _first_wrong(message, sql, [token for token in found if token.text == match["token"]], prepared)
    if message.startswith("unrecognized token:"):
        return next((token.start for token in found if token.kind == "open"), None)
    if message == "too many SQL variables":
        return next((token.start for token, number in numbered(found) if number > VARIABLES_MAX), None)
    if (match := _NAMED.fullmatch(message)) is not None:
        return _only(found, match["name"].split("."))
    return None


def _first_wrong(message: str, sql: str, candidates: Sequence[Token], prepared: Prepared) -> int | None:
    """The token at which the grammar is left: what ends before it is at most not finished, what ends with or after it has this error."""
    index = bisect_left(candidates, True, key=lambda token: prepared(sql[: token.end]) == message)
    return candidates[index].start if index < len(candidates) else None


def _only(found: Sequence[Token], path: Sequence[str]) -> int | None:
    """Where a name stands, if it does so once. The left side of a `SET` is a name whose place SQLite does not tell."""
    starts = []
    width = 2 * len(path) - 1
    for index, token in enumerate(found):
        stretch = found[index : index + width]
        if [part.name.lower() for part in stretch[::2]] != [name.lower() for name in path] or len(stretch) < width:
            continue
        if any(dot.text != "." for dot in stretch[1::2]) or (index > 0 and found[index - 1].text == "."):
            continue
        before = found[index - 1].text.upper() if index > 0 else ""
        after = found[index + width].text if index + width < len(found) else ""
        if before in ("SET", ",") and after == "=":
            return None
        starts.append(token.start)
    return starts[0] if len(starts) == 1 else None
