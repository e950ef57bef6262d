"""What `env` has for a workflow, over a real engine: instances are made, found, told events, ended and made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import stepwell
from stepwell.embedded import Engine
from stepwell.workers.entrypoints import Worker
from stepwell.workers.errors import WorkflowError
from stepwell.workers.workflow import workflow_function
from stepwell.workers.workflow_binding import Workflow, WorkflowInstance
from tests.unit.workers.conftest import Load

SOURCE = """
from workers import WorkflowEntrypoint

seen = []

class Flow(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("begin")
        async def begin():
            seen.append(["begin", event.instanceId])
            return event.payload

        @step.do("end")
        async def end():
            seen.append(["end", event.instanceId])
            return "ended"

        begun = await begin()
        if "fail" in begun:
            raise ValueError(begun.fail)
        if "wait" in begun:
            events = [await step.wait_for_event(f"event {n}", "go") for n in range(begun.wait)]
            begun = [one.payload for one in events]
        return {"begun": begun, "end": await end()}
"""


class House:
    """A workflow on an engine, its binding, and what its steps have done."""

    def __init__(self, workflow: Workflow, engine: Engine, module: Any) -> None:
        self.workflow, self.engine, self.module = workflow, engine, module
        self.seen: list[Any] = module.seen

    async def ended(self, instance: WorkflowInstance) -> Any:
        """The status of an instance that has ended."""
        run_id = await self.workflow.run_of(instance.id)
        assert run_id is not None
        await self.engine.ended(run_id)
        return await instance.status()

    async def waits(self, instance: WorkflowInstance) -> None:
        """Returns when the instance waits for an event."""
        run_id = await self.workflow.run_of(instance.id)
        assert run_id is not None
        async with asyncio.timeout(10):
            while not any(step.status == "waiting" for step in await self.engine.steps_of(run_id)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def house(load: Load, source: str = SOURCE) -> AsyncIterator[House]:
    module = load(source)
    app = stepwell.App("shop")
    workflow_function(app, Worker(module).workflows["Flow"], "flow")
    async with app.engine(db=None) as engine:
        yield House(Workflow(app, "flow", "shop-flow"), engine, module)


def test_an_instance(load: Load) -> None:
    """Made with parameters and an id, or without; found by its id; its output is a value."""

    async def main() -> None:
        async with house(load) as here:
            made = await here.workflow.create(id="order-1", params={"at": [1]})
            assert made.id == "order-1" and repr(made) == "<instance order-1 of flow>"
            status = await here.ended(made)
            assert status == {"status": "complete", "output": {"begun": {"at": [1]}, "end": "ended"}, "error": None}
            assert status.output.begun.at == [1]
            assert (await (await here.workflow.get("order-1")).status()).status == "complete"
            other = await here.workflow.create()
            assert len(other.id) == 36 and (await here.ended(other)).output.begun == {}
            third = await here.workflow.create({"id": "as-options", "params": {"a": 1}})
            assert (await here.ended(third)).output.begun.a == 1

    asyncio.run(main())


def test_instances_that_cannot_be(load: Load) -> None:
    """An id that is there, one that is none, one that nobody has made."""

    async def main() -> None:
        async with house(load) as here:
            await here.workflow.create(id="a")
            with pytest.raises(WorkflowError, match=r'\(instance.already_exists\) Workflow instance with id "a" already exists'):
                await here.workflow.create(id="a")
            for wrong in ("-a", "a b", "", "x" * 101, 3):
                with pytest.raises(WorkflowError, match="Workflow instance has invalid id"):
                    await here.workflow.create(id=wrong)
            for unknown in ("nobody", "a b", "x" * 101):
                with pytest.raises(WorkflowError, match=r"instance.not_found"):
                    await here.workflow.get(unknown)
            with pytest.raises(TypeError, match=r"<class 'tuple'> cannot be sent over RPC"):
                await here.workflow.create(params=(1,))

    asyncio.run(main())


def test_one_of_two_at_once(load: Load) -> None:
    """Only one of those who make an id in the same moment has made it."""

    async def main() -> None:
        async with house(load) as here:
            made = await asyncio.gather(*(here.workflow.create(id="a", params={"n": n}) for n in range(5)), return_exceptions=True)
            assert sorted(type(one).__name__ for one in made) == ["AlreadyExists"] * 4 + ["WorkflowInstance"]
            await here.ended(await here.workflow.get("a"))
            assert here.seen == [["begin", "a"], ["end", "a"]]

    asyncio.run(main())


def test_many_at_once(load: Load) -> None:
    """Those that are there are left out; one bad id, and nothing is made."""

    async def main() -> None:
        async with house(load) as here:
            await here.workflow.create(id="b")
            made = await here.workflow.create_batch([{"id": "a", "params": {"n": 1}}, {"id": "b"}, {"id": "c"}, {}])
            assert [one.id for one in made[:2]] == ["a", "c"] and len(made) == 3
            assert (await here.ended(made[0])).output.begun.n == 1
            with pytest.raises(WorkflowError, match="invalid id"):
                await here.workflow.createBatch([{"id": "d"}, {"id": "-"}])
            with pytest.raises(WorkflowError, match=r"instance.not_found"):
                await here.workflow.get("d")
            with pytest.raises(WorkflowError, match="should have at least 1 instance"):
                await here.workflow.create_batch([])
            with pytest.raises(WorkflowError, match="it takes 100 at most"):
                await here.workflow.create_batch([{}] * 101)

    asyncio.run(main())


def test_events_before_and_after_the_wait(load: Load) -> None:
    """In order, each once, whether the instance waited for it or not; of another instance, or another kind, none."""

    async def main() -> None:
        async with house(load) as here:
            early = await here.workflow.create(id="early", params={"wait": 3})
            other = await here.workflow.create(id="other", params={"wait": 1})
            await early.send_event(type="go", payload={"n": 1})
            await early.sendEvent({"type": "go", "payload": [2]})
            await early.send_event(type="stop", payload="no")
            await here.waits(other)
            assert (await other.status()).status in ("running", "waiting")
            await early.send_event({"type": "go"}, payload=b"three")
            assert (await here.ended(early)).output.begun == [{"n": 1}, [2], b"three"]
            await other.send_event(type="go", payload="x")
            assert (await here.ended(other)).output.begun == ["x"]
            await other.send_event(type="go", payload="to one that has ended")
            with pytest.raises(TypeError, match="type is None; it must be a text"):
                await other.send_event(payload=1)
            await other.send_event(type="x" * 300)

    asyncio.run(main())


def test_an_instance_that_fails(load: Load) -> None:
    """Its error has name and message."""

    async def main() -> None:
        async with house(load) as here:
            failed = await here.ended(await here.workflow.create(params={"fail": "no"}))
            assert (failed.status, failed.output, failed.error) == ("errored", None, {"name": "ValueError", "message": "no"})

    asyncio.run(main())


def test_ending_and_beginning_anew(load: Load) -> None:
    """Terminated, it is over; made anew, all runs again, or all from a step on."""

    async def main() -> None:
        async with house(load) as here:
            made = await here.workflow.create(id="a", params={"wait": 1})
            await here.waits(made)
            await made.terminate()
            assert (await made.status()).status == "terminated"
            await here.workflow.create(id="b")
            ended = await here.workflow.get("b")
            await here.ended(ended)
            with pytest.raises(WorkflowError, match=r"\(instance.cannot_terminate\) Cannot terminate instance since its on a finite state"):
                await ended.terminate()
            await made.restart()
            await here.waits(made)
            await made.restart()
            await here.waits(made)
            await made.send_event(type="go", payload=1)
            assert (await here.ended(made)).status == "complete"
            assert here.seen == [["begin", "a"], ["begin", "b"], ["end", "b"], ["begin", "a"], ["begin", "a"], ["end", "a"]]
            await made.restart({"from": {"name": "end"}})
            assert (await here.ended(made)).output == {"begun": [1], "end": "ended"} and here.seen[6:] == [["end", "a"]]
            with pytest.raises(WorkflowError, match=r'\(instance.cannot_restart\) Step "nope" not found in execution history'):
                await made.restart({"from": {"name": "nope"}})

    asyncio.run(main())


GATED = """
import asyncio
from workers import WorkflowEntrypoint

seen = []
entered, gate = asyncio.Event(), asyncio.Event()

class Flow(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("first")
        async def first():
            entered.set()
            await gate.wait()
            seen.append("first")

        @step.do("second")
        async def second():
            seen.append("second")

        await first()
        await second()
        return "done"
"""


def test_an_instance_is_paused_in_a_step(load: Load) -> None:
    """`waitingForPause` while the step runs, `paused` when it has ended; resumed, no step runs twice. Pausing twice is no error."""

    async def main() -> None:
        async with house(load, GATED) as here, asyncio.timeout(30):
            made = await here.workflow.create(id="a")
            await here.module.entered.wait()
            await made.pause()
            await made.pause()
            assert (await made.status()).status == "waitingForPause"
            here.module.gate.set()
            while (await made.status()).status != "paused":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert here.seen == ["first"]
            await made.resume()
            assert (await here.ended(made)).output == "done" and here.seen == ["first", "second"]
            for late in (made.pause, made.resume):
                await late()
            assert (await made.status()).status == "complete"

    asyncio.run(main())


def test_a_resumption_in_time_changes_nothing(load: Load) -> None:
    """Of an instance that was to be paused after its step: it goes on as if nobody had asked."""

    async def main() -> None:
        async with house(load, GATED) as here, asyncio.timeout(30):
            made = await here.workflow.create(id="a")
            await here.module.entered.wait()
            await made.pause()
            await made.resume()
            assert (await made.status()).status == "running"
            here.module.gate.set()
            assert (await here.ended(made)).status == "complete" and here.seen == ["first", "second"]

    asyncio.run(main())


def test_an_instance_is_paused_in_a_wait(load: Load) -> None:
    """`paused` at once; an event that is sent meanwhile is kept for it, and it can be ended and made anew."""

    async def main() -> None:
        async with house(load) as here, asyncio.timeout(30):
            made = await here.workflow.create(id="a", params={"wait": 2})
            await here.waits(made)
            await made.pause()
            assert (await made.status()).status == "paused"
            await made.send_event(type="go", payload=1)
            await made.send_event(type="go", payload=2)
            assert (await made.status()).status == "paused"
            await made.resume()
            assert (await here.ended(made)).output == {"begun": [1, 2], "end": "ended"}
            await made.restart()
            await here.waits(made)
            await made.pause()
            await made.terminate()
            assert (await made.status()).status == "terminated"

    asyncio.run(main())
