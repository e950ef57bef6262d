"""The documentation is true: every Python example runs, every command parses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import stepwell
from stepwell.cli import main
from stepwell.sdk.app import _OPTIONS
from stepwell.sdk.runs import RunHandle, SyncRunHandle
from stepwell.sdk.tools import StepTools, SyncStepTools
from stepwell.sdk.tools.infer import AiTools

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


def test_every_option_is_documented() -> None:
    """The reference page names every command and every option."""
    text = (ROOT / "docs/reference/cli.md").read_text()
    for command in main.commands.values():
        for one in getattr(command, "commands", {"": command}).values():
            for parameter in one.params:
                if parameter.param_type_name == "option":
                    assert any(f"`{name}`" in text or f"`{name}" in text or f"/{name}" in text for name in parameter.opts), parameter.opts


def test_every_public_name_is_documented() -> None:
    """The SDK's page names all that is exported, every step tool, every option of a function."""
    text = (ROOT / "docs/reference/sdk.md").read_text()
    code = " ".join(re.findall(r"`([^`]+)`", text))
    words = set(re.findall(r"\w+", code))
    tools = {
        name for tool in (StepTools, SyncStepTools, AiTools, RunHandle, SyncRunHandle) for name in vars(tool) if not name.startswith("_")
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
