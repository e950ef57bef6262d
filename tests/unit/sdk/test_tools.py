"""Each step tool: what it tells the server, what it makes of the answer, what it refuses."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

import stepwell
from stepwell.protocol.calls import Ops
from stepwell.protocol.ops import Op, opts_of

from .fake_engine import FakeEngine, error_of
from .test_replay import MODES, declare, engine_of

SYNC = pytest.mark.parametrize("kind", ["async", "sync"])


class Paid(stepwell.Event, name="shop/paid"):
    """An event's schema."""

    order_id: str
    cents: int = 0


PAID = {"data": {"cents": 9, "order_id": "o-1"}, "id": "e", "name": "shop/paid", "ts": 1, "user": {}}


def told(engine: FakeEngine, id: str) -> Op:
    """The op that a step was told by."""
    return next(op for _, answer in engine.calls if isinstance(answer, Ops) for op in answer.ops if op.user_id == id)


def of_kind(kind: str, use: Any, **options: Any) -> stepwell.App:
    """An app whose function awaits `use(tools)`, or whose plain function calls it."""
    app = stepwell.App("t")
    if kind == "async":

        @app.function(trigger="t/e", id="work", **options)
        async def work(ctx: stepwell.Context) -> Any:
            return await use(ctx)

    else:

        @app.function(trigger="t/e", id="work", **options)
        def plain(ctx: stepwell.SyncContext) -> Any:
            return use(ctx)

    return app


@MODES
def test_an_event_that_comes_is_given_typed(mode: str) -> None:
    """As an instance of its class, with its name and id; the wire tells the name, the time and the condition."""

    async def work(ctx: stepwell.Context) -> Any:
        event = await ctx.step.wait_for_event("paid?", Paid, timeout="1d", where="async.data.order_id == event.data.order_id")
        assert event is not None and isinstance(event.data, Paid)
        return [event.name, event.id, event.data.cents + 1]

    engine = engine_of(mode, declare(work), replies={"paid?": PAID})
    assert asyncio.run(engine.run()) == ["shop/paid", "e", 10]
    op = told(engine, "paid?")
    assert (op.op, op.name) == ("WaitForEvent", "shop/paid")
    assert opts_of(op) == {"event": "shop/paid", "timeout": "1d", "if": "async.data.order_id == event.data.order_id"}


@MODES
@SYNC
def test_a_wait_whose_time_is_over_gives_none(mode: str, kind: str) -> None:
    """By name, with a timedelta; async and in a plain function; for events and signals."""

    def use(ctx: Any) -> Any:
        return ctx.step.wait_for_event("paid?", "shop/paid", timeout=timedelta(hours=1))

    def signal(ctx: Any) -> Any:
        return ctx.step.wait_for_signal("ok?", "go", timeout="1h")

    engine = engine_of(mode, of_kind(kind, use))
    assert asyncio.run(engine.run()) is None
    assert opts_of(told(engine, "paid?")) == {"event": "shop/paid", "timeout": "1h"}
    assert asyncio.run(engine_of(mode, of_kind(kind, signal)).run()) is None


@MODES
@SYNC
def test_a_signal_that_comes(mode: str, kind: str) -> None:
    """Its name and data; a conflict is told only where the name is to be taken over."""

    def use(ctx: Any) -> Any:
        return ctx.step.wait_for_signal("ok?", "go", timeout="1h", on_conflict="replace")

    engine = engine_of(mode, of_kind(kind, use), replies={"ok?": {"data": {"data": {"by": "Ada"}, "signal": "go"}}})
    assert asyncio.run(engine.run()) == {"signal": "go", "data": {"by": "Ada"}}
    op = told(engine, "ok?")
    assert (op.op, opts_of(op)) == ("WaitForSignal", {"signal": "go", "timeout": "1h", "conflict": "replace"})


@MODES
def test_an_event_that_does_not_fit_its_class_fails_the_run_for_good(mode: str) -> None:
    """With the path of the field."""

    async def work(ctx: stepwell.Context) -> Any:
        return await ctx.step.wait_for_event("paid?", Paid, timeout="1d")

    wrong = {**PAID, "data": {"order_id": "o-1", "cents": "many"}}
    error = error_of(asyncio.run(engine_of(mode, declare(work), replies={"paid?": wrong}).run()))
    assert error["name"] == "UsageError" and "$.cents" in error["message"]


@dataclass
class Receipt:
    """What a function gives."""

    url: str
    cents: int


def other_app() -> stepwell.Function[Receipt]:
    other = stepwell.App("books")

    @other.function(trigger=Paid, id="receipt")
    async def receipt(ctx: stepwell.Context[Paid]) -> Receipt:
        return Receipt("x", ctx.event.data.cents)

    return receipt


@MODES
@SYNC
def test_an_invoked_function_gives_its_typed_result(mode: str, kind: str) -> None:
    """By the function of another app: its slug is told, its result's type comes back."""
    function = other_app()

    def use(ctx: Any) -> Any:
        return ctx.step.invoke("receipt", function, Paid(order_id="o-1", cents=3), timeout="5m")

    async def typed(ctx: stepwell.Context) -> list[Any]:
        receipt = await ctx.step.invoke("receipt", function, {"order_id": "o-1"})
        assert isinstance(receipt, Receipt)
        return [receipt.cents]

    reply = {"receipt": {"data": {"url": "u", "cents": 3}}}
    engine = engine_of(mode, of_kind(kind, use), replies=reply)
    assert asyncio.run(engine.run()) == {"url": "u", "cents": 3}
    op = told(engine, "receipt")
    payload = {"data": {"order_id": "o-1", "cents": 3}}
    assert (op.op, opts_of(op)) == ("InvokeFunction", {"function_id": "books-receipt", "payload": payload, "timeout": "5m"})
    assert asyncio.run(engine_of(mode, declare(typed), replies=reply).run()) == [3]


@MODES
def test_an_invoke_that_fails_can_be_caught(mode: str) -> None:
    """`InvokeError` has the function's error, and is a `StepError`; uncaught it ends the run for good."""

    async def work(ctx: stepwell.Context) -> Any:
        try:
            await ctx.step.invoke("receipt", "books-receipt", {"n": 1})
        except stepwell.InvokeError as error:
            return [error.name, error.message, error.stack, error.step_id, isinstance(error, stepwell.StepError)]

    async def uncaught(ctx: stepwell.Context) -> Any:
        return await ctx.step.invoke("receipt", "books-receipt")

    reply = {"receipt": {"error": {"name": "ValueError", "message": "no paper", "stack": "…"}}}
    assert asyncio.run(engine_of(mode, declare(work), replies=reply).run()) == ["ValueError", "no paper", "…", "receipt", True]
    failed = asyncio.run(engine_of(mode, declare(uncaught), replies=reply).run())
    assert error_of(failed)["message"] == "no paper" and not failed.retriable


@MODES
@SYNC
def test_a_fetch_gives_a_response(mode: str, kind: str) -> None:
    """Any status; text, JSON and headers; what is asked for is told."""

    def use(ctx: Any) -> Any:
        return ctx.step.fetch("ask", "https://api.test/x?a=1", method="post", params={"q": "é"}, headers={"X-A": "1"}, json={"n": 1})

    reply = {"ask": {"data": {"url": "https://api.test/x", "status_code": 404, "headers": {"x-b": "2"}, "body": '{"m":"no"}'}}}
    engine = engine_of(mode, of_kind(kind, use), replies=reply)
    assert asyncio.run(engine.run())["status_code"] == 404
    op = told(engine, "ask")
    assert op.op == "Gateway"
    assert opts_of(op) == {
        "type": "step.fetch",
        "url": "https://api.test/x?a=1&q=%C3%A9",
        "method": "POST",
        "headers": {"content-type": "application/json", "x-a": "1"},
        "body": '{"n":1}',
    }

    async def reads(ctx: stepwell.Context) -> list[Any]:
        response = await ctx.step.fetch("ask", "https://api.test/x")
        with pytest.raises(stepwell.UsageError, match="HTTP 404"):
            response.json(list[int])
        return [response.ok, response.status, response.text, response.json(), response.headers["x-b"], response.json(dict[str, str])["m"]]

    assert asyncio.run(engine_of(mode, declare(reads), replies=reply).run()) == [False, 404, '{"m":"no"}', {"m": "no"}, "2", "no"]


@MODES
def test_a_fetch_that_failed_for_good_can_be_caught(mode: str) -> None:
    """As any step."""

    async def work(ctx: stepwell.Context) -> Any:
        try:
            await ctx.step.fetch("ask", "https://api.test/x")
        except stepwell.StepError as error:
            return error.name

    assert (
        asyncio.run(engine_of(mode, declare(work), replies={"ask": {"error": {"name": "GatewayError", "message": "x"}}}).run())
        == "GatewayError"
    )


@MODES
@SYNC
def test_a_model_is_asked(mode: str, kind: str) -> None:
    """The provider's address, its way to take a key, and the body, whose fields win over the model's."""
    model = stepwell.ai.openai("gpt-4o", auth_key="sk-1", temperature=0.5)

    def use(ctx: Any) -> Any:
        return ctx.step.ai.infer("ask", model, {"messages": [], "temperature": 1}, publish="tokens")

    engine = engine_of(mode, of_kind(kind, use), replies={"ask": {"data": {"choices": [1]}}})
    assert asyncio.run(engine.run()) == {"choices": [1]}
    op = told(engine, "ask")
    assert op.op == "AIGateway"
    assert opts_of(op) == {
        "type": "step.ai.infer",
        "url": "https://api.openai.com/v1/chat/completions",
        "format": "openai-chat",
        "auth_key": "sk-1",
        "headers": {},
        "body": {"model": "gpt-4o", "messages": [], "temperature": 1},
        "publish": {"channel": "01JRUN", "topic": "tokens"},
    }
    assert "sk-1" not in repr(model)
    assert b'"body":{"model":"gpt-4o","temperature":1,"messages":[]}' in (op.opts or b""), "keys stay in the order of writing"


def test_models_of_other_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys come from the environment; without one there is a sentence that names the variable."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-1")
    monkeypatch.setenv("GEMINI_API_KEY", "g-1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    claude = stepwell.ai.anthropic("claude", max_tokens=10, base_url="http://x/")
    assert (claude.format, claude.auth_key, claude.url) == ("anthropic", "a-1", "http://x/messages")
    assert claude.headers == {"anthropic-version": "2023-06-01"} and claude.body == {"model": "claude", "max_tokens": 10}
    gemini = stepwell.ai.gemini("pro")
    assert (gemini.format, gemini.auth_key) == ("gemini", "g-1") and gemini.url.endswith("/models/pro:generateContent")
    with pytest.raises(stepwell.UsageError, match="OPENAI_API_KEY"):
        stepwell.ai.openai("gpt-4o")


class FakeWay:
    """An engine that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def signal(self, name: str, data: bytes) -> str | None:
        self.asked.append(("signal", name, json.loads(data)))
        return None if name == "nobody" else "01JOTHER"

    async def publish(self, channel: str, topic: str, data: bytes, run_id: str) -> None:
        self.asked.append(("publish", channel, topic, json.loads(data), run_id))


@MODES
@SYNC
def test_signals_are_sent_once(mode: str, kind: str) -> None:
    """The result is the run that waited, or `None`; a replay sends none again."""
    way = FakeWay()

    def use(ctx: Any) -> Any:
        return ctx.step.send_signal("tell", "go", Receipt("u", 1))

    app = of_kind(kind, use)
    app._engine = way  # type: ignore[assignment]
    engine = engine_of(mode, app)
    assert asyncio.run(engine.run()) == "01JOTHER"
    assert way.asked == [("signal", "go", {"url": "u", "cents": 1})]


@MODES
@SYNC
def test_data_is_published_once_and_inside_a_step_with_it(mode: str, kind: str) -> None:
    """The channel is the run's id, or the one given."""
    way = FakeWay()

    async def in_async(ctx: stepwell.Context) -> str:
        async def chunks() -> int:
            await ctx.step.publish("tokens", "a")
            await ctx.step.publish("tokens", "b")
            return 2

        await ctx.step.publish("state", {"at": 1})
        await ctx.step.publish("state", None, channel="all")
        await ctx.step.run("chunks", chunks)
        return "done"

    def in_sync(ctx: stepwell.SyncContext) -> str:
        def chunks() -> int:
            ctx.step.publish("tokens", "a")
            ctx.step.publish("tokens", "b")
            return 2

        ctx.step.publish("state", {"at": 1})
        ctx.step.publish("state", None, channel="all")
        ctx.step.run("chunks", chunks)
        return "done"

    app = of_kind(kind, in_async if kind == "async" else in_sync)
    app._engine = way  # type: ignore[assignment]
    assert asyncio.run(engine_of(mode, app).run()) == "done"
    run = "01JRUN"
    assert way.asked == [
        ("publish", run, "state", {"at": 1}, run),
        ("publish", "all", "state", None, run),
        ("publish", run, "tokens", "a", run),
        ("publish", run, "tokens", "b", run),
    ]


def test_a_step_that_has_effects_is_marked() -> None:
    """The op carries the mark, beside what kind of step it is."""

    async def work(ctx: stepwell.Context) -> int:
        return await ctx.step.options(effect=True).run("pay", lambda: 1)

    app = declare(work)

    @app.step(effect=True)
    async def mail() -> int:
        return 2

    @app.function(trigger="t/e", id="mails")
    async def mails(ctx: stepwell.Context) -> int:
        return await mail()

    for function, step in (("work", "pay"), ("mails", "mail")):
        engine = FakeEngine(app, function, checkpoints=False)
        asyncio.run(engine.run())
        assert opts_of(told(engine, step)) == {"effect": True}


def refusal(use: Any) -> str:
    """What a tool says to a wrong use; it fails the run at once."""

    async def work(ctx: stepwell.Context) -> Any:
        return await use(ctx.step)

    failed = asyncio.run(FakeEngine(declare(work), "work").run())
    error = error_of(failed)
    assert error["name"] == "UsageError" and not failed.retriable
    message: str = error["message"]
    return message


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda step: step.wait_for_event("w", "", timeout="1h"), ["'w'", "wait_for_event", "''"]),
        (lambda step: step.wait_for_event("w", dict, timeout="1h"), ["<class 'dict'>", "Event class"]),
        (lambda step: step.wait_for_event("w", "a/b", timeout=30), ["timeout is 30", '"30s"']),
        (lambda step: step.wait_for_event("w", "a/b", timeout="400d"), ["'400d'", "at most"]),
        (lambda step: step.wait_for_event("w", "a/b", timeout="1h", where=" "), ["where is ' '", "async.data"]),
        (lambda step: step.wait_for_signal("w", "", timeout="1h"), ["wait_for_signal", "''"]),
        (lambda step: step.wait_for_signal("w", "go", timeout="1h", on_conflict="wait"), ["'wait'", '"replace"']),
        (lambda step: step.send_signal("w", 7), ["send_signal", "7"]),
        (lambda step: step.invoke("w", "charge", {}), ["'charge'", "shop-charge"]),
        (lambda step: step.invoke("w", "shop-charge", [1]), ["[1]", "must be an object"]),
        (lambda step: step.invoke("w", other_app(), {"order_id": 7}), ["books-receipt", "$.order_id"]),
        (lambda step: step.fetch("w", "/x"), ["'/x'", "absolute"]),
        (lambda step: step.fetch("w", "http://x", method="SHOUT"), ["'SHOUT'", "GET"]),
        (lambda step: step.fetch("w", "http://x", body="a", json=1), ["body and json"]),
        (lambda step: step.fetch("w", "http://x", body=b"\xff"), ["UTF-8", "step.run"]),
        (lambda step: step.fetch("w", "http://x", headers={"a": 1}), ["'a'", "1"]),
        (lambda step: step.ai.infer("w", "gpt-4o", {}), ["'gpt-4o'", "stepwell.ai.openai"]),
        (lambda step: step.publish("", 1), ["publish", "topic is ''"]),
        (lambda step: step.publish("$run", 1), ["'$run'", "server's own"]),
        (lambda step: step.run("w", 5), ["'w'", "5", "no function"]),
        (lambda step: step.sleep("w", "400d"), ["'400d'", "366 days"]),
        (lambda step: step.options(timeout="1s").wait_for_event("w", "a/b", timeout="1h"), ["options(timeout=…)", "of its own"]),
        (lambda step: step.options(retries=0).fetch("w", "http://x"), ["options(retries=…)", "fetch"]),
        (lambda step: step.options(effect=1).run("w", print), ["effect is 1"]),
    ],
)
def test_a_wrong_use_is_told_with_value_and_fix(use: Any, words: list[str]) -> None:
    """It is final: trying again would not help."""
    message = refusal(use)
    assert all(word in message for word in words), message


@MODES
def test_waits_beside_steps_are_one_group(mode: str) -> None:
    """A wait, an invoke and two steps that are gathered: all are told at once, and joined."""

    async def work(ctx: stepwell.Context) -> Any:
        event, receipt, one, two = await asyncio.gather(
            ctx.step.wait_for_event("paid?", "shop/paid", timeout="1d"),
            ctx.step.invoke("receipt", "books-receipt"),
            ctx.step.run("one", lambda: 1),
            ctx.step.run("two", lambda: 2),
        )
        return [event is not None, receipt, one, two, await ctx.step.run("three", lambda: 3)]

    engine = engine_of(mode, declare(work), replies={"paid?": PAID, "receipt": {"data": 7}})
    assert asyncio.run(engine.run()) == [True, 7, 1, 2, 3]
    assert engine.shapes()[0] == "step:WaitForEvent paid?,InvokeFunction receipt,StepPlanned one,StepPlanned two"


@MODES
def test_the_first_of_a_wait_and_a_step_wins(mode: str) -> None:
    """The other branch is cancelled, and what it waits for is not waited for."""

    async def work(ctx: stepwell.Context) -> str:
        step = asyncio.ensure_future(ctx.step.run("quick", lambda: "quick"))
        wait = asyncio.ensure_future(ctx.step.wait_for_event("never", "shop/never", timeout="300d"))
        done, left = await asyncio.wait([step, wait], return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        return str(done.pop().result())

    class Slow(FakeEngine):
        def _reply(self, op: Op) -> bytes:
            raise AssertionError("the wait is not to end")

    app = declare(work)
    engine = Slow(app, "work", checkpoints=mode != "no checkpoints", forgets=mode == "replayed")
    engine._known.add("3f0e0d2e")
    never = stepwell.sdk.request._hash("never", 0)  # type: ignore[attr-defined]
    engine._known.add(never)
    assert asyncio.run(engine.run()) == "quick"


def test_a_changed_function_goes_on_with_what_is_stored() -> None:
    """A stored wait that is no longer asked for is ignored, a new one is made, a changed order goes by the ids."""

    async def work(ctx: stepwell.Context) -> Any:
        new = await ctx.step.wait_for_signal("new", "go", timeout="1h")
        second = await ctx.step.invoke("second", "a-b")
        first = await ctx.step.wait_for_event("first", "shop/paid", timeout="1h")
        return [new, second, first is not None]

    engine = FakeEngine(declare(work), "work")
    hashed = stepwell.sdk.request._hash  # type: ignore[attr-defined]
    engine.memos = {
        hashed("gone", 0): json.dumps(PAID).encode(),
        hashed("first", 0): json.dumps(PAID).encode(),
        hashed("second", 0): b'{"data":2}',
    }
    assert asyncio.run(engine.run()) == [None, 2, True]
    assert engine.shapes() == ["step:WaitForSignal new", "step:Returned"]


def test_a_step_that_became_a_wait_is_told_to_take_a_new_id() -> None:
    """Its stored result is no event."""

    async def work(ctx: stepwell.Context) -> Any:
        return await ctx.step.wait_for_event("was-a-step", "shop/paid", timeout="1h")

    engine = FakeEngine(declare(work), "work")
    engine.memos = {stepwell.sdk.request._hash("was-a-step", 0): b'{"data":2}'}  # type: ignore[attr-defined]
    assert "new id" in error_of(asyncio.run(engine.run()))["message"]


def test_a_request_is_told_again_to_a_server_that_has_lost_it() -> None:
    """The server keeps requests in memory; a discovery with nothing new asks for them once more."""

    class Forgetful(FakeEngine):
        lost = False

        def _take(self, answer: Ops, item: str, step_id: str, attempt: int) -> None:
            if not self.lost:
                self.lost = True
                self._jobs.put_nowait(("again", "step", 0))
            else:
                super()._take(answer, item, step_id, attempt)

    async def work(ctx: stepwell.Context) -> str:
        return (await ctx.step.fetch("ask", "http://x")).text

    reply = {"ask": {"data": {"url": "http://x", "status_code": 200, "headers": {}, "body": "ok"}}}
    engine = Forgetful(declare(work), "work", replies=reply)
    assert asyncio.run(engine.run()) == "ok"
    assert engine.shapes() == ["step:Gateway ask", "step:Gateway ask", "step:Returned"]


@MODES
def test_a_step_runs_with_an_edited_input(mode: str) -> None:
    """Its arguments as its parameters are annotated; keywords stay; other steps have their own; a wrong one fails the run."""

    replays: list[bool] = []

    async def price(order: Receipt, times: int = 1, *, plus: int) -> int:
        return order.cents * times + plus

    async def work(ctx: stepwell.Context) -> Any:
        replays.append(ctx.is_replay)
        one = await ctx.step.run("one", price, Receipt("u", 1), times=2, plus=5)
        return [one, *await asyncio.gather(ctx.step.run("two", max, 1, 2), ctx.step.run("three", lambda: 3))]

    hashed = stepwell.sdk.request._hash  # type: ignore[attr-defined]
    engine = engine_of(mode, declare(work))
    engine.inputs = {hashed("one", 0): b'{"input":[{"url":"u","cents":10},3]}', hashed("two", 0): b'{"input":[7,8]}'}
    assert asyncio.run(engine.run()) == [35, 8, 3]
    assert not replays[0], "an input is no result"
    engine = engine_of(mode, declare(work))
    engine.inputs = {hashed("one", 0): b'{"input":[{"url":"u","cents":"ten"}]}'}
    assert "argument 0" in error_of(asyncio.run(engine.run()))["message"]


# Typed values.


class Colour(Enum):
    """An enum."""

    RED = "red"


class Address(TypedDict):
    """A typed dict."""

    city: str


class Struct(msgspec.Struct):
    """A struct."""

    at: datetime


class Model(pydantic.BaseModel):
    """A model."""

    price: Decimal
    struct_free: int = 1


@dataclass
class Everything:
    """All kinds of values."""

    at: datetime
    id: UUID
    price: Decimal
    path: Path
    colour: Colour
    address: Address
    struct: Struct
    model: Model


EVERYTHING = Everything(
    at=datetime(2026, 1, 2, 3, 4, 5, 678900, UTC),
    id=UUID(int=7),
    price=Decimal("1.10"),
    path=Path("/a/b"),
    colour=Colour.RED,
    address={"city": "Köln"},
    struct=Struct(datetime(2026, 1, 1, tzinfo=UTC)),
    model=Model(price=Decimal("2.50")),
)


class Many(stepwell.Event, name="t/many"):
    """An event of all kinds of values."""

    value: Everything


@MODES
def test_values_come_back_as_what_they_were(mode: str) -> None:
    """Through steps, events, waits and invokes."""

    async def make() -> Everything:
        return EVERYTHING

    app = stepwell.App("t")

    @app.function(id="other")
    async def other(ctx: stepwell.Context[Many]) -> Everything:
        return ctx.event.data.value

    @app.function(trigger=Many, id="work")
    async def work(ctx: stepwell.Context[Many]) -> bool:
        assert ctx.event.data.value == EVERYTHING
        assert await ctx.step.run("make", make) == EVERYTHING
        waited = await ctx.step.wait_for_event("wait", Many, timeout="1h")
        assert waited is not None and waited.data.value == EVERYTHING
        return await ctx.step.invoke("invoke", other, Many(value=EVERYTHING)) == EVERYTHING

    body = json.loads(stepwell.sdk.serializer.codec_of(Many).encode(Many(value=EVERYTHING)))  # type: ignore[attr-defined]
    replies = {"wait": {**PAID, "data": body}, "invoke": {"data": body["value"]}}
    assert asyncio.run(engine_of(mode, app, data=body, replies=replies).run()) is True


@pytest.mark.parametrize(
    ("annotation", "data", "path"),
    [
        (Paid, {"order_id": 1}, "$.order_id"),
        (Address, {}, "city"),
        (Struct, {"at": "yesterday"}, "$.at"),
        (Model, {"price": "much"}, "does not fit the annotation Model: price: Input should be a valid decimal"),
        (Everything, {**json.loads(stepwell.sdk.serializer.codec_of(Everything).encode(EVERYTHING)), "model": {"price": "x"}}, "$.model"),  # type: ignore[attr-defined]
    ],
)
def test_an_event_that_does_not_fit_is_refused_before_anything_runs(annotation: Any, data: Any, path: str) -> None:
    """For good, with the path of the field; nothing of the function has run."""
    ran: list[int] = []
    app = stepwell.App("t")

    async def work(ctx: Any) -> None:
        ran.append(1)

    work.__annotations__["ctx"] = stepwell.Context[annotation]
    app.function(trigger="t/e", id="work")(work)
    failed = asyncio.run(FakeEngine(app, "work", data=data).run())
    assert error_of(failed)["name"] == "UsageError" and path in error_of(failed)["message"], error_of(failed)["message"]
    assert not failed.retriable and not ran


# Failure functions and schedules.


@SYNC
def test_a_failure_function_is_given_the_failed_run(kind: str) -> None:
    """Its event with its type, its id, and its error."""
    seen: list[Any] = []

    def look(ctx: Any) -> None:
        seen.append((ctx.event.data, ctx.failed_run_id, ctx.error.name, ctx.error.message, ctx.error.stack, ctx.run_id))

    app = stepwell.App("t")
    if kind == "async":

        async def failed(ctx: stepwell.FailureContext[Paid]) -> None:
            look(ctx)
            await ctx.step.run("undo", lambda: None)
    else:

        def failed(ctx: stepwell.SyncFailureContext[Paid]) -> None:  # type: ignore[misc]
            look(ctx)
            ctx.step.run("undo", lambda: None)

    @app.function(trigger=Paid, id="work", on_failure=failed)
    async def work(ctx: stepwell.Context[Paid]) -> None: ...

    data = {
        "function_id": "t-work",
        "run_id": "01JFAILED",
        "event": PAID,
        "events": [PAID],
        "error": {"error": "ValueError: no", "name": "ValueError", "message": "no", "stack": "s"},
        "_inngest": {"status": "Failed"},
    }
    assert asyncio.run(FakeEngine(app, "work-failure", data=data).run()) is None
    assert asyncio.run(FakeEngine(app, "work-failure", data={**data, "events": []}).run()) is None
    assert seen[-1] == seen[0], "a server may tell the first event only"
    assert seen[0] == (Paid(order_id="o-1", cents=9), "01JFAILED", "ValueError", "no", "s", "01JRUN")


def test_a_schedule_is_declared() -> None:
    """`@app.cron` is a function with a cron trigger; zone, jitter and making up are told."""
    app = stepwell.App("t")

    @app.cron("*/5 * * * *")
    async def sweep(ctx: stepwell.Context) -> None: ...

    @app.cron("0 8 * * MON-FRI", tz="Europe/Berlin", jitter="30s", catchup="last", id="greet", retries=0)
    def greeting(ctx: stepwell.SyncContext) -> None: ...

    first, second = (function.config() for function in app.functions.values())
    assert (first.id, first.triggers[0].cron) == ("t-sweep", "*/5 * * * *")
    trigger = second.triggers[0]
    assert (trigger.cron, trigger.jitter_ms, trigger.catchup) == ("TZ=Europe/Berlin 0 8 * * MON-FRI", 30_000, "last")
    assert (second.id, second.retries) == ("t-greet", 0)
    for wrong, words in (
        ({"catchup": "some"}, ["catchup", "'some'", "'last'"]),
        ({"tz": "Mars/Base"}, ["Mars/Base"]),
        ({"trigger": "a/b"}, ["stepwell.cron"]),
    ):
        with pytest.raises(stepwell.UsageError) as refused:
            app.cron("* * * * *", id="x", **wrong)(lambda ctx: None)  # type: ignore[arg-type]
        assert all(word in str(refused.value) for word in words), refused.value
