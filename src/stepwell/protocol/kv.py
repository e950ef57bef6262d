"""Key-value namespaces as they cross wires: bounds, and keys as they are stored.

Bounds are those of Cloudflare's KV. A stored key is in UTF-8's order, as the key is; it holds no NUL, which SQLite's JSON would cut it at.
"""

from __future__ import annotations

from stepwell.errors import ProtocolError
from stepwell.protocol.queues import checked_name

KEY_BYTES_MAX = 512
VALUE_BYTES_MAX = 25 * 1024 * 1024
METADATA_BYTES_MAX = 1024
LIST_MAX = 1000
KEYS_MAX = 100
"""Keys of one request."""


def checked_namespace(name: object) -> str:
    """A namespace's name. Raises `ProtocolError` for what is none."""
    return checked_name(name, "a KV namespace")


def checked_key(key: object) -> str:
    """A key. Raises `ProtocolError` for one that is empty, too long, no text, or one of `.` and `..`."""
    if not isinstance(key, str):
        raise ProtocolError(f"the key {key!r:.60} must be a string")
    if key in (".", ".."):
        raise ProtocolError(f'"{key}" is not allowed as a key name')
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ProtocolError(f"the key {key!r:.60} is no Unicode text: it holds half of a surrogate pair") from None
    if not size:
        raise ProtocolError("a key cannot be empty")
    if size > KEY_BYTES_MAX:
        raise ProtocolError(f"the key {key!r:.40} has {size} bytes; at most {KEY_BYTES_MAX} are taken", 414)
    return key


def stored_key(key: str) -> str:
    """A key, or the beginning of one, as rows hold it."""
    return key.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01") if "\x01" in key or "\x00" in key else key


def shown_key(stored: str) -> str:
    """The key that a row holds."""
    return stored.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if "\x01" in stored else stored
