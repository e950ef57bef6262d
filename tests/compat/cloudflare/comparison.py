"""Two observations of one scenario beside each other, and the section of the compatibility page that is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tests.compat.cloudflare.scenario import Observation, Scenario
from tests.compat.cloudflare.scenarios import SCENARIOS

Verdict = Literal["same", "in other words", "differs"]
HEAD = """## Beside Cloudflare's local runtime

The same scenarios, done by the same program, once in JavaScript under Cloudflare's local runtime (`miniflare`, with `workerd`) and
once as a Python Worker under `stepwell workers dev`: which messages come in which batches, attempt by attempt, what objects and their
alarms do in which order, what storage, SQL, KV and D1 give and refuse. *In other words* means that the same is refused with the same
class of error, but another text.
"""


def expected_here(scenario: Scenario) -> Observation:
    """What Stepwell has to do."""
    return scenario.here or scenario.expected


def verdict(one: Observation, other: Observation) -> Verdict:
    """How alike two observations are."""
    if one == other:
        return "same"
    return "in other words" if _without_words(one) == _without_words(other) else "differs"


def _without_words(seen: Observation) -> Observation:
    if seen.results is None:
        return seen
    return msgspec.structs.replace(seen, results=tuple(_without_text(result) for result in seen.results))


def _without_text(result: str) -> str:
    """A result whose errors have nothing but their class. What an observation shows of an error is no JSON."""
    try:
        return json.dumps(_blank(json.loads(result)))
    except json.JSONDecodeError:
        return result.partition(":")[0]


def _blank(value: Any) -> Any:
    if isinstance(value, list):
        return [_blank(one) for one in value]
    if isinstance(value, dict):
        return {"error": value["error"]["name"]} if set(value) == {"error"} else {name: _blank(one) for name, one in value.items()}
    return value


def section(cloudflare: Mapping[str, Observation], ours: Mapping[str, Observation]) -> str:
    """A table for each group, a row for each scenario that both have seen."""
    lines = [HEAD]
    groups = dict.fromkeys(one.group for one in SCENARIOS)
    for group in groups:
        rows = [one for one in SCENARIOS if one.group == group and one.id in cloudflare and one.id in ours]
        if rows:
            lines += [f"| {group} | | |", "|---|---|---|"]
            lines += [_row(one, verdict(cloudflare[one.id], ours[one.id])) for one in rows]
            lines.append("")
    return "\n".join(lines)


def _row(scenario: Scenario, verdict: Verdict) -> str:
    reason = scenario.differs_because if verdict == "differs" else ""
    return f"| {scenario.title} | {verdict if verdict != 'differs' or reason else '**differs**'} | {reason} |"


def kept_at(results: Path, runtime: str) -> Path:
    """Where a run of the suite keeps what a runtime did, beside its other results."""
    return results.with_suffix(f".{runtime}.json")


def keep(results: Path, runtime: str, seen: Mapping[str, Observation]) -> None:
    """Keep what a runtime did."""
    kept_at(results, runtime).write_bytes(msgspec.json.format(msgspec.json.encode(seen)))


def kept_section(results: Path) -> str:
    """The section from what a run kept; nothing where it has not run both."""
    both = [kept_at(results, runtime) for runtime in ("miniflare", "stepwell")]
    if not all(path.exists() for path in both):
        return ""
    return section(*(msgspec.json.decode(path.read_bytes(), type=dict[str, Observation]) for path in both))
