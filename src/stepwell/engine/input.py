"""What every input is: a value that says what happened."""

from __future__ import annotations

import msgspec


class Input(msgspec.Struct, frozen=True, tag=True):
    """Something that happened."""
