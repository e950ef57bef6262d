"""What one transition does to rates, open batches and debounces, and singleton names, collected so that each row is written once."""

from __future__ import annotations

from stepwell.engine.commands import Command, Delete, Effect, SetRow, TimerSet
from stepwell.engine.model import Hold, Name, Rate, Timer, TimerKind
from stepwell.engine.view import View


class Ledger:
    """Rows as they stand after what this transition has decided so far."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._rates: dict[str, Rate] = {}
        self._holds: dict[str, Hold | None] = {}
        self._names: dict[str, Name] = {}

    def rate(self, rate_id: str) -> Rate | None:
        """A rate's state."""
        return self._rates[rate_id] if rate_id in self._rates else self._view.get("rates", rate_id)

    def set_rate(self, rate: Rate) -> None:
        """It has moved on."""
        self._rates[rate.id] = rate

    def hold(self, hold_id: str) -> Hold | None:
        """An open batch or debounce."""
        return self._holds[hold_id] if hold_id in self._holds else self._view.get("holds", hold_id)

    def set_hold(self, hold: Hold) -> None:
        """It has taken an event in."""
        self._holds[hold.id] = hold

    def close_hold(self, hold_id: str) -> None:
        """Its run is made."""
        self._holds[hold_id] = None

    def name(self, name_id: str) -> Name | None:
        """Who has a singleton's name."""
        return self._names[name_id] if name_id in self._names else self._view.name(name_id)

    def is_taken_here(self, name_id: str) -> bool:
        """Whether a run that this very transition makes has the name."""
        return name_id in self._names

    def take_name(self, name: Name) -> None:
        """A new run has it."""
        self._names[name.id] = name

    def commands(self) -> list[Command | Effect]:
        """All of it."""
        commands: list[Command | Effect] = [SetRow(row) for row in (*self._rates.values(), *self._names.values())]
        for hold_id, hold in self._holds.items():
            timer_id = f"hold/{hold_id}"
            if hold is not None:
                commands.append(SetRow(hold))
                if (before := self._view.timer(timer_id)) is None or before.due_ms != hold.due_ms:
                    commands += [
                        SetRow(Timer(id=timer_id, due_ms=hold.due_ms, kind=TimerKind.HOLD, ref=hold_id)),
                        TimerSet(timer_id, hold.due_ms),
                    ]
            elif self._view.get("holds", hold_id) is not None:
                commands += [Delete("holds", hold_id), Delete("timers", timer_id)]
        return commands
