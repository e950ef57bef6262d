"""What holds for a call, whichever way it takes to user code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from stepwell.drivers.base import Driver
from stepwell.drivers.http import HttpDriver
from stepwell.drivers.local import LocalDriver
from stepwell.net.http_client import Pool
from stepwell.protocol.calls import Answer, Failed, Ops, Returned
from tests.conformance.drivers.ways import OURS, WAYS, Run, Way, step_hash

TIMEOUT_S = 60
Along = Callable[[Callable[[Way], Awaitable[None]]], None]


@pytest.fixture(params=WAYS, ids=[way.__name__ for way in WAYS])
def along(request: pytest.FixtureRequest) -> Along:
    """Run a test along each way."""
    return _along(request.param)


@pytest.fixture(params=OURS, ids=[way.__name__ for way in OURS])
def along_ours(request: pytest.FixtureRequest) -> Along:
    """Run a test along each way to our own SDK."""
    return _along(request.param)


def _along(made: Callable[[], AbstractAsyncContextManager[Way]]) -> Along:
    def runs(test: Callable[[Way], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(TIMEOUT_S), made() as way:
                await test(way)

        asyncio.run(main())

    return runs


def returned(answer: Answer) -> Any:
    """What the function returned."""
    assert isinstance(answer, Returned), answer
    return json.loads(answer.data)


def error_of(answer: Answer) -> tuple[dict[str, Any], bool]:
    """The error, and whether there may be another try."""
    assert isinstance(answer, Failed), answer
    return json.loads(answer.error), answer.retriable


def test_a_value_is_returned(along: Along) -> None:
    """The function sees its event's data, and what it returns comes back, to the last digit and letter."""

    async def test(way: Way) -> None:
        data = {"text": "ü \u2028 \0 \U0001f600", "float": 0.1, "int": 2**53 - 1, "list": [None, True, [], {}], "nested": {"": "\\"}}
        assert returned(await way.call("returns", data=data)) == data
        assert returned(await way.call("nothing")) is None

    along(test)


def test_steps_in_a_row(along: Along) -> None:
    """Each is reported once, in order, by an answer or a checkpoint; a result feeds the next."""

    async def test(way: Way) -> None:
        run = Run(way, "serial")
        assert returned(await run.end()) == 13
        assert run.ops == [("StepRun", "one"), ("StepRun", "two")]
        assert run.memos == {step_hash("one"): b'{"data":3}', step_hash("two"): b'{"data":13}'}

    along(test)


def test_finished_steps_do_not_run_again(along: Along) -> None:
    """A call with their memos goes on behind them, wherever earlier calls of the run went."""

    async def test(way: Way) -> None:
        run = Run(way, "serial", run_id="01JOTHER")
        run.memos = {step_hash("one"): b'{"data":100}'}
        assert returned(await run.end()) == 110
        assert run.ops == [("StepRun", "two")]

    along(test)


def test_parallel_steps_are_planned_and_run_one_by_one(along: Along) -> None:
    """A plan names them all; targeted calls run them; the next discovery joins them."""

    async def test(way: Way) -> None:
        answer = await way.call("parallel", run_id="01JPLAN")
        assert isinstance(answer, Ops)
        assert [(op.op, op.id) for op in answer.ops] == [("StepPlanned", step_hash("left")), ("StepPlanned", step_hash("right"))]
        assert answer.request_version == 2

        run = Run(way, "parallel")
        assert returned(await run.end()) == [3, 7, 10]
        assert sorted(run.ops[:2]) == [("StepPlanned", "left"), ("StepPlanned", "right")]
        assert sorted(run.ops[2:4]) == [("StepRun", "left"), ("StepRun", "right")]
        assert run.ops[4:] == [("StepRun", "after")]

    along(test)


def test_a_sleep(along: Along) -> None:
    """It is asked for, and when its memo is there it is over."""

    async def test(way: Way) -> None:
        run = Run(way, "sleeps")
        assert returned(await run.end()) == "awake"
        assert run.ops == [("Sleep", "nap")]

    along(test)


def test_a_wait_for_an_event(along: Along) -> None:
    """It is told with its name, time and condition; the event that comes is its result, `None` when none does."""

    async def test(way: Way) -> None:
        paid = {"data": {"n": 7}, "id": "e", "name": "c/paid", "ts": 1, "user": {}}
        for n, (reply, result) in enumerate(((paid, 7), (None, None))):
            run = Run(way, "waits", run_id=f"01JWAIT{n}", replies={"paid?": reply})
            assert returned(await run.end()) == result
            assert run.ops == [("WaitForEvent", "paid?")]
            opts = run.opts["paid?"]
            assert (opts.get("event") or opts["name"], opts["timeout"]) == ("c/paid", "1h")
            assert opts["if"] == "async.data.n == event.data.n"

    along(test)


def test_an_invoke(along: Along) -> None:
    """It is told with the function's slug and the payload; its result or error comes to user code."""

    async def test(way: Way) -> None:
        replies = (({"data": {"n": 2}}, {"n": 2}), ({"error": {"name": "E", "message": "no"}}, "caught no"))
        for n, (reply, result) in enumerate(replies):
            run = Run(way, "invokes", run_id=f"01JINVOKE{n}", replies={"other": reply})
            assert returned(await run.end()) == result
            opts = run.opts["other"]
            assert (opts["function_id"], opts["payload"]["data"], opts["timeout"]) == ("conform-returns", {"n": 1}, "5m")

    along(test)


def test_a_wait_beside_a_step(along: Along) -> None:
    """Both are told at once."""

    async def test(way: Way) -> None:
        run = Run(way, "beside", replies={"paid?": None})
        assert returned(await run.end()) == [True, 3]
        assert sorted(run.ops[:2]) == [("StepPlanned", "add"), ("WaitForEvent", "paid?")]

    along(test)


@pytest.mark.parametrize("function", ["asks", "asks-plain"])
def test_signals_requests_and_models(along_ours: Along, function: str) -> None:
    """What only our SDK has, in async and in plain functions."""

    async def test(way: Way) -> None:
        replies = {
            "ok?": {"data": {"signal": "go", "data": 1}},
            "page": {"data": {"url": "https://c.test/", "status_code": 200, "headers": {}, "body": ""}},
            "ask": {"data": {"choices": []}},
        }
        run = Run(way, function, replies=replies)
        assert returned(await run.end()) == [1, 200, {"choices": []}]
        assert run.ops == [("WaitForSignal", "ok?"), ("Gateway", "page"), ("AIGateway", "ask")]

    along_ours(test)


def test_a_failing_step_is_tried_again(along: Along) -> None:
    """Its errors are told with name and message; the attempt's number reaches user code."""

    async def test(way: Way) -> None:
        answer = await way.call("flaky", run_id="01JFLAKY", max_attempts=3)
        assert isinstance(answer, Ops)
        (op,) = answer.ops
        assert (op.op, op.id) == ("StepError", step_hash("fails"))
        error = json.loads(op.error or b"{}")
        assert (error["name"], error["message"]) == ("ValueError", "try 0")

        run = Run(way, "flaky", max_attempts=3)
        assert returned(await run.end()) == "try 2"
        assert run.ops == [("StepError", "fails"), ("StepError", "fails"), ("StepRun", "fails")]

    along(test)


def test_a_step_that_failed_for_good_can_be_caught(along: Along) -> None:
    """After its last attempt its error reaches user code."""

    async def test(way: Way) -> None:
        run = Run(way, "caught", max_attempts=1)
        assert returned(await run.end()) == "caught boom"
        assert run.ops == [("StepFailed", "fails")]

    along(test)


def test_a_failing_function(along: Along) -> None:
    """It may be tried again; name, message and stack are the exception's."""

    async def test(way: Way) -> None:
        error, retriable = error_of(await way.call("fails"))
        assert (error["name"], error["message"], retriable) == ("ValueError", "the function itself", True)
        assert "the function itself" in error["stack"]

    along(test)


def test_a_final_failure(along: Along) -> None:
    """No other try."""

    async def test(way: Way) -> None:
        error, retriable = error_of(await way.call("final"))
        assert (error["message"], retriable) == ("no use", False)

    along(test)


def test_a_failure_that_names_its_next_try(along: Along) -> None:
    """In two minutes, but for what it took to say so."""

    async def test(way: Way) -> None:
        answer = await way.call("later")
        assert error_of(answer)[1]
        assert isinstance(answer, Failed) and answer.retry_after_ms is not None and 90_000 < answer.retry_after_ms <= 121_000

    along(test)


def test_an_unknown_function(along: Along) -> None:
    """A failure that names it: the app may have been changed while the run was asleep."""

    async def test(way: Way) -> None:
        error, _ = error_of(await way.call("no-such"))
        assert "conform-no-such" in error["message"]

    along(test)


def test_many_calls_at_once(along: Along) -> None:
    """Answers do not meet the wrong call."""

    async def test(way: Way) -> None:
        answers = await asyncio.gather(*[way.call("returns", run_id=f"01J{n}", data={"n": n}) for n in range(100)])
        assert [returned(answer)["n"] for answer in answers] == list(range(100))

    along(test)


def test_large_bodies(along: Along) -> None:
    """A megabyte each way."""

    async def test(way: Way) -> None:
        run = Run(way, "large", data={"size": 500_000, "padding": "x" * 1_000_000})
        assert returned(await run.end()) == 500_000
        assert len(run.memos[step_hash("text")]) == 1_000_011

    along(test)


async def unreachable_locally() -> tuple[Driver, str]:
    """The app is not here."""
    return LocalDriver(), ""


async def unreachable_over_http() -> tuple[Driver, str]:
    """Nobody listens."""
    return HttpDriver(Pool(environ={})), "http://127.0.0.1:9/x"


@pytest.mark.parametrize("made", [unreachable_locally, unreachable_over_http])
def test_an_app_that_cannot_be_reached(made: Callable[[], Awaitable[tuple[Driver, str]]]) -> None:
    """It is a failed attempt that may be retried, not an exception."""

    async def main() -> None:
        error, retriable = error_of(await Way(*await made()).call("returns"))
        assert retriable and error["code"] and error["message"]

    asyncio.run(main())
