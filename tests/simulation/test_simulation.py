"""Seeds of the simulated world: every checker holds after every commit, and everything ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stepwell.engine.model import RunStatus
from stepwell.engine.run import MOVES
from tests.simulation.world import World, simulate

SEEDS = int(os.environ.get("STEPWELL_SEEDS", "200"))
FIRST = int(os.environ.get("STEPWELL_SEED", "1"))
SAVED = Path(__file__).parent / "seeds" / "saved.txt"
CHUNK = 50

UNREACHED = {
    (RunStatus.QUEUED, RunStatus.FAILED),  # only by a timer that raises (`InputSetAside`)
    (RunStatus.QUEUED, RunStatus.COMPLETED),  # a claim starts a run before its call goes out
    (RunStatus.WAITING, RunStatus.FAILED),  # a waiting run has no call, and what it waits for makes it run first
    (RunStatus.WAITING, RunStatus.COMPLETED),
}
"""Moves of a run that the simulated apps never make."""


def judged(seed: int) -> World:
    """One seed; a failure says how to see it again."""
    try:
        return simulate(seed)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {error!r}. Replay with tests.simulation.world.simulate({seed})") from error


@pytest.mark.parametrize("start", range(FIRST, FIRST + SEEDS, CHUNK))
def test_seeds(start: int) -> None:
    """Whatever the interleaving and the faults: no acknowledged event is lost, no step recorded twice, no run stands still."""
    for seed in range(start, min(start + CHUNK, FIRST + SEEDS)):
        judged(seed)


def test_saved_seeds() -> None:
    """Seeds that once failed, or that alone noticed a planted bug."""
    for line in SAVED.read_text().split():
        judged(int(line))


def test_a_seed_is_the_same_course_each_time() -> None:
    """The same seed gives the same rows in the same order, or no failure could be seen again."""
    first, second = judged(7), judged(7)
    for name, table in first.tables.by_name.items():
        assert list(table) == list(second.tables.by_name[name])


def test_every_move_of_a_run_is_made() -> None:
    """The seeds go over each edge of the run's transition table, those known to be out of reach aside."""
    seen = set().union(*(judged(seed).moves.seen for seed in range(1, 41)))
    assert {(before, after) for before, moves in MOVES.items() for after in moves} - seen == UNREACHED
