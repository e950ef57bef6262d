"""`stepwell apps` and `stepwell fn`: what a server knows, one app more, one less, and functions that are held."""

from __future__ import annotations

import json
from urllib.parse import quote

import click

from stepwell.cli_remote import ask, remote
from stepwell.errors import UsageError


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
    """Look at functions, pause, drain and resume them, change their limits."""


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


@functions.command("limit")
@click.argument("function")
@click.option("--concurrency", "limits", multiple=True, help="The limit, or PLACE=LIMIT where there are two, counted from 0; 0 is none.")
@click.option("--throttle", help="LIMIT/PERIOD, like 10/1m, and +BURST where some may come at once: 10/1m+5.")
@click.option("--weight", type=click.IntRange(1, 100), help="The share beside other functions of its app.")
@click.option("--pin", is_flag=True, help="Keep it, whatever the app tells at its next sync.")
@click.option("--reset", is_flag=True, help="Back to what the app told.")
@remote
def limit_function(
    function: str,
    limits: tuple[str, ...],
    throttle: str | None,
    weight: int | None,
    pin: bool,
    reset: bool,
    url: str,
    token: str | None,
    as_json: bool,
) -> None:
    """Give FUNCTION other limits, at once and for queued work too, until its app tells others."""
    path = f"/api/functions/{quote(function, safe='')}/limits"
    if reset:
        answer = ask(url, token, "DELETE", path)
    else:
        body: dict[str, object] = {"concurrency": dict(map(_limit, limits)), "pin": pin}
        if throttle is not None:
            body["throttle"] = _throttle(throttle)
        if weight is not None:
            body["weight"] = weight
        answer = ask(url, token, "POST", path, json.dumps(body).encode())
    told = "has the limits that its app told" if answer["override"] is None else f"has other limits: {json.dumps(answer['override'])}"
    click.echo(json.dumps(answer) if as_json else f"{function} {told}")


def _limit(text: str) -> tuple[str, int]:
    place, _, limit = text.rpartition("=")
    if not limit.isdigit() or not (place or "0").isdigit():
        raise UsageError(f"--concurrency {text!r} is neither a number nor PLACE=LIMIT, like 3 or 1=5")
    return place or "0", int(limit)


def _throttle(text: str) -> dict[str, object]:
    rate, _, burst = text.partition("+")
    limit, _, period = rate.partition("/")
    if not limit.isdigit() or not period or not (burst or "0").isdigit():
        raise UsageError(f"--throttle {text!r} is not LIMIT/PERIOD, like 10/1m or 10/1m+5")
    return {"limit": int(limit), "period": period, **({"burst": int(burst)} if burst else {})}
