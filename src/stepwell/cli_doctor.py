"""`stepwell doctor` and `stepwell keys`: what holds on this machine, and the keys that are kept here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stepwell.errors import Error, UsageError
from stepwell.server.settings import Effective, SettingsFile, effective

if TYPE_CHECKING:
    from stepwell.server.auth import KeyFile, Keys

DB_DEFAULT = Path(".stepwell/stepwell.db")
KINDS = ("signing", "event", "admin")


def settings_of(ctx: click.Context, command: str) -> list[Effective]:
    """A command's settings as they would hold here and now."""
    parent = ctx.parent
    assert parent is not None and isinstance(parent.command, click.Group) and isinstance(ctx.obj, SettingsFile)
    inner = parent.command.commands[command]
    with inner.make_context(command, [], parent=parent) as made:
        return effective(made, ctx.obj)


@click.command()
@click.option("--of", "command", type=click.Choice(("start", "dev")), default="start", show_default=True, help="Whose settings are shown.")
@click.option("--db", type=click.Path(path_type=Path, dir_okay=False), help="The database file, in place of the one that is set.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, command: str, db: Path | None, as_json: bool) -> None:
    """The settings with their sources, and the health of the database and its apps. Exit code 1 where something is wrong."""
    from stepwell.server.doctor import examined, versions
    from stepwell.server.lists import print_checks

    settings = settings_of(ctx, command)
    checks = examined(db or Path(next(str(one.value) for one in settings if one.name == "db")))
    if as_json:
        told = {
            "versions": versions(),
            "settings": [{"name": one.name, "value": one.value, "source": one.source} for one in settings],
            "checks": [{"name": one.name, "state": one.state, "detail": one.detail, "fix": one.fix} for one in checks],
        }
        click.echo(json.dumps(told))
    else:
        print_checks(versions(), settings, checks)
    ctx.exit(1 if any(one.state == "fail" for one in checks) else 0)


@click.group()
def keys() -> None:
    """The keys that `stepwell start` keeps beside its database."""


def _db(ctx: click.Context, db: Path | None) -> Path:
    return db or Path(next((str(one.value) for one in settings_of(ctx.parent or ctx, "start") if one.name == "db"), str(DB_DEFAULT)))


@keys.command("show")
@click.option("--db", type=click.Path(path_type=Path, dir_okay=False), help="The database file, in place of the one that is set.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show_keys(ctx: click.Context, db: Path | None, as_json: bool) -> None:
    """Print them. Whoever may read the file may see them."""
    _, kept = _kept(_db(ctx, db))
    told = {"event_keys": kept.event_keys, "signing_keys": kept.signing_keys(), "admin_token": kept.admin_token}
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, values in (("event key", kept.event_keys), ("signing key", kept.signing_keys()), ("admin token", (kept.admin_token,))):
        for n, value in enumerate(values):
            click.echo(f"{name:12} {value}{' (older, still taken)' if n else ''}")


@keys.command("rotate")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--db", type=click.Path(path_type=Path, dir_okay=False), help="The database file, in place of the one that is set.")
@click.pass_context
def rotate_keys(ctx: click.Context, kind: str, db: Path | None) -> None:
    """Make a new key. The one before is taken too, until `stepwell keys retire`; an admin token holds alone at once."""
    import msgspec

    from stepwell.server.auth import new_event_key, new_signing_key, new_token

    place = _db(ctx, db)
    file, kept = _kept(place)
    match kind:
        case "signing":
            made = new_signing_key()
            changed = msgspec.structs.replace(kept, signing_key=made, fallback_keys=kept.signing_keys())
        case "event":
            made = new_event_key()
            changed = msgspec.structs.replace(kept, event_keys=(made, *kept.event_keys))
        case _:
            made = new_token()
            changed = msgspec.structs.replace(kept, admin_token=made)
    file.write(changed)
    click.echo(made)
    _tell(place)


@keys.command("retire")
@click.argument("kind", type=click.Choice(KINDS[:2]))
@click.option("--db", type=click.Path(path_type=Path, dir_okay=False), help="The database file, in place of the one that is set.")
@click.pass_context
def retire_keys(ctx: click.Context, kind: str, db: Path | None) -> None:
    """Take none but the newest key from now on."""
    import msgspec

    place = _db(ctx, db)
    file, kept = _kept(place)
    older = kept.fallback_keys if kind == "signing" else kept.event_keys[1:]
    if not older:
        raise UsageError(f"there is no older {kind} key")
    changes = {"fallback_keys": ()} if kind == "signing" else {"event_keys": kept.event_keys[:1]}
    file.write(msgspec.structs.replace(kept, **changes))
    click.echo(f"{len(older)} older {kind} {'key is' if len(older) == 1 else 'keys are'} taken no longer")
    _tell(place)


def _kept(db: Path) -> tuple[KeyFile, Keys]:
    from stepwell.server.auth import KeyFile

    file = KeyFile(db)
    if not file.path.exists():
        raise Error(f"no keys are kept in {file.path}: `stepwell start` makes them, where none are given to it")
    return file, file.kept()


def _tell(db: Path) -> None:
    """How a running server comes to know."""
    from stepwell.store.sqlite_health import owner

    if (pid := owner(db)) is not None:
        click.echo(f"The server runs (process {pid}): `kill -HUP {pid}` has it read them now", err=True)
