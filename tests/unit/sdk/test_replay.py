"""The executor alone, driven by a fake engine: with checkpoints, without, and replayed anew for every call."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

import stepwell
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Failed, Lost, Ops, Returned
from stepwell.sdk.replay import Executor

from .fake_engine import FakeEngine, error_of

MODES = pytest.mark.parametrize("mode", ["checkpoints", "no checkpoints", "replayed"])
Ran = Counter[str]


def engine_of(mode: str, app: stepwell.App, function: str = "work", **options: Any) -> FakeEngine:
    return FakeEngine(app, function, checkpoints=mode != "no checkpoints", forgets=mode == "replayed", **options)


class Steps:
    """Step functions that count how often they ran."""

    def __init__(self) -> None:
        self.ran: Ran = Counter()

    async def do(self, name: str, result: Any = None) -> Any:
        self.ran[name] += 1
        return result

    def plain(self, name: str, result: Any = None) -> Any:
        self.ran[name] += 1
        return result


def declare(handler: Callable[[Any], Any], **options: Any) -> stepwell.App:
    app = stepwell.App("t")
    app.function(trigger="t/e", id="work", **options)(handler)
    return app


@MODES
def test_steps_in_sequence_run_once_each_and_give_their_results(mode: str) -> None:
    """Three steps, three results, no step twice, whichever way the run is driven."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> list[Any]:
        a = await ctx.step.run("a", steps.do, "a", 1)
        b = await ctx.step.run("b", steps.plain, "b", a + 1)
        return [a, b, await ctx.step.run("c", steps.do, "c", {"b": b})]

    engine = engine_of(mode, declare(work))
    assert asyncio.run(engine.run()) == [1, 2, {"b": 2}]
    assert steps.ran == {"a": 1, "b": 1, "c": 1}
    if mode == "checkpoints":
        assert engine.shapes() == ["step:Returned"]
        assert engine.checkpointed == ["a", "b", "c"]
    elif mode == "no checkpoints":
        assert engine.shapes() == ["step:StepRun a", "step:StepRun b", "step:StepRun c", "step:Returned"]


@MODES
def test_gathered_steps_are_planned_and_joined(mode: str) -> None:
    """Steps asked for together are a plan, then a targeted call each, then one discovery."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> list[Any]:
        first = await asyncio.gather(*(ctx.step.run(f"p{n}", steps.do, f"p{n}", n) for n in range(3)))
        return [*first, await ctx.step.run("last", steps.do, "last", 9)]

    engine = engine_of(mode, declare(work))
    assert asyncio.run(engine.run()) == [0, 1, 2, 9]
    assert steps.ran == {"p0": 1, "p1": 1, "p2": 1, "last": 1}
    assert engine.shapes()[:4] == [
        "step:StepPlanned p0,StepPlanned p1,StepPlanned p2",
        "p0:StepRun p0",
        "p1:StepRun p1",
        "p2:StepRun p2",
    ]


@MODES
def test_a_task_group_is_a_plan_too(mode: str) -> None:
    """`TaskGroup` over branches of several steps."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> list[Any]:
        async def branch(n: int) -> Any:
            one: int = await ctx.step.run(f"one-{n}", steps.do, f"one-{n}", n)
            return await ctx.step.run(f"two-{n}", steps.do, f"two-{n}", one * 10)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(n)) for n in range(1, 4)]
        return [task.result() for task in tasks]

    engine = engine_of(mode, declare(work))
    assert asyncio.run(engine.run()) == [10, 20, 30]
    assert set(steps.ran.values()) == {1} and len(steps.ran) == 6
    assert engine.shapes()[0] == "step:StepPlanned one-1,StepPlanned one-2,StepPlanned one-3"


@MODES
def test_nested_gathers_are_one_plan(mode: str) -> None:
    """However deep the gathers nest, what is asked for before anything blocks is asked for together."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> list[Any]:
        async def deep(level: int) -> list[Any]:
            if level == 0:
                return [await ctx.step.run("leaf", steps.do, "leaf", 1)]
            inner = await asyncio.gather(deep(level - 1), deep(level - 1), ctx.step.run(f"at-{level}", steps.do, "at"))
            return [*inner[0], *inner[1]]

        return await deep(3)

    engine = engine_of(mode, declare(work))
    assert asyncio.run(engine.run()) == [1] * 8
    assert steps.ran == {"leaf": 8, "at": 7}
    planned = engine.shapes()[0]
    assert planned.count("StepPlanned") == 15


@MODES
def test_many_parallel_steps(mode: str) -> None:
    """A hundred at once."""

    async def work(ctx: stepwell.Context) -> int:
        return sum(await asyncio.gather(*(ctx.step.run(f"s{n}", one, n) for n in range(100))))

    async def one(n: int) -> int:
        return n

    assert asyncio.run(engine_of(mode, declare(work)).run()) == sum(range(100))


@MODES
def test_sleeps_end_the_call_and_go_on(mode: str) -> None:
    """A sleep is told with its length; a parallel one joins the plan."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> str:
        await ctx.step.sleep("short", "50ms")
        await ctx.step.run("a", steps.do, "a")
        await ctx.step.sleep_until("date", "2030-01-31T08:00:00Z")
        await asyncio.gather(ctx.step.sleep("long", "1d"), ctx.step.run("b", steps.do, "b"))
        return "done"

    engine = engine_of(mode, declare(work))
    assert asyncio.run(engine.run()) == "done"
    assert steps.ran == {"a": 1, "b": 1}
    told = {op.user_id: op.name for op in engine.ops.values() if op.op == "Sleep"}
    assert told["short"] in ("50ms", "49ms", "48ms")
    assert told["date"] == "2030-01-31T08:00:00.000Z"
    assert 86_399_000 < int(told["long"].removesuffix("ms")) <= 86_400_000


def test_a_long_sleep_closes_the_coroutine_and_a_short_one_parks_it() -> None:
    """A closed coroutine unwinds its `finally` without running steps; a parked one goes on where it was."""
    starts = Counter[str]()

    async def work(ctx: stepwell.Context) -> int:
        starts["starts"] += 1
        try:
            await ctx.step.sleep("nap", ctx.event.data["nap"])
        finally:
            starts["ends"] += 1
        return starts["starts"]

    async def main(nap: str) -> Any:
        starts.clear()
        return await engine_of("checkpoints", declare(work), data={"nap": nap}).run()

    assert asyncio.run(main("1s")) == 1
    assert asyncio.run(main("2s")) == 2
    assert starts == {"starts": 2, "ends": 2}


@MODES
def test_a_failing_step_is_tried_again_and_its_error_can_be_caught(mode: str) -> None:
    """`retries` tries follow the first; then `StepError` is thrown where the step was asked for."""
    tries = Counter[str]()

    async def shaky(until: int) -> str:
        tries["shaky"] += 1
        if tries["shaky"] <= until:
            raise ValueError(f"try {tries['shaky']}")
        return "ok"

    async def work(ctx: stepwell.Context) -> list[Any]:
        first = await ctx.step.run("shaky", shaky, 2)
        try:
            await ctx.step.run("hopeless", shaky, 10**6)
        except stepwell.StepError as error:
            return [first, error.name, error.message, error.step_id, "ValueError" in (error.stack or "")]
        return []

    engine = engine_of(mode, declare(work, retries=2))
    assert asyncio.run(engine.run()) == ["ok", "ValueError", "try 6", "hopeless", True]
    assert [shape.split(":")[1] for shape in engine.shapes() if "hopeless" in shape or "shaky" in shape] == [
        "StepError shaky",
        "StepError shaky",
        *(["StepRun shaky"] if mode == "no checkpoints" else []),
        "StepError hopeless",
        "StepError hopeless",
        "StepFailed hopeless",
    ]


@MODES
def test_a_parallel_step_fails_alone(mode: str) -> None:
    """Its sibling's result is kept; the error reaches the function when the group is joined."""
    steps = Steps()

    async def bad() -> None:
        steps.ran["bad"] += 1
        raise KeyError("gone")

    async def work(ctx: stepwell.Context) -> list[str]:
        results = await asyncio.gather(ctx.step.run("good", steps.do, "good", 1), ctx.step.run("bad", bad), return_exceptions=True)
        return [str(result) for result in results]

    engine = engine_of(mode, declare(work, retries=1))
    assert asyncio.run(engine.run()) == ["1", "'gone'"]
    assert steps.ran == {"good": 1, "bad": 2}


@MODES
def test_an_uncaught_step_error_fails_the_run_at_once(mode: str) -> None:
    """The step had its tries; the function gets none on top. A group's single error is told as itself."""

    async def bad() -> None:
        raise ValueError("no")

    async def work(ctx: stepwell.Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step.run("bad", bad))

    answer = asyncio.run(engine_of(mode, declare(work, retries=0)).run())
    assert isinstance(answer, Failed) and not answer.retriable
    assert (error_of(answer)["name"], error_of(answer)["message"]) == ("ValueError", "no")


@MODES
def test_non_retriable_and_retry_after(mode: str) -> None:
    """A `NonRetriableError` ends a step's tries; `RetryAfterError` says when the next one is due."""
    tries = Counter[str]()

    async def later() -> str:
        tries["later"] += 1
        if tries["later"] == 1:
            raise stepwell.RetryAfterError("busy", after="2m")
        return "ok"

    async def never() -> None:
        tries["never"] += 1
        raise stepwell.NonRetriableError("no")

    async def work(ctx: stepwell.Context) -> str:
        await ctx.step.run("later", later)
        await ctx.step.run("never", never)
        return ""

    engine = engine_of(mode, declare(work))
    answer = asyncio.run(engine.run())
    assert error_of(answer)["name"] == "NonRetriableError"
    assert tries == {"later": 2, "never": 1}
    waits = [answer.retry_after_ms for _, answer in engine.calls if isinstance(answer, Ops) and answer.retry_after_ms]
    assert waits == [120_000]


@MODES
def test_a_failing_function_is_tried_again_with_its_steps_kept(mode: str) -> None:
    """An exception outside of steps is the call's; what was stored is not run again."""
    steps = Steps()
    fails = Counter[str]()

    async def work(ctx: stepwell.Context) -> list[int]:
        await ctx.step.run("a", steps.do, "a")
        fails["now"] += 1
        if fails["now"] < 3:
            raise RuntimeError("outside")
        return [ctx.attempt, ctx.max_attempts]

    assert asyncio.run(engine_of(mode, declare(work)).run()) == [2, 5]
    assert steps.ran == {"a": 1}


@MODES
def test_repeated_ids_are_counted(mode: str) -> None:
    """The same id in a loop is a step each time."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> list[Any]:
        return [await ctx.step.run("again", steps.do, "again", n) for n in range(4)]

    engine = engine_of(mode, declare(work))
    assert asyncio.run(engine.run()) == [0, 1, 2, 3]
    assert steps.ran == {"again": 4}
    assert sorted(op.index for op in engine.ops.values()) == [0, 1, 2, 3]


@MODES
def test_other_waiting_between_steps_is_let_go_on(mode: str) -> None:
    """I/O in the function's body, in sequence and in branches beside steps, delays and loses nothing."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> list[Any]:
        await asyncio.sleep(0.01)
        a = await ctx.step.run("a", steps.do, "a", 1)

        async def slow() -> Any:
            await asyncio.sleep(0.03)
            return await ctx.step.run("slow", steps.do, "slow", 2)

        async def fast() -> Any:
            await ctx.step.run("fast", steps.do, "fast")
            await asyncio.sleep(0.01)
            return await ctx.step.run("fast-2", steps.do, "fast-2", 3)

        return [a, *await asyncio.gather(slow(), fast(), asyncio.sleep(0.02, 4))]

    engine = engine_of(mode, declare(work))
    assert asyncio.run(engine.run()) == [1, 2, 3, 4]
    assert set(steps.ran.values()) == {1} and len(steps.ran) == 4


@MODES
def test_a_branch_at_work_is_not_cut_off_by_anothers_long_sleep(mode: str) -> None:
    """A sleep of a day is told when the branch beside it has come to its step, so that the step does not wait for a day."""
    steps = Steps()
    order: list[str] = []

    async def work(ctx: stepwell.Context) -> str:
        async def fetches() -> None:
            await asyncio.sleep(0.05)
            await ctx.step.run("after-io", steps.do, "after-io")
            order.append("after-io")

        async def sleeps() -> None:
            await ctx.step.sleep("day", "1d")
            order.append("day")

        async with asyncio.TaskGroup() as group:
            group.create_task(fetches())
            group.create_task(sleeps())
        return "done"

    engine = engine_of(mode, declare(work))
    assert asyncio.run(engine.run()) == "done"
    assert steps.ran == {"after-io": 1}
    assert "after-io" in order


@MODES
def test_branches_go_on_independently(mode: str) -> None:
    """A branch of two steps does not wait between them for another branch's day of sleep; nor does the winner of a race."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> str:
        async def two() -> None:
            await ctx.step.run("one", steps.do, "one")
            await ctx.step.run("two", steps.do, "two")

        await asyncio.gather(two(), ctx.step.sleep("day", "1d"))
        tasks = [asyncio.ensure_future(ctx.step.run(f"r{n}", steps.do, f"r{n}")) for n in range(2)]
        tasks.append(asyncio.ensure_future(ctx.step.sleep("year", "365d")))
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        return "won" if done else "lost"

    class Slow(FakeEngine):
        """Sleeps end when nothing else is left to do."""

        def asleep(self, op: Any) -> None:
            if op.user_id == "day":
                asyncio.get_running_loop().call_later(0.05, self._finish, op, b"null")

    engine = Slow(declare(work), "work", checkpoints=mode != "no checkpoints", forgets=mode == "replayed")
    assert asyncio.run(engine.run()) == "won"
    assert engine.finished.index("two") < engine.finished.index("day")


@MODES
def test_a_semaphore_shared_by_branches_does_not_stand_still(mode: str) -> None:
    """Branches that wait for each other at a lock are waiting for steps."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> int:
        limit = asyncio.Semaphore(2)

        async def branch(n: int) -> None:
            async with limit:
                await ctx.step.run(f"s{n}", steps.do, "s")
                await ctx.step.sleep(f"z{n}", "2s")

        await asyncio.gather(*(branch(n) for n in range(5)))
        return steps.ran["s"]

    assert asyncio.run(engine_of(mode, declare(work)).run()) == 5


def test_steps_asked_for_while_another_runs_run_beside_it() -> None:
    """With checkpoints a late branch need not wait for a long step."""
    order: list[str] = []

    async def work(ctx: stepwell.Context) -> list[str]:
        done = asyncio.Event()

        async def long() -> None:
            await done.wait()
            order.append("long")

        async def short() -> None:
            order.append("short")
            done.set()

        async def late() -> None:
            await asyncio.sleep(0.01)
            await ctx.step.run("short", short)

        await asyncio.gather(ctx.step.run("long", long), late())
        return order

    engine = engine_of("checkpoints", declare(work))
    assert asyncio.run(engine.run()) == ["short", "long"]
    assert engine.shapes() == ["step:Returned"]


def test_changed_code_replays_by_id() -> None:
    """A stored step no longer asked for is ignored, a new one runs when reached, a changed order changes nothing."""
    steps = Steps()
    version = Counter[str]()

    async def work(ctx: stepwell.Context) -> list[Any]:
        if version["v"] == 0:
            a = await ctx.step.run("a", steps.do, "a", 1)
            gone = await ctx.step.run("gone", steps.do, "gone", 2)
            version["v"] = 1
            raise RuntimeError(f"deploy in the middle {a} {gone}")
        new = await ctx.step.run("new", steps.do, "new", 3)
        return [new, await ctx.step.run("a", steps.do, "a", 99)]

    engine = engine_of("checkpoints", declare(work))
    assert asyncio.run(engine.run()) == [3, 1]
    assert steps.ran == {"a": 1, "gone": 1, "new": 1}


@MODES
def test_a_planned_step_that_the_code_no_longer_asks_for_is_ended(mode: str) -> None:
    """Its targeted call is answered, so that the run does not wait for it for ever."""
    steps = Steps()
    version = Counter[str]()

    async def work(ctx: stepwell.Context) -> str:
        if version["v"] == 0:
            version["v"] = 1
            await asyncio.gather(ctx.step.run("x", steps.do, "x"), ctx.step.run("y", steps.do, "y"))
        await ctx.step.run("z", steps.do, "z")
        return "done"

    engine = engine_of(mode, declare(work))
    if mode == "checkpoints":
        return  # the coroutine is parked, and its code does not change
    assert asyncio.run(engine.run()) == "done"
    assert steps.ran == {"z": 1}


@MODES
def test_floats_stay_floats(mode: str) -> None:
    """What JSON writes without a point comes back as a float, in the first pass and in every replay."""

    def measure() -> Any:
        return {"whole": 1.0, "half": 0.5, "count": 1, "list": [2.0, 3], "$float": None, "odd": {"$float": 4}}

    def annotated() -> float:
        return 3  # as annotated: a float

    async def work(ctx: stepwell.Context) -> list[str]:
        value = await ctx.step.run("m", measure)
        kinds = [type(item).__name__ for item in (value["whole"], value["half"], value["count"], *value["list"])]
        assert value["odd"] == {"$float": 4}
        more = await ctx.step.run("a", annotated)
        await ctx.step.sleep("s", "1h")
        return [*kinds, type(more).__name__]

    assert asyncio.run(engine_of(mode, declare(work)).run()) == ["float", "float", "int", "float", "int", "float"]


current_user: ContextVar[str] = ContextVar("current_user", default="nobody")


def test_plain_functions_run_in_threads_with_context_variables() -> None:
    """A plain step sees the context variables of the function, and does not hold the event loop up."""

    def who() -> list[Any]:
        return [current_user.get(), threading.current_thread() is threading.main_thread()]

    async def work(ctx: stepwell.Context) -> list[Any]:
        current_user.set("ada")
        return await ctx.step.run("who", who)

    assert asyncio.run(engine_of("checkpoints", declare(work)).run()) == ["ada", False]


@MODES
def test_a_plain_function_with_steps(mode: str) -> None:
    """`def` and `async def` are equals: its steps block its thread, and unwind it when it is put away."""
    steps = Steps()

    def work(ctx: stepwell.SyncContext) -> list[Any]:
        a = ctx.step.run("a", steps.do, "a", 1)
        ctx.step.sleep("s", "1h")
        try:
            ctx.step.run("bad", failing)
        except stepwell.StepError as error:
            return [a, ctx.step.run("b", steps.plain, "b", 2), error.message]
        return []

    def failing() -> None:
        raise stepwell.NonRetriableError("no")

    assert asyncio.run(engine_of(mode, declare(work)).run()) == [1, 2, "no"]
    assert steps.ran == {"a": 1, "b": 1}


def test_step_decorator() -> None:
    """Inside a run a call is a step with an id from the name; outside it is a plain call; in a step it is refused."""
    app = stepwell.App("t")
    ran = Counter[str]()

    @app.step(retries=0, timeout="5s")
    async def charge_card(amount: int) -> int:
        ran["charge"] += 1
        return amount * 2

    @app.step
    async def nested() -> int:
        return await charge_card(1)

    @app.function(trigger="t/e")
    async def work(ctx: stepwell.Context) -> list[Any]:
        two = await charge_card(1)
        try:
            await nested()
        except stepwell.StepError as error:
            return [two, await charge_card(two), error.message]
        return []

    engine = FakeEngine(app, "work")
    two, four, message = asyncio.run(engine.run())
    assert (two, four) == (2, 4)
    assert "step 'charge-card' was called inside step 'nested'" in message
    assert engine.finished == ["charge-card", "nested", "charge-card"]
    assert asyncio.run(charge_card(21)) == 42


def test_steps_in_steps_after_the_end_and_unawaited_are_refused() -> None:
    """Each with a sentence that names the step and the way out."""

    async def nothing() -> None: ...

    async def inside(ctx: stepwell.Context) -> None:
        async def outer() -> None:
            await ctx.step.run("inner", nothing)

        await ctx.step.run("outer", outer)

    async def unawaited(ctx: stepwell.Context) -> None:
        ctx.step.run("forgotten", nothing)  # type: ignore[unused-coroutine]

    async def unfinished(ctx: stepwell.Context) -> None:
        kept.append(asyncio.ensure_future(ctx.step.run("forgotten", asyncio.sleep, 60)))
        await asyncio.sleep(0)

    kept: list[Any] = []

    def message(handler: Callable[[Any], Any]) -> str:
        return str(error_of(asyncio.run(engine_of("checkpoints", declare(handler)).run()))["message"])

    assert "step 'inner' was called inside step 'outer'" in message(inside)
    assert "ended while step 'forgotten' was not finished: await every step" in message(unawaited)
    assert "ended while step 'forgotten' was not finished: await every step" in message(unfinished)

    contexts: list[stepwell.Context] = []

    async def leaks(ctx: stepwell.Context) -> None:
        contexts.append(ctx)

    asyncio.run(engine_of("checkpoints", declare(leaks)).run())
    with pytest.raises(stepwell.UsageError, match="after function 'work' had ended"):
        contexts[0].step.run("late", nothing)  # type: ignore[unused-coroutine]


def test_step_timeout_and_fewer_retries() -> None:
    """A step that takes too long fails with a sentence; an option may lower the tries, not raise them."""

    async def work(ctx: stepwell.Context) -> str:
        with pytest.raises(stepwell.UsageError, match="raise the function's"):
            ctx.step.options(retries=3)
        try:
            await ctx.step.options(timeout="10ms", retries=0).run("slow", asyncio.sleep, 60)
        except stepwell.StepError as error:
            return error.message
        return ""

    engine = engine_of("checkpoints", declare(work, retries=2))
    assert asyncio.run(engine.run()) == "step 'slow' took longer than 0.01 s"
    assert engine.shapes()[0] == "step:StepFailed slow"


def test_is_replay_and_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    """What was logged before is not logged again; records carry the run's ids."""

    async def work(ctx: stepwell.Context) -> list[bool]:
        flags = [ctx.is_replay]
        ctx.log.warning("at the start")
        await ctx.step.run("a", asyncio.sleep, 0)
        flags.append(ctx.is_replay)
        ctx.log.warning("after a")
        await ctx.step.sleep("s", "1h")
        ctx.log.warning("after the sleep")
        return [*flags, ctx.is_replay]

    engine = engine_of("checkpoints", declare(work))
    assert asyncio.run(engine.run()) == [True, True, False]
    assert [record.message for record in caplog.records] == ["at the start", "after a", "after the sleep"]
    assert caplog.records[0].run_id == "01JRUN"  # type: ignore[attr-defined]


def test_an_old_lease_unwinds_the_coroutine_past_except_exception() -> None:
    """`Superseded` is no `Exception`; `finally` runs, a step in it does not; the answer is `Lost`."""
    seen: list[str] = []
    steps = Steps()

    async def work(ctx: stepwell.Context) -> None:
        try:
            await ctx.step.run("a", steps.do, "a")
        except Exception:
            seen.append("except")
        finally:
            seen.append("finally")
            await ctx.step.run("b", steps.do, "b")

    async def main() -> None:
        engine = engine_of("checkpoints", declare(work))
        engine.superseded = True
        answer = await engine.executor.call(engine.request("i", "step", 0), engine._checkpoint)
        assert isinstance(answer, Lost)
        await engine.executor.close()

    asyncio.run(main())
    assert seen == ["finally"]
    assert steps.ran == {"a": 1}


def test_a_refused_checkpoint_fails_the_run_and_a_broken_one_is_told_in_the_answer() -> None:
    """Beyond a limit nothing helps; when the store does not answer, the step's result goes with the call's answer."""
    steps = Steps()

    async def work(ctx: stepwell.Context) -> Any:
        return await ctx.step.run("a", steps.do, "a", 1)

    engine = engine_of("checkpoints", declare(work))
    engine.refuse = ProtocolError("too many steps", 413)
    assert error_of(asyncio.run(engine.run()))["message"] == "too many steps"
    engine = engine_of("checkpoints", declare(work))
    engine.refuse = stepwell.Error("no answer")
    assert asyncio.run(engine.run()) == 1
    assert engine.shapes() == ["step:StepRun a", "step:Returned"]
    assert steps.ran == {"a": 2}


def test_parked_coroutines_are_bounded_and_forgotten() -> None:
    """The one that has waited longest is closed first; `forget` closes at once and runs `finally`."""
    closed: list[str] = []

    async def work(ctx: stepwell.Context) -> None:
        try:
            await asyncio.gather(ctx.step.run("a", asyncio.sleep, 0), ctx.step.run("b", asyncio.sleep, 0))
        finally:
            closed.append(ctx.run_id)

    async def main() -> None:
        app = declare(work)
        executor = Executor(app, parked_max=2)
        engines = [FakeEngine(app, "work", executor=executor, run_id=f"r{n}") for n in range(3)]
        for engine in engines:
            await executor.call(engine.request("i", "step", 0), engine._checkpoint)
        assert executor.parked == 2 and not executor.holds("r0")
        await executor.forget("r2")
        assert closed == ["r0", "r2"]
        await executor.close()
        assert closed == ["r0", "r2", "r1"]

    asyncio.run(main())


def test_the_same_item_again_supersedes_the_call_in_hand() -> None:
    """A new lease of an item takes the run over; the old call is lost."""
    gate = asyncio.Event()
    starts = Counter[str]()

    async def work(ctx: stepwell.Context) -> str:
        starts["n"] += 1
        if starts["n"] == 1:
            await gate.wait()
        return "second"

    async def main() -> None:
        engine = engine_of("checkpoints", declare(work))
        first = asyncio.ensure_future(engine.executor.call(engine.request("i", "step", 0), engine._checkpoint))
        await asyncio.sleep(0)
        second = await engine.executor.call(engine.request("i", "step", 0), engine._checkpoint)
        assert isinstance(second, Returned) and isinstance(await first, Lost)
        await engine.executor.close()

    asyncio.run(main())


def test_drain_ends_calls_at_the_next_step() -> None:
    """A draining executor finishes the step at hand, makes it durable, and gives the call back."""
    steps = Steps()

    async def main() -> None:
        reached = asyncio.Event()
        gate = asyncio.Event()

        async def first() -> None:
            reached.set()
            await gate.wait()

        async def work(ctx: stepwell.Context) -> None:
            await ctx.step.run("first", first)
            await ctx.step.run("second", steps.do, "second")

        engine = engine_of("checkpoints", declare(work))
        call = asyncio.ensure_future(engine.executor.call(engine.request("i", "step", 0), engine._checkpoint))
        await reached.wait()
        engine.executor.drain()
        gate.set()
        assert isinstance(await call, Lost)
        assert engine.checkpointed == ["first"]
        await engine.executor.close()

    asyncio.run(main())
    assert steps.ran == {}


def test_an_unknown_function_is_a_clear_failure() -> None:
    """It names what is there."""

    async def work(ctx: stepwell.Context) -> None: ...

    app = declare(work)
    engine = FakeEngine(app, "work")
    engine.slug = "t-other"

    async def main() -> Any:
        return await engine.executor.call(engine.request("i", "step", 0), engine._checkpoint)

    answer = asyncio.run(main())
    assert answer.retriable and "There is no function 't-other' here; there are: t-work." in error_of(answer)["message"]


@MODES
def test_unstorable_results_fail_the_step_with_a_sentence(mode: str) -> None:
    """A step's result that is no JSON, or not what is annotated, is the step's failure, and final."""

    def opaque() -> object:
        return threading.Lock()

    def lies() -> int:
        return "x"  # type: ignore[return-value]

    def nan() -> float:
        return float("nan")

    async def work(ctx: stepwell.Context) -> list[str]:
        messages = []
        for fn in (opaque, lies, nan):
            try:
                await ctx.step.run(fn.__name__, fn)
            except stepwell.StepError as error:
                messages.append(error.message)
        return messages

    messages = asyncio.run(engine_of(mode, declare(work)).run())
    assert "a value of type lock cannot be written as JSON" in messages[0]
    assert '"x" does not fit the annotation int' in messages[1]
    assert "a value of type float cannot be written as JSON" in messages[2]
