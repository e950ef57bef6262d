"""The bounds of users' SQL, by name."""

from __future__ import annotations

VARIABLES_MAX = 100
"""Parameters of a statement."""
SQL_BYTES_MAX = 100_000
"""What is run in one call, all of its statements together."""
VALUE_BYTES_MAX = 2_000_000
"""A text, a blob, and a row with all that is in it."""
FILE_BYTES_MAX = 10_000_000_000
"""A file, its indexes and free pages included."""
RESULT_BYTES_MAX = 32 * 1024 * 1024
"""What one statement gives: `CELL_BYTES` for a value, and the characters of texts and bytes of blobs on top."""
CELL_BYTES = 16
TRIGGERS_DEEP_MAX = 10
"""Triggers that set off triggers."""
EXPRESSION_LEVELS_MAX = 100
"""An expression's depth."""
