"""What one answer, checkpoint or timer does to a run that goes on: collected op by op, written once.

An `Advance` gathers finished steps, new items and timers of one transition, keeps the run's counts, and decides by the protocol's
rules (§4.6) which discoveries follow. `ending.settle` closes it.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from stepwell.engine.commands import AdvanceRun, Command, Delete, Effect, FinishStep, Put, ResetItem, TimerSet, TryStep
from stepwell.engine.decision import Decision
from stepwell.engine.defers import Defers
from stepwell.engine.model import Attempt, Item, Json, Run, RunStatus, Step, StepStatus, Timer
from stepwell.engine.run import item_timer, moved, new_item
from stepwell.protocol.codec import canonical, decode
from stepwell.protocol.ops import Op


class Advance:
    """One transition's work on one run."""

    def __init__(self, decision: Decision, run: Run) -> None:
        self.decision, self.run = decision, run
        self.registry, self.view, self.now_ms, self.lanes = decision.registry, decision.view, decision.now_ms, decision.lanes
        self._commands: list[Command | Effect] = []
        self._seen: dict[str, bool] = {}
        self._jobs: set[str] = set()
        self._attempts = 0
        self._steps, self._finished, self._state_bytes = run.steps, run.finished, run.state_bytes
        self._calls, self._waits = run.calls, run.waits
        self._pending, self._pending_key, self._force_plan = run.pending, run.pending_key, run.force_plan
        self._version = run.request_version
        self._defers: Defers | None = None
        self._end: tuple[RunStatus, Json | None, str | None] | None = None

    # Facts.

    @property
    def version(self) -> int:
        """The run's request version, the answer in hand included."""
        return self._version

    def settle_version(self, answered: int) -> None:
        """The first generator answer settles the version for the whole run (§4.2)."""
        if self._version < 0 <= answered:
            self._version = answered

    def open_group(self, step_ids: list[str], joined: bool) -> None:
        """Several ops at once: plan from now on; where planned steps are joined (version ≥ 2), remember whom to wait for."""
        self._force_plan = True
        # A step that is finished already (an app may plan it again) is not waited for.
        step_ids = [step_id for step_id in step_ids if (step := self.knows_step(step_id)) is None or step.ended_ms is None]
        if joined and step_ids:
            self._pending = tuple(step_ids)
            self._pending_key = hashlib.sha1("\n".join([self.run.id, *sorted(step_ids)]).encode()).hexdigest()

    def knows_step(self, step_id: str) -> Step | None:
        """The step's row, were it there before this transition."""
        return self.view.step(self.run.id, step_id)

    def ends(self, status: RunStatus, output: Json | None, reason: str | None = None) -> None:
        """The run ends with this transition; the first end counts."""
        if self._end is None:
            self._end = (status, output, reason)

    @property
    def ended(self) -> bool:
        """Whether this transition ends the run."""
        return self._end is not None

    @property
    def defers(self) -> Defers:
        """What the run wants to have run after its end."""
        if self._defers is None:
            self._defers = Defers(self.view, self.run, self.now_ms)
        return self._defers

    @property
    def has_defers(self) -> bool:
        """Whether there is anything among them."""
        return self.run.defers > 0 or self._defers is not None

    @property
    def has_more(self) -> bool:
        """Whether this transition has brought the run something that will call it."""
        return self.outstanding > self.run.calls + self.run.waits

    # Items.

    def consume(self, item: Item) -> None:
        """The item's call is over and has led to what follows."""
        self._commands.append(Delete("items", item.id))
        self.lanes.give_back(item)
        self._calls -= 1

    def retry(self, item: Item, due_ms: int) -> None:
        """The item's call is over; the same job is made again when due, as the next attempt."""
        again = msgspec.structs.replace(item, attempt=item.attempt + 1, losses=0)
        timer = item_timer(again, due_ms)
        self._commands += [Delete("items", item.id), Put(timer), TimerSet(timer.id, due_ms)]
        self.lanes.give_back(item)

    def leave(self, session: Timer) -> None:
        """The app that has executed the run does so no longer (`endpoints.py`)."""
        self._commands.append(Delete("timers", session.id))
        self._calls -= 1

    def carry(self, timer: Timer) -> None:
        """An item that is ready when its timer fires."""
        self._commands += [Put(timer), TimerSet(timer.id, timer.due_ms)]
        self._calls += 1

    def attempted(self, item: Item, step_id: str, kind: Literal["failed", "lost"], error: Json, worker: str) -> None:
        """A try worth showing: it failed, or was lost. One call may tell of several steps that failed."""
        row = attempt_row(item, step_id, kind, error, worker, self.now_ms)
        if self._attempts:
            row = msgspec.structs.replace(row, id=f"{row.id}/{self._attempts}")
        self._attempts += 1
        self._commands.append(Put(row))

    def discover(self, job: str) -> None:
        """Call the run again, under this job's name; a name once used in this transition makes no second item."""
        if job not in self._jobs and not self.ended:
            self._jobs.add(job)
            self._put_item(new_item(self.run, job, "step"))

    def plan(self, op: Op, job: str = "plan") -> None:
        """A step gets an item of its own, with its own attempts. A step that is there already was planned before."""
        if self.is_new(op.id):
            self._put_step(op, StepStatus.PLANNED)
            self._put_item(new_item(self.run, f"{op.id}-{job}", op.id))

    def wait(self, op: Op, timer: Timer, ref: str | None = None) -> None:
        """A step sleeps or waits, until its timer fires at the latest."""
        self._put_step(op, StepStatus.WAITING, ref=ref)
        self._commands += [Put(timer), TimerSet(timer.id, timer.due_ms)]
        self._waits += 1

    def woke(self, timer_id: str) -> None:
        """A sleeping or waiting step's timer has fired, or is not needed any more."""
        self._commands.append(Delete("timers", timer_id))
        self._waits -= 1

    def write(self, *commands: Command | Effect) -> None:
        """Rows of others that this transition writes along with the run's."""
        self._commands += commands

    def _put_item(self, item: Item) -> None:
        self._commands.append(Put(item))
        self.lanes.ready(item)
        self._calls += 1

    # Steps.

    def tried(self, op: Op, item: Item) -> None:
        """A step was tried and will be again: shown as running, with how often."""
        started_ms = op.started_ms or item.leased_ms or self.now_ms
        step = self.knows_step(op.id)
        if step is None:
            self._put_step(op, StepStatus.RUNNING, attempts=item.attempt + 1, started_ms=started_ms)
        elif step.ended_ms is None:
            self._commands.append(TryStep(self.run.id, op.id, StepStatus.RUNNING, item.attempt + 1, started_ms))
        self._seen[op.id] = True

    def finish(self, op: Op, memo: Json, item: Item | None, *, failed: bool = False, ref: str | None = None) -> bool:
        """A step's end: its memo is stored, the first one that comes. Says whether this was it. `ref` as in `Step`."""
        step = self.knows_step(op.id)
        if self._seen.get(op.id) or (step is not None and step.ended_ms is not None):
            return False
        self._seen[op.id] = True
        attempts = 1 if item is None else item.attempt + 1
        status = StepStatus.FAILED if failed else StepStatus.COMPLETED
        started_ms = op.started_ms or (item.leased_ms if item is not None else None) or self.now_ms
        ended_ms = started_ms + op.duration_ms if op.started_ms and op.duration_ms is not None else self.now_ms
        if step is None:
            self._put_step(op, status, memo=memo, attempts=attempts, started_ms=started_ms, ended_ms=ended_ms, ref=ref)
        else:
            self._commands.append(
                FinishStep(
                    self.run.id,
                    op.id,
                    status,
                    memo,
                    attempts,
                    started_ms,
                    max(ended_ms, started_ms),
                    self._finished,
                    ref if ref is not None else step.ref,
                )
            )
        self._finished += 1
        self._state_bytes += len(memo)
        if op.id in self._pending:
            self._pending = tuple(step_id for step_id in self._pending if step_id != op.id)
        return True

    def rediscover(self, op: Op, suffix: str = "") -> None:
        """The discovery that follows a finished step: at once, or when the last of its group is in (§4.6)."""
        race = self._races(op)
        if self._version < 2 or race or not self._pending_key:
            self.discover(op.id + suffix)
            if race and self._pending_key and not self._pending:
                self._pending_key, self._force_plan = "", False
        elif not self._pending:
            self.discover(f"{self._pending_key}-discover")
            self._pending_key, self._force_plan = "", False

    def is_waited_for(self, op: Op) -> bool:
        """Whether the step is in a group that has others to wait for: the last of them calls the run."""
        return bool(self._pending) and self._version >= 2 and not self._races(op)

    def _races(self, op: Op) -> bool:
        """Whether the step's group does not wait for its others; a planned step was told so with its plan."""
        step = self.knows_step(op.id)
        return is_race(op.opts) or (step is not None and is_race(step.opts))

    def is_new(self, step_id: str) -> bool:
        """Whether nobody has told of the step yet."""
        return not self._seen.get(step_id) and self.knows_step(step_id) is None

    def _put_step(
        self,
        op: Op,
        status: StepStatus,
        *,
        memo: Json | None = None,
        attempts: int = 0,
        started_ms: int | None = None,
        ended_ms: int | None = None,
        ref: str | None = None,
    ) -> None:
        self._seen[op.id] = True
        self._steps += 1
        self._commands.append(
            Put(
                Step(
                    run_id=self.run.id,
                    id=op.id,
                    op=op.op,
                    name=op.display_name or op.name,
                    user_id=op.user_id,
                    index=op.index,
                    status=status,
                    opts=op.opts,
                    memo=memo,
                    attempts=attempts,
                    queued_ms=min(op.started_ms, self.now_ms) if op.started_ms else self.now_ms,
                    started_ms=started_ms,
                    ended_ms=ended_ms,
                    position=self._finished if memo is not None else -1,
                    ref=ref,
                )
            )
        )

    # The close.

    def reset(self, item: Item) -> None:
        """An accepted checkpoint gives the item its full attempts again (§4.7)."""
        if item.attempt or item.losses:
            self._commands.append(ResetItem(item.id))

    def close(self) -> bool:
        """No more is coming. Says whether the run ends, as asked or because its steps or its state are more than may be."""
        over = self.over_limit()
        if over is not None:
            self._end = (RunStatus.FAILED, over, "limit")
        return self._end is not None

    def over_limit(self, ops: int = 0) -> Json | None:
        """The error that the run has to fail with, where its steps, its state or the ops of one answer are more than may be (§11.1)."""
        steps_max, state_bytes_max = self.registry.settings.limits_of(self.run.function_id)
        if self._steps > steps_max or ops > steps_max:
            message = f"The function run exceeded the step limit of {steps_max} steps."
            return error_json("InngestErrFunctionOverflowed", message)
        if self._state_bytes > state_bytes_max:
            message = f"The function run exceeded the state size limit of {state_bytes_max} bytes."
            return error_json("InngestErrStateOverflowed", message)
        return None

    def commands(self) -> list[Command | Effect]:
        """Everything that this transition does to the run, but its end and what it shares with others. To be asked for once."""
        run = self.run
        changes: dict[str, object] = {}
        for name, before, now in (
            ("request_version", run.request_version, self._version),
            ("steps", run.steps, self._steps),
            ("finished", run.finished, self._finished),
            ("state_bytes", run.state_bytes, self._state_bytes),
            ("defers", run.defers, run.defers if self._defers is None else len(self._defers)),
        ):
            if before != now:
                changes[name] = now
        if self._end is None:
            if self._pending_key and not self._pending:
                # The last of the group was saved while a call was out, which goes on by itself: nobody is waited for any more.
                self._pending_key, self._force_plan = "", False
            for name, old, new in (
                ("calls", run.calls, self._calls),
                ("waits", run.waits, self._waits),
                ("pending", run.pending, self._pending),
                ("pending_key", run.pending_key, self._pending_key),
                ("force_plan", run.force_plan, self._force_plan),
                ("status", run.status, moved(run, RunStatus.RUNNING if self._calls else RunStatus.WAITING)),
            ):
                if old != new:
                    changes[name] = new
            assert self._calls + self._waits > 0, f"run {run.id} would be left without an item or a timer"
        if self._defers is not None:
            self._commands += self._defers.commands()
        if changes:
            self._commands.append(AdvanceRun(run_id=run.id, **changes))  # type: ignore[arg-type]
        return self._commands

    @property
    def end(self) -> tuple[RunStatus, Json | None, str | None] | None:
        """How the run ends with this transition: its status, output and reason."""
        return self._end

    @property
    def outstanding(self) -> int:
        """Items and timers that the run will have after this transition."""
        return self._calls + self._waits


def is_race(opts: Json | None) -> bool:
    """Whether the opts of an op say so."""
    if opts is None or b'"parallelMode":"race"' not in opts:
        return False
    value = decode(opts)
    return isinstance(value, dict) and value.get("parallelMode") == "race"


def advance_of(decision: Decision, run: Run) -> Advance:
    """The transition's work on a run, one for each run."""
    advance = decision.advances.get(run.id)
    if advance is None:
        advance = decision.advances[run.id] = Advance(decision, run)
    return advance


def attempt_row(item: Item, step_id: str, kind: Literal["failed", "lost"], error: Json, worker: str, now_ms: int) -> Attempt:
    """The row of a try that failed or was lost; the lease's fence makes it one row."""
    return Attempt(
        id=f"{item.id}/{item.fence}",
        run_id=item.run_id,
        step_id=step_id,
        attempt=item.attempt,
        kind=kind,
        started_ms=item.leased_ms or now_ms,
        ended_ms=now_ms,
        error=error,
        worker=worker,
    )


def error_json(name: str, message: str, stack: str | None = None) -> Json:
    """An error as it is stored and sent: `{"name","message","stack"?}`."""
    error = {"name": name, "message": message}
    if stack is not None:
        error["stack"] = stack
    return canonical(error)
