"""`stepwell apps` and `stepwell fn`: what a server knows, one app more, one less, and functions that are held."""

from __future__ import annotations

import json
from urllib.parse import quote

import click

from stepwell.cli_remote import ask, remote


@click.group()
def apps() -> None:
    """Look at apps, sync them, remove them."""


@apps.command("list")
@remote
def list_apps(url: str, token: str | None, as_json: bool) -> None:
    """The apps that are known, and the URLs that could not be synced."""
    from stepwell.server.lists import print_apps

    answer = ask(url, token, "GET", "/api/apps")
    click.echo(json.dumps(answer)) if as_json else print_apps(answer)


@apps.command("sync")
@click.argument("app")
@remote
def sync_app(app: str, url: str, token: str | None, as_json: bool) -> None:
    """Sync APP: the URL of a new app, or the name of one that is known."""
    if "://" in app:
        answer = ask(url, token, "POST", "/api/apps", json.dumps({"url": app}).encode())
    else:
        answer = ask(url, token, "POST", f"/api/apps/{quote(app, safe='')}/sync", b"")
    click.echo(json.dumps(answer) if as_json else f"{answer['url']} is synced")


@apps.command("remove")
@click.argument("name")
@remote
def remove_app(name: str, url: str, token: str | None, as_json: bool) -> None:
    """Know the app NAME no longer: nothing starts its functions any more, what runs goes on."""
    answer = ask(url, token, "DELETE", f"/api/apps/{quote(name, safe='')}")
    click.echo(json.dumps(answer) if as_json else f"{name} is removed, with {answer['functions']} functions")


@click.group("fn")
def functions() -> None:
    """Look at functions, pause, drain and resume them."""


@functions.command("list")
@remote
def list_functions(url: str, token: str | None, as_json: bool) -> None:
    """The functions that are synced, with what starts them."""
    from stepwell.server.lists import print_functions

    answer = ask(url, token, "GET", "/api/functions")
    click.echo(json.dumps(answer)) if as_json else print_functions(answer["functions"])


def _hold(name: str, what: str, url: str, token: str | None, as_json: bool) -> None:
    answer = ask(url, token, "POST", f"/api/functions/{quote(name, safe='')}/{what}", b"")
    click.echo(json.dumps(answer) if as_json else f"{name} is {answer['mode']}")


@functions.command("pause")
@click.argument("function")
@remote
def pause_function(function: str, url: str, token: str | None, as_json: bool) -> None:
    """Call FUNCTION no more, until it is resumed; calls that are out finish, runs wait."""
    _hold(function, "pause", url, token, as_json)


@functions.command("drain")
@click.argument("function")
@remote
def drain_function(function: str, url: str, token: str | None, as_json: bool) -> None:
    """Begin no run of FUNCTION, until it is resumed; those that have begun go on to their end."""
    _hold(function, "drain", url, token, as_json)


@functions.command("resume")
@click.argument("function")
@remote
def resume_function(function: str, url: str, token: str | None, as_json: bool) -> None:
    """Go on with FUNCTION."""
    _hold(function, "resume", url, token, as_json)
