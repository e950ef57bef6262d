"""What a server tells of its queues: figures for Prometheus, and the lines of a dev server."""

from __future__ import annotations

import asyncio
from typing import Any

from stepwell.engine.model_primitives import Message
from stepwell.primitives.queue import Settled
from stepwell.protocol.calls import Answer, CallRequest, Lost
from stepwell.protocol.queues import Outcome
from stepwell.runtime.deliveries import BatchEnded
from stepwell.server.queue_log import lines
from tests.unit.server.queues import Rig, with_queues


async def figures(rig: Rig) -> dict[str, str]:
    """The figures of queues, by name and label."""
    text = (await rig.client.get("/v1/prom/dev")).text
    rows = [line.rpartition(" ") for line in text.splitlines() if line.startswith("stepwell_queue_") and 'queue="' in line]
    return {name: value for name, _, value in rows}


def test_figures_of_queues() -> None:
    """What waits, what is out, and what became of what was delivered; batches that were lost for good with their worker, too."""

    async def work(rig: Rig) -> None:
        rig.gate = asyncio.Event()
        deadly = {"maxBatchTimeout": "0s", "maxRetries": 1, "deadLetter": "dead"}
        await rig.sync("jobs", consumer=deadly)
        await rig.ask("POST", "/queues/jobs/messages", {"messages": [{"body": n} for n in range(3)]})
        await rig.send("alone", "four")
        await rig.until(lambda: given(rig), "the batch is out")
        told = await figures(rig)
        assert (told['stepwell_queue_messages{queue="jobs"}'], told['stepwell_queue_deliveries_out{queue="jobs"}']) == ("0", "1")
        assert (told['stepwell_queue_messages{queue="alone"}'], told['stepwell_queue_bytes{queue="alone"}']) == ("1", "6")
        assert 'stepwell_queue_acked_total{queue="jobs"}' not in told
        rig.outcome = lambda events: Outcome(retries={event["id"]: 0 for event in events if event["data"]["body"] > 0})
        rig.gate.set()
        await rig.until(lambda: counted(rig, 2), "both batches are counted")
        names = ("batches", "acked", "retried", "dead", "dropped")
        told = await figures(rig)
        assert [told[f'stepwell_queue_{name}_total{{queue="jobs"}}'] for name in names] == ["2", "1", "2", "2", "0"]
        assert 'stepwell_queue_deliveries_out{queue="jobs"}' not in told

    async def counted(rig: Rig, batches: int) -> bool:
        return (await figures(rig)).get('stepwell_queue_batches_total{queue="jobs"}') == str(batches)

    async def given(rig: Rig) -> bool:
        return bool(rig.batches)

    with_queues(work)


def test_messages_that_die_with_their_worker_are_counted() -> None:
    """Three losses in a row are a failed try; here it was the last one."""

    async def work(rig: Rig) -> None:
        async def lost(request: CallRequest, checkpoint: Any) -> Answer:
            return Lost(reason="the child died")

        rig.node.add_driver("http", lost)
        await rig.sync("jobs", consumer={"maxBatchTimeout": "0s", "maxRetries": 0})
        await rig.send("jobs", 1)
        await rig.until(lambda: dropped(rig), "it is dropped")
        told = await figures(rig)
        assert (told['stepwell_queue_batches_total{queue="jobs"}'], told['stepwell_queue_retried_total{queue="jobs"}']) == ("3", "0")

    async def dropped(rig: Rig) -> bool:
        return (await figures(rig)).get('stepwell_queue_dropped_total{queue="jobs"}') == "1"

    with_queues(work)


def batch(settled: Settled, attempts: int = 3, lost: bool = False, error: bytes | None = None) -> BatchEnded:
    """A batch of three."""
    messages = [
        Message(id=name, queue="q", ready_ms=0, sent_ms=0, content_type="json", body=b"1", attempts=attempts) for name in ("a", "b", "c")
    ]
    return BatchEnded("q", tuple(messages), settled, 12, lost, error)


def test_lines_of_a_dev_server() -> None:
    """As Cloudflare's local runtime writes them, singular and plural."""
    assert list(lines(batch(Settled(acked=3)))) == ["QUEUE q 3/3 (12ms)"]
    assert list(lines(batch(Settled(acked=1, retried=1, dropped=("b",))))) == [
        'Dropped message "b" on queue "q" after 3 failed attempts!',
        "QUEUE q 1/3 (12ms)",
    ]
    assert list(lines(batch(Settled(retried=3), error=b'{"name":"KeyError","message":"no\\nreport","stack":"..."}'))) == [
        'The consumer of queue "q" failed: KeyError: no report',
        "QUEUE q 0/3 (12ms)",
    ]
    assert next(lines(batch(Settled(retried=3), error=b'"broken"'))) == 'The consumer of queue "q" failed: broken'
    assert list(lines(batch(Settled(dead=("a", "c"), dead_letter="d"), attempts=1, lost=True))) == [
        'Moving message "a" on queue "q" to dead letter queue "d" after 1 failed attempt...',
        'Moving message "c" on queue "q" to dead letter queue "d" after 1 failed attempt...',
    ]
