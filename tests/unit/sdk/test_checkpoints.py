"""Checkpoints over HTTP: several steps in one request, and what the server may say to one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

import stepwell
from stepwell.errors import CallError
from stepwell.net.http_client import Response
from stepwell.protocol.calls import Failed, Lost, Ops, encode_call
from stepwell.protocol.checkpoints import parse_async_checkpoint
from stepwell.protocol.signatures import bearer_hash
from stepwell.sdk import http
from stepwell.sdk.checkpoints import MISSING_AGAIN_S

from .fake_engine import FakeEngine
from .test_serve import KEY, OTHER, Http, clean_environment

__all__ = ["clean_environment"]

Asked = list[tuple[str, dict[str, str], bytes]]


def five(ran: list[str], **options: Any) -> stepwell.App:
    """An app whose function has five steps."""
    app = stepwell.App("shop", **options)

    @app.function(trigger="t/e")
    async def work(ctx: stepwell.Context) -> list[int]:
        def step(n: int) -> int:
            ran.append(f"s{n}")
            return n

        return [await ctx.step.run(f"s{n}", step, n) for n in range(5)]

    return app


class Server:
    """The server's checkpoint API, for a fake engine: `says` are the statuses of its next answers, 200 behind them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: Asked = []
        self.says: list[int | Exception] = []
        self.takes_s = 0.0
        self.engine: FakeEngine | None = None
        monkeypatch.setattr(http, "request", self.request)

    async def request(self, method: str, url: str, *, headers: dict[str, str], body: bytes = b"", tries: int = 5) -> Response:
        assert (method, url, tries) == ("POST", "http://127.0.0.1:8288/v1/checkpoint/01JRUN/async", 1)
        self.asked.append((url, headers, body))
        await asyncio.sleep(self.takes_s)
        said = self.says.pop(0) if self.says else 200
        if isinstance(said, Exception):
            raise said
        if said == 200 and self.engine is not None:
            for op in parse_async_checkpoint(body).ops:
                self.engine.memos[op.id] = b'{"data":%s}' % (op.data or b"null")
        return Response(said, {}, b"{}" if said == 200 else b'{"error":"no","status":%d}' % said)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server that the app tells of its steps."""
    return Server(monkeypatch)


@pytest.fixture
def run(server: Server) -> Callable[..., FakeEngine]:
    """Run the function of five steps over HTTP."""

    def runs(app: stepwell.App, **options: Any) -> FakeEngine:
        server.engine = engine = FakeEngine(app, "work", executor=Http(app, **options), checkpoints=False)  # type: ignore[arg-type]
        engine.result = asyncio.run(engine.run())  # type: ignore[attr-defined]
        return engine

    return runs


def test_five_steps_in_one_call(server: Server, run: Any) -> None:
    """Each is told before the next runs, with what the server knows the call by."""
    ran: list[str] = []
    engine = run(five(ran))
    assert engine.result == [0, 1, 2, 3, 4] and engine.shapes() == ["step:Returned"]
    assert ran == ["s0", "s1", "s2", "s3", "s4"] and len(server.asked) == 5
    told = json.loads(server.asked[0][2])
    assert {name: told[name] for name in ("run_id", "fn_id", "qi_id", "generation_id", "request_id")} == {
        "run_id": "01JRUN",
        "fn_id": "u",
        "qi_id": "start",
        "generation_id": 1,
        "request_id": "r",
    }
    assert [step["userland"]["id"] for step in told["steps"]] == ["s0"] and told["ts"] > 0


def test_a_superseded_call_stops(server: Server) -> None:
    """409: nothing further runs, and the answer says so little that the server takes it for a lost call."""
    ran: list[str] = []
    server.says = [200, 409]
    app = five(ran)
    engine = FakeEngine(app, "work", checkpoints=False)

    async def main() -> Any:
        way = Http(app)
        answer = await way.call(engine.request("i", "step", 0), None)
        await way.close()
        return answer

    answer = asyncio.run(main())
    assert isinstance(answer, Failed | Lost) and ran == ["s0", "s1"]


def test_a_step_beyond_a_limit_fails_the_run(server: Server, run: Any) -> None:
    """413 is final: the step would be as large the next time."""
    server.says = [413]
    engine = run(five([]))
    assert isinstance(engine.result, Failed) and not engine.result.retriable


@pytest.mark.parametrize("said", [423, 500, 400, CallError("away")])
def test_a_step_that_could_not_be_told_is_in_the_answer(server: Server, run: Any, said: int | Exception) -> None:
    """It is not lost and does not run again."""
    ran: list[str] = []
    server.says = [said]
    engine = run(five(ran))
    assert engine.result == [0, 1, 2, 3, 4] and ran == ["s0", "s1", "s2", "s3", "s4"]
    assert engine.shapes()[0] == "step:StepRun s0"


@pytest.mark.parametrize("said", [404, CallError("away")])
def test_a_server_without_checkpoints_is_not_asked_again_for_a_while(server: Server, run: Any, said: int | Exception) -> None:
    """One step a call then, as the protocol has it."""
    server.says = [said]
    engine = run(five([]))
    assert len(server.asked) == 1 and MISSING_AGAIN_S > 1
    assert engine.shapes() == [*(f"step:StepRun s{n}" for n in range(5)), "step:Returned"]


def test_a_request_goes_on_for_its_time_only(server: Server, run: Any) -> None:
    """`max_runtime="0s"`: one step a call, and no checkpoint."""
    engine = run(five([]), max_runtime="0s")
    assert not server.asked and engine.shapes()[0] == "step:StepRun s0"
    server.takes_s = 0.01
    engine = run(five([]), max_runtime="5ms")
    *ended_by_a_step, last = engine.shapes()
    assert engine.result == [0, 1, 2, 3, 4] and last == "step:Returned"
    assert 2 <= len(ended_by_a_step) <= 5 and all(shape.startswith("step:StepRun s") for shape in ended_by_a_step)


def test_targeted_calls_and_plans_have_no_checkpoints(server: Server, run: Any) -> None:
    """They run one step, or none; what comes behind goes on by checkpoints."""
    app = stepwell.App("shop")

    @app.function(trigger="t/e")
    async def work(ctx: stepwell.Context) -> list[int]:
        pair = await asyncio.gather(ctx.step.run("a", int, 1), ctx.step.run("b", int, 2))
        return [*pair, await ctx.step.run("c", int, 3), await ctx.step.run("d", int, 4)]

    engine = run(app)
    assert engine.result == [1, 2, 3, 4]
    assert engine.shapes() == ["step:StepPlanned a,StepPlanned b", "a:StepRun a", "b:StepRun b", "step:Returned"]
    assert [json.loads(body)["steps"][0]["userland"]["id"] for _, _, body in server.asked] == ["c", "d"]


def test_a_call_without_a_generation_has_no_checkpoints(server: Server) -> None:
    """The server could not tell whether it is superseded."""
    app = five([])
    request = FakeEngine(app, "work").request("i", "step", 0)
    assert b'"generation_id":0' not in encode_call(request)

    async def main() -> Any:
        import msgspec

        way = Http(app)
        answer = await way.call(msgspec.structs.replace(request, fence=0), None)
        await way.close()
        return answer

    answer = asyncio.run(main())
    assert isinstance(answer, Ops) and not server.asked


def test_the_fallback_key_is_tried(server: Server, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 with the first: the second, for the same checkpoint."""
    monkeypatch.setenv("STEPWELL_DEV", "1")
    server.says = [401]
    engine = run(five([], signing_key=KEY, signing_key_fallback=OTHER))
    assert engine.result == [0, 1, 2, 3, 4]
    shown = [headers["authorization"] for _, headers, _ in server.asked[:2]]
    assert shown == [f"Bearer {bearer_hash(KEY)}", f"Bearer {bearer_hash(OTHER)}"]
