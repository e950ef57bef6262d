"""From what a Worker answered and printed to an `Observation`. Knows no runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.compat.cloudflare.scenario import Error, Observation, Scenario, shown

Record = Mapping[str, Any]
MARK = "observed "
EARLY_S = 0.15
"""How much sooner than it should something may seem to come: two clocks are read, and each is cut to milliseconds."""


def record_of(line: str) -> Record | None:
    """The record that a printed line holds, if it holds one; what stands before it is whoever passed it on."""
    _, mark, text = line.partition(MARK)
    return json.loads(text) if mark and text.startswith("{") else None


def still_to_come(expected: Observation, records: Sequence[Record]) -> bool:
    """Whether there is less than is expected: deliveries, runs of alarms and what came of them, what is told in the trace."""
    timelines = (expected.messages or {}).values()
    runs = [run for runs in (expected.alarms or {}).values() for run in runs]
    wanted = {
        "batch": sum(timeline.count(",") + 1 for timeline in timelines) or len(expected.bodies or {}),
        "alarm": len(runs),
        "alarm result": sum(":" in run for run in runs),
        "mark": len(expected.trace or ()),
    }
    return any(sum(len(one.get("messages", "1")) for one in records if one["kind"] == kind) < least for kind, least in wanted.items())


def observation(scenario: Scenario, answers: Sequence[Any], records: Sequence[Record]) -> Observation:
    """What is seen of a scenario, of that which its `expected` looks at."""
    seen = Observation(
        messages=_messages(scenario, records),
        batches=tuple(" ".join(message["name"] for message in one["messages"]) for one in _batches(records)),
        bodies={message["name"]: shown(message["body"]) for one in _batches(records) for message in one["messages"]},
        kept=_kept(records),
        overlap=_overlap(records),
        alarms=_alarms(scenario, records),
        trace=tuple(one["text"] for one in records if one["kind"] == "mark"),
        results=tuple(_result(answer) for answer in answers),
    )
    looked = {name: getattr(seen, name) for name in Observation.__struct_fields__ if getattr(scenario.expected, name) is not None}
    return Observation(**looked)


def _batches(records: Sequence[Record]) -> list[Record]:
    return [one for one in records if one["kind"] == "batch"]


def _after(scenario: Scenario, earlier_ms: int, later_ms: int) -> str:
    """The last mark that had passed, as it is told."""
    passed_s = (later_ms - earlier_ms) / 1000 + EARLY_S
    mark = max((mark for mark in scenario.marks if mark <= passed_s), default=0)
    return f" after {mark} s" if mark else ""


def _messages(scenario: Scenario, records: Sequence[Record]) -> dict[str, str]:
    """Each message's deliveries, in the messages' order."""
    last_ms: dict[str, int] = {name: one["at"] for one in records if one["kind"] == "sent" for name in one["names"] if name is not None}
    told: dict[str, list[str]] = {}
    for one in _batches(records):
        for message in one["messages"]:
            name = message["name"]
            dead = "dead " if one["dead"] else ""
            told.setdefault(name, []).append(f"{dead}{message['attempts']}{_after(scenario, last_ms.get(name, one['at']), one['at'])}")
            last_ms[name] = one["at"]
    return {name: ", ".join(told[name]) for name in sorted(told)}


def _kept(records: Sequence[Record]) -> tuple[str, ...]:
    """Of id, timestamp and body, what is the same in all deliveries of each message."""
    facts = ("id", "timestamp", "body")
    found: dict[str, dict[str, list[Any]]] = {}
    for one in _batches(records):
        for message in one["messages"]:
            for fact in facts:
                found.setdefault(message["name"], {}).setdefault(fact, []).append(message[fact])
    return tuple(fact for fact in facts if all(seen[fact].count(seen[fact][0]) == len(seen[fact]) for seen in found.values()))


def _overlap(records: Sequence[Record]) -> int:
    """The most batches that were handled at once."""
    under_way, most = 0, 0
    for one in records:
        under_way += {"batch": 1, "batch ends": -1}.get(one["kind"], 0)
        most = max(most, under_way)
    return most


def _alarms(scenario: Scenario, records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """Each object's runs: when, which retry, what came of it."""
    told: dict[str, list[str]] = {}
    last_ms: dict[str, int] = {}
    start_ms = next(one["at"] for one in records if one["kind"] == "start")
    for one in records:
        if one["kind"] == "alarm":
            name = one["object"]
            retry = f"retry {one['retryCount']}" if one["isRetry"] else "run"
            told.setdefault(name, []).append(f"{retry}{_after(scenario, last_ms.get(name, start_ms), one['at'])}")
            last_ms[name] = one["at"]
        elif one["kind"] == "alarm result":
            told[one["object"]][-1] += f": {_result(one)}"
    return {name: tuple(runs[: scenario.alarm_runs]) for name, runs in sorted(told.items())}


def _result(answer: Record) -> str:
    return shown(Error(**answer["error"])) if "error" in answer else shown(answer["value"])
