"""`stepwell queues`: what waits and what is out, queues that are held or emptied, dead letters that are looked after."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import click

from stepwell.cli_remote import ask, remote
from stepwell.errors import UsageError

IDS_AT_ONCE = 100
"""Ids that one request of the server's takes."""


@click.group()
def queues() -> None:
    """Look at queues, hold them, empty them, and look after their dead letters."""


def path_of(queue: str, what: str = "") -> str:
    """A path of a queue's."""
    return f"/api/queues/{quote(queue, safe='')}{what}"


@queues.command("list")
@remote
def list_queues(url: str, token: str | None, as_json: bool) -> None:
    """The queues, with what waits, what is out, and who consumes them."""
    from stepwell.server.queue_lists import print_queues

    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = ask(url, token, "GET", f"/api/queues?{urlencode({'limit': 100, 'cursor': cursor})}")
        found += answer["queues"]
        cursor = answer["cursor"]
    click.echo(json.dumps({"queues": found})) if as_json else print_queues(found)


@queues.command("show")
@click.argument("queue")
@remote
def show_queue(queue: str, url: str, token: str | None, as_json: bool) -> None:
    """One queue: its counts, its settings, its consumer, the batches that are out."""
    from stepwell.server.queue_lists import print_queue

    answer = ask(url, token, "GET", path_of(queue))
    click.echo(json.dumps(answer)) if as_json else print_queue(answer)


@queues.command("pause")
@click.argument("queue")
@remote
def pause_queue(queue: str, url: str, token: str | None, as_json: bool) -> None:
    """Deliver nothing of QUEUE, until it is resumed; what is sent waits, batches that are out finish."""
    answer = ask(url, token, "POST", path_of(queue, "/pause"), b"")
    click.echo(json.dumps(answer) if as_json else f"{queue} is paused; {answer['waiting']} messages wait")


@queues.command("resume")
@click.argument("queue")
@remote
def resume_queue(queue: str, url: str, token: str | None, as_json: bool) -> None:
    """Go on delivering QUEUE."""
    answer = ask(url, token, "POST", path_of(queue, "/resume"), b"")
    click.echo(json.dumps(answer) if as_json else f"{queue} is delivered; {answer['waiting']} messages wait")


@queues.command("purge")
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote
def purge_queue(queue: str, yes: bool, url: str, token: str | None, as_json: bool) -> None:
    """Take away every message that waits in QUEUE; what is out with a consumer may come back."""
    if not yes:
        waiting = ask(url, token, "GET", path_of(queue))["waiting"]
        click.confirm(f"Take away all {waiting} messages that wait in {queue}?", abort=True, err=True)
    answer = ask(url, token, "POST", path_of(queue, "/purge"), b"")
    click.echo(json.dumps(answer) if as_json else f"{answer['purged']} messages of {queue} are taken away")


@queues.command("set")
@click.argument("queue")
@click.option("--retention", help="How long messages are kept, like 4d.")
@click.option("--visibility", help="How long a pulled message is hidden, like 30s.")
@click.option("--max-retries", type=int, help="How often a pulled message is delivered again.")
@click.option("--dead-letter", help='The queue that then gets it; "" for none.')
@remote
def set_queue(queue: str, url: str, token: str | None, as_json: bool, **told: Any) -> None:
    """Say how QUEUE is kept. Retries and dead letters are those of pull consumers: an app tells its own."""
    settings = {name: value for name, value in told.items() if value is not None}
    answer = ask(url, token, "POST", path_of(queue, "/settings"), json.dumps(settings).encode())
    click.echo(json.dumps(answer) if as_json else f"{queue}: " + ", ".join(f"{name} {answer[name] or 'none'}" for name in settings))


@queues.command("send")
@click.argument("queue")
@click.argument("body")
@click.option("--delay", help="Keep it back so long, like 10s.")
@click.option("--text", is_flag=True, help="BODY is a text, not JSON.")
@remote
def send_message(queue: str, body: str, delay: str | None, text: bool, url: str, token: str | None, as_json: bool) -> None:
    """Send a message: `stepwell queues send jobs '{"report": 7}'`."""
    try:
        value = body if text else json.loads(body)
    except ValueError as error:
        raise UsageError(f"BODY is not JSON: {error}; --text sends it as a text") from None
    message = {"body": value, "content_type": "text" if text else "json", **({"delay": delay} if delay else {})}
    answer = ask(url, token, "POST", path_of(queue, "/messages"), json.dumps(message).encode())
    click.echo(json.dumps(answer) if as_json else answer["id"])


def _messages(queue: str, where: str | None, limit: int, url: str, token: str | None) -> list[dict[str, Any]]:
    """The first messages that are meant, page by page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None and len(found) < limit:
        query = {"limit": min(100, limit - len(found)), "cursor": cursor, **({"where": where} if where else {})}
        answer = ask(url, token, "GET", path_of(queue, f"/messages?{urlencode(query)}"))
        found += answer["messages"]
        cursor = answer["cursor"]
    return found


@queues.command("messages")
@click.argument("queue")
@click.option("--where", help="Only those for which it holds: message.body.tenant == 'acme'.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@remote
def list_messages(queue: str, where: str | None, limit: int, url: str, token: str | None, as_json: bool) -> None:
    """The messages that wait in QUEUE, in their order."""
    from stepwell.server.queue_lists import print_messages

    found = _messages(queue, where, limit, url, token)
    click.echo(json.dumps({"messages": found})) if as_json else print_messages(found)


# Dead letters


@queues.group()
def dead() -> None:
    """Look at dead letters, send them back, delete them. QUEUE is the queue that they are in."""


LETTERS = "message.dead_of != null"


def _meant(where: str | None) -> str:
    return f"{LETTERS} && ({where})" if where else LETTERS


@dead.command("list")
@click.argument("queue")
@click.option("--where", help="Only those for which it holds: message.error.name == 'Timeout'.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@remote
def list_dead(queue: str, where: str | None, limit: int, url: str, token: str | None, as_json: bool) -> None:
    """The dead letters in QUEUE: where they come from, and the error that they died of."""
    from stepwell.server.queue_lists import print_messages

    found = _messages(queue, _meant(where), limit, url, token)
    if as_json:
        click.echo(json.dumps({"messages": found}))
        return
    print_messages(found)
    if not found and (elsewhere := _letters_of(queue, url, token)):
        click.echo(f"Dead letters of {queue} go to {elsewhere}: stepwell queues dead list {elsewhere}")


def _letters_of(queue: str, url: str, token: str | None) -> str:
    """Where a queue's own dead letters go."""
    from stepwell.server.queue_lists import dead_letter_of

    return dead_letter_of(ask(url, token, "GET", path_of(queue)))


def _each(
    queue: str, what: str, ids: tuple[str, ...], where: str | None, everything: bool, url: str, token: str | None, **more: str
) -> int:
    """Do it to the letters that are meant, request by request. Says how many they were."""
    if sum([bool(ids), where is not None, everything]) != 1:
        raise UsageError("say which dead letters are meant: their IDs, --where CONDITION, or --all")
    done = {"move": "moved", "delete": "deleted"}[what]
    many = 0
    for start in range(0, len(ids), IDS_AT_ONCE):
        body = {"ids": ids[start : start + IDS_AT_ONCE], **more}
        many += ask(url, token, "POST", path_of(queue, f"/messages/{what}"), json.dumps(body).encode())[done]
    cursor: str | None = None if ids else ""
    while cursor is not None:
        body = {"where": _meant(where), "cursor": cursor, **more}
        answer = ask(url, token, "POST", path_of(queue, f"/messages/{what}"), json.dumps(body).encode())
        many, cursor = many + answer[done], answer["cursor"]
    return many


@dead.command("retry")
@click.argument("queue")
@click.argument("ids", nargs=-1)
@click.option("--where", help="Those for which it holds: message.dead_of == 'jobs' && message.body.n > 7.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--to", help="To this queue, in place of the one that each came from.")
@remote
def retry_dead(
    queue: str, ids: tuple[str, ...], where: str | None, everything: bool, to: str | None, url: str, token: str | None, as_json: bool
) -> None:
    """Send dead letters in QUEUE back to where they came from, with all their tries before them."""
    many = _each(queue, "move", ids, where, everything, url, token, **({"to": to} if to else {}))
    click.echo(json.dumps({"moved": many}) if as_json else f"{many} dead letters are sent {f'to {to}' if to else 'back'}")


@dead.command("delete")
@click.argument("queue")
@click.argument("ids", nargs=-1)
@click.option("--where", help="Those for which it holds: message.error.message.contains('no such report').")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@remote
def delete_dead(queue: str, ids: tuple[str, ...], where: str | None, everything: bool, url: str, token: str | None, as_json: bool) -> None:
    """Take dead letters in QUEUE away."""
    many = _each(queue, "delete", ids, where, everything, url, token)
    click.echo(json.dumps({"deleted": many}) if as_json else f"{many} dead letters are deleted")
