"""The committed table has the rows and columns of today, and every row has cases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.compat.capabilities import BESIDE, CAPABILITIES, DIFFERENCES, FEW
from tests.compat.rigs import RIGS
from tests.compat.table import PAGE, Result, page

HERE = Path(__file__).parent


def rows(text: str) -> list[list[str]]:
    """The cells of a page's first table."""
    table = text.split("\n\n| | ")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in ("| | " + table).splitlines()]


def test_the_committed_table_has_todays_rows_and_columns() -> None:
    """A capability or a rig that comes or goes changes the page: `make compat` writes it."""
    head, _, *body = rows(PAGE.read_text())
    assert head == [spec.column for spec in RIGS.values()]
    assert [row[0] for row in body] == [one.title for one in CAPABILITIES]
    assert all(one.subject in PAGE.read_text() for one in DIFFERENCES)
    assert all(f"| {one.title} | {one.sdks} | yes |" in PAGE.read_text() and (HERE / f"{one.module}.py").exists() for one in BESIDE)


def test_nothing_in_it_fails() -> None:
    """A page with failures, or with cells that nobody tried, is not committed."""
    cells = [cell for row in rows(PAGE.read_text())[2:] for cell in row[1:]]
    assert all(re.fullmatch(r"yes|(–|not yet) \([\d, ]+\)", cell) for cell in cells), cells


def test_every_capability_has_a_case() -> None:
    """And every case names a capability that is known."""
    named = {name for path in HERE.glob("test_*.py") for name in re.findall(r'mark\.capability\("([^"]+)"\)', path.read_text())}
    known = {one.id for one in CAPABILITIES}
    assert named == known and known >= FEW


@pytest.mark.parametrize(
    ("outcomes", "shown"),
    [
        (["passed", "passed"], "yes"),
        (["passed", "not yet"], "not yet (1)"),
        (["passed", "failed", "not yet"], "**fails**"),
        ([], "not tried"),
    ],
)
def test_a_cell_tells_the_worst_of_its_cases(outcomes: list[str], shown: str) -> None:
    """One case that does not pass is told, and why."""
    spec = RIGS["py-cloud"]
    text = page(
        [Result("run", spec.name, outcome, "the reason" if outcome == "not yet" else "") for outcome in outcomes], {spec.name: spec}
    )
    (row,) = [row for row in rows(text) if row[0] == next(one.title for one in CAPABILITIES if one.id == "run")]
    assert row[1] == shown
    assert ("1. the reason" in text) == shown.startswith("not yet")
