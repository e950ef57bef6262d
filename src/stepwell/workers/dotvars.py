"""Secrets for local work: `.dev.vars`, or `.env` files where there is none, as wrangler reads them."""

from __future__ import annotations

import re
from pathlib import Path

_LINE = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*=[ \t]*"""
    r"""(?:'((?:\\'|[^'])*)'|"((?:\\"|[^"])*)"|`((?:\\`|[^`])*)`|([^\n#]*))?""",
    re.MULTILINE,
)


def read_secrets(folder: Path, environment: str | None) -> dict[str, str]:
    """The secrets of a project's folder. `.dev.vars` (`.dev.vars.NAME` in its place for an environment) keeps `.env` files unread."""
    own = folder / f".dev.vars.{environment}"
    vars_file = own if environment is not None and own.is_file() else folder / ".dev.vars"
    if vars_file.is_file():
        return parse_vars(vars_file.read_text("utf-8"))
    names = [".env", ".env.local"] if environment is None else [".env", f".env.{environment}", ".env.local", f".env.{environment}.local"]
    found: dict[str, str] = {}
    for name in names:
        if (folder / name).is_file():
            found |= parse_vars((folder / name).read_text("utf-8"))
    return found


def parse_vars(text: str) -> dict[str, str]:
    """The values of `NAME=value` lines. Quoted ones may go over several lines; line breaks are written as `\\n` in double quotes."""
    found: dict[str, str] = {}
    for match in _LINE.finditer(text.replace("\r\n", "\n")):
        name, single, double, back, bare = match.groups()
        if double is not None:
            value = double.replace("\\n", "\n").replace("\\r", "\r").replace('\\"', '"')
        else:
            value = next((quoted for quoted in (single, back) if quoted is not None), (bare or "").strip())
        found[name] = value
    return found
