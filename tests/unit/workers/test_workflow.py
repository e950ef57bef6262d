"""Workflows as Cloudflare's documentation writes them, run by our executor: whole, replayed before each step, and without checkpoints."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

import stepwell
from stepwell.protocol.calls import Failed, Ops
from stepwell.workers.entrypoints import Worker
from stepwell.workers.workflow import workflow_function
from tests.unit.sdk.fake_engine import FakeEngine, error_of
from tests.unit.workers.conftest import Load

STARTED_MS = 1_750_000_000_000
HEAD = """
import asyncio
from datetime import datetime, timedelta
from workers import WorkflowEntrypoint
from workers.workflows import NonRetryableError

seen = []

class Flow(WorkflowEntrypoint):
    async def run(self, event, step):
"""

MODES = pytest.mark.parametrize("mode", [{}, {"forgets": True}, {"checkpoints": False, "forgets": True}], ids=["alive", "replayed", "http"])


class Flow:
    """An instance of the workflow of a source, ready to run."""

    def __init__(self, module: ModuleType, *, implicit: bool = False, params: Any = None, **mode: Any) -> None:
        self.module = module
        worker = Worker(module, {"NAME": "shop"})
        app = stepwell.App("shop")
        workflow_function(app, worker.workflows["Flow"], "flow", implicit=implicit)
        told = {"instanceId": "i-1", "startedMs": STARTED_MS, "params": params or {}}
        self.engine = FakeEngine(app, "flow", data=told, **mode)

    def run(self) -> Any:
        return asyncio.run(self.engine.run())


def body(text: str) -> str:
    """A source whose `run` has these lines."""
    return HEAD + "\n".join(f"        {line}" for line in text.strip("\n").splitlines())


@MODES
def test_the_first_example_of_the_documentation(load: Load, mode: dict[str, Any]) -> None:
    """Steps one after the other, each run once; the event tells what the instance was made with."""
    source = body("""
@step.do("my first step")
async def first():
    seen.append("first")
    return {"files": [event["payload"].name, event.instanceId, event.workflowName, self.env.NAME]}

files = await first()
await step.sleep("a rest", "1 minute")

@step.do("second", config={"retries": {"limit": 2, "delay": "5 seconds", "backoff": "constant"}, "timeout": "10 minutes"})
async def second():
    seen.append("second")
    return len(files.files)

return {"files": files, "count": await second(), "at": event.timestamp}
""")
    flow = Flow(load(source), params={"name": "report"}, **mode)
    local = datetime.fromtimestamp(STARTED_MS / 1000)
    assert flow.run() == {
        "files": {"files": ["report", "i-1", "flow", "shop"]},
        "count": 4,
        "at": {"$time": round(local.timestamp() * 1000)},
    }
    assert flow.module.seen == ["first", "second"] and flow.engine.finished == ["my first step", "a rest", "second"]


@MODES
def test_dependencies_that_are_listed(load: Load, mode: dict[str, Any]) -> None:
    """A step that two depend on runs once; they may run beside each other; the context stands where its parameter does."""
    source = body("""
@step.do("a")
async def a():
    seen.append("a")
    return 1

@step.do("b", depends=[a])
async def b(got):
    seen.append("b")
    return got + 1

@step.do("c", depends=[a])
def c(ctx, got):
    seen.append("c")
    return [got, ctx.step.name, ctx.step.count, ctx.attempt, ctx.config.retries.limit]

@step.do("d", depends=[b, c], concurrent=True)
async def d(left, right):
    seen.append("d")
    return [left, *right]

return await d()
""")
    flow = Flow(load(source), **mode)
    assert flow.run() == [2, 1, "c", 1, 1, 5]
    assert sorted(flow.module.seen) == ["a", "b", "c", "d"] and flow.module.seen[0] == "a" and flow.module.seen[-1] == "d"


@MODES
def test_dependencies_by_the_names_of_parameters(load: Load, mode: dict[str, Any]) -> None:
    """The newer way: a parameter is named after a step; a step is named after its function where nothing else is said."""
    source = body("""
@step.do()
async def first():
    return {"n": 1}

@step.do("other")
async def named_otherwise():
    return 2

@step.do(concurrent=True)
async def last(first, ctx, other):
    return [first.n, other, ctx.step.name]

return await last()
""")
    flow = Flow(load(source), implicit=True, **mode)
    assert flow.run() == [1, 2, "last"] and set(flow.engine.finished) == {"first", "other", "last"}


@MODES
def test_steps_side_by_side_and_again(load: Load, mode: dict[str, Any]) -> None:
    """Gathered; a step that is called twice is two steps; one whose dependency is under way waits for it."""
    source = body("""
@step.do("base")
async def base():
    seen.append("base")
    await asyncio.sleep(0)
    return 1

@step.do("x", depends=[base])
async def x(base):
    return base + 10

@step.do("y", depends=[base])
async def y(base):
    return base + 20

@step.do("again")
async def again(ctx):
    return ctx.step.count

both = await asyncio.gather(x(), y())
return [*both, await again(), await again(), *await asyncio.gather(again(), again())]
""")
    flow = Flow(load(source), **mode)
    answer = flow.run()
    assert isinstance(answer, list), answer
    *first, third, fourth = answer
    assert first == [11, 21, 1, 2] and sorted([third, fourth]) == [3, 4] and flow.module.seen == ["base"]


@pytest.mark.parametrize(
    ("text", "implicit", "sentence"),
    [
        ('@step.do("s")\nasync def s(a, ctx): ...', False, "Step has 1 non-ctx parameter(s) but no 'depends' list provided"),
        ('@step.do("s", depends=[3])\nasync def s(ctx): ...', False, "Step declares 0 non-ctx parameter(s) but 'depends' has 1 item(s)"),
        ('@step.do("s", depends=[print])\nasync def s(x): ...', False, "'depends' entry for parameter 'x' is not a function decorated"),
        ("@step.do()\nasync def s(zzz): ...", True, "Received unexpected parameter zzz"),
    ],
)
def test_dependencies_that_are_wrong(load: Load, text: str, implicit: bool, sentence: str) -> None:
    """Told when the step is called, not when it is decorated; nothing is tried again."""
    flow = Flow(load(body(f"{text}\nseen.append(1)\nawait s()")), implicit=implicit)
    error = error_of(flow.run())
    assert error["name"] == "TypeError" and sentence in error["message"] and flow.module.seen == [1] and len(flow.engine.calls) == 1


def test_the_newer_way_takes_no_list(load: Load) -> None:
    """And nothing but the name by its place."""
    for text in ("step.do('s', depends=[])", "step.do('s', None)"):
        assert error_of(Flow(load(body(text)), implicit=True).run())["name"] == "TypeError"


def pauses(flow: Flow) -> list[int | None]:
    """When failed tries are to be made again."""
    return [answer.retry_after_ms for _, answer in flow.engine.calls if isinstance(answer, Ops) and answer.ops[0].op == "StepError"]


def failing(config: str = "") -> str:
    return body(f"""
@step.do("s"{config})
async def s(ctx):
    seen.append(ctx.attempt)
    if len(seen) < 4:
        raise KeyError("no")
    return "at last"
return await s()
""")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", [1000, 2000, 4000]),
        (', config={"retries": {"limit": 3, "delay": "10 seconds", "backoff": "linear"}}', [10_000, 20_000, 30_000]),
        (', config={"retries": {"limit": 3, "delay": "1 minute", "backoff": "constant"}}', [60_000, 60_000, 60_000]),
        (', config={"retries": {"limit": 3, "delay": lambda told: told["ctx"].attempt * 5000}}', [5_000, 10_000, 15_000]),
        (', config={"retries": {"limit": 3, "delay": "2 days"}}', [86_400_000] * 3),
    ],
)
@MODES
def test_retries(load: Load, config: str, expected: list[int], mode: dict[str, Any]) -> None:
    """As often as may be, with the pauses asked for; an error shows under its own name."""
    flow = Flow(load(failing(config)), **mode)
    assert flow.run() == "at last" and flow.module.seen == [1, 2, 3, 4] and pauses(flow) == expected
    first = next(answer for _, answer in flow.engine.calls if isinstance(answer, Ops) and answer.ops[0].op == "StepError")
    assert b'"name":"KeyError"' in (first.ops[0].error or b"")


@pytest.mark.parametrize(("limit", "tries"), [(0, 1), (1, 2), (2, 3)])
def test_a_step_that_fails_for_good(load: Load, limit: int, tries: int) -> None:
    """Its error is the instance's, under its own name."""
    flow = Flow(load(failing(f', config={{"retries": {{"limit": {limit}, "delay": 0}}}}')))
    error = error_of(flow.run())
    assert (error["name"], error["message"]) == ("KeyError", "'no'") and len(flow.module.seen) == tries


CAUGHT = """
@step.do("s", config={"retries": {"limit": 0, "delay": 0}})
async def s():
    raise RAISED
try:
    await s()
except Exception as error:
    return [type(error).__name__, str(error)]
"""


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        ('ValueError("no")', ["ValueError", "no"]),
        ('TypeError("no")', ["TypeError", "no"]),
        ('NonRetryableError("stop")', ["NonRetryableError", "stop"]),
        ('KeyError("no")', ["StepError", "'no'"]),
        ('type("Mine", (ValueError,), {})("no")', ["StepError", "no"]),
    ],
)
@MODES
def test_errors_that_are_caught(load: Load, raised: str, caught: list[str], mode: dict[str, Any]) -> None:
    """They are what they were, where Cloudflare's are; the run goes on."""
    assert Flow(load(body(CAUGHT.replace("RAISED", raised))), **mode).run() == caught


def test_errors_that_nobody_retries(load: Load) -> None:
    """One try; not caught, the instance ends with the platform's own error."""
    source = body("""
@step.do("s")
async def s():
    seen.append(1)
    raise NonRetryableError("stop")
await s()
""")
    flow = Flow(load(source))
    error = error_of(flow.run())
    assert error["name"] == "WorkflowFatalError" and "a step threw an NonRetryableError and it was not handled" in error["message"]
    assert flow.module.seen == [1] and "stop" in error["stack"]
    assert error_of(Flow(load(body('raise NonRetryableError("stop")'))).run())["name"] == "WorkflowFatalError"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ('raise ValueError("no")', "ValueError", "no"),
        ("return {1, 2}", None, None),
        ("return print", "TypeError", "cannot be kept"),
        ('await step.sleep("z", "5s")', "ValueError", "the duration of step.sleep(\"z\") is '5s'; a duration is a number of milliseconds"),
        ('await step.sleep_until("z", "soon")', "ValueError", "must be a datetime, or a text"),
        ('await step.sleep_until("z", datetime(2020, 1, 1))', "ValueError", "You can't sleep until a time in the past, time-traveler"),
        ('await step.sleep("a\\nb", 5)', "ValueError", "exceeds max length (256 chars) or invalid characters found"),
        ('@step.do("s", config={"timeout": 0})\nasync def s(): ...\nawait s()', "ValueError", 'Step config for "s" is in a invalid format'),
        ('@step.do("s", config={"retries": {"limit": 0, "delay": 0}})\ndef s(): return (1,)\nawait s()', "TypeError", "<class 'tuple'>"),
    ],
)
def test_runs_that_fail(load: Load, text: str, name: str | None, message: str | None) -> None:
    """They fail at once, for good, under the error's own name."""
    flow = Flow(load(body(text)))
    answer = flow.run()
    if name is None:
        assert sorted(answer["$set"]) == [1, 2]
        return
    assert isinstance(answer, Failed) and not answer.retriable
    error = error_of(answer)
    assert error["name"] == name and message is not None and message in error["message"]


def test_a_workflow_without_run(load: Load) -> None:
    """What is missing is named."""
    module = load(HEAD.replace("async def run(self, event, step):", "pass"))
    assert error_of(Flow(module).run())["message"] == "Method run does not exist"


def test_a_step_that_takes_too_long(load: Load) -> None:
    """It is stopped and tried again; the last time its error is the run's to catch."""
    source = body("""
@step.do("s", config={"timeout": 20, "retries": {"limit": 1, "delay": 0}})
async def s():
    seen.append(1)
    await asyncio.Event().wait()
try:
    await s()
except TimeoutError as error:
    return str(error)
""")
    flow = Flow(load(source))
    assert flow.run() == "Execution timed out after 20ms" and flow.module.seen == [1, 1]


@MODES
def test_values_of_steps(load: Load, mode: dict[str, Any]) -> None:
    """Bytes, times, sets and exceptions come back as what they were, in the first pass as in a later one."""
    source = body("""
@step.do("s")
async def s():
    return {"bytes": b"x", "at": datetime(2026, 1, 1, 12), "set": {1}, "error": ValueError("no"), "none": None, "f": 1.5}
got = await s()
await step.sleep("z", 1)
return [got.bytes == b"x", got.at == datetime(2026, 1, 1, 12), got.set == {1}, str(got.error), got.none, got.f]
""")
    assert Flow(load(source), **mode).run() == [True, True, True, "no", None, 1.5]


@MODES
def test_waiting_for_an_event(load: Load, mode: dict[str, Any]) -> None:
    """It is a signal of the instance's; its time may be over first."""
    source = body("""
approved = await step.wait_for_event("approval", "approved", timeout="1 hour")
try:
    await step.wait_for_event("never", "refused", timeout=1000)
except TimeoutError as error:
    late = str(error)
return [approved.type, approved["payload"].by, approved.timestamp.year, late]
""")
    event = {"type": "approved", "payload": {"by": "me"}, "timestamp": {"$time": STARTED_MS}}
    replies = {"approval": {"data": {"signal": "workflow/flow/i-1/approved", "data": event}}}
    flow = Flow(load(source), replies=replies, **mode)
    assert flow.run() == ["approved", "me", 2025, "Execution timed out after 1000ms"]
    told = {op.user_id: op.opts for op in flow.engine.ops.values()}
    assert b'"signal":"workflow/flow/i-1/approved","timeout":"1h"' in (told["approval"] or b"")


def test_the_kind_is_given_by_its_place(load: Load) -> None:
    """As on the platform: there is no keyword for it."""
    assert error_of(Flow(load(body('await step.wait_for_event("a", event_type="b")'))).run())["name"] == "TypeError"


@MODES
def test_two_waits_for_one_kind(load: Load, mode: dict[str, Any]) -> None:
    """Who asked first has the first one."""
    source = body("""
one, two = await asyncio.gather(step.wait_for_event("one", "go"), step.wait_for_event("two", "go"))
return [one.payload, two.payload]
""")
    replies = {name: {"data": {"signal": "go", "data": {"type": "go", "payload": name}}} for name in ("one", "two")}
    assert Flow(load(source), replies=replies, **mode).run() == ["one", "two"]


@MODES
def test_sleeping(load: Load, mode: dict[str, Any]) -> None:
    """Nothing and less is no step; a time after the beginning is slept until, were it past or not."""
    source = body("""
await step.sleep("none", 0)
await step.sleep("less", -5)
await step.sleep("some", "2 seconds")
await step.sleep_until("then", datetime.fromtimestamp(1_750_000_001))
await step.sleep_until("later", "2035-01-31T08:00:00Z")
return "up"
""")
    flow = Flow(load(source), **mode)
    assert flow.run() == "up" and flow.engine.finished == ["some", "then", "later"]
    names = {op.user_id: op.name for op in flow.engine.ops.values()}
    assert names["later"] == "2035-01-31T08:00:00.000Z"
    assert names["then"] == datetime.fromtimestamp(1_750_000_001, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_step_inside_a_step(load: Load) -> None:
    """Is refused with what to do instead."""
    source = body("""
@step.do("inner")
async def inner(): ...
@step.do("outer", config={"retries": {"limit": 0, "delay": 0}})
async def outer():
    await inner()
await outer()
""")
    assert "step 'inner' was called inside step 'outer'" in error_of(Flow(load(source)).run())["message"]
