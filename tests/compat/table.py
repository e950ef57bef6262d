"""Writes `docs/compatibility.md` from the results of a whole run of the suite: `python -m tests.compat.table RESULTS`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.compat.capabilities import BESIDE, CAPABILITIES, DIFFERENCES
from tests.compat.cloudflare import comparison
from tests.compat.rig import Spec
from tests.compat.rigs import RIGS

PAGE = Path(__file__).parent.parent.parent / "docs" / "compatibility.md"
YES, NO, NOT_YET, FAILED, UNTRIED = "yes", "–", "not yet", "**fails**", "not tried"
INTRODUCTION = """# Compatibility

Unmodified SDKs, as they come from PyPI and npm, run against a real server; each row is a capability, each column an SDK with its version
and the framework that serves it. A cell says *yes* where every case of the row passes: outputs, numbers of attempts and of calls, traces
and system events are looked at, not only the run's status. Numbers lead to the reasons below the table.

This page is written by `make compat`.
"""


class Result(NamedTuple):
    """How one case ended with one rig."""

    capability: str
    rig: str
    outcome: str
    reason: str


class Notes:
    """Reasons, numbered in the order in which they come up."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def number(self, reason: str) -> int:
        """The number of a reason."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


def cell(capability: str, spec: Spec, results: Sequence[Result], notes: Notes) -> str:
    """What stands in a cell."""
    if (reason := spec.reason(capability)) is not None:
        return f"{NO} ({notes.number(reason)})"
    own = [one for one in results if (one.capability, one.rig) == (capability, spec.name)]
    if any(one.outcome == "failed" for one in own):
        return FAILED
    if late := [one.reason for one in own if one.outcome == "not yet"]:
        return f"{NOT_YET} ({', '.join(str(notes.number(reason)) for reason in dict.fromkeys(late))})"
    return YES if any(one.outcome == "passed" for one in own) else UNTRIED


def beside_cell(capability: str, results: Sequence[Result]) -> str:
    """Whether all cases of a row pass that has no column."""
    outcomes = {one.outcome for one in results if one.capability == capability and not one.rig}
    return UNTRIED if not outcomes - {"skipped"} else FAILED if "failed" in outcomes else YES


def page(results: Sequence[Result], rigs: Mapping[str, Spec] = RIGS, cloudflare: str = "") -> str:
    """The whole page; `cloudflare` is the section beside Cloudflare's local runtime."""
    notes = Notes()
    lines = [
        "| | " + " | ".join(spec.column for spec in rigs.values()) + " |",
        "|---|" + "---|" * len(rigs),
    ]
    for one in CAPABILITIES:
        cells = [cell(one.id, spec, results, notes) for spec in rigs.values()]
        lines.append(f"| {one.title} | " + " | ".join(cells) + " |")
    beside = [f"| {one.title} | {one.sdks} | {beside_cell(one.id, results)} |" for one in BESIDE]
    reasons = [f"{number}. {reason}" for number, reason in enumerate(notes.reasons, 1)]
    differences = [f"| {one.subject} | {one.reference} | {one.here} |" for one in DIFFERENCES]
    return "\n".join(
        [
            INTRODUCTION,
            *lines,
            "",
            *reasons,
            "",
            "## With servers and apps of their own",
            "",
            "What is killed, paused, signed or counted in ways that the others' apps must not feel.",
            "",
            "| | SDKs | |",
            "|---|---|---|",
            *beside,
            "",
            "## Where the server differs by choice",
            "",
            "| Subject | The reference server | Stepwell |",
            "|---|---|---|",
            *differences,
            "",
            *([cloudflare] if cloudflare else []),
        ]
    )


def read(path: Path) -> list[Result]:
    """The results of a run. A case that is there several times counts as it ended last."""
    found = {one["case"]: one for one in map(json.loads, path.read_text().splitlines())}
    return [Result(one["capability"], one["rig"], one["outcome"], one["reason"]) for one in found.values()]


def main() -> None:
    """The command line."""
    results = read(Path(sys.argv[1]))
    PAGE.write_text(page(results, cloudflare=comparison.kept_section(Path(sys.argv[1]))))
    failed = sorted({f"{one.capability} with {one.rig}" for one in results if one.outcome == "failed"})
    print(f"Wrote {PAGE.name} from {len(results)} cases." + (f" These fail: {', '.join(failed)}" if failed else ""))


if __name__ == "__main__":
    main()
