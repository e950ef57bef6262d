"""Requests that steps ask the server to make: how long they are kept, and what is done where they are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import msgspec

from stepwell.engine.registry import Registry
from stepwell.protocol.calls import Answer, CallRequest, Failed, Ops, failed
from stepwell.protocol.ops import Op
from stepwell.protocol.realtime import Topic
from stepwell.runtime.clock import SystemClock
from stepwell.runtime.realtime import Realtime
from stepwell.runtime.requests import Requests

CALL = CallRequest(
    run_id="r",
    function_id="a-f",
    function_uuid="u",
    app_id="a",
    url="",
    step_id="s",
    attempt=0,
    max_attempts=5,
    request_version=2,
    stack=(),
    disable_immediate_execution=False,
    item_id="r-s-gateway",
    fence=1,
    request_id="q",
    events=(),
    steps={},
)


def op(step_id: str = "s", size: int = 0, **opts: Any) -> Op:
    """A request's op, its opts so many bytes longer."""
    return Op(op="AIGateway", id=step_id, opts=json.dumps({"pad": "x" * size, **opts}).encode())


class Bench:
    """Requests with a provider that answers with the op's id, and an app that tells its ops again."""

    def __init__(self, *told: Op, answer: Answer | None = None, **options: int) -> None:
        self.realtime = Realtime(SystemClock(), lambda: "id", lambda: Registry())
        self.requests = Requests(self.perform, self.realtime, **options)
        self.told, self.answer = told, answer
        self.app_calls: list[CallRequest] = []

    async def perform(self, asked: Op) -> Answer:
        """What the provider answers."""
        return self.answer or Ops(ops=(Op(op="StepRun", id=asked.id, data=b'{"of":"%s"}' % asked.id.encode()),), request_version=-1)

    async def app(self, request: CallRequest) -> Answer:
        """What the app answers when it is asked again."""
        self.app_calls.append(request)
        return Ops(ops=self.told, request_version=2) if self.told else failed("Gone", "boom")

    async def call(self, step_id: str = "s", run_id: str = "r") -> Answer:
        """Make the request, and commit its answer."""
        answer, on_commit = await self.requests.call(msgspec.structs.replace(CALL, run_id=run_id, step_id=step_id), self.app)
        on_commit()
        return answer


def run(main: Coroutine[Any, Any, None]) -> None:
    """To its end, or not at all."""
    asyncio.run(asyncio.wait_for(main, 10))


def test_a_kept_request_is_made_and_then_forgotten() -> None:
    """The app is not asked again, unless the request is wanted again later."""

    async def main() -> None:
        bench = Bench(op())
        bench.requests.keep("r", op())
        assert isinstance(await bench.call(), Ops) and not bench.app_calls
        await bench.call()
        (asked,) = bench.app_calls
        assert asked.step_id == "step" and asked.disable_immediate_execution

    run(main())


def test_a_failed_request_is_kept_for_its_next_try() -> None:
    """Until its run ends."""

    async def main() -> None:
        bench = Bench(op(), answer=Ops(ops=(Op(op="StepError", id="s", error=b"{}"),), request_version=-1))
        bench.requests.keep("r", op())
        for _ in range(3):
            await bench.call()
        assert not bench.app_calls
        bench.requests.forget("r")
        bench.requests.forget("nobody")
        await bench.call()
        assert len(bench.app_calls) == 1

    run(main())


def test_what_is_kept_has_a_bound() -> None:
    """The oldest go first, whichever run they are of; an app is asked again for those alone."""

    async def main() -> None:
        bench = Bench(op("a"), op("b"), op("c"), kept_bytes_max=2500)
        for run_id, step_id in (("r1", "a"), ("r1", "b"), ("r2", "c")):
            bench.requests.keep(run_id, op(step_id, 1000))
        await bench.call("b", "r1")
        await bench.call("c", "r2")
        assert not bench.app_calls
        await bench.call("a", "r1")
        assert len(bench.app_calls) == 1
        bench.requests.keep("r1", op("a", 1000))
        bench.requests.keep("r1", op("a", 1000))
        bench.requests.keep("r1", op("b", 1000))
        await bench.call("a", "r1")
        assert len(bench.app_calls) == 1

    run(main())


def test_an_app_that_asks_no_more_fails_the_step() -> None:
    """With its own failure, or a sentence that names the step."""

    async def main() -> None:
        gone = await Bench().call()
        other = await Bench(op("other"), Op(op="StepPlanned", id="s")).call()
        assert isinstance(gone, Failed) and b"boom" in gone.error
        assert isinstance(other, Failed) and b"step s any more" in other.error

    run(main())


def test_a_result_is_published_when_it_is_committed() -> None:
    """To the topic that the op names; an error is not."""

    async def main() -> None:
        for answer, count in ((None, 1), (Ops(ops=(Op(op="StepError", id="s", error=b"{}"),), request_version=-1), 0)):
            bench = Bench(answer=answer)
            listener = bench.realtime.subscribe([Topic("c", "t")])
            bench.requests.keep("r", op(publish={"channel": "c", "topic": "t"}))
            _, on_commit = await bench.requests.call(CALL, bench.app)
            assert listener.waiting == 0
            on_commit()
            assert listener.waiting == count
            if count:
                message = json.loads((await listener.next()).body)  # type: ignore[union-attr]
                assert (message["data"], message["run_id"], message["topic"]) == ({"of": "s"}, "r", "t")

    run(main())
