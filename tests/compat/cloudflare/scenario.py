"""What a scenario is, and what is seen of it: plain data that knows no runtime.

The ops of `steps`, `decisions`, `alarms` and `setup` are lists, as JSON has them; `worker.mjs` and `worker/entry.py` do them. A `{"bytes":
[1, 2]}` in them stands for bytes and a `{"repeat": ["x", 3]}` for a long text.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec

Op = list[Any]
Group = Literal["Queues", "Alarms", "Gates, order and resets", "Calls of an object", "Storage", "SQL of an object", "KV", "D1"]


class Observation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is seen of a scenario; None where nobody looks.

    `messages` tells each message's deliveries: `"1, 2 after 2 s, dead 1"` are two, the second two seconds after the first, and one of
    the dead-letter queue. `batches` are the messages' names in the order of delivery. `kept` is what stays the same over a message's
    deliveries, of id, timestamp and body. `overlap` is how many batches are handled at once. `alarms` are the runs by object, `trace` is
    the order of what begins and ends, `results` are the steps' values as JSON, or `Name: message` of what they raised.
    """

    messages: dict[str, str] | None = None
    batches: tuple[str, ...] | None = None
    bodies: dict[str, str] | None = None
    kept: tuple[str, ...] | None = None
    overlap: int | None = None
    alarms: dict[str, tuple[str, ...]] | None = None
    trace: tuple[str, ...] | None = None
    results: tuple[str, ...] | None = None


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A queue's consumer. Without batches to wait for, unless told: a delivery then comes as soon as it may."""

    max_batch_size: int = 3
    max_batch_timeout: int = 0
    max_retries: int = 3
    retry_delay: int | None = None
    max_concurrency: int = 1
    dead_letter: bool = False


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the comparison.

    `steps` are done by whoever sends and calls. `decisions` are those of the consumer, by the highest attempt in its batch; `alarms` are
    those of an object's alarm, run by run, the last again and again; `setup` is what an object's constructor does.

    It is watched for `window_s`, since only a while without deliveries tells that there are none. Times are told as the last of `marks`
    (seconds) that had passed, so that a slow machine changes nothing. `alarm_runs` are as many as are looked at.

    `expected` is what Cloudflare's local runtime does. Where Stepwell differs by choice, `differs_because` is the reason, and `here`
    what it does instead; without a `here`, only the words of errors differ.
    """

    id: str
    group: Group
    title: str
    expected: Observation
    steps: list[Op]
    consumer: Consumer | None = None
    delivery_delay: int | None = None
    decisions: list[list[Op]] = []
    alarms: list[list[Op]] = []
    setup: list[Op] = []
    window_s: float = 0.0
    marks: tuple[int, ...] = (0, 2, 4, 6, 8, 10)
    alarm_runs: int = 9
    here: Observation | None = None
    differs_because: str = ""


class Error(msgspec.Struct, frozen=True):
    """An error among results."""

    name: str
    message: str


def shown(value: Any) -> str:
    """A result as observations hold it: the order of an object's fields counts."""
    if isinstance(value, Error):
        return f"{value.name}: {value.message}"
    return json.dumps(value, ensure_ascii=False)


def results(*values: Any) -> Observation:
    """An observation that has nothing but results."""
    return Observation(results=tuple(shown(value) for value in values))


def caught(name: str, message: str) -> dict[str, Any]:
    """An error that was caught within a step, as its value."""
    return {"error": {"name": name, "message": message}}
