"""One configuration for both: a queue, KV namespace or database for each scenario that needs one, and one class of Durable Objects.

It is written as `run.mjs` reads it, and as the `wrangler.toml` of a Python Worker.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tests.compat.cloudflare.scenario import Scenario

NAME = "beside"
DATE = "2026-07-01"
STORES = {"KV": "kv", "D1": "d1"}


def binding(kind: str, scenario: Scenario) -> str:
    """A binding's name on `env`."""
    return f"{kind}_{scenario.id.upper().replace('-', '_')}"


def scripts(scenarios: Sequence[Scenario]) -> str:
    """What a Worker has to know of the scenarios, as JSON: the text `SCENARIOS` on its `env`."""
    known = ("id", "steps", "decisions", "alarms", "setup")
    return json.dumps([{name: getattr(one, name) for name in known} for one in scenarios])


def _consumers(scenarios: Sequence[Scenario]) -> Iterator[dict[str, Any]]:
    """The settings of every queue's consumer, with wrangler's names; a dead-letter queue has one too, to be seen."""
    for one in scenarios:
        if one.consumer is not None:
            settings = {name: value for name, value in msgspec.structs.asdict(one.consumer).items() if value is not None}
            dead = {"dead_letter_queue": f"{one.id}-dead"} if settings.pop("dead_letter") else {}
            yield {"queue": one.id, **settings, **dead}
            if dead:
                yield {"queue": dead["dead_letter_queue"], "max_batch_timeout": 0, "max_concurrency": 1}


def for_miniflare(scenarios: Sequence[Scenario]) -> dict[str, Any]:
    """What `run.mjs` reads."""
    env: dict[str, Any] = {
        "SCENARIOS": {"type": "text", "value": scripts(scenarios)},
        "ACTOR": {"type": "durable-object", "worker": NAME, "exportName": "Actor"},
    }
    for one in scenarios:
        if one.consumer is not None:
            delay = {} if one.delivery_delay is None else {"deliveryDelay": one.delivery_delay}
            env[binding("QUEUE", one)] = {"type": "queue", "name": one.id, **delay}
        if one.group in STORES:
            env[binding(one.group, one)] = {"type": STORES[one.group], "id": one.id}
    names = {"queue": "name"}
    triggers = [
        {"type": "queue", **{names.get(name, _camel(name)): value for name, value in consumer.items()}}
        for consumer in _consumers(scenarios)
    ]
    return {
        "module": "worker.mjs",
        "name": NAME,
        "compatibilityDate": DATE,
        "env": env,
        "exports": {"Actor": {"type": "durable-object", "storage": "sqlite"}},
        "triggers": triggers,
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def for_wrangler(scenarios: Sequence[Scenario]) -> str:
    """The `wrangler.toml` of `worker/entry.py`."""
    parts = [
        _table("", name=NAME, main="entry.py", compatibility_date=DATE, compatibility_flags=["python_workers"]),
        _table("[vars]", SCENARIOS=scripts(scenarios)),
        _table("[[durable_objects.bindings]]", name="ACTOR", class_name="Actor"),
        _table("[[migrations]]", tag="v1", new_sqlite_classes=["Actor"]),
    ]
    for one in scenarios:
        if one.consumer is not None:
            delay = {} if one.delivery_delay is None else {"delivery_delay": one.delivery_delay}
            parts.append(_table("[[queues.producers]]", queue=one.id, binding=binding("QUEUE", one), **delay))
        if one.group == "KV":
            parts.append(_table("[[kv_namespaces]]", binding=binding("KV", one), id=one.id))
        if one.group == "D1":
            parts.append(_table("[[d1_databases]]", binding=binding("D1", one), database_name=one.id, database_id=one.id))
    parts += [_table("[[queues.consumers]]", **consumer) for consumer in _consumers(scenarios)]
    return "\n".join(parts)


def _table(head: str, **values: Any) -> str:
    """A table of TOML: JSON's texts, numbers and lists are TOML's too."""
    lines = [f"{name} = {json.dumps(value, ensure_ascii=True)}" for name, value in values.items()]
    return "\n".join([*([head] if head else []), *lines, ""])
