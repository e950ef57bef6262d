"""What a run wants to have run after its end (inngest-protocol §5.10): kept with the run, asked for by an event each when it ends.

Nothing about it ever fails the run: what may not be is kept as refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stepwell.engine.commands import Command, Put, SetDefer
from stepwell.engine.model import Defer, DeferStatus, Json, Run
from stepwell.engine.view import View
from stepwell.errors import ProtocolError
from stepwell.protocol.codec import canonical
from stepwell.protocol.events import parse_meta
from stepwell.protocol.ops import Op, opts_of

DEFERS_MAX = 20
"""Of one run, those that were taken back among them."""
REJECTED_MAX = 100
"""Refused ones of one run that are kept to be shown."""
INPUT_BYTES_MAX = 4 * 1024 * 1024
"""Of each, and of all of a run together."""
META_BYTES_MAX = 32 * 1024


class Defers:
    """One transition's work on the defers of a run."""

    def __init__(self, view: View, run: Run, now_ms: int) -> None:
        self._run_id, self._now_ms = run.id, now_ms
        rows: list[Defer] = view.scan("defers_of", run.id, DEFERS_MAX + REJECTED_MAX) if run.defers else []
        self._before = {row.id: row for row in rows}
        self._rows = dict(self._before)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, op: Op) -> None:
        """Keep what the op asks for. An id that is there already was asked for before, and stays as it is."""
        if op.id in self._rows:
            return
        opts = opts_of(op)
        row = Defer(
            run_id=self._run_id,
            id=op.id,
            name=op.label,
            function_id=fn if isinstance(fn := opts.get("fn_slug"), str) else "",
            status=DeferStatus.AFTER_RUN,
            input=canonical({} if opts.get("input") is None else opts["input"]),
            meta=None,
            reason=None,
            created_ms=self._now_ms,
        )
        reason = self._refusal(row)
        if reason is None:
            try:
                row = msgspec.structs.replace(row, meta=meta_of(opts.get("meta")))
            except ProtocolError as error:
                reason = str(error)
        if reason is None:
            self._rows[op.id] = row
        elif sum(row.status is DeferStatus.REJECTED for row in self._rows.values()) < REJECTED_MAX:
            self._rows[op.id] = msgspec.structs.replace(row, status=DeferStatus.REJECTED, input=None, reason=reason)

    def _refusal(self, row: Defer) -> str | None:
        """Why the row may not be kept."""
        assert row.input is not None
        taken = [other for other in self._rows.values() if other.input is not None]
        if not row.function_id:
            return "it names no function (fn_slug)"
        if row.input[:1] != b"{":
            return f"its input must be an object, not {row.input[:40].decode(errors='replace')}"
        if len(taken) >= DEFERS_MAX:
            return f"a run defers {DEFERS_MAX} at most"
        if len(row.input) > INPUT_BYTES_MAX:
            return f"its input has {len(row.input)} bytes; at most {INPUT_BYTES_MAX} are taken"
        if (total := len(row.input) + sum(len(other.input or b"") for other in taken)) > INPUT_BYTES_MAX:
            return f"the inputs of what the run defers have {total} bytes together; at most {INPUT_BYTES_MAX} are taken"
        return None

    def abort(self, op: Op) -> None:
        """Take back what the op names, if it is still to run."""
        target = opts_of(op).get("target_hashed_id")
        row = self._rows.get(target) if isinstance(target, str) else None
        if row is not None and row.status is DeferStatus.AFTER_RUN:
            self._rows[row.id] = msgspec.structs.replace(row, status=DeferStatus.ABORTED)

    def due(self) -> Iterator[Defer]:
        """Those to run, now that the run ends."""
        return (row for row in self._rows.values() if row.status is DeferStatus.AFTER_RUN)

    def commands(self) -> list[Command]:
        """What this transition changes of them, their scheduling at the run's end aside."""
        commands: list[Command] = []
        for row in self._rows.values():
            before = self._before.get(row.id)
            if before is None:
                commands.append(Put(row))
            elif before.status is not row.status:
                commands.append(SetDefer(row.run_id, row.id, row.status))
        return commands


def meta_of(meta: object) -> Json | None:
    """The meta of the event to be: sessions, inherited ones merged under its own (§2.1). Raises `ProtocolError`."""
    if meta is None:
        return None
    encoded = canonical(meta)
    if len(encoded) > META_BYTES_MAX:
        raise ProtocolError(f"its meta has {len(encoded)} bytes; at most {META_BYTES_MAX} are taken")
    return parse_meta(msgspec.Raw(encoded))
