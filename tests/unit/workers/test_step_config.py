"""Settings of a workflow's step: what is missing is the usual, what is wrong is told with the step's name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell.workers.rpc import Record
from stepwell.workers.step_config import StepConfig, checked_name, duration_ms, duration_of, read_config


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (1500, 1500), (0, 0), (-5, -5), (0.4, 0), ("1 second", 1000), ("2 seconds", 2000), ("1.5 minutes", 90_000), ("1 hour", 3_600_000),
        ("2 days", 172_800_000), ("1 week", 604_800_000), ("1 month", 2_592_000_000), ("1 year", 31_536_000_000),
        ("5s", None), ("soon", None), ("1second", None), ("-1 second", None), (True, None), (None, None), (float("inf"), None),
    ],
)  # fmt: skip
def test_durations(value: object, ms: int | None) -> None:
    """A number of milliseconds, or a number and a unit."""
    assert duration_ms(value) == ms


def test_settings() -> None:
    """Whole, in part, and none."""
    assert read_config("s", None) == read_config("s", {}) == StepConfig(limit=5, delay=1000, backoff="exponential", timeout_ms=600_000)
    given = {"retries": {"limit": 3, "delay": "5 seconds", "backoff": "linear"}, "timeout": "1 minute"}
    assert read_config("s", given) == StepConfig(limit=3, delay="5 seconds", backoff="linear", timeout_ms=60_000)
    assert read_config("s", {"retries": {"limit": 1.5, "delay": 0}}) == StepConfig(limit=1, delay=0)
    assert read_config("s", {"timeout": 100}).shown == {
        "retries": {"limit": 5, "delay": 1000, "backoff": "exponential"},
        "timeout": 100,
    }


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (3, "It is 3, and must be a dict"),
        ({"retry": {}}, "It has the key 'retry', and there are retries, timeout"),
        ({"retries": 3}, "Retries is 3, and must be a dict"),
        ({"retries": {"limit": 3}}, "Retries needs both limit and delay"),
        ({"retries": {"delay": 3}}, "Retries needs both limit and delay"),
        ({"retries": {"limit": 1, "delay": 1, "max": 2}}, "Retries has the key 'max'"),
        ({"retries": {"limit": -1, "delay": 1}}, "limit is -1, and must be a number of at least 0"),
        ({"retries": {"limit": float("inf"), "delay": 1}}, "limit is inf"),
        ({"retries": {"limit": 21, "delay": 1}}, "limit is 21, and may be 20 at most here"),
        ({"retries": {"limit": 1, "delay": "5s"}}, "delay is '5s'; a duration is a number of milliseconds, or a text"),
        ({"retries": {"limit": 1, "delay": -1}}, "delay is -1"),
        ({"retries": {"limit": 1, "delay": 1, "backoff": "cubic"}}, "backoff is 'cubic', and must be one of constant, linear, exponential"),
        ({"timeout": 0}, "Timeout is 0"),
        ({"timeout": "1s"}, "Timeout is '1s'"),
    ],
)
def test_settings_that_are_wrong(given: Any, why: str) -> None:
    """With the step, the value and the fix."""
    with pytest.raises(ValueError, match=r'^Step config for "s" is in a invalid format') as caught:
        read_config("s", given)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("delay", "backoff", "pauses"),
    [
        (1000, "constant", [1000, 1000, 1000]),
        ("1 second", "linear", [1000, 2000, 3000]),
        (1000, "exponential", [1000, 2000, 4000]),
        (0, "exponential", [0, 0, 0]),
        (lambda told: told["ctx"].attempt * 10, "constant", [10, 20, 30]),
        (lambda told: f"{len(str(told['error']))} seconds", "constant", [2000, 2000, 2000]),
    ],
)
def test_pauses(delay: Any, backoff: Any, pauses: list[int]) -> None:
    """Before the second try, the third, the fourth; a function may say them."""

    async def pause(attempt: int) -> int:
        context = Record(step=Record(name="s", count=1), attempt=attempt)
        return await StepConfig(delay=delay, backoff=backoff).pause_ms(attempt, context, ValueError("no"))

    assert [asyncio.run(pause(attempt)) for attempt in (1, 2, 3)] == pauses


def test_a_pause_that_is_none() -> None:
    """The function's answer is told."""

    async def later(told: Any) -> str:
        return "soon"

    context = Record(step=Record(name="s", count=1), attempt=1)
    with pytest.raises(ValueError, match=r"retries.delay gave 'soon' for step 's'"):
        asyncio.run(StepConfig(delay=lambda told: "soon").pause_ms(1, context, ValueError("no")))
    with pytest.raises(ValueError, match=r"retries.delay gave 'soon' for step 's'"):
        asyncio.run(StepConfig(delay=later).pause_ms(1, context, ValueError("no")))


def test_names() -> None:
    """Up to 256 characters, none of them a control character; durations of sleeps by what they are of."""
    assert checked_name("") == "" and checked_name("x" * 256)
    for name in ("x" * 257, "a\nb", None):
        with pytest.raises(ValueError, match=r"exceeds max length \(256 chars\) or invalid characters found"):
            checked_name(name)
    with pytest.raises(ValueError, match="the sleep is '1s'; a duration is"):
        duration_of("1s", "the sleep")
