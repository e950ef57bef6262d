"""Planted bugs: a guard taken away, which some seed of a simulation has to notice."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

Plant = Callable[[pytest.MonkeyPatch], None]
"""Takes a guard away; its docstring says what happens then."""


def assert_noticed(plant: Plant, patch: pytest.MonkeyPatch, seeds: Collection[int], simulate: Callable[[int], object]) -> None:
    """Some seed fails with the guard taken away, whatever it raises."""
    plant(patch)
    for seed in seeds:
        try:
            simulate(seed)
        except Exception:
            return
    raise AssertionError(f"no seed of {len(seeds)} noticed that {plant.__name__}: {plant.__doc__}")
