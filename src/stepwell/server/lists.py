"""Apps, functions and what `stepwell doctor` found, drawn in a terminal."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepwell.server.doctor import Check
from stepwell.server.settings import Effective

STATES = {"ok": "green", "warn": "yellow", "fail": "red"}


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def moment(ms: int) -> str:
    """A time, for people."""
    return datetime.fromtimestamp(ms / 1000).strftime("%d %b %H:%M:%S")


def print_apps(answer: dict[str, Any]) -> None:
    """The apps, and the URLs that could not be synced with what is wrong."""
    table = _table("App", "Functions", "SDK", "Synced", "URL")
    for app in answer["apps"]:
        where = app["url"] or f"({app['driver']})"
        table.add_row(app["name"], str(app["functions"]), app["sdk"], moment(app["synced_ms"]), where)
        if app["error"]:
            table.add_row("", "", "", moment(app["error_ms"]), Text(app["error"], "red"))
    for one in answer["not_synced"]:
        table.add_row("–", "", "", moment(one["error_ms"]), Text(f"{one['url']}: {one['error']}", "red"))
    Console().print(table if answer["apps"] or answer["not_synced"] else "No apps yet. `stepwell apps sync URL` adds one.")


def print_functions(functions: list[dict[str, Any]]) -> None:
    """The functions, with what starts them."""
    table = _table("Function", "App", "Triggers", "Waiting", "Version")
    for one in functions:
        told = ", ".join(one["triggers"]) or "(invoked only)"
        held = " (paused)" if one["paused"] else " (draining)" if one["draining"] else ""
        table.add_row(one["id"], one["app"], told + held, str(one["waiting"]), str(one["version"]))
    Console().print(table if functions else "No functions yet.")


def print_checks(versions: dict[str, str], settings: list[Effective], checks: list[Check]) -> None:
    """What `stepwell doctor` found."""
    out = Console()
    out.print(", ".join(f"{name} {version}" for name, version in versions.items()))
    table = _table("Setting", "Value", "From")
    for one in settings:
        shown = ", ".join(one.value) if isinstance(one.value, tuple) else "–" if one.value is None else str(one.value)
        table.add_row(one.name.replace("_", "-"), shown or "–", Text(one.source, "dim"))
    out.print(table)
    table = _table("Check", "", "Found")
    for check in checks:
        table.add_row(check.name, Text(check.state, STATES[check.state]), check.detail + (f" → {check.fix}" if check.fix else ""))
    out.print(table)
