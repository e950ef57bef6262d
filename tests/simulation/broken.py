"""What checkers raise."""

from __future__ import annotations


class Broken(AssertionError):
    """Something that must hold does not."""
