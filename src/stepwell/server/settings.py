"""Where a server's settings come from: the command line, else the environment, else a file, else their defaults.

A file is `stepwell.toml`, or `[tool.stepwell]` of `pyproject.toml`, in the folder where the command is given. Its keys are the options'
names; what stands in a table `[dev]` or `[start]` is that command's alone.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from stepwell.errors import UsageError

FILES = ("stepwell.toml", "pyproject.toml")
SECRET = frozenset(("event_keys", "signing_keys", "admin_token"))
"""Settings whose values are never shown."""

_SIZE = re.compile(r"([0-9]+)\s*(B|KB|KIB|MB|MIB|GB|GIB)?", re.IGNORECASE)
_UNITS = {"": 1, "B": 1, "KB": 10**3, "KIB": 2**10, "MB": 10**6, "MIB": 2**20, "GB": 10**9, "GIB": 2**30}


class Setting(click.Option):
    """An option that is also a variable: `STEPWELL_START_PORT` of one command, `STEPWELL_PORT` of both.

    `also` names further variables, in groups, whose values are taken together: the first group that has one counts.
    """

    def __init__(self, *args: Any, also: tuple[tuple[str, ...], ...] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.also = also

    def variables(self, ctx: click.Context) -> list[tuple[str, ...]]:
        """The groups of variables, the one that counts most first."""
        name = (self.name or "").upper()
        return [(f"STEPWELL_{(ctx.info_name or '').upper()}_{name}",), (f"STEPWELL_{name}",), *self.also]

    def told(self, ctx: click.Context) -> tuple[str, str] | None:
        """The variables that tell the value, and the value."""
        for group in self.variables(ctx):
            found = {name: value for name in group if (value := os.environ.get(name, "").strip()) and not _is_link(name, value)}
            if found:
                return ", ".join(found), " ".join(found.values())
        return None

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """What click asks for."""
        told = self.told(ctx)
        return None if told is None else told[1]


def _is_link(name: str, value: str) -> bool:
    """Whether a variable is what Kubernetes sets in a pod beside a service that is called stepwell."""
    return name == "STEPWELL_PORT" and value.startswith(("tcp://", "udp://"))


class Size(click.ParamType):  # type: ignore[type-arg]  # not generic in every release of click
    """A number of bytes: `512KiB`, `3MiB`, `1000000`."""

    name = "size"

    def __init__(self, at_least: int, at_most: int) -> None:
        self.at_least, self.at_most = at_least, at_most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Fails naming the value and the bounds."""
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size; write it like 512KiB or 3MiB", param, ctx)
        size = int(match[1]) * _UNITS[(match[2] or "").upper()]
        if not self.at_least <= size <= self.at_most:
            self.fail(f"{value} is not between {shown_size(self.at_least)} and {shown_size(self.at_most)}", param, ctx)
        return size


def shown_size(size: int) -> str:
    """A size in the largest unit that says it whole."""
    for unit, bytes_of in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % bytes_of == 0:
            return f"{size // bytes_of} {unit}"
    return f"{size} bytes"


# The file.


class SettingsFile(msgspec.Struct, frozen=True):
    """What a file tells, by option; `path` is `None` where there is none."""

    path: Path | None
    values: dict[str, Any]


def read_file(directory: Path, named: Path | None = None) -> SettingsFile:
    """The settings of a folder, or of the file that is named. Raises `UsageError` for one that cannot be read."""
    for path in [named] if named is not None else [directory / name for name in FILES]:
        try:
            values = tomllib.loads(path.read_text())
        except FileNotFoundError:
            if named is not None:
                raise UsageError(f"{path} is not there: --config names a file of settings") from None
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
        if path.name == "pyproject.toml":
            values = values.get("tool", {}).get("stepwell")
        if values is not None:
            return SettingsFile(path, values)
    return SettingsFile(None, {})


def defaults_of(file: SettingsFile, commands: Iterable[click.Command]) -> dict[str, dict[str, Any]]:
    """The file's values for each command, as click takes them. Raises `UsageError` for a key that no command has."""
    by_name = {command.name or "": command for command in commands}
    tables = {name: value for name, value in file.values.items() if name in by_name and isinstance(value, dict)}
    shared = {name: value for name, value in file.values.items() if name not in tables}
    known = {name: {parameter.name or "" for parameter in command.params} for name, command in by_name.items()}
    given: dict[str, dict[str, Any]] = {name: {} for name in by_name}
    for key, value in shared.items():
        name = key.replace("-", "_")
        takers = [command for command in by_name if name in known[command]]
        if not takers:
            raise unknown(file, key, set().union(*known.values()))
        for command in takers:
            given[command][name] = value
    for command, table in tables.items():
        for key, value in table.items():
            name = key.replace("-", "_")
            if name not in known[command]:
                raise unknown(file, f"{command}.{key}", known[command])
            given[command][name] = value
    return given


def unknown(file: SettingsFile, key: str, known: set[str]) -> UsageError:
    """The error for a key that means nothing."""
    near = difflib.get_close_matches(key.rpartition(".")[2].replace("-", "_"), sorted(known), 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(sorted(known))}"
    return UsageError(f"{file.path}: there is no setting {key!r}{hint}")


# What holds.


class Effective(msgspec.Struct, frozen=True):
    """A setting as it holds, and who says so."""

    name: str
    value: Any
    source: str


def effective(ctx: click.Context, file: SettingsFile) -> list[Effective]:
    """Every setting of a command's context, with its source. Secrets are counted, not shown."""
    shown = []
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name not in ctx.params or getattr(parameter, "hidden", False):
            continue
        value = ctx.params[name]
        if name in SECRET and value:
            value = f"set ({len(value)})" if isinstance(value, tuple) else "set"
        shown.append(Effective(name, str(value) if isinstance(value, Path) else value, _source(ctx, parameter, file)))
    return shown


def _source(ctx: click.Context, parameter: click.Parameter, file: SettingsFile) -> str:
    match ctx.get_parameter_source(parameter.name or ""):
        case ParameterSource.COMMANDLINE:
            return "the command line"
        case ParameterSource.ENVIRONMENT:
            told = parameter.told(ctx) if isinstance(parameter, Setting) else None
            return told[0] if told is not None else "the environment"
        case ParameterSource.DEFAULT_MAP:
            return str(file.path)
        case _:
            return "default"
