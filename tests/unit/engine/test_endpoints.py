"""Durable endpoints: given a run that its app executes, what its reports, its silence and its death lead to (inngest-protocol §5.12)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from stepwell.engine.endpoints import DRIVER, ENDPOINTS_MAX, GRACE_MS
from stepwell.engine.inputs import AppSynced, EndpointFound, RunCancelled, RunRerun, SyncRunBegun, SyncStepsTold, TimerDue
from stepwell.engine.model import DeferStatus, Item, Run, RunStatus, StepStatus
from stepwell.protocol.calls import Failed, Ops
from stepwell.protocol.checkpoints import parse_new_run
from stepwell.protocol.functions import FunctionConfig, RateLimit, Registration
from stepwell.protocol.ids import step_hash, ulid
from stepwell.protocol.ops import Op
from stepwell.runtime.heart import Decided
from tests.simulation.clock import START_MS, at_once
from tests.unit.engine import bench as benches
from tests.unit.engine.bench import ran, slept, went_wrong
from tests.unit.engine.test_defers import add

DOMAIN = "http://127.0.0.1:3000"
RUN_ID = ulid(START_MS, bytes(10))
COMPLETE = step_hash("complete")
RESPONSE = b'{"body":"ok","headers":{},"status":200}'


class Bench(benches.Bench):
    """With one endpoint, and what its app tells."""

    def __init__(self, retries: int = 2, **fields: Any) -> None:
        super().__init__(**fields)
        self.retries = retries
        self.found(self.request(RUN_ID).function)

    def found(self, function: FunctionConfig, sdk: str = "js:v4.24.0") -> Decided:
        """The endpoint becomes known."""
        decided = self.give(EndpointFound(DOMAIN, sdk, function))
        at_once(self.heart.reload())
        return decided

    def request(self, run_id: str, key: str | None = None, path: str = "/report") -> Any:
        """What the app sends to begin a run."""
        data = {"domain": DOMAIN, "method": "GET", "path": path, "fn": "", "query_params": "n=1", "body": ""}
        body = {"run_id": run_id, "event": {"name": "inngest/http.request", "data": data}, "request_version": 2, "retries": self.retries}
        return parse_new_run(json.dumps({**body, "idempotency": key}).encode(), sdk="inngest-js:v4.24.0", received_ms=self.clock.ms)

    def begin(self, *ops: Op, run_id: str = RUN_ID, key: str | None = None, path: str = "/report") -> Decided:
        """The app begins a run."""
        new = self.request(run_id, key, path)
        return self.give(SyncRunBegun(run_id, new.function.id, new.event, new.request_version, ops))

    def tell(self, *ops: Op, run_id: str = RUN_ID) -> Decided:
        """The app reports."""
        return self.give(SyncStepsTold(run_id, ops))

    @property
    def run(self) -> Run:
        """The run that the app has begun."""
        return self.tables.runs.rows[RUN_ID]

    def session_due_ms(self) -> int | None:
        """When the app's silence is over, if it executes the run still."""
        timer = self.tables.timers.rows.get(f"item/{RUN_ID}-sync")
        return None if timer is None else timer.due_ms

    def taken_over(self) -> Item:
        """The app is silent for so long that the engine calls it."""
        self.fire()
        (item,) = self.claim()
        return item


def done(op: str = "RunComplete", data: bytes = RESPONSE) -> Op:
    """The endpoint's response."""
    return Op(op=op, id=COMPLETE, data=data)


def refusal(decided: Decided) -> int:
    """The status of the error that the input is answered with."""
    assert decided.error is not None
    return int(getattr(decided.error, "status", 0))


def test_a_run_that_its_app_begins_is_running_without_a_call() -> None:
    """What is done so far is saved; nobody is called while the app goes on."""
    bench = Bench()
    assert bench.begin(ran("a")).error is None
    assert bench.run.status is RunStatus.RUNNING and bench.run.started_ms is not None and bench.jobs() == []
    assert bench.step("a").memo == b'{"data":1}' and bench.claim() == []
    assert bench.session_due_ms() == bench.clock.ms + GRACE_MS
    assert bench.tell(ran("b", b"2")).error is None and bench.step("b").position == 1
    assert bench.tell(done()).error is None
    assert (bench.run.status, bench.run.output) == (RunStatus.COMPLETED, RESPONSE) and bench.session_due_ms() is None


def test_a_run_may_be_over_as_it_is_told() -> None:
    """With its first report, and without a timer that was ever written."""
    bench = Bench()
    assert bench.begin(ran("a"), done("SyncRunComplete", b'{"data":' + RESPONSE + b"}")).error is None
    assert (bench.run.status, bench.run.output) == (RunStatus.COMPLETED, RESPONSE) and not bench.timers


def test_reports_put_off_the_end_of_the_session() -> None:
    """Not each of them writes the timer; one that comes late in its time does."""
    bench = Bench()
    bench.begin(ran("a"))
    first = bench.session_due_ms()
    bench.clock.ms += GRACE_MS // 2 - 1
    bench.tell(ran("b"))
    assert bench.session_due_ms() == first
    bench.clock.ms += 2
    bench.tell(ran("c"))
    assert bench.session_due_ms() == bench.clock.ms + GRACE_MS


def test_a_silent_app_is_called_by_the_engine() -> None:
    """With what it had saved, by an item with all its attempts."""
    bench = Bench()
    bench.begin(ran("a"))
    item = bench.taken_over()
    assert (item.id, item.attempt, item.step_id) == (f"{RUN_ID}-sync", 0, "step")
    bench.answer(item, done())
    assert bench.run.status is RunStatus.COMPLETED


def test_an_app_that_was_only_slow_saves_its_results_and_no_more() -> None:
    """The engine has the run: results count, the first of each; what the app wants done besides, the engine finds out itself."""
    bench = Bench()
    bench.begin(ran("a"))
    item = bench.taken_over()
    assert bench.tell(ran("b", b"7"), slept("z")).error is None
    assert bench.step("b").memo == b'{"data":7}' and (RUN_ID, "z") not in bench.tables.steps.rows
    assert bench.session_due_ms() is None and bench.tables.items.rows[item.id].holder is not None
    bench.answer(item, ran("b", b"8"))
    assert bench.step("b").memo == b'{"data":7}' and bench.jobs() == ["b-saved"]
    assert bench.tell(done()).error is None
    assert bench.run.status is RunStatus.COMPLETED


def test_a_backoff_of_the_engines_call_is_no_session() -> None:
    """It has the same timer; a report that comes meanwhile does not put it off, nor take the run back."""
    bench = Bench()
    bench.begin(ran("a"))
    item = bench.taken_over()
    bench.answer(item, answer=Failed(error=b'{"message":"no","name":"Error"}', retriable=True))
    due_ms = bench.session_due_ms()
    assert due_ms is not None
    assert bench.tell(ran("b"), slept("z")).error is None
    assert bench.session_due_ms() == due_ms and (RUN_ID, "z") not in bench.tables.steps.rows
    bench.fire()
    assert [item.attempt for item in bench.claim()] == [1]


@pytest.mark.parametrize(
    ("op", "kind"), [(slept("w"), "sleep/"), (Op(op="WaitForSignal", id="w", name="w", opts=b'{"signal":"go"}'), "wait/")]
)
def test_what_takes_time_hands_the_run_over(op: Op, kind: str) -> None:
    """The session goes; the engine calls the run when it is time."""
    bench = Bench()
    bench.begin(ran("a"), op)
    assert bench.run.status is RunStatus.WAITING and [timer.id for timer in bench.timers] == [f"{kind}{RUN_ID}/w"]
    bench.fire()
    (item,) = bench.claim()
    bench.answer(item, done())
    assert bench.run.status is RunStatus.COMPLETED


def test_several_ops_force_planning() -> None:
    """As in an answer: planned steps get items, and one discovery joins them."""
    bench = Bench()
    bench.begin(benches.planned("x"), benches.planned("y"))
    assert bench.run.force_plan and set(bench.run.pending) == {"x", "y"} and bench.jobs() == ["x-plan", "y-plan"]
    for item in bench.claim():
        bench.answer(item, ran(item.step_id))
    assert not bench.run.force_plan and len(bench.jobs()) == 1 and bench.jobs()[0].endswith("-discover")


def test_a_steps_error_is_tried_again_as_attempt_one() -> None:
    """By a job of its own name, after the backoff; the step is shown with its failed try."""
    bench = Bench(retries=1)
    bench.begin(ran("a"), went_wrong("x"))
    (timer,) = bench.timers
    assert timer.item is not None and (timer.item.id, timer.item.attempt) == (f"{RUN_ID}-x-sync-retry", 1)
    assert bench.step("x").status is StepStatus.RUNNING and [one.attempt for one in bench.tables.attempts] == [0]
    bench.fire()
    (item,) = bench.claim()
    bench.answer(item, went_wrong("x"))
    assert bench.step("x").status is StepStatus.FAILED and bench.jobs() == ["x-failure"]


def test_a_final_error_of_a_step_is_for_the_code_to_catch() -> None:
    """Memoised, and the run is called again at once."""
    for ops, retries in (((went_wrong("x", "StepFailed"),), 2), ((went_wrong("x"),), 0)):
        bench = Bench(retries=retries)
        bench.begin(*ops)
        assert bench.step("x").status is StepStatus.FAILED and bench.jobs() == ["x-failure"] and bench.session_due_ms() is None


def test_the_functions_own_error_is_no_step() -> None:
    """It is tried again as attempt 1, or ends the run."""
    own = went_wrong(COMPLETE, name="")
    bench = Bench()
    bench.begin(ran("a"), own)
    (timer,) = bench.timers
    assert timer.item is not None and timer.item.attempt == 1 and bench.run.steps == 1
    for bench, op in ((Bench(retries=0), own), (Bench(), went_wrong(COMPLETE, "StepFailed", name=""))):
        bench.begin(ran("a"), op)
        assert (bench.run.status, bench.run.output) == (RunStatus.FAILED, b'{"message":"no","name":"Error"}')
        assert bench.tell(op).error is None  # told again, for want of an answer


def test_a_discovery_request_is_a_call_at_once() -> None:
    """The app's time is over, and it has more to do."""
    bench = Bench()
    bench.begin(ran("a"), Op(op="DiscoveryRequest", id="more"))
    assert bench.jobs() == ["more"] and bench.session_due_ms() is None


def test_an_op_that_cannot_be_taken_is_a_failed_attempt() -> None:
    """As in an answer: tried again, and visible."""
    bench = Bench()
    bench.begin(slept("z", "soon"))
    (timer,) = bench.timers
    assert timer.item is not None and timer.item.attempt == 1
    assert b"InvalidSleep" in next(iter(bench.tables.attempts)).error


def test_defers_ride_along() -> None:
    """They neither hand the run over nor force planning, and its end asks for them."""
    bench = Bench()
    bench.begin(ran("a"), add("d"))
    assert bench.session_due_ms() is not None and not bench.run.force_plan
    bench.tell(done())
    assert [one.status for one in bench.tables.defers] == [DeferStatus.SCHEDULED]


def test_a_report_whose_answer_was_lost_may_be_told_again() -> None:
    """Whatever it was: it is answered as the first time, and changes nothing."""
    flips = ((slept("z"),), (went_wrong("x"),), (benches.planned("x"), benches.planned("y")), (Op(op="DiscoveryRequest", id="more"),))
    for ops in ((ran("a"),), (ran("a"), done()), *flips):
        bench = Bench()
        bench.begin(*ops)
        rows = {name: list(table) for name, table in bench.tables.by_name.items()}
        assert bench.begin(*ops).error is None and bench.tell(*ops).error is None
        assert {name: list(table) for name, table in bench.tables.by_name.items()} == rows


def test_another_request_with_the_id_of_a_run_is_refused() -> None:
    """409; and so is one with the idempotency key of another run, for a day."""
    bench = Bench()
    bench.begin(ran("a"), key="k")
    second = ulid(START_MS, b"1" * 10)
    decided = bench.begin(ran("a"), run_id=second, key="k")
    assert refusal(decided) == 409 and RUN_ID in str(decided.error)
    bench.clock.ms += 24 * 3600 * 1000
    assert bench.begin(ran("a"), run_id=second, key="k").error is None
    bench.found(bench.request(RUN_ID, path="/other").function)
    assert refusal(bench.begin(ran("a"), path="/other")) == 409


def test_a_rate_limit_refuses_more_runs_than_it_allows() -> None:
    """429, and nothing is stored; the same request told again is no second run."""
    bench = Bench()
    limit = RateLimit(limit=1, period_ms=60_000)
    bench.found(msgspec.structs.replace(bench.request(RUN_ID).function, rate_limit=limit))
    assert bench.begin(ran("a")).error is None and bench.begin(ran("a")).error is None
    second = ulid(START_MS, b"1" * 10)
    assert refusal(bench.begin(ran("a"), run_id=second)) == 429 and second not in bench.tables.runs.rows
    bench.clock.ms += 61_000
    assert bench.begin(ran("a"), run_id=second).error is None


def test_an_ended_run_takes_no_report() -> None:
    """400: cancelled, or ended otherwise than told; 404 for one that never was."""
    bench = Bench()
    bench.begin(ran("a"))
    bench.give(RunCancelled(RUN_ID, "somebody"))
    assert refusal(bench.tell(ran("b"))) == 400 and refusal(bench.tell(done())) == 400
    bench = Bench()
    bench.begin(done())
    assert refusal(bench.tell(done(data=b"{}"))) == 400
    assert "begin it" in str(bench.tell(ran("b"), run_id=ulid(START_MS, b"2" * 10)).error)


def test_an_endpoint_is_made_known_once_and_again_when_it_changes() -> None:
    """Its app is the domain; other endpoints of it stay; an app of another kind is not overwritten."""
    bench = Bench()
    function = bench.request(RUN_ID).function
    assert bench.tables.apps.rows[DOMAIN].driver == DRIVER and bench.tables.functions.rows[function.id].version == 1
    bench.found(function)
    assert bench.tables.functions.rows[function.id].version == 1
    bench.retries = 5
    bench.found(bench.request(RUN_ID).function)
    bench.found(bench.request(RUN_ID, path="/other").function)
    rows = {row.name: row.version for row in bench.tables.functions if row.app_name == DOMAIN}
    assert rows == {"GET /report": 2, "GET /other": 1} and not any(row.archived for row in bench.tables.functions)
    told = Registration(app_name="shop", url="u", sdk="", framework="", app_version="", functions=(), checksum="1")
    bench.give(AppSynced(told, "http"))
    assert refusal(bench.give(EndpointFound("shop", "js", FunctionConfig(id="shop-GET /", name="GET /")))) == 409
    assert refusal(bench.give(EndpointFound("other", "js", FunctionConfig(id="a-f", name="f")))) == 409  # a function of another app


def test_a_domain_has_so_many_endpoints_at_most() -> None:
    """One that is named by a changing path is told to take an id."""
    bench = Bench()
    for n in range(ENDPOINTS_MAX - 1):
        bench.heart.registry.functions[f"f{n}"] = bench.heart.registry.functions[bench.request(RUN_ID).function.id]
    assert refusal(bench.give(EndpointFound(DOMAIN, "js", FunctionConfig(id="new", name="new")))) == 400


def test_a_run_that_becomes_too_much_ends() -> None:
    """413, and the run has failed with the protocol's name for it."""
    bench = Bench(settings=benches.Settings(state_bytes_max=50))
    bench.begin(ran("a"))
    assert refusal(bench.tell(ran("b", b'"' + b"x" * 60 + b'"'))) == 413
    assert bench.run.status is RunStatus.FAILED and b"InngestErrStateOverflowed" in (bench.run.output or b"")


def test_a_rerun_is_called_by_the_engine_from_the_beginning() -> None:
    """The request is in its event."""
    bench = Bench()
    bench.begin(ran("a"), done())
    again = ulid(START_MS, b"9" * 10)
    assert bench.give(RunRerun(RUN_ID, again)).error is None
    (item,) = bench.claim()
    assert (item.run_id, item.id) == (again, f"{again}-start")
    bench.give(TimerDue(f"item/{RUN_ID}-sync"))
    decided = bench.give(benches.CallAnswered(again, item.id, item.fence, Ops(ops=(done(),), request_version=2)))
    assert decided.error is None and bench.tables.runs.rows[again].status is RunStatus.COMPLETED
