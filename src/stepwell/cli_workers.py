"""`stepwell workers`: projects for Cloudflare's Workers, run here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.durations import parse_duration_ms

if TYPE_CHECKING:
    from stepwell.workers.limits import Limits

PORT = 8787


@click.group()
def workers() -> None:
    """Run projects for Cloudflare's Workers, in Python."""


@workers.command("dev")
@click.argument("dirs", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[DIR]...")
@click.option("--env", "environment", help="The environment of the wrangler files, in place of their top.")
@click.option(
    "--port", default=PORT, show_default=True, help="The first project's address; the next ones follow. 0: free ones, which are printed."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--server-port", type=int, help="The page's and the API's; 8288 unless it is taken.")
@click.option("--db", type=click.Path(path_type=Path, dir_okay=False), help="The database file; in .stepwell of the first DIR unless said.")
@click.option("--children", default=2, type=click.IntRange(1), show_default=True, help="Processes for each of fetch and queue.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="WHAT=DURATION",
    help="A limit of handlers, like queue.cpu=30s: fetch, queue, scheduled or alarm, .cpu or .wall; or wait-until.",
)
@click.option("--cloudflare-limits", is_flag=True, help="The limits of Cloudflare's platform.")
def dev(
    dirs: tuple[Path, ...],
    environment: str | None,
    port: int,
    host: str,
    server_port: int | None,
    db: Path | None,
    children: int,
    limits: tuple[str, ...],
    cloudflare_limits: bool,
) -> None:
    """Run projects as they are: their fetch, queue and scheduled handlers, each in processes of its own.

    DIR holds a project's wrangler file; the current folder unless one is given.
    """
    import uvloop

    from stepwell.workers.dev import DevOptions, run

    if limits and cloudflare_limits:
        raise UsageError("give --limit or --cloudflare-limits, not both")
    options = DevOptions(
        places=dirs or (Path("."),),
        environment=environment,
        port=port,
        host=host,
        server_port=server_port,
        db=db,
        children=children,
        limits=None if cloudflare_limits else read_limits(limits),
    )
    uvloop.run(run(options, say=lambda line: click.echo(line)))


def read_limits(told: tuple[str, ...]) -> Limits:
    """The limits that options name; none are set else. Raises `UsageError`."""
    import msgspec

    from stepwell.workers.limits import Limits

    limits = Limits()
    for one in told:
        what, _, value = one.partition("=")
        kind, _, sort = what.partition(".")
        try:
            seconds = parse_duration_ms(value) / 1000
        except ProtocolError as error:
            raise UsageError(f"--limit {one}: {error}") from None
        if what == "wait-until":
            limits = msgspec.structs.replace(limits, wait_until_s=seconds)
        elif kind in ("fetch", "queue", "scheduled", "alarm") and sort in ("cpu", "wall"):
            changed = msgspec.structs.replace(getattr(limits, kind), **{f"{sort}_s": seconds})
            limits = msgspec.structs.replace(limits, **{kind: changed})
        else:
            raise UsageError(f"--limit {one}: {what!r} is none of fetch, queue, scheduled or alarm with .cpu or .wall, or wait-until")
    return limits
