"""Bounds of the engine made so small that every cursor and claim of a simulated course takes several steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

Bound = tuple[ModuleType, str, int]
"""A module, the name of a bound in it, and its value for a while."""


@contextmanager
def bounded(bounds: Sequence[Bound]) -> Iterator[None]:
    """These bounds hold."""
    kept = [(module, name, getattr(module, name)) for module, name, _ in bounds]
    for module, name, value in bounds:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
