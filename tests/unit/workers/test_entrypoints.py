"""Workers as Cloudflare's documentation writes them, and how their handlers are found and called."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from stepwell.errors import UsageError
from stepwell.protocol.queues import Outcome
from stepwell.workers.batch import Delivered, MessageBatch
from stepwell.workers.entrypoints import Worker
from stepwell.workers.limits import HandlerLimits, LimitExceeded, Limits, cloudflares, count_tasks
from stepwell.workers.web.request import Request
from tests.unit.workers.conftest import Load

HELLO = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(f"Hello {self.env.NAME}!")
"""

ALL = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.greeting = f"Hello {env.NAME}"

    def fetch(self, request, env, ctx):
        assert env is self.env and ctx is self.ctx
        return Response.json({"greeting": self.greeting, "url": request.url, "method": request.method})

    async def scheduled(self, controller, env, ctx):
        seen.append((controller.cron, controller.scheduledTime, controller.type, env.NAME))
        if controller.cron == "never":
            controller.noRetry()
            raise ValueError("no")
        if controller.cron == "later":
            ctx.waitUntil(fail())

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            seen.append((batch.queue, message.body.order))
            if message.body.order < 0:
                message.retry(delaySeconds=5)
            else:
                message.ack()

    async def _hidden(self): ...

    async def add(self, a, b=1, *, c=0):
        return {"sum": a.n + b + c}

    field = 3

class Admin(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(f"admin {self.ctx.props.level}")

class _Private(WorkerEntrypoint): ...

async def fail():
    raise RuntimeError("later")

seen = []
"""

OLD = """
from workers import Response, handler, env

@handler
async def on_fetch(request, env, ctx):
    return Response(env.NAME)

async def on_scheduled(controller):
    seen.append(controller.cron)

@handler
async def on_queue(batch, env):
    batch.retryAll()

seen = []
"""


def request(url: str = "https://shop.example/x") -> Request:
    return Request(url)


def batch(*bodies: Any, queue: str = "jobs") -> MessageBatch:
    return MessageBatch(queue, [Delivered(id=f"m{i}", timestamp_ms=0, body=body, attempts=1) for i, body in enumerate(bodies)])


def test_the_first_example_of_the_documentation(load: Load) -> None:
    """A request is answered with what `env` holds."""

    async def main() -> None:
        worker = Worker(load(HELLO), {"NAME": "world"})
        assert worker.handlers == {"fetch"}
        assert await (await worker.call_fetch(request())).text() == "Hello world!"

    asyncio.run(main())


def test_every_kind_of_handler(load: Load) -> None:
    """Sync and async, with one argument or three, of the default entrypoint and of a named one."""

    async def main() -> None:
        main_module = load(ALL)
        worker, seen = Worker(main_module, {"NAME": "shop"}), main_module.seen
        assert worker.handlers == {"fetch", "scheduled", "queue"} and set(worker.entrypoints) == {"Default", "Admin"}
        answer = await (await worker.call_fetch(request())).json()
        assert answer == {"greeting": "Hello shop", "url": "https://shop.example/x", "method": "GET"}
        assert await (await worker.call_fetch(request(), "Admin", {"level": 3})).text() == "admin 3"
        assert await worker.call_scheduled("*/5 * * * *", 1234) == {"outcome": "ok", "noRetry": False}
        assert await worker.call_scheduled("never", 5) == {"outcome": "exception", "noRetry": True}
        assert await worker.call_queue(batch({"order": 1}, {"order": -1})) == Outcome(acks=("m0",), retries={"m1": 5000})
        assert seen == [("*/5 * * * *", 1234, "scheduled", "shop"), ("never", 5, "scheduled", "shop"), ("jobs", 1), ("jobs", -1)]

    asyncio.run(main())


def test_work_left_behind_that_fails_fails_the_tick(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is told."""
    worker = Worker(load(ALL), {"NAME": "shop"})
    assert asyncio.run(worker.call_scheduled("later")) == {"outcome": "exception", "noRetry": False}
    assert "scheduled('later') failed: RuntimeError: later" in caplog.text


def test_methods_for_other_workers(load: Load) -> None:
    """Arguments and results are copied; what is no public method is not there."""

    async def main() -> None:
        worker = Worker(load(ALL), {"NAME": "shop"})
        assert await worker.call_method("add", [{"n": 1}], {"c": 5}) == {"sum": 7}
        for name in ("_hidden", "field", "nope", "fetch", "__init__", "queue"):
            with pytest.raises(TypeError, match=f"^Method {name} does not exist$"):
                await worker.call_method(name)
        with pytest.raises(TypeError, match="cannot be sent over RPC"):
            await worker.call_method("add", [(1,)])
        with pytest.raises(TypeError, match="no entrypoint 'Nope'; there are: Admin, Default"):
            await worker.call_method("add", entrypoint="Nope")
        with pytest.raises(TypeError, match=r"^Method queue does not exist$"):
            await worker._handled("queue", "Admin", worker._invocation("x", HandlerLimits()), None)

    asyncio.run(main())


def test_handlers_in_the_older_style(load: Load) -> None:
    """Functions of the module, with `@handler` or without."""

    async def main() -> None:
        main_module = load(OLD)
        worker = Worker(main_module, {"NAME": "old"})
        assert worker.handlers == {"fetch", "scheduled", "queue"}
        assert await (await worker.call_fetch(request())).text() == "old" == main_module.env.NAME
        assert await worker.call_scheduled("x") == {"outcome": "ok", "noRetry": False} and main_module.seen == ["x"]
        assert await worker.call_queue(batch(1)) == Outcome(retry_all=True)

    asyncio.run(main())


def test_a_worker_without_a_handler(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """What is missing is told by name; a batch is to come again, a tick is not."""

    async def main() -> None:
        worker = Worker(load(HELLO.replace("fetch", "other")))
        assert worker.handlers == frozenset()
        with pytest.raises(TypeError, match=r"^Method fetch does not exist$"):
            await worker.call_fetch(request())
        assert await worker.call_scheduled("x") == {"outcome": "exception", "noRetry": True}
        assert b"there is no queue handler" in ((await worker.call_queue(batch(1))).error or b"")

    asyncio.run(main())
    assert "write a scheduled handler, or remove the trigger" in caplog.text
    assert "write a queue handler, or remove its consumer" in caplog.text


def test_which_classes_are_entrypoints(load: Load) -> None:
    """The public ones of the main module, or those that `__all__` names; objects and workflows beside them."""
    source = """
from workers import DurableObject, Response, WorkerEntrypoint, WorkflowEntrypoint

class Default(WorkerEntrypoint): ...
class Tenant(DurableObject): ...
class Fulfil(WorkflowEntrypoint): ...
class Hidden(WorkerEntrypoint): ...
"""
    worker = Worker(load(source))
    assert (set(worker.entrypoints), set(worker.objects), set(worker.workflows)) == ({"Default", "Hidden"}, {"Tenant"}, {"Fulfil"})
    named = load(source)
    named.__all__ = ["Default"]  # type: ignore[attr-defined]
    assert set(Worker(named).entrypoints) == {"Default"} and Worker(named).objects == {}
    with pytest.raises(UsageError, match=r"entry\.py has no entrypoint: write class Default\(WorkerEntrypoint\)"):
        named.__all__ = ["WorkerEntrypoint"]  # type: ignore[attr-defined]
        Worker(named)


QUEUE = """
import asyncio
from workers import WorkerEntrypoint, wait_until

class Default(WorkerEntrypoint):
    async def queue(self, batch):
        await act(self, batch)
"""

Act = Callable[[Any, MessageBatch], Awaitable[None]]


async def _fails(worker: Any, batch: MessageBatch) -> None:
    batch.messages[0].ack()
    raise ValueError("broken")


async def _acks_all_and_fails(worker: Any, batch: MessageBatch) -> None:
    batch.ackAll()
    raise ValueError("broken")


async def _left_work_fails(worker: Any, batch: MessageBatch) -> None:
    async def work() -> None:
        raise ValueError("broken")

    worker.ctx.waitUntil(work())


async def _retries_late(worker: Any, batch: MessageBatch) -> None:
    returned = asyncio.Event()

    async def work() -> None:
        await returned.wait()
        batch.messages[0].retry()

    worker.ctx.waitUntil(work())
    asyncio.get_running_loop().call_soon(returned.set)


async def _leaves_work_in_work(worker: Any, batch: MessageBatch) -> None:
    async def last() -> None:
        await asyncio.sleep(0)
        batch.messages[1].retry()

    async def work() -> None:
        await asyncio.sleep(0)
        worker.ctx.waitUntil(last())

    worker.ctx.waitUntil(asyncio.ensure_future(work()))


async def _fails_with_work_left(worker: Any, batch: MessageBatch) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        batch.messages[0].ack()

    worker.ctx.waitUntil(work())
    raise ValueError("broken")


async def _task_fails_unseen(worker: Any, batch: MessageBatch) -> None:
    async def work() -> None:
        raise ValueError("unseen")

    task = asyncio.ensure_future(work())
    await asyncio.wait({task})
    task.exception()


async def _exits(worker: Any, batch: MessageBatch) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("act", "outcome", "acks", "retries", "ack_all"),
    [
        (_fails, "exception", ["m0"], [], False),
        (_acks_all_and_fails, "exception", [], [], True),
        (_left_work_fails, "exception", [], [], False),
        (_retries_late, "ok", [], ["m0"], False),
        (_leaves_work_in_work, "ok", [], ["m1"], False),
        (_fails_with_work_left, "exception", ["m0"], [], False),
        (_task_fails_unseen, "ok", [], [], False),
        (_exits, "exception", [], [], False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_outcome_of_a_batch(load: Load, act: Act, outcome: str, acks: list[str], retries: list[str], ack_all: bool) -> None:
    """It is taken when all that was left to `waitUntil` is done; an exception there or in the handler is its outcome."""
    main_module = load(QUEUE)
    main_module.act = act  # type: ignore[attr-defined]
    came = asyncio.run(Worker(main_module).call_queue(batch(1, 2, 3)))
    assert (came.error is None) == (outcome == "ok")
    said = Outcome(acks=tuple(acks), retries=dict.fromkeys(retries), ack_all=ack_all)
    assert msgspec.structs.replace(came, error=None) == said


def test_work_behind_a_response(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """The response does not wait for it; its error is told."""
    source = """
import asyncio
from workers import Response, WorkerEntrypoint, wait_until, waitUntil

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        wait_until(work(gate))
        waitUntil(fail())
        return Response("now")

async def work(gate):
    await gate.wait()
    seen.append("done")

async def fail():
    raise ValueError("broken")

seen = []
"""

    async def main() -> None:
        module = load(source)
        module.gate = asyncio.Event()  # type: ignore[attr-defined]
        worker = Worker(module)
        assert await (await worker.call_fetch(request())).text() == "now" and module.seen == []
        module.gate.set()
        await worker.drain()
        assert module.seen == ["done"]

    asyncio.run(main())
    assert "fetch of GET https://shop.example/x failed: ValueError: broken" in caplog.text


def test_wrong_ways_to_wait(load: Load) -> None:
    """A function that was not called, a call from nowhere; what is no response."""
    source = """
from workers import WorkerEntrypoint, wait_until

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return act(self.ctx)
"""

    async def main() -> None:
        module = load(source)
        worker = Worker(module)
        for act, sentence in (
            (lambda ctx: ctx.waitUntil(main), r"waitUntil\(<function .*give what can be awaited"),
            (lambda ctx: {"a": 1}, "fetch returned a dict; it must return a Response"),
            (lambda ctx: None, "fetch returned None; it must return a Response"),
        ):
            module.act = act  # type: ignore[attr-defined]
            with pytest.raises(TypeError, match=sentence):
                await worker.call_fetch(request())
        with pytest.raises(RuntimeError, match="belongs to a handler"):
            module.wait_until(main)

    asyncio.run(main())


SLOW = """
import asyncio, time
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await act(self)
        return Response("done")

    async def queue(self, batch):
        await act(self)

cleaned = []

async def waits(worker):
    try:
        await asyncio.Event().wait()
    finally:
        cleaned.append("waits")

async def burns(worker):
    try:
        while True:
            pass
    except Exception:
        cleaned.append("never")

async def burns_in_tasks(worker):
    async def burn():
        for _ in range(10_000_000):
            sum(range(10_000))
            await asyncio.sleep(0)
    await asyncio.gather(burn(), burn())

async def blocks(worker):
    time.sleep(600)

async def leaves(worker):
    worker.ctx.waitUntil(waits(worker))

async def quick(worker): ...
"""


@pytest.fixture
def counted() -> Iterator[None]:
    """The signals of limits are taken back."""
    yield
    for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        signal.setitimer(timer, 0)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)


SHORT = HandlerLimits(wall_s=0.2)
LITTLE = HandlerLimits(cpu_s=0.2)


@pytest.mark.parametrize(
    ("act", "limits", "sentence"),
    [
        ("waits", Limits(queue=SHORT), "queue('jobs') took longer than 0.2 s and was stopped"),
        ("blocks", Limits(queue=SHORT), "queue('jobs') took longer than 0.2 s and was stopped"),
        ("burns", Limits(queue=SHORT), "queue('jobs') took longer than 0.2 s and was stopped"),
        ("burns", Limits(queue=LITTLE), "queue('jobs') used more than 0.2 s of the processor and was stopped: raise limits.cpu_ms"),
        ("burns_in_tasks", Limits(queue=LITTLE), "queue('jobs') used more than 0.2 s of the processor"),
        ("leaves", Limits(wait_until_s=0.1), "queue('jobs'): what was left to waitUntil() was not done 0.1 s after the handler had ended"),
    ],
)
@pytest.mark.usefixtures("counted")
def test_limits(load: Load, act: str, limits: Limits, sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a handler does with its time, it is stopped, and the batch comes again; the next one is not the worse for it."""

    async def main() -> None:
        count_tasks(asyncio.get_running_loop())
        module = load(SLOW)
        worker = Worker(module, limits=limits)
        module.act = getattr(module, act)  # type: ignore[attr-defined]
        assert (await worker.call_queue(batch(1))).error is not None
        assert module.cleaned == (["waits"] if act in ("waits", "leaves") else [])
        module.act = module.quick  # type: ignore[attr-defined]
        assert (await worker.call_queue(batch(1))).error is None

    asyncio.run(main())
    assert [sentence in record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [True]


@pytest.mark.usefixtures("counted")
def test_a_request_over_its_limit(load: Load) -> None:
    """Its caller is told."""

    async def main() -> None:
        count_tasks(asyncio.get_running_loop())
        module = load(SLOW)
        module.act = module.burns  # type: ignore[attr-defined]
        worker = Worker(module, limits=Limits(fetch=LITTLE))
        with pytest.raises(LimitExceeded, match=r"fetch of GET https://shop.example/x used more than 0.2 s of the processor"):
            await worker.call_fetch(request())

    asyncio.run(main())


def test_the_limits_of_cloudflare() -> None:
    """Of the processor for all, by the clock for all but requests."""
    limits = cloudflares()
    assert (limits.fetch, limits.queue) == (HandlerLimits(cpu_s=30.0), HandlerLimits(wall_s=900.0, cpu_s=30.0))
    assert limits.queue == limits.scheduled == limits.alarm and limits.wait_until_s == 30.0 and limits.has_cpu and not Limits().has_cpu
    assert cloudflares(cpu_ms=500).alarm.cpu_s == 0.5
