"""Declaring functions: what is registered, and how wrong options are refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

import stepwell
from stepwell.protocol.functions import parse_registration
from stepwell.protocol.registration import encode_registration


async def handler(ctx: stepwell.Context) -> None: ...


class Paid(stepwell.Event, name="shop/paid"):
    """An event."""

    amount: float
    when: datetime | None = None


class Nameless(stepwell.Event):
    """An event without a name."""


def declared(**options: Any) -> Any:
    app = stepwell.App("shop")
    app.function(**options)(handler)
    return app.registration("http://localhost:8000/api").functions[0]


def test_every_option_is_registered() -> None:
    """And survives the register body."""
    app = stepwell.App("shop")
    app.function(
        trigger=[
            Paid,
            "shop/*",
            stepwell.on("shop/x", where="event.data.a > 1"),
            stepwell.cron("0 8 * * MON", tz="Europe/Berlin", jitter="30s"),
        ],
        id="work",
        name="Work",
        retries=2,
        concurrency=[stepwell.Concurrency(1, key="event.data.t", scope="env"), stepwell.Concurrency(3, per="run")],
        throttle=stepwell.Throttle(10, per="1m", burst=2),
        rate_limit=stepwell.RateLimit(5, per=timedelta(hours=1), key="event.data.t"),
        debounce=stepwell.Debounce("5s", timeout="1m"),
        singleton=stepwell.Singleton("cancel"),
        timeouts=stepwell.Timeouts(start="10s", finish="1d"),
        cancel_on=[stepwell.cancel(Paid, where="async.data.id == event.data.id", timeout="2d")],
        idempotency="event.data.id",
        priority="120",
        on_failure=handler,
    )(handler)
    told = parse_registration(encode_registration(app.registration("http://localhost:8000/api")))
    work, failure = told.functions
    assert (work.id, work.name, work.retries, work.url) == (
        "shop-work",
        "Work",
        2,
        "http://localhost:8000/api?fnId=shop-work&stepId=step",
    )
    assert [(one.event or one.cron, one.expression, one.jitter_ms) for one in work.triggers] == [
        ("shop/paid", None, None),
        ("shop/*", None, None),
        ("shop/x", "event.data.a > 1", None),
        ("TZ=Europe/Berlin 0 8 * * MON", None, 30_000),
    ]
    assert {(one.limit, one.key, one.scope, one.per) for one in work.concurrency} == {
        (1, "event.data.t", "env", "step"),
        (3, None, "fn", "run"),
    }
    assert work.throttle is not None and (work.throttle.limit, work.throttle.period_ms, work.throttle.burst) == (10, 60_000, 2)
    assert work.rate_limit is not None and (work.rate_limit.limit, work.rate_limit.period_ms) == (5, 3_600_000)
    assert work.debounce is not None and (work.debounce.period_ms, work.debounce.timeout_ms) == (5_000, 60_000)
    assert work.singleton is not None and work.singleton.mode == "cancel"
    assert work.timeouts is not None and (work.timeouts.start_ms, work.timeouts.finish_ms) == (10_000, 86_400_000)
    assert (work.cancel[0].event, work.cancel[0].where) == ("shop/paid", "async.data.id == event.data.id")
    assert (work.idempotency, work.priority) == ("event.data.id", "120")
    assert (failure.id, failure.triggers[0].event) == ("shop-work-failure", "inngest/function.failed")
    assert failure.triggers[0].expression == "event.data.function_id == 'shop-work'"


def test_defaults() -> None:
    """The id comes from the name; four retries; no settings; a batch."""
    function = declared(trigger="shop/paid")
    assert (function.id, function.name, function.retries, function.concurrency) == ("shop-handler", "handler", 4, ())
    batch = declared(batch=stepwell.Batch(100, timeout="5s", key="event.data.t", where="event.data.b")).batch
    assert (batch.max_size, batch.timeout_ms, batch.key, batch.where) == (100, 5_000, "event.data.t", "event.data.b")
    assert declared(concurrency=3).concurrency[0].limit == 3


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"retries": 21}, r"function 'handler': retries is 21; it must be a whole number from 0 to 20"),
    ({"retries": "3"}, r"function 'handler': retries is '3'"),
    ({"trigger": 3}, r"function 'handler': trigger: 3 is no trigger: give an event name"),
    ({"trigger": "shop*"}, r"'shop\*' is no pattern"),
    ({"trigger": Nameless}, r"event class Nameless has no name"),
    ({"trigger": ["a/b", "a/b"]}, r"'a/b' is there twice"),
    ({"trigger": stepwell.cron("* * * *")}, r"function 'handler': trigger: cron '\* \* \* \*' has 4 fields"),
    ({"trigger": stepwell.cron("* * * * *", jitter="1h")}, r"jitter of cron .* is '1h'; it must be at least 1s and at most 5m"),
    ({"throttle": stepwell.Throttle(1, per=60)}, r"throttle: per is 60, which does not say its unit: write it like \"30s\".*timedelta"),  # type: ignore[arg-type]
    ({"throttle": stepwell.Throttle(1, per="60")}, r"function 'handler': throttle: per is '60', which is no duration"),
    ({"throttle": 3}, r"throttle is 3; it must be a stepwell.Throttle"),
    ({"rate_limit": stepwell.RateLimit(0, per="1m")}, r"rate_limit: limit is 0; it must be a whole number of at least 1"),
    ({"rate_limit": stepwell.RateLimit(1, per="2d")}, r"rate_limit: per is '2d'; it must be at least 1s and at most 1d"),
    ({"concurrency": stepwell.Concurrency(1, scope="env")}, r"scope='env' needs a key"),
    ({"concurrency": stepwell.Concurrency(1, scope="world")}, r"scope is 'world'; it must be one of 'fn', 'env', 'account'"),  # type: ignore[arg-type]
    ({"concurrency": [1, 2, 3]}, r"concurrency has 3 limits; at most 2 are taken"),
    ({"concurrency": "many"}, r"concurrency is 'many'"),
    ({"debounce": stepwell.Debounce("8d")}, r"debounce: period is '8d'; it must be at least 1s and at most 7d"),
    ({"batch": stepwell.Batch(1, timeout="5s")}, r"batch: size is 1; it must be a whole number from 2 to 100"),
    ({"batch": stepwell.Batch(2, timeout="5s"), "priority": "1"}, r"batch cannot be combined with priority"),
    ({"singleton": stepwell.Singleton("wait")}, r"singleton: mode is 'wait'"),  # type: ignore[arg-type]
    ({"cancel_on": ["shop/x"]}, r"cancel_on holds 'shop/x'; it must hold stepwell.cancel"),
    ({"idempotency": " "}, r"function 'handler': idempotency is ' '; it must be an expression"),
    ({"timeouts": stepwell.Timeouts(start=5)}, r"timeouts: start is 5, which does not say its unit"),  # type: ignore[arg-type]
    ({"id": "no spaces"}, r"function 'no spaces': an id has letters, digits"),
    ({"retires": 3}, r"function 'handler': there is no option 'retires'; there are"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_wrong_option_is_an_error_at_import(options: dict[str, Any], message: str) -> None:
    """It names function, option, value and fix."""
    with pytest.raises(stepwell.UsageError, match=message):
        declared(**options)


def test_names_are_unique_and_have_a_form() -> None:
    """For apps and functions."""
    app = stepwell.App("shop")
    app.function(trigger="a/b")(handler)
    with pytest.raises(stepwell.UsageError, match="function 'handler' is there twice in app 'shop'"):
        app.function(trigger="a/b")(handler)
    with pytest.raises(stepwell.UsageError, match=r'like App\("shop"\)'):
        stepwell.App("my shop")


def test_the_plain_function_can_be_called() -> None:
    """For tests of it alone; it keeps its name and docstring."""
    app = stepwell.App("shop")

    @app.function
    def seven(ctx: object) -> int:
        """Seven."""
        return 7

    assert seven(None) == 7 and seven.__doc__ == "Seven." and repr(seven) == "<function shop-seven>"
