"""The documentation is true: every Python example runs, every command parses."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import stepwell
from stepwell.cli import main
from stepwell.sdk.app import _OPTIONS
from stepwell.sdk.runs import RunHandle, SyncRunHandle
from stepwell.sdk.sql import Database, Result, Statement
from stepwell.sdk.tools import StepTools, SyncStepTools
from stepwell.sdk.tools.infer import AiTools
from stepwell.server.settings import shown_size

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """(place, code) of every block of a language."""
    found = []
    for page in PAGES:
        for i, (kind, code) in enumerate(BLOCK.findall(page.read_text()), 1):
            if kind == language:
                found.append((f"{page.relative_to(ROOT)}:{i}", code))
    return found


@pytest.mark.parametrize(("place", "code"), blocks("python"), ids=lambda value: value if ".md" in value else "")
def test_examples_run(place: str, code: str, tmp_path: Path) -> None:
    """The example ends well, in a folder of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{place}\n{done.stdout}{done.stderr}"


def test_commands_parse() -> None:
    """Each `stepwell …` line of the shell blocks names a command and options that exist."""
    lines = [line.split("#")[0].split("'")[0].strip() for _, code in blocks("sh") for line in code.splitlines()]
    commands = [line.split()[1:] for line in lines if line.split() and line.split()[0].endswith("stepwell")]
    assert commands
    for words in commands:
        names = []
        command = main
        while words and (inner := getattr(command, "commands", {}).get(words[0])) is not None:
            names.append(words.pop(0))
            command = inner
        options = {name for parameter in command.params for name in parameter.opts}
        assert names and all(word in options for word in words if word.startswith("-")), (names, words)
        assert CliRunner().invoke(main, [*names, "--help"]).exit_code == 0


SECTION = re.compile(r"^### stepwell ([a-z -]+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
SHARED = {"--url", "--token", "--json"}
"""Options of every command that talks to a server; told once, above these commands."""


def commands_of(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """Every command of a group, those of the groups in it too, by its words."""
    known = {}
    for name, command in group.commands.items():
        words = f"{before} {name}".strip()
        known |= commands_of(command, words) if isinstance(command, click.Group) else {words: command}
    return known


def test_the_reference_page_has_every_command_and_option_and_no_other() -> None:
    """A section for each command; in it each option it has, and none that it has not."""
    text = (ROOT / "docs/reference/cli.md").read_text()
    servers = text.index("## Servers")
    talking = text.index("## Talking to a server")
    sections = {match[1]: (match.start(), match[2]) for match in SECTION.finditer(text)}
    known = commands_of(main)
    assert set(sections) == set(known) and servers < talking
    for name, (place, section) in sections.items():
        told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section))
        hidden = {opt for parameter in known[name].params for opt in parameter.opts if getattr(parameter, "hidden", False)}
        options = {opt for parameter in known[name].params for opt in parameter.opts if opt.startswith("--")} - hidden
        if place > talking:
            assert options >= SHARED, name
            options -= SHARED
        assert told - hidden == options, name


def test_the_reference_page_has_every_default() -> None:
    """What a server's table says of a default is what holds without any setting."""
    text = (ROOT / "docs/reference/cli.md").read_text()
    sections = {match[1]: match[2] for match in SECTION.finditer(text)}
    for name in ("dev", "start"):
        for parameter in main.commands[name].params:
            row = re.search(rf"^\| .*`{parameter.opts[-1]}`[^|]*\| ([^|]*) \|", sections[name], re.MULTILINE)
            if row is not None and isinstance(parameter.default, int | float | str | Path) and not getattr(parameter, "is_flag", False):
                default = f"{parameter.default:g}" if isinstance(parameter.default, float) else str(parameter.default)
                assert row[1].strip("` ") == default, (name, parameter.opts)


LIMIT = re.compile(r"^\| (.+?) \| (.+?) \|(?: .*?)? \| `([a-z_.]+)\.([A-Z_]+)` \|$", re.MULTILINE)


def limit_text(name: str, value: int) -> str:
    """A limit as the page writes it: by the unit that its name ends with."""
    words = name.split("_")
    if "MS" in words:
        for unit, size in (("day", 86_400_000), ("hour", 3_600_000), ("min", 60_000), ("s", 1_000)):
            if value % size == 0:
                plural = "s" if value != size and unit in ("day", "hour") else ""
                return f"{value // size} {unit}{plural}"
    if "BYTES" in words:
        decimal = [f"{value // size} {unit}" for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)) if value % size == 0]
        return min([shown_size(value), *decimal], key=lambda text: int(text.split()[0]))
    return f"{value:,} characters" if "CHARS" in words else f"{value:,}"


def test_limits_are_the_constants() -> None:
    """Each row of the page says what its constant is; no row goes without one."""
    text = (ROOT / "docs/reference/limits.md").read_text()
    rows = LIMIT.findall(text)
    assert len(rows) == sum(line.startswith("| ") and "| beyond it |" not in line for line in text.splitlines())
    for what, said, module, name in rows:
        value = getattr(importlib.import_module(f"stepwell.{module}"), name)
        assert re.match(rf"{re.escape(limit_text(name, value))}( times in a row)?(;|$)", said), (what, said, limit_text(name, value))


def test_every_public_name_is_documented() -> None:
    """The SDK's page names all that is exported, every step tool, every option of a function."""
    text = (ROOT / "docs/reference/sdk.md").read_text()
    code = " ".join(re.findall(r"`([^`]+)`", text))
    words = set(re.findall(r"\w+", code))
    tools = {
        name
        for tool in (StepTools, SyncStepTools, AiTools, RunHandle, SyncRunHandle, Database, Statement, Result)
        for name in vars(tool)
        if not name.startswith("_")
    }
    missing = {*stepwell.__all__, *tools, *_OPTIONS} - words
    assert not missing, missing


def test_the_first_function_is_short() -> None:
    """What a reader sees first fits on a screen."""
    place, code = blocks("python")[0]
    assert place.startswith("README.md") and len(code.splitlines()) < 25, len(code.splitlines())


def test_links_lead_somewhere() -> None:
    """A link to a file of the repository names one that exists."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and target != "benchmarks.md":
                assert (page.parent / target).exists(), f"{page.name}: {target}"
