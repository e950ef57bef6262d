"""Queues and their messages, drawn in a terminal."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepwell.server.lists import moment

BODY_CHARS = 200
ERROR_CHARS = 160


def _table(*names: str, whole: str = "") -> Table:
    """A table; the column `whole` is never folded, so that what stands in it can be copied."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name == whole)
    return table


def print_queues(queues: list[dict[str, Any]]) -> None:
    """The queues, a line each."""
    table = _table("Queue", "Waiting", "Out", "Consumer", "Dead letters to", whole="Queue")
    for one in queues:
        name = Text(one["name"]) + (Text(" (paused)", "yellow") if one["paused"] else Text(""))
        table.add_row(name, str(one["waiting"]), str(one["messages_out"]), consumer_text(one["consumer"]), dead_letter_of(one) or "–")
    Console().print(table if queues else "No queues yet. A queue is there from its first message on, or from the sync of its consumer.")


def consumer_text(consumer: dict[str, Any] | None) -> str:
    """Who has the messages."""
    if consumer is None:
        return "– (pulled, or nobody)"
    how = "a run each" if consumer["kind"] == "runs" else f"batches of {consumer['max_batch_size']}"
    return f"{consumer['function']} ({how})"


def dead_letter_of(queue: dict[str, Any]) -> str:
    """Where what cannot be consumed goes: as the consumer says, else as the queue says to those who pull."""
    consumer = queue["consumer"]
    told: str = queue["dead_letter"] if consumer is None else consumer.get("dead_letter", "")
    return told


def print_queue(queue: dict[str, Any]) -> None:
    """One queue, whole."""
    out = Console()
    table = _table("", "")
    table.show_header = False
    consumer = queue["consumer"] or {}
    facts = {
        "Queue": queue["name"] + (" (paused)" if queue["paused"] else ""),
        "Waiting": f"{queue['waiting']} messages, {queue['waiting_bytes']} bytes",
        "Out": f"{queue['messages_out']} messages in {queue['deliveries_out']} batches",
        "Consumer": consumer_text(queue["consumer"]),
        "Kept for": queue["retention"],
        "Retries": str(consumer.get("max_retries", queue["max_retries"])),
        "Dead letters to": dead_letter_of(queue) or "– (they are dropped)",
    }
    if consumer.get("kind") == "batches":
        facts["Batch"] = f"{consumer['max_batch_size']} messages, or after {consumer['max_batch_timeout']}"
        facts["Batches at a time"] = str(consumer["max_concurrency"])
        facts["Retry after"] = consumer["retry_delay"]
    elif not consumer:
        facts["Hidden when pulled"] = queue["visibility"]
    for name, value in facts.items():
        table.add_row(Text(name, "dim"), value)
    out.print(table)
    for one in queue["deliveries"]:
        out.print(f"  batch {one['id']}: {len(one['messages'])} messages with {one['function']} since {moment(one['out_since_ms'])}")


def print_messages(messages: list[dict[str, Any]]) -> None:
    """Messages: a line each, then its body, then what a dead letter died of."""
    out = Console(soft_wrap=True)
    for one in messages:
        tries = f"{one['attempts']} tr{'y' if one['attempts'] == 1 else 'ies'}"
        facts = [moment(one["sent_ms"]), tries, *([f"dead letter of {one['dead_of']}"] if one["dead_of"] else ())]
        out.print(Text(one["id"]), Text(", ".join(facts), "dim"))
        out.print(Text("  ") + body_text(one))
        if one["error"] is not None:
            out.print(Text(f"  {error_text(one['error'])}", "red"))
    if not messages:
        out.print("No messages.")


def body_text(message: dict[str, Any]) -> Text:
    """A body on a line."""
    body = message["body"]
    text = body if message["content_type"] == "text" else json.dumps(body, ensure_ascii=False)
    shown = text if message["content_type"] != "bytes" else f"{message['bytes']} bytes"
    return Text(shown if len(shown) <= BODY_CHARS else shown[: BODY_CHARS - 1] + "…")


def error_text(error: Any) -> str:
    """An error on a line."""
    told = f"{error.get('name', 'Error')}: {error.get('message', '')}" if isinstance(error, dict) else json.dumps(error)
    return told[:ERROR_CHARS]
