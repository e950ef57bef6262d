"""Ops: what an app answers that a run needs next (inngest-protocol §4.5). One struct serves all; names are as on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonicalize
from stepwell.protocol.durations import parse_duration_ms

OPCODES = frozenset(
    (
        "StepRun Step StepError StepFailed StepPlanned Sleep WaitForEvent WaitForSignal InvokeFunction AIGateway Gateway "
        "RunComplete SyncRunComplete DiscoveryRequest DeferAdd DeferAbort StepNotFound None"
    ).split()
)
SLEEP_MAX_MS = 366 * 24 * 3600 * 1000
STEP_OUTPUT_BYTES_MAX = 4 * 1024 * 1024


class Op(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One op. `None` for opts, data or error: absent or null. `index` counts repetitions of a user's step id."""

    op: str
    id: str = ""
    name: str = ""
    display_name: str = ""
    opts: Json | None = None
    data: Json | None = None
    error: Json | None = None
    user_id: str = ""
    index: int = 0
    started_ms: int | None = None
    duration_ms: int | None = None


class _Wire(msgspec.Struct):
    """An op's fields on the wire."""

    op: str
    id: str | None = None
    name: str | None = None
    displayName: str | None = None
    opts: msgspec.Raw | None = None
    data: msgspec.Raw | None = None
    error: msgspec.Raw | None = None
    userland: dict[str, Any] | None = None
    timing: dict[str, Any] | None = None


_one = msgspec.json.Decoder(_Wire)
_many = msgspec.json.Decoder(list[_Wire])


def parse_ops(body: bytes) -> tuple[Op, ...]:
    """The ops of a generator answer: an array, or a single object. Raises `ProtocolError` for anything else."""
    head = body.lstrip()[:1]
    try:
        wires = [_one.decode(body)] if head == b"{" else _many.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"the answer is no array of ops: {error}") from None
    return tuple(_op(wire) for wire in wires)


def _op(wire: _Wire) -> Op:
    if wire.op not in OPCODES:
        raise ProtocolError(f"the answer has the unknown op {wire.op!r}")
    userland, timing = wire.userland or {}, wire.timing or {}
    index = userland.get("index")
    started, duration = timing.get("a"), timing.get("b")
    op = Op(
        op=wire.op,
        id=wire.id or "",
        name=wire.name or "",
        display_name=wire.displayName or "",
        opts=_body(wire.opts),
        data=_body(wire.data),
        error=_body(wire.error),
        user_id=str(userland.get("id") or ""),
        index=index if isinstance(index, int) else 0,
        started_ms=int(started) // 10**6 if isinstance(started, int | float) and started > 0 else None,
        duration_ms=int(duration) // 10**6 if isinstance(duration, int | float) and duration >= 0 else None,
    )
    if not op.id and op.op != "None":
        raise ProtocolError(f"the op {op.op} has no id")
    if op.data is not None and len(op.data) > STEP_OUTPUT_BYTES_MAX:
        raise ProtocolError(
            f"the output of step {op.display_name or op.name or op.id!r} has {len(op.data)} bytes; at most {STEP_OUTPUT_BYTES_MAX} are taken",
            code="output_too_large",
        )
    if op.op in ("StepError", "StepFailed") and op.error is None:
        raise ProtocolError(f"the op {op.op} of step {op.display_name or op.id!r} has no error")
    return op


def _body(raw: msgspec.Raw | None) -> Json | None:
    if raw is None:
        return None
    text = canonicalize(bytes(raw))
    return None if text == b"null" else text


def encode_ops(ops: tuple[Op, ...] | list[Op]) -> bytes:
    """The array of ops as an SDK answers it."""
    return b"[" + b",".join(_encode_op(op) for op in ops) + b"]"


def _encode_op(op: Op) -> bytes:
    encode = msgspec.json.encode
    parts = [b'{"op":', encode(op.op), b',"id":', encode(op.id), b',"name":', encode(op.name)]
    parts += [b',"displayName":', encode(op.display_name or op.name), b',"opts":', op.opts or b"null"]
    parts += [b',"data":', op.data or b"null", b',"error":', op.error or b"null"]
    if op.user_id:
        parts += [b',"userland":', encode({"id": op.user_id, "index": op.index or None})]
    if op.started_ms is not None:
        parts += [b',"timing":', encode({"a": op.started_ms * 10**6, "b": (op.duration_ms or 0) * 10**6})]
    parts.append(b"}")
    return b"".join(parts)


def sleep_until_ms(op: Op, now_ms: int) -> int:
    """When a `Sleep` ends: `opts.duration`, else `name`; a date, or a duration from now. What is past is now (§5.2).

    Raises `ProtocolError`, with code `timeout_too_long` for more than 366 days.
    """
    text = op.name
    if op.opts is not None:
        opts = msgspec.json.decode(op.opts)
        if isinstance(opts, dict) and opts.get("duration"):
            text = str(opts["duration"])
    until_ms = parse_date_ms(text) if len(text) >= 10 else None
    if until_ms is None:
        until_ms = now_ms + parse_duration_ms(text)
    if until_ms - now_ms > SLEEP_MAX_MS:
        raise ProtocolError(f"a sleep of {text!r} is longer than 366 days", code="timeout_too_long")
    return max(until_ms, now_ms)


def parse_date_ms(text: str) -> int | None:
    """A date of RFC 3339 or HTTP, in milliseconds, never early; `None` for something else. Without a zone it is UTC."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    since = date - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 1000 + -(-since.microseconds // 1000)
