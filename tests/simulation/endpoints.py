"""Durable endpoints and defers in the simulated world: apps that execute runs themselves, and die, stammer or are slow at it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import msgspec

from stepwell.engine.calls import COMPLETE_ID, DONE
from stepwell.engine.endpoints import GRACE_MS, SYNC_JOB, session_id
from stepwell.engine.inputs import AnyInput, EndpointFound, SyncRunBegun, SyncStepsTold, TimerDue
from stepwell.engine.model import DeferStatus, RunStatus
from stepwell.engine.steps import memo_of
from stepwell.engine.steps.run_complete import result_of
from stepwell.engine.tables import Tables
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Answer, Failed, Ops
from stepwell.protocol.events import Event
from stepwell.protocol.functions import FunctionConfig
from stepwell.protocol.ids import derived_ulid, ulid
from stepwell.protocol.lifecycle import DEFERRED, HTTP_REQUEST
from stepwell.protocol.ops import ENDS, LAZY, Op
from stepwell.runtime.heart import Decided
from tests.simulation.broken import Broken
from tests.simulation.clock import VirtualClock
from tests.simulation.workload import ENDPOINTS, RETRIES, App

VISITS = 6
DOMAIN = "web"

Report = SyncRunBegun | SyncStepsTold


class Visit(msgspec.Struct):
    """A request that an endpoint's app is answering. `report` is what it has told last, and not seen acknowledged."""

    run_id: str
    program: str
    version: int
    event: Event
    memo: dict[str, bytes] = {}
    begun: bool = False
    report: Report | None = None


class Endpoints:
    """The apps' side, and what is judged of it."""

    def __init__(self, chance: random.Random, clock: VirtualClock, app: App, versions: dict[str, int]) -> None:
        self._chance, self._clock, self._app, self._versions = chance, clock, app, versions
        self._visits: list[Visit] = []
        self._count = 0
        self._saved: set[tuple[str, str]] = set()
        self._ended: dict[str, bytes] = {}
        self._heard_ms: dict[str, int] = {}

    @staticmethod
    def known() -> list[AnyInput]:
        """The inputs that make the endpoints known."""
        return [
            EndpointFound(DOMAIN, "js:v4", FunctionConfig(id=f"sim-{name}", name=name, url=f"http://{DOMAIN}/{name}", retries=RETRIES))
            for name in ENDPOINTS
        ]

    # What may happen.

    def visit(self, inbox: list[AnyInput]) -> None:
        """Somebody calls an endpoint; two of them now and then with the same idempotency key."""
        if self._count >= VISITS:
            return
        self._count += 1
        run_id = ulid(self._clock.ms, self._chance.randbytes(10))
        internal_id = derived_ulid(self._clock.ms, run_id)
        event = Event(
            internal_id=internal_id,
            id=f"visit-{self._chance.randint(1, 2)}" if self._chance.random() < 0.2 else internal_id,
            name=HTTP_REQUEST,
            data=b'{"domain":"web","method":"GET","path":"/","tenant":1}',
            user=b"{}",
            ts=self._clock.ms,
            v=None,
            meta=None,
            received_ms=self._clock.ms,
        )
        version = self._versions[run_id] = self._chance.choice((1, 2))
        self._visits.append(Visit(run_id, self._chance.choice(list(ENDPOINTS)), version, event))

    def move(self, inbox: list[AnyInput]) -> None:
        """An app goes on with a visit: it tells what it has done, or tells it again, or dies."""
        if not self._visits:
            return
        visit = self._chance.choice(self._visits)
        luck = self._chance.random()
        if luck < 0.06:
            self._visits.remove(visit)
        elif visit.report is not None:
            if luck < 0.4:
                inbox.append(visit.report)  # the answer does not come: told again
        else:
            ops = self._next(visit)
            if ops is None:
                self._visits.remove(visit)  # it fails for good, and tells nobody
                return
            if visit.begun:
                visit.report = SyncStepsTold(visit.run_id, ops)
            else:
                visit.report = SyncRunBegun(visit.run_id, f"sim-{visit.program}", visit.event, visit.version, ops)
            inbox += [visit.report] * (2 if luck > 0.9 else 1)

    def _next(self, visit: Visit) -> tuple[Op, ...] | None:
        """What the endpoint's code does next, as a correct SDK tells it."""
        answer = self.with_defers(self._app.answer(visit.program, visit.run_id, visit.memo, "step", 0, False, visit.version))
        match answer:
            case Ops():
                return answer.ops
            case Failed():
                if self._chance.random() < 0.5:
                    return None
                return (own_error(answer),)
            case _:
                return (Op(op=self._chance.choice(sorted(ENDS)), id=COMPLETE_ID, data=b'{"status":200}'),)

    def with_defers(self, answer: Answer) -> Answer:
        """The answer, and now and then something that rides along."""
        if self._chance.random() > 0.3:
            return answer
        lazy = tuple(self._lazy() for _ in range(self._chance.randint(1, 3)))
        if isinstance(answer, Ops) and answer.ops:
            return msgspec.structs.replace(answer, ops=(*answer.ops, *lazy))
        if isinstance(answer, Failed) and not answer.retriable:
            return Ops(ops=(*lazy, own_error(answer)), request_version=2)
        return answer

    def _lazy(self) -> Op:
        name = f"d{self._chance.randint(1, 3)}"
        luck = self._chance.random()
        if luck < 0.3:
            return Op(op="DeferAbort", id=f"{name}:abort", opts=b'{"target_hashed_id":"%s"}' % name.encode())
        given = b'"text"' if luck < 0.4 else b'{"n":%d}' % self._chance.randint(1, 3)
        return Op(op="DeferAdd", id=name, name=name, opts=b'{"fn_slug":"sim-later","input":%s}' % given)

    def settle(self) -> None:
        """No more faults, and no more apps: whatever they had begun is the engine's to end."""
        self._visits.clear()

    # What is judged.

    def heard(self, input: AnyInput, decided: Decided, tables: Tables) -> None:
        """A report was decided: its app hears so, or does not."""
        if isinstance(input, TimerDue) and input.timer_id.endswith(f"-{SYNC_JOB}"):
            self._taken_over(input.timer_id, tables)
        if not isinstance(input, SyncRunBegun | SyncStepsTold):
            return
        run_id = input.run_id
        if decided.error is not None:
            if not isinstance(decided.error, ProtocolError) or (decided.error.status == 409 and "exists already" in str(decided.error)):
                raise Broken(f"{input} raised") from decided.error
            self._visits = [visit for visit in self._visits if visit.run_id != run_id]
            return
        timer = tables.timers.rows.get(session_id(run_id))
        if timer is not None and timer.item is not None and timer.item.fence == 0:
            self._heard_ms[run_id] = self._clock.ms
        self._saved.update((run_id, op.id) for op in input.ops if op.op in DONE)
        end = next((op for op in input.ops if op.op in ENDS), None)
        if end is not None:
            self._ended[run_id] = result_of(end)
        if self._chance.random() < 0.15:
            return  # its answer is lost
        for visit in [visit for visit in self._visits if visit.report == input]:
            visit.report, visit.begun = None, True
            visit.memo = {**visit.memo, **{op.id: memo_of(op) for op in input.ops if op.op in DONE}}
            if any(op.op not in DONE and op.op not in LAZY for op in input.ops):
                self._visits.remove(visit)  # answered, or handed over

    def first_saved(self, run_id: str, memos: dict[str, bytes], tables: Tables) -> dict[str, bytes]:
        """What was saved of a call's steps, where the run's own app may have saved them before: then its results stay."""
        own = {step_id: step.memo for step_id in memos if (run_id, step_id) in self._saved and (step := tables.steps.rows[run_id, step_id])}
        return {**memos, **{step_id: memo for step_id, memo in own.items() if memo is not None}}

    def _taken_over(self, timer_id: str, tables: Tables) -> None:
        """A session's timer fired: the app was not heard a moment ago. Judged as it fires: the clock may go back before the call."""
        run_id = timer_id.removeprefix("item/").removesuffix(f"-{SYNC_JOB}")
        item, heard_ms = tables.items.rows.get(f"{run_id}-{SYNC_JOB}"), self._heard_ms.get(run_id)
        if item is not None and item.fence == 0 and heard_ms is not None and self._clock.ms < heard_ms + GRACE_MS // 2:
            raise Broken(f"run {run_id} was taken over {self._clock.ms - heard_ms} ms after its app was heard")

    def judge_end(self, tables: Tables) -> None:
        """What was acknowledged is there; each deferred run was begun once."""
        for key in self._saved:
            step = tables.steps.rows.get(key)
            if step is None or step.memo is None:
                raise Broken(f"the acknowledged step {key} of an endpoint is {step}")
        for run_id, output in self._ended.items():
            run = tables.runs.rows[run_id]
            if run.status is not RunStatus.COMPLETED or run.output != output:
                raise Broken(f"the acknowledged end of run {run_id} is {run.status}, {run.output!r}")
        begun = Counter(
            event_id for run in tables.runs if run.function_id == "sim-later" for event_id in run.event_ids if run.cause == "event"
        )
        asked = [event.id for event in tables.events if event.name == DEFERRED]
        if begun != Counter(asked):
            raise Broken(f"deferred runs were begun {begun}; asked for were {asked}")
        scheduled = sum(one.status is DeferStatus.SCHEDULED for one in tables.defers)
        if scheduled != len(asked):
            raise Broken(f"{scheduled} defers are scheduled, {len(asked)} events ask for them")


def own_error(failure: Failed) -> Op:
    """The function's own error as an op."""
    return Op(op="StepError" if failure.retriable else "StepFailed", id=COMPLETE_ID, error=failure.error)


def saves(ops: Iterable[Op]) -> dict[str, bytes]:
    """The memos of the steps that a report tells as done."""
    return {op.id: memo_of(op) for op in ops if op.op not in LAZY}
