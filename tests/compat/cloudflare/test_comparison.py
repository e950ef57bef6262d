"""The comparison itself: scenarios are sound, both interpreters know their words, what is printed is read, and a difference is told."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.compat.cloudflare.comparison import expected_here, keep, kept_section, verdict
from tests.compat.cloudflare.configuration import for_miniflare, for_wrangler
from tests.compat.cloudflare.observing import observation, record_of, still_to_come
from tests.compat.cloudflare.scenario import Observation, Scenario, caught, results
from tests.compat.cloudflare.scenarios import SCENARIOS
from tests.compat.table import page

HERE = Path(__file__).parent
SHOWN = {one.id: one.expected for one in SCENARIOS}
NESTED = ("together", "catch", "catch now", "block", "transaction", "transaction and storage", "transactionSync", "waitUntil", "forget")


def words(ops: list[Any]) -> Iterator[str]:
    """Every op's name, of those within others too."""
    for op in ops:
        yield op[0]
        if op[0] in NESTED:
            yield from words(op[1])
        elif op[0] in ("call", "held"):
            yield from words(op[2])
        elif op[0] == "unawaited":
            yield op[1][0]


def test_scenarios_are_sound() -> None:
    """Each has an id of its own; whoever differs says why, and is looked at in the same parts."""
    assert len(SHOWN) == len(SCENARIOS)
    for one in SCENARIOS:
        assert re.fullmatch(r"[a-z0-9-]+", one.id) and not one.id.endswith("-dead")
        assert (one.here is not None) == bool(one.differs_because), one.id
        looked = [name for name in Observation.__struct_fields__ if getattr(one.expected, name) is not None]
        assert looked == [name for name in Observation.__struct_fields__ if getattr(expected_here(one), name) is not None], one.id
        assert looked and verdict(one.expected, expected_here(one)) == ("same" if one.here is None else "differs"), one.id


def test_both_interpreters_know_every_op() -> None:
    """The Worker in JavaScript and the one in Python, neither more than the other."""
    used = {word for one in SCENARIOS for ops in (one.steps, one.setup, *one.decisions, *one.alarms) for word in words(ops)}
    javascript = (HERE / "worker.mjs").read_text()
    in_javascript = {*re.findall(r'case "([^"]+)":', javascript), *re.findall(r'op === "([^"]+)"', javascript)}
    tree = ast.parse((HERE / "worker" / "entry.py").read_text())
    in_python = {node.value.value for node in ast.walk(tree) if isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant)}
    assert used <= in_javascript, used - in_javascript
    assert in_javascript == in_python, in_javascript ^ in_python
    assert in_python - used <= {"list"}, in_python - used


def test_the_two_configurations_are_one() -> None:
    """Both have the same bindings and the same consumers."""
    miniflare, wrangler = for_miniflare(SCENARIOS), tomllib.loads(for_wrangler(SCENARIOS))
    bound = {
        one["binding"]: one[key] for kind, key in (("kv_namespaces", "id"), ("d1_databases", "database_id")) for one in wrangler[kind]
    } | {one["binding"]: one["queue"] for one in wrangler["queues"]["producers"]}
    env = dict(miniflare["env"])
    assert env.pop("SCENARIOS")["value"] == wrangler["vars"]["SCENARIOS"]
    assert env.pop("ACTOR")["exportName"] == wrangler["durable_objects"]["bindings"][0]["class_name"]
    assert {name: one.get("id") or one["name"] for name, one in env.items()} == bound
    consumers = wrangler["queues"]["consumers"]
    assert [one["name"] for one in miniflare["triggers"]] == [one["queue"] for one in consumers]
    assert [one.get("maxRetries") for one in miniflare["triggers"]] == [one.get("max_retries") for one in consumers]


LOOK = Observation(messages={}, batches=(), bodies={}, kept=(), overlap=0, alarms={}, trace=(), results=())
WATCHED = Scenario(id="watched", group="Queues", title="", expected=LOOK, steps=[], marks=(0, 2, 4))


def batch(at: int, *names: str, attempts: int = 1, dead: bool = False, **fields: Any) -> dict[str, Any]:
    """A record of a batch."""
    message = {"attempts": attempts, "timestamp": 1, "body": 1, **fields}
    return {"kind": "batch", "at": at, "dead": dead, "messages": [{"name": name, "id": name, **message} for name in names]}


def test_records_become_an_observation() -> None:
    """Deliveries with the time since the one before, batches, what is kept, what overlaps, alarms, results."""
    records = [
        {"kind": "start", "at": 0},
        {"kind": "sent", "at": 0, "names": ["a", "b", None]},
        batch(100, "a", "b"),
        batch(1900, "a", attempts=2, body=2),
        {"kind": "batch ends", "at": 1950},
        {"kind": "batch ends", "at": 1950},
        batch(5700, "a", dead=True),
        {"kind": "alarm", "at": 2000, "object": "one", "retryCount": 0, "isRetry": False},
        {"kind": "alarm result", "at": 2000, "object": "one", "error": {"name": "Error", "message": "boom"}},
        {"kind": "alarm", "at": 4000, "object": "one", "retryCount": 1, "isRetry": True},
        {"kind": "mark", "at": 4000, "text": "call 1 begins"},
    ]
    answers = [{"value": {"b": 1, "a": "é"}}, {"error": {"name": "TypeError", "message": "no"}}]
    assert observation(WATCHED, answers, records) == Observation(
        messages={"a": "1, 2, dead 1 after 2 s", "b": "1"},
        batches=("a b", "a", "a"),
        bodies={"a": "1", "b": "1"},
        kept=("id", "timestamp"),
        overlap=2,
        alarms={"one": ("run after 2 s: Error: boom", "retry 1 after 2 s")},
        trace=("call 1 begins",),
        results=('{"b": 1, "a": "é"}', "TypeError: no"),
    )


def test_only_what_is_expected_is_looked_at() -> None:
    """What a scenario is not about may be as it likes."""
    scenario = msgspec.structs.replace(WATCHED, expected=Observation(overlap=1))
    assert observation(scenario, [{"value": 1}], [{"kind": "start", "at": 0}, batch(1, "a")]) == Observation(overlap=1)


@pytest.mark.parametrize(
    ("expected", "records"),
    [
        (Observation(messages={"a": "1, 2"}), [batch(1, "a"), batch(2, "a", attempts=2)]),
        (Observation(bodies={"a": "[1, 2]"}), [batch(1, "a")]),
        (Observation(alarms={"one": ("run: []",)}), [{"kind": "alarm"}, {"kind": "alarm result"}]),
        (Observation(trace=("begins",)), [{"kind": "mark"}]),
    ],
)
def test_whether_something_is_still_to_come(expected: Observation, records: list[dict[str, Any]]) -> None:
    """The last record is waited for."""
    assert still_to_come(expected, records[:-1])
    assert not still_to_come(expected, records)


def test_records_are_found_in_what_is_printed() -> None:
    """Whatever stands before them."""
    assert record_of('worker 1 | observed {"at": 1}') == {"at": 1}
    assert record_of("observed nothing") is None and record_of("a line") is None


def test_how_alike_two_are() -> None:
    """Errors of other words are told apart from other outcomes."""
    said = Observation(results=("TypeError: no", '[1, {"error": {"name": "Error", "message": "no"}}]'))
    otherwise = Observation(results=("TypeError: never", '[1, {"error": {"name": "Error", "message": "never"}}]'))
    assert verdict(said, said) == "same"
    assert verdict(said, otherwise) == "in other words"
    for result in ("null", "AttributeError: no"):
        assert verdict(said, Observation(results=(result, said.results[1]))) == "differs"  # type: ignore[index]
    assert verdict(results([caught("Error", "no")]), results([caught("KeyError", "no")])) == "differs"
    assert verdict(results({"a": 1, "b": 2}), results({"b": 2, "a": 1})) == "differs"
    assert verdict(results([caught("Error", "no")]), results([None])) == "differs"


def test_the_section_has_a_row_for_each_scenario(tmp_path: Path) -> None:
    """Same, or why not; what differs without a reason stands out."""
    ours = {one.id: expected_here(one) for one in SCENARIOS} | {"returns": Observation(messages={}), "values": results(1)}
    keep(tmp_path / "run.jsonl", "miniflare", SHOWN)
    assert kept_section(tmp_path / "run.jsonl") == ""
    keep(tmp_path / "run.jsonl", "stepwell", ours)
    text = kept_section(tmp_path / "run.jsonl")
    assert page([], cloudflare=text).endswith(text)
    assert "| the handler returns | **differs** |  |" in text
    for one in SCENARIOS:
        assert one.title in text
        assert one.here is None or f"| {one.title} | differs | {one.differs_because} |" in text
    assert text.count("| same |") == len(SCENARIOS) - sum(one.here is not None for one in SCENARIOS) - 2
