"""Imports a Worker's main module, in a process of the Worker's own: with Cloudflare's module names on the path, and what lies beside it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from stepwell.errors import UsageError
from stepwell.sdk.target import load_module
from stepwell.workers import modules

MODULES = Path(modules.__file__).parent
OF_JAVASCRIPT = ("js", "pyodide", "pyodide_js", "_pyodide", "_pyodide_entrypoint_helper", "_cloudflare_compat_flags")


def load_main(main: Path) -> ModuleType:
    """The main module, imported. Raises `UsageError` with its traceback where that fails."""
    if str(MODULES) not in sys.path:
        # In front for `workers`, which may be installed as well, for its types; behind for `asgi`, which a project may have itself.
        sys.path.insert(0, str(MODULES))
        importlib.import_module("workers")
        sys.path.remove(str(MODULES))
        sys.path.append(str(MODULES))
    try:
        return load_module(str(main))
    except UsageError as error:
        missing = error.__cause__
        name = (missing.name or "").partition(".")[0] if isinstance(missing, ModuleNotFoundError) else ""
        if name in OF_JAVASCRIPT:
            raise UsageError(
                f"{error}\n\n{name!r} is Pyodide's bridge to JavaScript, and Stepwell runs Workers under CPython. What it is used for "
                "is in workers (Response, Request, FormData, fetch), and bindings take dicts and lists as they are."
            ) from error
        if name:
            raise UsageError(
                f"{error}\n\nIf {name!r} is one of the project's dependencies, install it in the environment that Stepwell runs in."
            ) from error
        raise
