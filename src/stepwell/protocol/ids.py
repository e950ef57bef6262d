"""Ids: ULIDs made from a time and entropy that are given, hashes of steps, UUIDs of apps and functions. All deterministic."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Callable

from stepwell.errors import ProtocolError

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_ULID = re.compile(f"[0-7][{_ALPHABET}]{{25}}")
_TRACE = re.compile("[0-9a-f]{32}")
_SEED = re.compile(r"([0-9]{1,15}),([A-Za-z0-9+/]{14}==)")
_NAMESPACE = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


def ulid(ms: int, entropy: bytes) -> str:
    """The ULID of a time and ten bytes."""
    number = (ms << 80) | int.from_bytes(entropy[:10], "big")
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -10, -10)])


def derived_ulid(ms: int, *parts: str) -> str:
    """A ULID whose entropy is a hash: the same time and parts always give the same id."""
    return ulid(ms, hashlib.blake2b("\0".join(parts).encode(), digest_size=10).digest())


ENTROPY = 1 << 80
"""What the part of a ULID behind its time counts to."""


def numbered_ulids(ms: int, entropy: bytes) -> Callable[[int], str]:
    """ULIDs of one time in the order of their numbers, so that what came together stays in its order."""
    base = int.from_bytes(entropy[:10], "big")
    return lambda n: ulid(ms, ((base + n) % ENTROPY).to_bytes(10, "big"))


def run_ulid(ms: int, function_id: str, event_id: str) -> str:
    """The run of a function for an event: always the same, and in the order of the events' ids where their times are one."""
    place = 0
    for letter in event_id[10:]:
        place = place * 32 + _VALUES[letter]
    own = int.from_bytes(hashlib.blake2b(function_id.encode(), digest_size=10).digest(), "big")
    return ulid(ms, ((place + own) % ENTROPY).to_bytes(10, "big"))


def is_ulid(text: str) -> bool:
    """Whether the text has the form of a ULID."""
    return _ULID.fullmatch(text) is not None


def ulid_ms(text: str) -> int:
    """The time in a ULID. Raises `ProtocolError` for what is none."""
    if not is_ulid(text):
        raise ProtocolError(f"{text[:40]!r} is no ULID: 26 characters of {_ALPHABET}")
    value = 0
    for letter in text[:10]:
        value = value * 32 + _VALUES[letter]
    return value


def trace_id_of(run_id: str) -> str:
    """The W3C trace id of a run: its ULID's 128 bits, so that spans of a trace lead back to the run."""
    if not is_ulid(run_id):
        return hashlib.blake2b(run_id.encode(), digest_size=16).hexdigest()
    value = 0
    for letter in run_id:
        value = value * 32 + _VALUES[letter]
    return f"{value:032x}"


def run_of_trace_id(trace_id: str) -> str | None:
    """The run that a trace id is of, if it is one of ours: any 128 bits are, so that it need not be there."""
    if not _TRACE.fullmatch(trace_id.lower()):
        return None
    number = int(trace_id, 16)
    return ulid(number >> 80, (number & ((1 << 80) - 1)).to_bytes(10, "big"))


def span_id_of(*parts: str) -> str:
    """A W3C span id: always the same for what it is made of."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def parse_seed(header: str | None) -> tuple[int, bytes] | None:
    """(ms, ten bytes) of an `X-Inngest-Event-Id-Seed`; `None` for a malformed one, which is ignored (§2.4)."""
    match = _SEED.fullmatch(header or "")
    if match is None or int(match[1]) >= 1 << 48:
        return None
    return int(match[1]), base64.b64decode(match[2])


def seeded_ulid(header: str | None, n: int) -> str | None:
    """The id of the n-th event, from 1, of a request with this header: n is added to the last four bytes, wrapping (§2.4)."""
    seed = parse_seed(header)
    if seed is None:
        return None
    ms, entropy = seed
    tail = (int.from_bytes(entropy[6:], "big") + n) & 0xFFFFFFFF
    return ulid(ms, entropy[:6] + tail.to_bytes(4, "big"))


def step_hash(step_id: str, repetition: int = 0) -> str:
    """The hashed id of a step: of its user's id, or of `id:k` for the k-th repetition (§4.2)."""
    text = step_id if repetition == 0 else f"{step_id}:{repetition}"
    return hashlib.sha1(text.encode()).hexdigest()


def app_uuid(name: str) -> str:
    """The id of an app: always the same for a name."""
    return str(uuid.uuid5(_NAMESPACE, f"app/{name}"))


def function_uuid(slug: str) -> str:
    """The internal id of a function: always the same for a composite slug."""
    return str(uuid.uuid5(_NAMESPACE, f"function/{slug}"))
