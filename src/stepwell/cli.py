"""The command line: arguments and wiring, nothing else. Exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stepwell.cli_apps import apps, functions
from stepwell.cli_doctor import doctor, keys
from stepwell.cli_queues import queues
from stepwell.cli_remote import URL_DEFAULT, ask, remote
from stepwell.cli_workers import workers
from stepwell.engine.registry import STATE_BYTES_CEILING, STATE_BYTES_MAX, STEPS_CEILING, STEPS_MAX
from stepwell.errors import Error, UsageError
from stepwell.protocol.events import EVENT_BYTES_MAX
from stepwell.server.settings import Setting, Size, defaults_of, read_file, shown_size

if TYPE_CHECKING:
    from stepwell.server.host import HostOptions


class _Group(click.Group):
    """Errors of ours are a sentence and an exit code, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error)) from None
        except Error as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stepwell")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="STEPWELL_CONFIG",
    help="A file of settings, in place of stepwell.toml or pyproject.toml.",
)
@click.pass_context
def main(ctx: click.Context, config: Path | None) -> None:
    """Durable background jobs and workflows. Start with `stepwell dev`."""
    if ctx.invoked_subcommand in ("dev", "start", "doctor", "keys"):
        ctx.obj = read_file(Path.cwd(), config)
        ctx.default_map = defaults_of(ctx.obj, (dev, start))


def _serving(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `dev` and `start` share."""
    for option in reversed(
        (
            click.option("--port", default=8288, show_default=True, cls=Setting, help="The port; 0 picks a free one and prints it."),
            click.option("--host", default="127.0.0.1", show_default=True, cls=Setting, help="The address to listen at."),
            click.option(
                "--db",
                type=click.Path(path_type=Path, dir_okay=False),
                default=Path(".stepwell/stepwell.db"),
                show_default=True,
                cls=Setting,
                help="The database file.",
            ),
            click.option(
                "--retry-interval", type=click.FloatRange(0), cls=Setting, help="Seconds between retries, in place of the backoff table."
            ),
            click.option("-u", "--url", "urls", multiple=True, cls=Setting, help="An app's URL to sync; may be given several times."),
            click.option(
                "--children", default=2, type=click.IntRange(1), show_default=True, cls=Setting, help="Child processes that run APP."
            ),
            click.option("--no-poll", is_flag=True, cls=Setting, help="Do not sync known apps again and again."),
            click.option(
                "--connect-gateway-port",
                "connect_port",
                type=int,
                cls=Setting,
                help="The port that workers connect to; 8289 unless it is taken.",
            ),
            click.option(
                "--connect-gateway-url",
                "connect_url",
                cls=Setting,
                help="The gateway's ws:// or wss:// address, where a proxy stands before it.",
            ),
            click.option(
                "--connect-lease", "connect_lease_s", type=float, cls=Setting, help="Seconds a worker may be silent about a call; 30."
            ),
            click.option(
                "--max-steps",
                type=click.IntRange(1, STEPS_CEILING),
                default=STEPS_MAX,
                show_default=True,
                cls=Setting,
                help="Steps that one run may have.",
            ),
            click.option(
                "--max-state",
                type=Size(1024, STATE_BYTES_CEILING),
                default=shown_size(STATE_BYTES_MAX),
                show_default=True,
                cls=Setting,
                help="Output of all steps that one run may have.",
            ),
            click.option(
                "--max-event",
                type=Size(1024, EVENT_BYTES_MAX),
                default=shown_size(EVENT_BYTES_MAX),
                show_default=True,
                cls=Setting,
                help="The size of one event.",
            ),
            click.option(
                "--max-queued", "queued_max", type=click.IntRange(1), cls=Setting, help="Items that may wait; then events get 429."
            ),
            click.option(
                "--max-queued-per-function",
                "queued_per_function_max",
                type=click.IntRange(1),
                cls=Setting,
                help="Items of one function that may wait; then events that start it get 429.",
            ),
            click.option(
                "--tick",
                "--queue-workers",
                type=float,
                hidden=True,
                expose_value=False,
                help="Taken for the sake of scripts; has no effect.",
            ),
        )
    ):
        command = option(command)
    return command


def _polling(default_s: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--poll-interval",
        type=click.FloatRange(0.1),
        default=default_s,
        show_default=True,
        cls=Setting,
        help="Seconds between syncs of known apps.",
    )


@main.command()
@click.argument("app", required=False, envvar="STEPWELL_APP")
@_serving
@_polling(5.0)
@click.option("--no-discovery", is_flag=True, cls=Setting, help="Do not look for apps on this machine's usual ports.")
def dev(app: str | None, host: str, no_discovery: bool, **shared: Any) -> None:
    """A server for development: no keys, bound to this machine.

    APP is `file.py[:name]` or `module:name`; it reloads when its code changes.
    """
    if host not in ("127.0.0.1", "::1", "localhost"):
        click.echo(f"Warning: a dev server asks for no keys, and --host {host} lets others reach it.", err=True)
    _serve(_host_options(kind="dev", app=app, host=host, reload=True, discover=not no_discovery, **shared))


@main.command()
@click.argument("app", required=False, envvar="STEPWELL_APP")
@_serving
@_polling(60.0)
@click.option(
    "--event-key",
    "event_keys",
    multiple=True,
    cls=Setting,
    also=(("STEPWELL_EVENT_KEY",), ("INNGEST_EVENT_KEY",)),
    help="A key that events may be sent with; may be given several times.",
)
@click.option(
    "--signing-key",
    "signing_keys",
    multiple=True,
    cls=Setting,
    also=(("STEPWELL_SIGNING_KEY", "STEPWELL_SIGNING_KEY_FALLBACK"), ("INNGEST_SIGNING_KEY", "INNGEST_SIGNING_KEY_FALLBACK")),
    help="The key that calls and syncs are signed with; further ones are taken from apps that still have them.",
)
@click.option("--admin-token", cls=Setting, help="The token that the page and /api ask for.")
@click.option("--public-requests-only", is_flag=True, cls=Setting, help="Let fetch and ai.infer steps go to no private address.")
def start(
    app: str | None, db: Path, event_keys: tuple[str, ...], signing_keys: tuple[str, ...], admin_token: str | None, **shared: Any
) -> None:
    """A server for production: keys and login. Keys that are not given are made once, and kept beside the database.

    APP is `file.py[:name]` or `module:name`. SIGHUP has the kept keys read anew.
    """
    from stepwell.server.auth import Given, KeyFile

    file = KeyFile(db, Given.checked(event_keys, signing_keys, admin_token))
    if (made := file.made()) is not None:
        click.echo(f"Made keys in {file.path}; this is the only time they are shown:")
        click.echo(f"  event key    {made.event_keys[0]}\n  signing key  {made.signing_key}\n  admin token  {made.admin_token}")
    _serve(_host_options(kind="cloud", app=app, db=db, keys=file.keys(), read_keys=file.keys, **shared))


def _host_options(
    *,
    retry_interval: float | None,
    no_poll: bool,
    poll_interval: float,
    max_steps: int,
    max_state: int,
    max_event: int,
    app: str | None,
    children: int,
    reload: bool = False,
    **more: Any,
) -> HostOptions:
    from stepwell.engine.registry import Settings
    from stepwell.server.host import HostOptions
    from stepwell.server.programs import Program, folder_of

    programs = () if app is None else (Program(target=app, children=children, reload=folder_of(app) if reload else None),)
    retry_ms = None if retry_interval is None else int(retry_interval * 1000)
    return HostOptions(
        settings=Settings(retry_interval_ms=retry_ms, steps_max=max_steps, state_bytes_max=max_state),
        event_bytes_max=max_event,
        poll_s=None if no_poll else poll_interval,
        programs=programs,
        **more,
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


def _serve(options: Any) -> None:
    import uvloop

    from stepwell.server.host import run_host

    uvloop.run(run_host(options, say=lambda line: click.echo(line)))


# Talking to a server


@main.command()
@click.argument("name")
@click.argument("data", default="{}")
@click.option("--id", "event_id", help="The event's own id: a second one with it starts nothing.")
@remote
def send(name: str, data: str, event_id: str | None, url: str, token: str | None, as_json: bool) -> None:
    """Send an event: `stepwell send shop/order.paid '{"order_id": "o-1"}'`."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise UsageError(f"DATA is not JSON: {error}") from None
    event = {"name": name, "data": value, **({"id": event_id} if event_id else {})}
    answer = ask(url, token, "POST", "/api/events", json.dumps(event).encode())
    click.echo(json.dumps(answer) if as_json else "\n".join(answer["ids"]))


@main.group()
def runs() -> None:
    """Look at runs, pause them, cancel them, run them again."""


@runs.command("list")
@click.option("--status", help="Only runs with this status.")
@click.option("--function", help="Only runs of this function (its composite id).")
@click.option("--limit", default=20, show_default=True)
@remote
def list_runs(status: str | None, function: str | None, limit: int, url: str, token: str | None, as_json: bool) -> None:
    """Runs, newest first."""
    from stepwell.server.terminal import print_runs

    query = urllib.parse.urlencode({name: value for name, value in (("status", status), ("function", function), ("limit", limit)) if value})
    answer = ask(url, token, "GET", f"/api/runs?{query}")
    click.echo(json.dumps(answer)) if as_json else print_runs(answer["runs"])


@runs.command("show")
@click.argument("run_id")
@remote
def show_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """A run's trace."""
    from stepwell.server.terminal import print_trace

    answer = ask(url, token, "GET", f"/api/runs/{urllib.parse.quote(run_id, safe='')}")
    click.echo(json.dumps(answer)) if as_json else print_trace(answer)


@runs.command("why")
@click.argument("run_id")
@remote
def why_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """What a run waits for, and for whom."""
    from stepwell.server.terminal import print_why

    answer = ask(url, token, "GET", f"/api/runs/{urllib.parse.quote(run_id, safe='')}/why")
    click.echo(json.dumps(answer)) if as_json else print_why(answer)


@runs.command("cancel")
@click.argument("run_id")
@remote
def cancel_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """End a run."""
    answer = ask(url, token, "POST", f"/api/runs/{urllib.parse.quote(run_id, safe='')}/cancel", b"")
    click.echo(json.dumps(answer) if as_json else answer["status"])


@runs.command("pause")
@click.argument("run_id")
@remote
def pause_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """Call it no more until it is resumed."""
    answer = ask(url, token, "POST", f"/api/runs/{urllib.parse.quote(run_id, safe='')}/pause", b"")
    click.echo(json.dumps(answer) if as_json else answer["paused"])


@runs.command("resume")
@click.argument("run_id")
@remote
def resume_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """Have a paused run go on."""
    answer = ask(url, token, "POST", f"/api/runs/{urllib.parse.quote(run_id, safe='')}/resume", b"")
    click.echo(json.dumps(answer) if as_json else "resumed")


@runs.command("rerun")
@click.argument("run_id")
@remote
def rerun_run(run_id: str, url: str, token: str | None, as_json: bool) -> None:
    """Run it again with the same events."""
    answer = ask(url, token, "POST", f"/api/runs/{urllib.parse.quote(run_id, safe='')}/rerun", b"")
    click.echo(json.dumps(answer) if as_json else answer["run_id"])


for command in (apps, functions, queues, doctor, keys, workers):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
