"""Functions whose traces are looked at."""

from __future__ import annotations

from typing import Any

from stepwell.protocol.functions import Batch, RateLimit, Singleton
from tests.unit.server.scripted import Function, Run, Scripted, Tool


def failing(times: int) -> Any:
    """A step that fails so many times."""

    def code(attempt: int, given: Any) -> str:
        if attempt < times:
            raise ValueError(f"try {attempt + 1}")
        return f"after {attempt + 1}"

    return code


def breaks(memos: dict[str, Any], attempt: int) -> Any:
    """A function that never gets to its end."""
    raise ValueError("the function itself")


def recovers(memos: dict[str, Any], attempt: int) -> str:
    """A function that does, the second time."""
    if attempt == 0:
        raise ValueError("try 1")
    return f"after {attempt + 1}"


WHERE = b'{"if":"event.data.id == async.data.id && async.data.ok == true","timeout":"1h"}'


def shop() -> Scripted:
    """The app."""
    return Scripted(
        (
            Function(
                id="whole",
                triggers=("shop/whole",),
                stages=(
                    (Run("first", lambda attempt, given: {"n": 1}),),
                    (Run("left", lambda attempt, given: "l"), Run("right", lambda attempt, given: "r")),
                    (Tool("nap", "Sleep", "300ms"),),
                    (Run("flaky", failing(2), opts=b'{"type":"step.sendEvent"}'),),
                ),
                end=lambda memos, attempt: {name: memos[name] for name in ("first", "left", "right", "flaky")},
            ),
            Function(
                id="waits",
                triggers=("shop/waits",),
                stages=(
                    (Tool("answer", "WaitForEvent", "shop/answer", WHERE),),
                    (Tool("never", "WaitForEvent", "shop/never", b'{"timeout":"100ms"}'),),
                ),
                end=lambda memos, attempt: None,
            ),
            Function(
                id="child",
                stages=((Tool("work", "Sleep", "10ms"),),),
                end=lambda memos, attempt: {"got": 1},
            ),
            Function(id="slow", stages=((Tool("work", "Sleep", "1h"),),), end=lambda memos, attempt: 1),
            Function(
                id="parent",
                triggers=("shop/parent",),
                stages=(
                    (Tool("good", "InvokeFunction", opts=b'{"function_id":"shop-child","payload":{"data":{"x":1}}}'),),
                    (Tool("slow", "InvokeFunction", opts=b'{"function_id":"shop-slow","payload":{},"timeout":"100ms"}'),),
                ),
                end=lambda memos, attempt: [memos["good"], memos["slow"]["error"]["name"]],
            ),
            Function(id="breaks", triggers=("shop/breaks",), retries=1, end=breaks),
            Function(id="recovers", triggers=("shop/recovers",), end=recovers),
            Function(
                id="caught",
                triggers=("shop/caught",),
                retries=1,
                stages=((Run("boom", failing(9)),),),
                end=lambda memos, attempt: f"caught {memos['boom']['error']['message']}",
            ),
            Function(
                id="signal",
                triggers=("shop/signal",),
                stages=((Tool("go", "WaitForSignal", opts=b'{"signal":"go-ahead","timeout":"1h"}'),),),
                end=lambda memos, attempt: memos["go"],
            ),
            Function(
                id="single",
                triggers=("shop/single",),
                stages=((Tool("nap", "Sleep", "1h"),),),
                end=lambda memos, attempt: None,
                settings={"singleton": Singleton(mode="skip")},
            ),
            Function(
                id="limited",
                triggers=("shop/limited",),
                end=lambda memos, attempt: None,
                settings={"rate_limit": RateLimit(limit=1, period_ms=3_600_000)},
            ),
            Function(
                id="batched",
                triggers=("shop/batched",),
                end=lambda memos, attempt: None,
                settings={"batch": Batch(max_size=2, timeout_ms=60_000)},
            ),
            Function(
                id="sum",
                triggers=("shop/sum",),
                stages=(
                    (Run("one", lambda attempt, given: 1, metadata=b'[{"kind":"userland.n","op":"set","values":{"n":1}}]'),),
                    (Run("two", lambda attempt, given: 2 if given is None else given[0]),),
                    (Run("three", lambda attempt, given: 3),),
                ),
                end=lambda memos, attempt: memos["one"] + memos["two"] + memos["three"],
            ),
        )
    )
