"""Apps with the `inngest` package from npm: its two major versions, under Node and in the Workers runtime, with and without keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.compat.capabilities import CAPABILITIES, FEW, NO_STREAMING, NPM_3_LACKS, NPM_LACKS, SERVED
from tests.compat.rig import Spec
from tests.support.npm import NODE

APPS = Path(__file__).parent / "apps" / "js"
SDK = {"v3": "3.54.2", "v4": "4.24.0"}
LACKS: dict[str, Mapping[str, str]] = {"v3": NPM_3_LACKS, "v4": NPM_LACKS}
CALLS = frozenset({"serial", "parallel-calls", "parallel-choice", "race"})
"""Where the two versions, and checkpoints, differ most."""
OF_THE_SERVER = frozenset(
    {
        *("cron", "jitter", "delayed", "event-id", "event-many", "event-refused", "timeouts", "rerun", "sync-change", "cancel"),
        *("concurrency", "throttle", "rate-limit", "debounce", "batch", "priority", "singleton"),
    }
)
"""What hardly depends on the SDK: a Python rig runs it whenever this one does not."""
NEARLY_ALL = frozenset(one.id for one in CAPABILITIES) - OF_THE_SERVER


def node(*words: str) -> Callable[[int], Sequence[str]]:
    """Run an app; it finds its port in the environment."""
    return lambda port: [NODE, *words]


def spec(version: str, name: str, *words: str, served: str, **fields: Any) -> Spec:
    """A rig with a major version; `words` start its app."""
    known: dict[str, Any] = {
        "name": f"npm-{version}{name}",
        "column": f"npm {SDK[version]}, {served}",
        "sdk": f"inngest-js:v{SDK[version]}",
        "command": node(*words),
        "cwd": APPS,
        "lacks": LACKS[version],
        "ways": "each" if version == "v3" else "checkpointed",
    }
    return Spec(**{**known, **fields})


def without_stream(version: str) -> Mapping[str, str]:
    """What the version lacks where its framework cannot stream."""
    return {**LACKS[version], **NO_STREAMING}


SPECS = (
    spec("v3", "", "node_app.js", "v3", "node", served="Node", share=SERVED),
    spec("v4", "", "node_app.js", "v4", "node", served="Node", share=NEARLY_ALL),
    spec(
        "v4",
        "-nocheckpoint",
        "node_app.js",
        "v4",
        "hono",
        served="Hono, without checkpoints",
        env={"CHECKPOINTING": "0"},
        lacks=without_stream("v4"),
        share=frozenset({"run", "parallel", "step-retry"}) | CALLS,
        ways="joined",
    ),
    spec("v4", "-worker", "worker_app.js", "v4", served="Worker", share=FEW | {"serial"}),
    spec("v3", "-worker", "worker_app.js", "v3", served="Worker"),
    spec(
        "v4",
        "-cloud",
        "node_app.js",
        "v4",
        "hono",
        served="Hono, signed",
        lacks=without_stream("v4"),
        share=FEW | {"values", "fallback-key", "serial"},
        kind="cloud",
    ),
    spec("v3", "-cloud", "node_app.js", "v3", "hono", served="Hono, signed", lacks=without_stream("v3"), kind="cloud"),
    spec("v4", "-worker-cloud", "worker_app.js", "v4", served="Worker, signed", kind="cloud"),
)
