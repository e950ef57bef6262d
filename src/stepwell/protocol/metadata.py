"""Metadata as it crosses the wire: what apps note about their runs, in ops and by the API (inngest-protocol §4.5, §7.1)."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, decode
from stepwell.protocol.ids import step_hash

NOTES_MAX = 100
"""Notes in one request or op."""
KIND_BYTES_MAX = 128
SPAN_BYTES_MAX = 64 * 1024
"""Of all that is noted about one run, step, try or span."""
RUN_BYTES_MAX = 1024 * 1024
"""Of all that is noted about a run and its parts."""

Scope = Literal["run", "step", "step_attempt", "extended_trace"]
Change = Literal["merge", "set", "delete"]
CHANGES: tuple[Change, ...] = ("merge", "set", "delete")

AI = "inngest.ai"
SCORE = "inngest.score"
EXPERIMENT = "inngest.experiment"
WARNINGS = "inngest.warnings"
ABOUT_RUNS = frozenset((SCORE, EXPERIMENT))
"""Kinds that tell something about the whole run, wherever they were noted."""

_HASH = re.compile("[0-9a-f]{40}")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One thing noted: `values` (a canonical object) of a kind, about a span of a scope (as in `model.Metadata`).

    `set` puts them in place of what is there, `merge` lays them over it, `delete` takes the kind away.
    """

    scope: Scope
    span: str
    kind: str
    change: Change
    values: Json


class _Target(msgspec.Struct):
    run_id: str | None = None
    step_id: str | None = None
    step_index: int | None = None
    step_attempt: int | None = None
    span_id: str | None = None


class _Update(msgspec.Struct):
    kind: str
    op: str = "set"
    values: msgspec.Raw = msgspec.Raw(b"{}")
    scope: str | None = None


class _Request(msgspec.Struct):
    target: _Target = msgspec.field(default_factory=_Target)
    metadata: list[_Update] = []


_request = msgspec.json.Decoder(_Request)
_updates = msgspec.json.Decoder(list[_Update])


def parse_notes(body: bytes, run_id: str) -> tuple[Note, ...]:
    """The notes of a request about a run. Raises `ProtocolError` naming what is wrong."""
    try:
        request = _request.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f'the metadata is not {{"target": {{…}}, "metadata": [{{"kind", "op", "values"}}]}}: {error}') from None
    target = request.target
    if target.run_id and target.run_id != run_id:
        raise ProtocolError(f"the target names run {target.run_id!r}, and the address run {run_id!r}")
    scope, span = _place(target)
    if len(request.metadata) > NOTES_MAX:
        raise ProtocolError(f"the request has {len(request.metadata)} notes; at most {NOTES_MAX} are taken", 413)
    return tuple(_note(update, scope, span) for update in request.metadata)


def notes_of_op(metadata: Json, step_id: str) -> tuple[Note, ...]:
    """The notes that an op carries about its step. Raises `ProtocolError` for what are none."""
    try:
        updates = _updates.decode(metadata)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the metadata of the step is no list of notes: {error}") from None
    if len(updates) > NOTES_MAX:
        raise ProtocolError(f"the step has {len(updates)} notes; at most {NOTES_MAX} are taken")
    return tuple(_note(update, *(("run", "") if update.scope == "run" else ("step", step_id))) for update in updates)


def _place(target: _Target) -> tuple[Scope, str]:
    if target.span_id:
        return "extended_trace", target.span_id
    if target.step_id is None:
        return "run", ""
    step_id = hashed(target.step_id, target.step_index or 0)
    return ("step", step_id) if target.step_attempt is None else ("step_attempt", f"{step_id}/{target.step_attempt}")


def hashed(step_id: str, index: int = 0) -> str:
    """A step's id, given itself or the user's id of the step."""
    return step_id if _HASH.fullmatch(step_id) else step_hash(step_id, index)


def _note(update: _Update, scope: Scope, span: str) -> Note:
    if not update.kind or len(update.kind.encode()) > KIND_BYTES_MAX:
        raise ProtocolError(f"the kind {update.kind[:40]!r} of metadata must have 1 to {KIND_BYTES_MAX} bytes")
    if len(span.encode()) > 4096:
        raise ProtocolError("the id of the step or span that the metadata is about is too long")
    change = next((change for change in CHANGES if change == update.op), None)
    if change is None:
        raise ProtocolError(f"the op {update.op[:40]!r} of metadata is none of {', '.join(CHANGES)}")
    values = decode(bytes(update.values) or b"{}")
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ProtocolError(f"the values of metadata of kind {update.kind!r} must be an object")
    return Note(scope=scope, span=span, kind=update.kind, change=change, values=canonical(values))


SUMMED = frozenset(
    (
        *("input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_creation_tokens", "reasoning_tokens"),
        *("latency_ms", "estimated_cost"),
    )
)
"""Of what is noted about the use of models: what adds up; of the rest the last one counts."""


def merged(kind: str, before: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Values laid over those of before; the use of models adds up, for a step may ask several times."""
    if kind != AI:
        return {**before, **values}
    summed = {}
    for name in SUMMED & before.keys() & values.keys():
        a, b = before[name], values[name]
        if isinstance(a, int | float) and isinstance(b, int | float):
            summed[name] = a + b
    return {**before, **values, **summed}
