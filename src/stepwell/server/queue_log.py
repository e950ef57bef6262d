"""What a dev server prints of each batch of a queue, in the words of Cloudflare's."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.runtime.deliveries import BatchEnded


def lines(ended: BatchEnded) -> Iterator[str]:
    """Messages that are given up, then the batch itself. Of a lost one only those: it comes again."""
    attempts = {message.id: message.attempts for message in ended.messages}
    settled, queue = ended.settled, ended.queue
    for message_id in settled.dead:
        tries = tries_text(attempts[message_id])
        yield f'Moving message "{message_id}" on queue "{queue}" to dead letter queue "{settled.dead_letter}" after {tries}...'
    for message_id in settled.dropped:
        yield f'Dropped message "{message_id}" on queue "{queue}" after {tries_text(attempts[message_id])}!'
    if not ended.lost:
        yield f"QUEUE {queue} {settled.acked}/{len(ended.messages)} ({ended.took_ms}ms)"


def tries_text(attempts: int) -> str:
    """How often it was tried."""
    return f"{attempts} failed attempt{'' if attempts == 1 else 's'}"
