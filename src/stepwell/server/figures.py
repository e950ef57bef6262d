"""Figures of a server in the text format that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stepwell.runtime.hub import Counts
from stepwell.runtime.node import Node

DEPTH_MAX = 1_000_000
"""How far the items that wait for a function are counted."""

QUEUES_MAX = 1_000
"""Queues that have figures, by name."""


async def figures(node: Node) -> str:
    """All of them."""
    registry, now_ms = node.registry, node.clock.now_ms()
    depths = await node.reader.queue_depths(DEPTH_MAX)
    queues = await node.reader.queues(QUEUES_MAX)
    totals = node.queue_totals.by_queue
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
        *gauge("stepwell_queue_messages", "Messages that wait in a queue.", {queue.id: queue.waiting for queue in queues}, "queue"),
        *gauge("stepwell_queue_bytes", "Bodies of these messages.", {queue.id: queue.waiting_bytes for queue in queues}, "queue"),
        *gauge("stepwell_queue_deliveries_out", "Batches that consumers have.", node.deliveries_out, "queue"),
        *counter("stepwell_queue_batches_total", "Batches that came back.", {name: one.batches for name, one in totals.items()}),
        *counter("stepwell_queue_acked_total", "Messages of them that are done with.", {name: one.acked for name, one in totals.items()}),
        *counter("stepwell_queue_retried_total", "Messages that are delivered again.", {name: one.retried for name, one in totals.items()}),
        *counter("stepwell_queue_dead_total", "Messages that became dead letters.", {name: one.dead for name, one in totals.items()}),
        *counter("stepwell_queue_dropped_total", "Messages given up without one.", {name: one.dropped for name, one in totals.items()}),
        *realtime(node.realtime.hub.counts),
        *gauge("stepwell_actors_in_memory", "Actors that are in memory.", node.actors.in_memory(), "kind"),
        *gauge("stepwell_actor_alarms_waiting", "Alarms that have gone off and wait for their turn.", {"": node.actors.alarms_waiting}),
    ]
    return "\n".join(lines) + "\n"


def realtime(counts: Counts) -> Iterable[str]:
    """What the hub has done since the server began, and who listens."""
    yield from gauge("stepwell_realtime_subscribers", "Subscribers of realtime topics.", {"": counts.subscribers})
    yield from counter("stepwell_realtime_published_total", "Messages published to topics.", {"": counts.published})
    yield from counter("stepwell_realtime_delivered_total", "Messages queued for subscribers, one for each.", {"": counts.delivered})
    yield from counter(
        "stepwell_realtime_dropped_total", "Subscribers that were dropped because they read too slowly.", {"": counts.dropped}
    )


def gauge(name: str, says: str, values: Mapping[str, float], label_name: str = "function", kind: str = "gauge") -> Iterable[str]:
    """A figure, or one for each function (or queue) that has one."""
    yield f"# HELP {name} {says}"
    yield f"# TYPE {name} {kind}"
    for labelled, value in values.items():
        label = f'{{{label_name}="{escaped(labelled)}"}}' if labelled else ""
        yield f"{name}{label} {value:g}" if isinstance(value, float) else f"{name}{label} {value}"


def counter(name: str, says: str, values: Mapping[str, float]) -> Iterable[str]:
    """A count that only grows, or one for each queue, of this node since it started."""
    return gauge(name, says, values, "queue", "counter")


def escaped(value: str) -> str:
    """A label's value as the format wants it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
