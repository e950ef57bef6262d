"""Seeds of the simulated world: every checker holds after every commit, and everything ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation.world import simulate

SEEDS = int(os.environ.get("STEPWELL_SEEDS", "200"))
FIRST = int(os.environ.get("STEPWELL_SEED", "1"))
SAVED = Path(__file__).parent / "seeds" / "saved.txt"
CHUNK = 50


@pytest.mark.parametrize("start", range(FIRST, FIRST + SEEDS, CHUNK))
def test_seeds(start: int) -> None:
    """Whatever the interleaving and the faults: no acknowledged event is lost, no step recorded twice, no run stands still."""
    for seed in range(start, min(start + CHUNK, FIRST + SEEDS)):
        try:
            simulate(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}. Replay with tests.simulation.world.simulate({seed})") from error


def test_saved_seeds() -> None:
    """Seeds that once failed."""
    for line in SAVED.read_text().split():
        simulate(int(line))
