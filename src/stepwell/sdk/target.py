"""Finds the app that a command line names: `file.py[:name]` or `module:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from stepwell.errors import UsageError
from stepwell.sdk.app import App


def load_app(target: str) -> App:
    """Import the target's module and give its app. A file's folder is put on `sys.path`.

    Raises `UsageError` with a sentence; for code that fails while it is imported, with its traceback.
    """
    place, name = _split(target)
    return _app_of(load_module(place), place, name)


def load_module(place: str) -> ModuleType:
    """Import a file or a module. Raises `UsageError` as `load_app` does."""
    try:
        return _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    except UsageError as error:
        raise UsageError(f"{error}{_users_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{place} could not be imported:\n\n{_users_traceback(error)}") from error


def _split(target: str) -> tuple[str, str]:
    if target.endswith(".py"):
        return target, ""
    place, _, name = target.partition(":") if target.count(":") < 2 else target.rpartition(":")
    if not place:
        raise UsageError(f"{target!r} names no app: write file.py, file.py:name or module:name")
    return place, name


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or not name.isidentifier():
        name = f"stepwell_app_{abs(hash(str(path))):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no module {error.name!r}: run this from the folder that holds it, or name a file") from None
        raise


def _app_of(module: ModuleType, place: str, name: str) -> App:
    if name:
        found = module
        for part in name.split("."):
            found = getattr(found, part, None)  # type: ignore[assignment]
        if not isinstance(found, App):
            raise UsageError(f"{place} has no app {name!r}: it is {found!r}, not a stepwell.App")
        return found
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if isinstance(apps.get("app"), App):
        return apps["app"]
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise UsageError(f'{place} has no app: write app = stepwell.App("name") in it')
    raise UsageError(f"{place} has several apps ({', '.join(sorted(apps))}): name one, as {place}:{min(apps)}")


def _users_line(error: BaseException) -> str:
    """Where in the user's code an error of ours came from, to be put behind it."""
    package = str(Path(__file__).parents[1])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((package, "<"))]
    frames = [frame for frame in frames if "importlib" not in frame.filename]
    return f"\n  in {frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _users_traceback(error: BaseException) -> str:
    """The traceback without the frames of this module and of the import system."""
    frames = error.__traceback__
    while frames is not None and (frames.tb_frame.f_code.co_filename == __file__ or "importlib" in frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()
