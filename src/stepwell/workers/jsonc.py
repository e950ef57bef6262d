"""JSON with comments and trailing commas, as wrangler.jsonc has it.

What is not JSON is blanked where it stands, so that the line and column of an error are those of the file.
"""

from __future__ import annotations

import json
import re
from typing import Any

from stepwell.errors import UsageError

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?\*/|\s+|[\w.+-]+|.', re.DOTALL)


def read_jsonc(text: str, shown: str) -> Any:
    """The value of a text; `shown` names it in errors. Raises `UsageError` with the line and column of what is wrong."""
    plain = _plain(text.removeprefix("\ufeff"))
    try:
        return json.loads(
            plain, object_pairs_hook=lambda pairs: _object(pairs, shown), parse_constant=lambda name: _no_constant(name, shown)
        )
    except json.JSONDecodeError as error:
        raise UsageError(f"{shown}, line {error.lineno}, column {error.colno}: this is no JSON with comments: {error.msg}") from None
    except RecursionError:
        raise UsageError(f"{shown} is nested too deeply to be read") from None


def _plain(text: str) -> str:
    """The text with comments and trailing commas blanked."""
    parts: list[str] = []
    before, comma = "", -1
    for token in _TOKEN.findall(text):
        if token.startswith(("//", "/*")) and len(token) > 1:
            token = re.sub(r"[^\n]", " ", token)
        elif not token.isspace():
            if token in ("}", "]") and comma >= 0:
                parts[comma] = " "
            # A comma right behind an opening bracket or another comma is a mistake and stays one.
            comma = len(parts) if token == "," and before not in ("", "{", "[", ",", ":") else -1
            before = token
        parts.append(token)
    return "".join(parts)


def _object(pairs: list[tuple[str, Any]], shown: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise UsageError(f"{shown}: {key!r} is there twice in one object: remove one")
        made[key] = value
    return made


def _no_constant(name: str, shown: str) -> Any:
    raise UsageError(f"{shown}: {name} is no JSON number")
