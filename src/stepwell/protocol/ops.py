"""Ops: what an app answers that a run needs next (inngest-protocol §4.5). One struct serves all; names are as on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonicalize, decode, text
from stepwell.protocol.durations import format_duration, parse_due_ms
from stepwell.protocol.durations import parse_date_ms as parse_date_ms
from stepwell.protocol.failures import normal_error

OPCODES = frozenset(
    {
        *("StepRun", "Step", "StepError", "StepFailed", "StepPlanned", "StepNotFound"),
        *("Sleep", "WaitForEvent", "WaitForSignal", "InvokeFunction", "AIGateway", "Gateway"),
        *("RunComplete", "SyncRunComplete", "DiscoveryRequest", "DeferAdd", "DeferAbort", "None"),
    }
)
LAZY = frozenset({"DeferAdd", "DeferAbort"})
"""Ops that ride along with others and count as no step (§4.5)."""
REQUESTS = frozenset({"AIGateway", "Gateway"})
"""Ops that ask the server to make an HTTP request (§5.6, §5.7)."""
ENDS = frozenset({"RunComplete", "SyncRunComplete"})
"""Ops that carry the function's result, which is bounded by its answer only."""
STEP_OUTPUT_BYTES_MAX = 4 * 1024 * 1024
STEP_INPUT_BYTES_MAX = 4 * 1024 * 1024
OP_TEXT_BYTES_MAX = 4096
"""Of an op's id, name, display name, and the user's id."""
WAIT_MAX_MS = 366 * 24 * 3600 * 1000
"""The longest sleep and wait for an event."""
INVOKE_TIMEOUT_MS = 365 * 24 * 3600 * 1000
"""How long an invoke or a wait for a signal lasts that does not say it."""


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
    metadata: Json | None = None

    @property
    def label(self) -> str:
        """What people know the op by."""
        return self.display_name or self.user_id or self.name or self.id


_NOTHING = msgspec.Raw()


class _Wire(msgspec.Struct):
    """An op's fields on the wire. Keys are matched as they are written; what is not known passes."""

    op: str
    id: str | None = None
    name: str | None = None
    displayName: str | None = None
    opts: msgspec.Raw = _NOTHING
    data: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING
    userland: msgspec.Raw = _NOTHING
    timing: msgspec.Raw = _NOTHING
    metadata: msgspec.Raw = _NOTHING


_one = msgspec.json.Decoder(_Wire)
_many = msgspec.json.Decoder(list[_Wire])


def parse_ops(body: bytes) -> tuple[Op, ...]:
    """The ops of a generator answer: an array, or a single object. Raises `ProtocolError` for anything else."""
    head = body[:64].lstrip()[:1] or body.lstrip()[:1]
    if not head:
        raise ProtocolError("the app answered 206 with an empty body; it must be an array of ops")
    try:
        wires = [_one.decode(body)] if head == b"{" else _many.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the app answered 206 with what is no array of ops: {error}") from None
    return tuple([_op(wire) for wire in wires])


def _op(wire: _Wire) -> Op:
    if wire.op not in OPCODES:
        raise ProtocolError(f"the app answered with the unknown op {wire.op[:40]!r}")
    user_id, index = _userland(wire.userland)
    started_ms, duration_ms = _timing(wire.timing)
    op = Op(
        op=wire.op,
        id=wire.id or "",
        name=wire.name or "",
        display_name=wire.displayName or "",
        opts=_as_written(wire.opts) if wire.op in REQUESTS else _body(wire.opts),
        data=_body(wire.data),
        error=_error(wire.error),
        user_id=user_id,
        index=index,
        started_ms=started_ms,
        duration_ms=duration_ms,
        metadata=_metadata(wire.metadata),
    )
    if not op.id and op.op not in ("None", *ENDS):
        raise ProtocolError(f"the app answered with an op {op.op} without an id")
    for field in (op.id, op.name, op.display_name, op.user_id):
        if len(field) > OP_TEXT_BYTES_MAX:
            raise ProtocolError(f"the op {op.op} has a name or id {field[:40]!r}… of more than {OP_TEXT_BYTES_MAX} characters")
    if op.data is not None and len(op.data) > STEP_OUTPUT_BYTES_MAX and op.op not in ENDS:
        raise ProtocolError(
            f"the output of step {op.label!r} has {len(op.data)} bytes; at most {STEP_OUTPUT_BYTES_MAX} are taken",
            413,
            code="output_too_large",
        )
    if op.opts is not None and op.op not in LAZY and len(op.opts) > STEP_INPUT_BYTES_MAX:
        raise ProtocolError(
            f"the input of step {op.label!r} has {len(op.opts)} bytes; at most {STEP_INPUT_BYTES_MAX} are taken", code="input_too_large"
        )
    if op.op in ("StepError", "StepFailed") and op.error is None:
        raise ProtocolError(f"the op {op.op} of step {op.label!r} has no error")
    return op


def _body(raw: msgspec.Raw) -> Json | None:
    body = bytes(raw)
    if not body or body == b"null":
        return None
    return canonicalize(body)


def _as_written(raw: msgspec.Raw) -> Json | None:
    """A request's opts, never stored whole: keys stay in their order, which models follow when they fill in a schema."""
    return None if _body(raw) is None else msgspec.json.format(bytes(raw), indent=-1)


def _error(raw: msgspec.Raw) -> Json | None:
    """The error as an object with name and message, which Python's SDK insists on when it gets it back (§4.3)."""
    body = bytes(raw)
    if not body or body == b"null":
        return None
    return normal_error(decode(body), "The step failed without a message.")


def _metadata(raw: msgspec.Raw) -> Json | None:
    body = _body(raw)
    return None if body == b"[]" else body


def _userland(raw: msgspec.Raw) -> tuple[str, int]:
    """The user's id of the step, and which repetition of it this is."""
    fields = _fields(raw)
    user_id, index = fields.get("id"), fields.get("index")
    return user_id if isinstance(user_id, str) else "", index if isinstance(index, int) and 0 <= index < 2**31 else 0


def _timing(raw: msgspec.Raw) -> tuple[int | None, int | None]:
    """Start and duration in milliseconds; both come in nanoseconds."""
    fields = _fields(raw)
    started, duration = fields.get("a"), fields.get("b")
    return (
        int(started) // 10**6 if isinstance(started, int | float) and 0 < started < 2**63 else None,
        int(duration) // 10**6 if isinstance(duration, int | float) and 0 <= duration < 2**63 else None,
    )


def _fields(raw: msgspec.Raw) -> dict[str, Any]:
    value = decode(bytes(raw) or b"null")
    return value if isinstance(value, dict) else {}


def encode_ops(ops: Sequence[Op]) -> bytes:
    """The array of ops as an SDK answers it."""
    return b"[" + b",".join([_encode_op(op) for op in ops]) + b"]"


def _encode_op(op: Op) -> bytes:
    parts = [b'{"op":', text(op.op), b',"id":', text(op.id), b',"name":', text(op.name), b',"displayName":', text(op.display_name)]
    parts += [b',"opts":', op.opts or b"null", b',"data":', op.data or b"null", b',"error":', op.error or b"null"]
    if op.user_id:
        parts += [b',"userland":{"id":', text(op.user_id), b',"index":%d}' % op.index if op.index else b',"index":null}']
    if op.started_ms is not None:
        parts.append(b',"timing":{"a":%d,"b":%d}' % (op.started_ms * 10**6, (op.duration_ms or 0) * 10**6))
    if op.metadata is not None:
        parts += [b',"metadata":', op.metadata]
    parts.append(b"}")
    return b"".join(parts)


def says_no_retry(op: Op) -> bool:
    """Whether a step's error itself asks for no retry (§5.9)."""
    return op.error is not None and b'"noRetry"' in op.error and decode(op.error).get("noRetry") is True


def opts_of(op: Op) -> dict[str, Any]:
    """The op's opts; empty where it has none."""
    opts = None if op.opts is None else decode(op.opts)
    return opts if isinstance(opts, dict) else {}


def sleep_until_ms(op: Op, now_ms: int) -> int:
    """When a `Sleep` ends: `opts.duration`, else `name`; a date, or a duration from now. What is past is now (§5.2).

    Raises `ProtocolError`, with code `timeout_too_long` for more than 366 days.
    """
    duration = opts_of(op).get("duration")
    return _bounded(duration if isinstance(duration, str) and duration else op.name, now_ms, f"step {op.label!r}: a sleep of")


def wait_until_ms(op: Op, now_ms: int) -> int:
    """When a `WaitForEvent` is over: `opts.timeout`, at once where it says none (§5.3). Raises as `sleep_until_ms`."""
    timeout = opts_of(op).get("timeout")
    return _bounded(timeout if isinstance(timeout, str) else "", now_ms, f"step {op.label!r}: a wait of")


def timeout_ms(op: Op, now_ms: int) -> int:
    """When an `InvokeFunction` or `WaitForSignal` is given up: `opts.timeout`, else in a year (§5.4)."""
    timeout = opts_of(op).get("timeout")
    if not isinstance(timeout, str) or not timeout:
        return now_ms + INVOKE_TIMEOUT_MS
    return _bounded(timeout, now_ms, f"step {op.label!r}: a timeout of")


def _bounded(duration: str, now_ms: int, what: str) -> int:
    try:
        until_ms = parse_due_ms(duration, now_ms)
    except ProtocolError as error:
        raise ProtocolError(f"{what} that length cannot be: {error}") from None
    if until_ms - now_ms > WAIT_MAX_MS:
        limit = format_duration(WAIT_MAX_MS)
        raise ProtocolError(f"{what} {duration!r} is longer than {limit}", code="timeout_too_long")
    return until_ms
