"""Runs and traces drawn in a terminal."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

COLOURS = {
    "queued": "cyan",
    "planned": "cyan",
    "running": "blue",
    "waiting": "magenta",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
}
BAR = 32
WIDTH_MIN = 120
"""A trace narrower than this says little; where the terminal is narrower, its lines are cut."""


def _console() -> Console:
    console = Console()
    return console if console.width >= WIDTH_MIN else Console(width=WIDTH_MIN)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    for i, name in enumerate(names):
        # What is long, in the last column, gives way first.
        last = i == len(names) - 1
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if last else None, min_width=None if last else 8)
    return table


def duration_text(ms: int | None) -> str:
    """How long, for people."""
    if ms is None:
        return "–"
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s" if ms < 120_000 else f"{ms / 60_000:.1f} min"


def status_text(status: str) -> Text:
    """A status with its dot."""
    return Text(f"● {status}", COLOURS.get(status, "white"))


def print_runs(runs: list[dict[str, Any]]) -> None:
    """The list of runs."""
    console = _console()
    if not runs:
        console.print("No runs yet. Send an event: stepwell send app/hello '{\"x\":1}'")
        return
    table = _table("run", "status", "function", "trigger", "queued", "duration")
    for run in runs:
        queued = datetime.fromtimestamp(run["queued_ms"] / 1000).strftime("%d %b %H:%M:%S")
        took = run["ended_ms"] - run["queued_ms"] if run["ended_ms"] is not None else None
        table.add_row(run["id"], status_text(run["status"]), run["function"]["id"], run["trigger"]["name"], queued, duration_text(took))
    console.print(table)


def print_trace(answer: dict[str, Any]) -> None:
    """A run's steps and tries as a waterfall, with their outputs and errors."""
    console = _console()
    run, now_ms = answer["run"], answer["now_ms"]
    begin, end = run["queued_ms"], run["ended_ms"] or now_ms
    console.print(status_text(run["status"]), Text(run["function"]["id"], "bold"), run["id"], duration_text(end - begin))
    console.print(Text(f"  {run['trigger']['name']} {_short(run['events'][0]['data'] if run['events'] else None)}", "dim"))
    table = _table("step", "", "", "started", "took", "result")
    for attempt in answer["attempts"]:
        _attempt_row(table, "(function)", attempt, begin, end)
    for step in answer["steps"]:
        started, ended = step["started_ms"] or step["queued_ms"], step["ended_ms"] or now_ms
        for attempt in step["attempts"]:
            _attempt_row(table, f"  {step['name']}", attempt, begin, end)
        result = _error(step["error"]) if step["error"] else Text(_short(step["output"]) if step["ended_ms"] else "")
        table.add_row(
            Text(step["name"], "bold"),
            status_text(step["status"]),
            Text(_bar(started, ended, begin, end), COLOURS.get(step["status"], "white")),
            f"+{duration_text(started - begin)}",
            duration_text(ended - started),
            result,
        )
    console.print(table)
    if run["error"]:
        console.print(Text("error   "), _error(run["error"]))
    elif run["status"] == "completed":
        console.print(Text("output  "), Text(_short(run["output"], 500)))
    if run["cancelled_by"]:
        console.print(f"cancelled by {run['cancelled_by']}")


def _attempt_row(table: Table, name: str, attempt: dict[str, Any], begin: int, end: int) -> None:
    started, ended = attempt["started_ms"], attempt["ended_ms"]
    label = "lost, made again" if attempt["kind"] == "lost" else f"attempt {attempt['attempt'] + 1}"
    bar = Text(_bar(started, ended, begin, end), "red dim")
    table.add_row(
        Text(name, "dim"),
        Text(label, "dim"),
        bar,
        f"+{duration_text(started - begin)}",
        duration_text(ended - started),
        _error(attempt["error"]),
    )


def _bar(started: int, ended: int, begin: int, end: int) -> str:
    whole = max(1, end - begin)
    left = min(BAR - 1, (started - begin) * BAR // whole)
    size = max(1, min(BAR - left, (ended - started) * BAR // whole))
    return " " * left + "━" * size + " " * (BAR - left - size)


def _error(error: Any) -> Text:
    if isinstance(error, dict):
        return Text(f"{error.get('name', 'Error')}: {error.get('message', '')}"[:300], "red")
    return Text(_short(error), "red")


def _short(value: Any, most: int = 80) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[: most - 1] + "…"


def print_why(why: dict[str, Any]) -> None:
    """What a run waits for: the sentence, then who holds what it wants."""
    console = _console()
    console.print(escape(why["sentence"]))
    for run_id in why["holders"]:
        console.print(f"  held by {run_id}", style="dim")
