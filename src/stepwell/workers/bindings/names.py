"""Names of stores: an id of a wrangler file, as the server can take it."""

from __future__ import annotations

import hashlib
import re

CHARS_MAX = 64
_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")


def store_name(id: str) -> str:
    """The id itself, where it may be a name; else one made of it, always the same: files often hold `<YOUR_ID>` until they are deployed."""
    plain = _OTHERS.sub("-", id)
    if plain == id and len(id) <= CHARS_MAX:
        return id
    mark = hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:12]
    return f"{plain.strip('-')[: CHARS_MAX - 13]}-{mark}"
