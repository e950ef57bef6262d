"""The command line: arguments and wiring, nothing else. Exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stepwell.errors import Error, UsageError

URL_DEFAULT = "http://127.0.0.1:8288"


class _Group(click.Group):
    """Errors of ours are a sentence and an exit code, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error)) from None
        except Error as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Group, context_settings={"auto_envvar_prefix": "STEPWELL", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stepwell")
def main() -> None:
    """Durable background jobs and workflows. Start with `stepwell dev`."""


def _serving(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `dev` and `start` share."""
    for option in (
        click.option("--port", default=8288, show_default=True, help="The port; 0 picks a free one and prints it."),
        click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at."),
        click.option(
            "--db",
            type=click.Path(path_type=Path, dir_okay=False),
            default=Path(".stepwell/stepwell.db"),
            show_default=True,
            help="The database file.",
        ),
        click.option("--retry-interval", type=float, help="Seconds between retries, in place of the backoff table."),
        click.option("-u", "--url", "urls", multiple=True, help="An app's URL to sync; may be given several times."),
        click.option("--children", default=2, show_default=True, help="Child processes that run APP."),
        click.option("--connect-gateway-port", "connect_port", type=int, help="The port that workers connect to; 8289 unless it is taken."),
        click.option("--connect-gateway-url", "connect_url", help="The gateway's ws:// or wss:// address, where a proxy stands before it."),
        click.option("--connect-lease", "connect_lease", type=float, help="Seconds a worker may be silent about a call; 30."),
        click.option("--poll-interval", type=float, default=5.0, show_default=True, help="Seconds between syncs of known apps."),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("app", required=False)
@_serving
@click.option("--no-discovery", is_flag=True, help="Do not look for apps on this machine's usual ports.")
@click.option("--no-poll", is_flag=True, help="Do not sync known apps again and again.")
def dev(
    app: str | None,
    children: int,
    port: int,
    host: str,
    db: Path,
    retry_interval: float | None,
    urls: tuple[str, ...],
    poll_interval: float,
    connect_port: int | None,
    connect_url: str | None,
    connect_lease: float | None,
    no_discovery: bool,
    no_poll: bool,
) -> None:
    """A server for development: no keys, bound to this machine.

    APP is `file.py[:name]` or `module:name`; it reloads when its code changes.
    """
    from stepwell.server.host import HostOptions

    if host not in ("127.0.0.1", "::1", "localhost"):
        click.echo(f"Warning: a dev server asks for no keys, and --host {host} lets others reach it.", err=True)
    _serve(
        HostOptions(
            kind="dev",
            app=app,
            children=children,
            reload=app is not None,
            db=db,
            host=host,
            port=port,
            urls=urls,
            discover=not no_discovery,
            poll_s=None if no_poll else poll_interval,
            retry_interval_ms=_ms(retry_interval),
            connect_port=connect_port,
            connect_url=connect_url,
            connect_lease_s=connect_lease,
        )
    )


@main.command()
@click.argument("app", required=False)
@_serving
@click.option("--event-key", "event_keys", multiple=True, help="A key that events may be sent with.")
@click.option("--signing-key", help="The key that calls and syncs are signed with.")
@click.option("--admin-token", help="The token that the page and /api ask for.")
@click.option("--public-requests-only", is_flag=True, help="Let fetch and ai.infer steps go to no private address.")
def start(
    app: str | None,
    children: int,
    port: int,
    host: str,
    db: Path,
    retry_interval: float | None,
    urls: tuple[str, ...],
    poll_interval: float,
    connect_port: int | None,
    connect_url: str | None,
    connect_lease: float | None,
    event_keys: tuple[str, ...],
    signing_key: str | None,
    admin_token: str | None,
    public_requests_only: bool,
) -> None:
    """A server for production: keys and login. Keys that are not given are made once, and kept beside the database."""
    import msgspec

    from stepwell.server.auth import checked_signing_key, generated
    from stepwell.server.host import HostOptions

    directory = Path(f"{db}.d")
    keys, new = generated(directory)
    if new:
        click.echo(f"Made keys in {directory / 'keys.json'}; this is the only time they are shown:")
        click.echo(f"  event key    {keys.event_keys[0]}\n  signing key  {keys.signing_key}\n  admin token  {keys.admin_token}")
    keys = msgspec.structs.replace(
        keys,
        event_keys=event_keys or keys.event_keys,
        signing_key=checked_signing_key(signing_key or keys.signing_key or ""),
        admin_token=admin_token or keys.admin_token,
    )
    _serve(
        HostOptions(
            kind="cloud",
            app=app,
            children=children,
            db=db,
            host=host,
            port=port,
            urls=urls,
            poll_s=poll_interval,
            retry_interval_ms=_ms(retry_interval),
            public_requests_only=public_requests_only,
            connect_port=connect_port,
            connect_url=connect_url,
            connect_lease_s=connect_lease,
            keys=keys,
        )
    )


@main.command()
@click.argument("app")
@click.option("--url", envvar="STEPWELL_URL", default=URL_DEFAULT, show_default=True, help="The server.")
@click.option("--max-concurrency", type=int, help="Calls at a time; 100 unless said, 0 for no limit.")
@click.option("--instance-id", help="The worker's name; host and process unless said.")
@click.option("--app-version", help="The app's version: while several are connected, the newest gets the calls.")
@click.option("--signing-key", envvar="STEPWELL_SIGNING_KEY", help="The server's signing key, where it has one.")
@click.option("--drain", "drain_s", default=30.0, show_default=True, help="Seconds that calls in hand may go on when it is stopped.")
def worker(
    app: str,
    url: str,
    max_concurrency: int | None,
    instance_id: str | None,
    app_version: str | None,
    signing_key: str | None,
    drain_s: float,
) -> None:
    """Run APP here for a server elsewhere: the worker connects to it, and needs no address of its own."""
    import uvloop

    from stepwell.sdk.connect import connect
    from stepwell.sdk.target import load_app

    loaded = load_app(app)
    loaded.signing_key = signing_key or loaded.signing_key
    say = lambda line: click.echo(line)  # noqa: E731
    made = connect(loaded, url=url, max_concurrency=max_concurrency, instance_id=instance_id, version=app_version, say=say)

    async def run() -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        running = asyncio.create_task(made.run())
        await asyncio.wait([running, asyncio.create_task(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            click.echo("Stopping: calls in hand go on, no new ones are taken")
            await made.stop(drain_s)
        await running

    uvloop.run(run())


def _ms(seconds: float | None) -> int | None:
    if seconds is not None and seconds < 0:
        raise UsageError(f"--retry-interval is {seconds}; it must be 0 or more seconds")
    return None if seconds is None else int(seconds * 1000)


def _serve(options: Any) -> None:
    import uvloop

    from stepwell.server.host import run_host

    uvloop.run(run_host(options, say=lambda line: click.echo(line)))


# Talking to a server


def _remote(command: Callable[..., None]) -> Callable[..., None]:
    """The options of commands that talk to a server."""
    for option in (
        click.option("--url", envvar="STEPWELL_URL", default=URL_DEFAULT, show_default=True, help="The server."),
        click.option("--token", envvar="STEPWELL_ADMIN_TOKEN", help="The admin token, where the server asks for one."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ):
        command = option(command)
    return command


def _ask(url: str, token: str | None, method: str, path: str, body: bytes | None = None) -> Any:
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url.rstrip("/") + path, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        try:
            message = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            message = text[:300] or f"HTTP {error.code}"
        raise Error(message) from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Error(f"the server {url} could not be reached: {getattr(error, 'reason', error)}. Is it running? (`stepwell dev`)") from None


@main.command()
@click.argument("name")
@click.argument("data", default="{}")
@click.option("--id", "event_id", help="The event's own id: a second one with it starts nothing.")
@_remote
def send(name: str, data: str, event_id: str | None, url: str, token: str | None, as_json: bool) -> None:
    """Send an event: `stepwell send shop/order.paid '{"order_id": "o-1"}'`."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise UsageError(f"DATA is not JSON: {error}") from None
    event = {"name": name, "data": value, **({"id": event_id} if event_id else {})}
    answer = _ask(url, token, "POST", "/api/events", json.dumps(event).encode())
    click.echo(json.dumps(answer) if as_json else "\n".join(answer["ids"]))


@main.group()
def runs() -> None:
    """Look at runs, cancel them, run them again."""


@runs.command("list")
@click.option("--status", help="Only runs with this status.")
@click.option("--function", help="Only runs of this function (its composite id).")
@click.option("--limit", default=20, show_default=True)
@_remote
def list_runs(status: str | None, function: str | None, limit: int, url: str, token: str | None, as_json: bool) -> None:
    """Runs, newest first."""
    from stepwell.server.terminal import print_runs

    query = urllib.parse.urlencode({name: value for name, value in (("status", status), ("function", function), ("limit", limit)) if value})
    answer = _ask(url, token, "GET", f"/api/runs?{query}")
    click.echo(json.dumps(answer)) if as_json else print_runs(answer["runs"])


@runs.command("show")
@click.argument("run_id")
@_remote
def show_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """A run's trace."""
    from stepwell.server.terminal import print_trace

    answer = _ask(url, token, "GET", f"/api/runs/{urllib.parse.quote(run_id, safe='')}")
    click.echo(json.dumps(answer)) if as_json else print_trace(answer)


@runs.command("cancel")
@click.argument("run_id")
@_remote
def cancel_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """End a run."""
    answer = _ask(url, token, "POST", f"/api/runs/{urllib.parse.quote(run_id, safe='')}/cancel", b"")
    click.echo(json.dumps(answer) if as_json else answer["status"])


@runs.command("rerun")
@click.argument("run_id")
@_remote
def rerun_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """Run it again with the same events."""
    answer = _ask(url, token, "POST", f"/api/runs/{urllib.parse.quote(run_id, safe='')}/rerun", b"")
    click.echo(json.dumps(answer) if as_json else answer["run_id"])


if __name__ == "__main__":
    sys.exit(main())
