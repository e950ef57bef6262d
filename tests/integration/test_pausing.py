"""A run that is paused and resumed by its handle, in the engine's own process: between its steps, in its waits, before its start."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

import stepwell

TIMEOUT_S = 30


class Gate:
    """A step that says that it runs, and ends when it may. `ran` counts the steps that did."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.ran: list[str] = []

    def step(self, name: str) -> str:
        """A step of plain code."""
        self.entered.set()
        assert self.opened.wait(TIMEOUT_S)
        self.ran.append(name)
        return name

    async def wait(self, name: str) -> str:
        """The same of async code."""
        return await asyncio.to_thread(self.step, name)


async def stands(run: stepwell.RunHandle[object], *statuses: str) -> None:
    """Returns when the run has one of these statuses."""
    while await run.status() not in statuses:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("plain", [False, True])
def test_a_pause_between_two_steps(plain: bool) -> None:
    """The step that runs ends and is recorded, the next one waits for the resumption; neither runs twice."""
    app, gate = stepwell.App("pauses"), Gate()

    if plain:

        @app.function
        def work(ctx: stepwell.SyncContext) -> list[str]:
            return [ctx.step.run("one", gate.step, "one"), ctx.step.run("two", gate.step, "two")]
    else:

        @app.function
        async def work(ctx: stepwell.Context) -> list[str]:
            return [await ctx.step.run("one", gate.wait, "one"), await ctx.step.run("two", gate.wait, "two")]

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S), app.engine(db=None) as engine:
            run = await app.start(work)
            await asyncio.to_thread(gate.entered.wait, TIMEOUT_S)
            await run.pause()
            assert await run.status() == "pausing"
            gate.opened.set()
            await stands(run, "paused")
            assert gate.ran == ["one"]
            assert [step.status for step in await engine.steps_of(run.id)] == ["completed"]
            why = await engine.node.why(run.id)
            assert (why.gate, why.sentence) == ("paused", "The run is paused by API.")
            await run.pause()
            with pytest.raises(TimeoutError):
                await run.output("50ms")
            await run.resume()
            assert await run.output("20s") == ["one", "two"] and gate.ran == ["one", "two"]
            for late in (run.pause, run.resume):
                with pytest.raises(stepwell.RunHasEnded, match=run.id):
                    await late()
            assert await run.status() == "completed"

    asyncio.run(main())


def test_steps_that_one_call_runs_beside_each_other_all_end_before_the_pause() -> None:
    """The first that ends leaves the call to the other, whose result would be lost else: each is run once."""
    app, one, two = stepwell.App("pauses"), Gate(), Gate()

    @app.function
    async def work(ctx: stepwell.Context) -> list[str]:
        async def branch() -> str:
            await asyncio.to_thread(one.entered.wait, TIMEOUT_S)  # no step: so the call that runs the first step runs the second too
            return await ctx.step.run("two", two.wait, "two")

        both = await asyncio.gather(ctx.step.run("one", one.wait, "one"), branch())
        return [*both, await ctx.step.run("three", two.wait, "three")]

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S), app.engine(db=None) as engine:
            run = await app.start(work)
            await asyncio.to_thread(two.entered.wait, TIMEOUT_S)
            await run.pause()
            one.opened.set()
            while not await engine.steps_of(run.id):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert await run.status() == "pausing"
            two.opened.set()
            await stands(run, "paused")
            assert sorted(step.name for step in await engine.steps_of(run.id)) == ["one", "two"]
            await run.resume()
            assert await run.output("20s") == ["one", "two", "three"] and [*one.ran, *two.ran] == ["one", "two", "three"]

    asyncio.run(main())


def test_waits_end_during_a_pause() -> None:
    """A sleep and an event are recorded meanwhile; the run goes on with both when it is resumed."""
    app = stepwell.App("pauses")

    @app.function
    async def work(ctx: stepwell.Context) -> int:
        event, _ = await asyncio.gather(ctx.step.wait_for_event("go", "pauses/go", timeout="1h"), ctx.step.sleep("nap", "200ms"))
        assert event is not None
        return int(event.data["n"])

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S), app.engine(db=None) as engine:
            run = await app.start(work)
            await stands(run, "waiting")
            await run.pause()
            assert await run.status() == "paused"
            await app.send("pauses/go", {"n": 7})
            while any(step.status != "completed" for step in await engine.steps_of(run.id)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert await run.status() == "paused"
            await run.resume()
            assert await run.output("20s") == 7

    asyncio.run(main())


def test_a_paused_run_is_cancelled() -> None:
    """And is paused no longer."""
    app = stepwell.App("pauses")

    @app.function
    async def work(ctx: stepwell.Context) -> None:
        await ctx.step.sleep("nap", "1h")

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S), app.engine(db=None):
            run = await app.start(work)
            await run.pause()
            await run.cancel()
            assert await run.status() == "cancelled"
            with pytest.raises(stepwell.NotFound):
                await stepwell.RunHandle(app, "01JZZZZZZZZZZZZZZZZZZZZZZZ").pause()

    asyncio.run(main())


def test_a_handle_whose_methods_block() -> None:
    """Pauses and resumes from code that is not async."""
    app = stepwell.App("pauses")

    @app.function
    async def work(ctx: stepwell.Context) -> int:
        await ctx.step.sleep("nap", "10ms")
        return 1

    def use(run: stepwell.SyncRunHandle[int]) -> int:
        run.pause()
        assert run.status() in ("paused", "pausing")
        run.resume()
        return run.output("20s")

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S), app.engine(db=None):
            assert await asyncio.to_thread(lambda: use(app.start_sync(work))) == 1

    asyncio.run(main())


def test_the_answers_of_the_routes() -> None:
    """How the run stands then, for the SDK and for the page; `GET /v1/runs` tells it while the run is paused."""
    app = stepwell.App("pauses")

    @app.function
    async def work(ctx: stepwell.Context) -> None:
        await ctx.step.sleep("nap", "1h")

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S), app.engine(db=None):
            run = await app.start(work)
            await stands(run, "waiting")

            async def asked(method: str, path: str) -> dict[str, object]:
                status, body = await app.way.ask(method, path)
                assert status == 200, body
                answer = json.loads(body)
                return dict(answer.get("data") or answer.get("run") or answer)

            assert await asked("POST", f"/v1/runs/{run.id}/pause") == {"run_id": run.id, "paused": "paused"}
            assert (await asked("GET", f"/v1/runs/{run.id}"))["paused"] == "paused"
            assert (await asked("GET", f"/api/runs/{run.id}"))["paused_by"] == "API"
            assert await asked("POST", f"/v1/runs/{run.id}/resume") == {"run_id": run.id, "paused": None}
            assert "paused" not in await asked("GET", f"/v1/runs/{run.id}")
            assert await asked("POST", f"/api/runs/{run.id}/pause") == {"run_id": run.id, "paused": "paused"}
            assert "by a person" in str((await asked("GET", f"/api/runs/{run.id}/why"))["sentence"])
            assert await asked("POST", f"/api/runs/{run.id}/resume") == {"run_id": run.id, "paused": None}

    asyncio.run(main())
