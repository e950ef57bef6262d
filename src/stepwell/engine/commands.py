"""What a transition may ask for: writes that name their change, and effects, which happen after the commit.

A `Put` makes a row; an `Edit` names a row and the new values of some of its columns; a `Delete` takes a row away; the range
commands take what belongs to a run, loaded or not. Applied to a `View`, never to a store directly.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from stepwell.engine.model import DeferStatus, FairClock, Item, Json, Key, LaneState, Row, Run, RunStatus, StepStatus
from stepwell.engine.view import View
from stepwell.protocol.ops import Op


class Command(msgspec.Struct, frozen=True):
    """A write."""

    def apply(self, view: View) -> None:
        """Make the change in the working set."""
        raise TypeError(f"{type(self).__name__} says not how it is applied")


class Put(Command, frozen=True):
    """A row that was not there."""

    row: Row

    def apply(self, view: View) -> None:
        """Put it; one that is there already is refused."""
        view.put(self.row)


class Edit(Command, frozen=True):
    """New values for columns of one row. The first fields name the row, the others are the columns."""

    table: ClassVar[str]
    key_fields: ClassVar[int] = 1

    def apply(self, view: View) -> None:
        """Set the columns that are given."""
        values = msgspec.structs.astuple(self)
        n = self.key_fields
        columns = dict(zip(self.__struct_fields__[n:], values[n:], strict=True))
        if msgspec.UNSET in values:
            columns = {name: value for name, value in columns.items() if value is not msgspec.UNSET}
        view.edit(self.table, values[0] if n == 1 else values[:n], columns)


class Delete(Command, frozen=True):
    """A row that goes."""

    table: str
    key: Key

    def apply(self, view: View) -> None:
        """Take it away; one that is not there is refused."""
        view.delete(self.table, self.key)


class ReceiveAgain(Edit, frozen=True):
    """An event was sent once more."""

    table = "events"
    event_id: str
    receipts: int


# Runs and steps


class StartRun(Edit, frozen=True):
    """The run's first call goes out."""

    table = "runs"
    run_id: str
    status: RunStatus
    started_ms: int


class AdvanceRun(Edit, frozen=True, kw_only=True):
    """What an answer, a checkpoint or a timer changes in a run that goes on."""

    table = "runs"
    run_id: str
    status: RunStatus | msgspec.UnsetType = msgspec.UNSET
    request_version: int | msgspec.UnsetType = msgspec.UNSET
    force_plan: bool | msgspec.UnsetType = msgspec.UNSET
    pending: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    pending_key: str | msgspec.UnsetType = msgspec.UNSET
    steps: int | msgspec.UnsetType = msgspec.UNSET
    finished: int | msgspec.UnsetType = msgspec.UNSET
    state_bytes: int | msgspec.UnsetType = msgspec.UNSET
    calls: int | msgspec.UnsetType = msgspec.UNSET
    waits: int | msgspec.UnsetType = msgspec.UNSET
    defers: int | msgspec.UnsetType = msgspec.UNSET


class EndRun(Edit, frozen=True):
    """The run's end, for every reason."""

    table = "runs"
    run_id: str
    status: RunStatus
    output: Json | None
    reason: str | None
    ended_ms: int
    calls: int = 0
    waits: int = 0
    held: str | None = None


class SetHeld(Edit, frozen=True):
    """A run is paused, by whom, or goes on."""

    table = "runs"
    run_id: str
    held: str | None


class TryStep(Edit, frozen=True):
    """A step was tried without finishing."""

    table = "steps"
    key_fields = 2
    run_id: str
    step_id: str
    status: StepStatus
    attempts: int
    started_ms: int


class FinishStep(Edit, frozen=True):
    """A planned, sleeping or waiting step's end: its memo, its place in the stack, and what it found."""

    table = "steps"
    key_fields = 2
    run_id: str
    step_id: str
    status: StepStatus
    memo: Json
    attempts: int
    started_ms: int
    ended_ms: int
    position: int
    ref: str | None


class SetDefer(Edit, frozen=True):
    """What a run deferred is taken back, or asked for at its end."""

    table = "defers"
    key_fields = 2
    run_id: str
    defer_id: str
    status: DeferStatus


class DeleteOfRun(Command, frozen=True):
    """What an ended run leaves waiting: its timers, waits and names, and its items that nobody holds."""

    run_id: str

    def apply(self, view: View) -> None:
        """Take them away, those that were not loaded too."""
        view.end_run(self.run_id)


class DeleteRun(Command, frozen=True):
    """All of a run (retention)."""

    run_id: str

    def apply(self, view: View) -> None:
        """Take it away, what was not loaded too."""
        view.delete_run(self.run_id)


# Items, lanes and counters


class HoldItem(Edit, frozen=True):
    """A lease: who has it, under which fence, since when. From now on it continues: what gates a run's start has let it pass."""

    table = "items"
    item_id: str
    holder: str
    fence: int
    leased_ms: int
    starts: int = 0


class ReturnItem(Edit, frozen=True):
    """A lease ends without an answer; the item is ready again under a new fence."""

    table = "items"
    item_id: str
    holder: str | None
    fence: int
    losses: int


class MoveItem(Edit, frozen=True):
    """An item waits in another lane: its run was paused, or goes on."""

    table = "items"
    item_id: str
    lane_id: str


class ResetItem(Edit, frozen=True):
    """A checkpoint was accepted: the item's attempts and losses begin anew (§4.7)."""

    table = "items"
    item_id: str
    attempt: int = 0
    losses: int = 0


class SetLane(Edit, frozen=True):
    """A lane opens, shuts or runs empty, or was served."""

    table = "lanes"
    lane_id: str
    state: LaneState
    shut_by: str | None
    tag: int
    shut_at: int = 0


class Charge(Command, frozen=True):
    """Slots of a key are taken."""

    counter_id: str
    slots: int

    def apply(self, view: View) -> None:
        """Count them; a counter begins with its first charge."""
        view.count(self.counter_id, self.slots)


class Release(Command, frozen=True):
    """Slots of a key are given back."""

    counter_id: str
    slots: int = 1

    def apply(self, view: View) -> None:
        """Count them off; a counter at zero goes."""
        view.count(self.counter_id, -self.slots)


class SetClock(Command, frozen=True):
    """A keyed function's virtual time moves on."""

    function_id: str
    virtual: int

    def apply(self, view: View) -> None:
        """Set it, for the first time too."""
        if view.get("clocks", self.function_id) is None:
            view.put(FairClock(function_id=self.function_id, virtual=self.virtual))
        else:
            view.edit("clocks", self.function_id, {"virtual": self.virtual})


class RenewHolder(Edit, frozen=True):
    """A node says that it lives."""

    table = "holders"
    holder_id: str
    renewed_ms: int


class SetRow(Command, frozen=True):
    """A row as it is to be, new or not: apps and functions at a sync."""

    row: Row

    def apply(self, view: View) -> None:
        """Put it in place of what was there."""
        view.replace(self.row)


# Effects


class Effect(msgspec.Struct, frozen=True):
    """What happens after the commit, and only then."""


class Reply(Effect, frozen=True):
    """The answer to whoever sent the input."""

    value: Any


class Refuse(Effect, frozen=True):
    """An error as the answer: the input was decided, and says no."""

    error: Exception


class Call(Effect, frozen=True):
    """A leased item's call is to go out."""

    item: Item
    run: Run


class Wake(Effect, frozen=True):
    """A function has ready items that it may not have had before."""

    function_id: str


class Keep(Effect, frozen=True):
    """A request that the server is to make for a step: the node keeps it in memory, since it may hold secrets."""

    run_id: str
    op: Op

    def __repr__(self) -> str:
        return f"Keep({self.run_id!r}, {self.op.id!r})"


class TimerSet(Effect, frozen=True):
    """A timer was written."""

    timer_id: str
    due_ms: int


class RunEnded(Effect, frozen=True):
    """A run came to its end: nobody needs its coroutine or cached bodies any more."""

    run_id: str


class RegistryChanged(Effect, frozen=True):
    """Apps or functions were written: the node reads them anew before it decides again."""
