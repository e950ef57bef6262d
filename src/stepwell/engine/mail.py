"""Signals that are kept for a step that does not wait for them yet: in order, for so long, the first to come the first to be taken.

They lie among the key-value entries, in a namespace that no user can name, one entry a signal's name; there they expire as all do.
"""

from __future__ import annotations

import msgspec

from stepwell.engine.commands import Command, Delete, SetRow
from stepwell.engine.inputs import SignalSent
from stepwell.engine.model import Json
from stepwell.engine.model_primitives import KvEntry
from stepwell.engine.view import Select, View
from stepwell.errors import ProtocolError
from stepwell.protocol.kv import stored_key

NAMESPACE = ""
KEPT_MAX = 1000
"""Signals of one name that are kept at a time."""
KEPT_BYTES_MAX = 4 * 1024 * 1024
"""What they may have together."""

_letters = msgspec.json.Decoder(list[msgspec.Raw])


def select_kept(signal: str) -> Select:
    """What is kept of a signal's name."""
    return Select("kv", (NAMESPACE, stored_key(signal)))


def keep(view: View, sent: SignalSent, now_ms: int) -> list[Command]:
    """Keep a signal behind those of its name. Raises `ProtocolError` where there are too many."""
    assert sent.keep_until_ms is not None
    entry, letters = _kept(view, sent.signal, now_ms)
    letters.append(msgspec.Raw(sent.data))
    value = b"[" + b",".join(bytes(letter) for letter in letters) + b"]"
    if len(letters) > KEPT_MAX or len(value) > KEPT_BYTES_MAX:
        raise ProtocolError(
            f"{len(letters) - 1} signals {sent.signal!r} are kept, for nobody waits for them: at most {KEPT_MAX} are, "
            f"with {KEPT_BYTES_MAX} bytes",
            429,
        )
    until_ms = max(entry.expires_ms or 0, sent.keep_until_ms) if entry is not None and len(letters) > 1 else sent.keep_until_ms
    return [SetRow(_entry(sent.signal, value, until_ms))]


def take(view: View, signal: str, now_ms: int) -> tuple[Json | None, list[Command]]:
    """The first signal that is kept of a name, and what takes it away; what has expired goes along."""
    entry, letters = _kept(view, signal, now_ms)
    if entry is None:
        return None, []
    first = bytes(letters.pop(0)) if letters else None
    if not letters:
        return first, [Delete("kv", (NAMESPACE, entry.key))]
    value = b"[" + b",".join(bytes(letter) for letter in letters) + b"]"
    return first, [SetRow(_entry(signal, value, entry.expires_ms or 0))]


def _kept(view: View, signal: str, now_ms: int) -> tuple[KvEntry | None, list[msgspec.Raw]]:
    """The entry of a name, and its signals; none of one that has expired."""
    view.require([select_kept(signal)])
    entry: KvEntry | None = view.get("kv", (NAMESPACE, stored_key(signal)))
    if entry is None or (entry.expires_ms or 0) <= now_ms:
        return entry, []
    return entry, _letters.decode(entry.value)


def _entry(signal: str, value: bytes, until_ms: int) -> KvEntry:
    return KvEntry(namespace=NAMESPACE, key=stored_key(signal), value=value, content_type="json", metadata=None, expires_ms=until_ms)
