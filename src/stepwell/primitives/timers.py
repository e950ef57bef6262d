"""Due timers of the primitives: each kind does one thing, as the engine's do."""

from __future__ import annotations

from stepwell.engine.commands import Command, Effect, TimerSet
from stepwell.engine.model import Timer, TimerKind
from stepwell.engine.registry import Registry
from stepwell.engine.view import View
from stepwell.primitives.queue import on_redeliver
from stepwell.primitives.queue_care import on_expiry, on_purge
from stepwell.primitives.queue_claims import on_queue_due


def on_primitive_due(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """Do what the timer is for."""
    if timer.due_ms > now_ms:
        # The clock went back since the timekeeper looked.
        return [TimerSet(timer.id, timer.due_ms)]
    match timer.kind:
        case TimerKind.QUEUE:
            return on_queue_due(timer)
        case TimerKind.EXPIRY:
            return on_expiry(view, timer, now_ms)
        case TimerKind.PURGE:
            return on_purge(view, timer, now_ms)
        case TimerKind.REDELIVER:
            return on_redeliver(registry, view, timer, now_ms)
        case _:
            raise AssertionError(f"timer {timer.id} is none of a primitive's")
