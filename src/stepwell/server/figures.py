"""Figures of a server in the text format that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stepwell.runtime.node import Node

DEPTH_MAX = 1_000_000
"""How far the items that wait for a function are counted."""


async def figures(node: Node) -> str:
    """All of them."""
    registry, now_ms = node.registry, node.clock.now_ms()
    depths = await node.reader.queue_depths(DEPTH_MAX)
    lines = [
        *gauge("stepwell_apps", "Apps that are synced.", {"": sum(not app.archived for app in registry.apps.values())}),
        *gauge("stepwell_functions", "Functions of these apps.", {"": sum(not f.row.archived for f in registry.functions.values())}),
        *gauge("stepwell_calls_out", "Calls to apps that have not come back.", {"": node.calls_out}),
        *gauge("stepwell_functions_waiting", "Functions with work that nobody does yet.", {"": len(depths)}),
        *gauge("stepwell_queue_depth", "Runs and steps that wait to be called.", {depth.function_id: depth.waiting for depth in depths}),
        *gauge(
            "stepwell_queue_oldest_seconds",
            "How long ago the oldest of these runs was made, its priority counted.",
            {depth.function_id: max(0, now_ms - depth.oldest_ms) / 1000 for depth in depths},
        ),
    ]
    return "\n".join(lines) + "\n"


def gauge(name: str, says: str, values: Mapping[str, float]) -> Iterable[str]:
    """A figure, or one for each function that has one."""
    yield f"# HELP {name} {says}"
    yield f"# TYPE {name} gauge"
    for function_id, value in values.items():
        label = f'{{function="{escaped(function_id)}"}}' if function_id else ""
        yield f"{name}{label} {value:g}" if isinstance(value, float) else f"{name}{label} {value}"


def escaped(value: str) -> str:
    """A label's value as the format wants it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
