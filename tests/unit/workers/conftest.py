"""Workers of tests, written to a file and imported as `stepwell workers dev` does it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from stepwell.workers.loading import load_main

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Gives the main module of a source. What was imported for it is forgotten afterwards."""
    path, known = list(sys.path), set(sys.modules)

    def loaded(source: str) -> ModuleType:
        main = tmp_path / "entry.py"
        main.write_text(source)
        return load_main(main)

    yield loaded
    sys.path[:] = path
    for name in set(sys.modules) - known:
        module = sys.modules[name]
        if name.partition(".")[0] in ("workers", "asgi") or str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
