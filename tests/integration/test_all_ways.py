"""The example that does one job in five ways, as its README says to run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "all-ways"


def test_each_way_makes_every_report_though_the_renderer_fails_first() -> None:
    """The README's command ends well, and shows two tries of each report, by each way the same pages."""
    command = re.search(r"python (examples/\S+)", (EXAMPLE / "README.md").read_text())
    assert command is not None
    done = subprocess.run([sys.executable, command[1]], cwd=EXAMPLE.parents[1], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    ways = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(ways) == ["function", "queue", "actor", "flag", "table"]
    assert len(set(ways.values())) == 1
    assert re.fullmatch(r"(\w+: \d pages in 2 tries(, )?){3}", ways["queue"])
