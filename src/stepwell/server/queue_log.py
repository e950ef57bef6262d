"""What a dev server prints of each batch of a queue, in the words of Cloudflare's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepwell.protocol.codec import decode
from stepwell.runtime.deliveries import BatchEnded

ERROR_CHARS = 300


def lines(ended: BatchEnded) -> Iterator[str]:
    """What the consumer threw, messages that are given up, then the batch itself. Of a lost one only those: it comes again."""
    attempts = {message.id: message.attempts for message in ended.messages}
    settled, queue = ended.settled, ended.queue
    if ended.error is not None:
        yield f'The consumer of queue "{queue}" failed: {error_text(decode(ended.error))}'
    for message_id in settled.dead:
        tries = tries_text(attempts[message_id])
        yield f'Moving message "{message_id}" on queue "{queue}" to dead letter queue "{settled.dead_letter}" after {tries}...'
    for message_id in settled.dropped:
        yield f'Dropped message "{message_id}" on queue "{queue}" after {tries_text(attempts[message_id])}!'
    if not ended.lost:
        yield f"QUEUE {queue} {settled.acked}/{len(ended.messages)} ({ended.took_ms}ms)"


def error_text(error: Any) -> str:
    """An error on a line."""
    told = f"{error.get('name', 'Error')}: {error.get('message', '')}" if isinstance(error, dict) else str(error)
    return " ".join(told.split())[:ERROR_CHARS]


def tries_text(attempts: int) -> str:
    """How often it was tried."""
    return f"{attempts} failed attempt{'' if attempts == 1 else 's'}"
