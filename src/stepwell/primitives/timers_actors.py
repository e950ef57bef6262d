"""Due timers of actors: each kind does one thing, as the engine's do."""

from __future__ import annotations

from stepwell.engine.commands import Command, Effect, TimerSet
from stepwell.engine.model import Timer, TimerKind
from stepwell.engine.view import View
from stepwell.primitives.actor import on_alarm_due, on_clear, on_refire


def on_actor_timer_due(view: View, timer: Timer, holder: str, now_ms: int) -> list[Command | Effect]:
    """Do what the timer is for."""
    if timer.due_ms > now_ms:
        # The clock went back since the timekeeper looked.
        return [TimerSet(timer.id, timer.due_ms)]
    match timer.kind:
        case TimerKind.ALARM:
            return on_alarm_due(view, timer, holder)
        case TimerKind.CLEAR:
            return on_clear(view, timer, now_ms)
        case TimerKind.REFIRE:
            return on_refire(view, timer, now_ms)
        case _:
            raise AssertionError(f"timer {timer.id} is none of an actor's")
